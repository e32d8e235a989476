// The controller's side of the bridge to a policy, through shared memory. Header-only C++17, Linux, no dependencies.
//
// Nothing here allocates after `SharedFile::open`, blocks, or throws. Layout and rules: docs/bridge.md.
//
//   policyloop::Error error{};
//   auto file = policyloop::SharedFile::open("/dev/shm/policyloop-1000-lite3", {33, 12}, error);
//   if (!file) { std::puts(policyloop::text(error)); return 1; }
//   policyloop::CommandLatch latch(12);
//   policyloop::Record command{};
//   for (;;) {                                                       // 1 kHz
//     file->writer().write(captured_ns, in_policy_mode, states);
//     if (file->reader().read(command)) latch.accept(command, policyloop::now_ns());
//     if (latch.driving(policyloop::now_ns())) { /* latch.values() */ } else { /* damp */ }
//   }
#ifndef POLICYLOOP_BRIDGE_HPP
#define POLICYLOOP_BRIDGE_HPP

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <optional>
#include <utility>

#if !defined(__linux__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the bridge is for little-endian Linux"
#endif

namespace policyloop {

constexpr std::uint32_t kMostFloats = 1024;
constexpr std::int64_t kLongestValidity = 100'000'000;  // ns; a command that claims more is not obeyed
constexpr std::uint32_t kDrive = 1;                     // flag of a command; without it: damp
constexpr std::uint32_t kInPolicyMode = 1;              // flag of a state

static_assert(sizeof(float) == 4 && __atomic_always_lock_free(8, nullptr), "a record is made of 8-byte atomic words");

inline std::int64_t now_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

namespace detail {

constexpr std::array<std::uint32_t, 256> crc_table() noexcept {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1U) != 0 ? 0xEDB88320U ^ (crc >> 1) : crc >> 1;
    table[byte] = crc;
  }
  return table;
}
inline constexpr std::array<std::uint32_t, 256> kCrcTable = crc_table();

}  // namespace detail

// CRC-32 as zlib and Ethernet have it; `before` continues one.
inline std::uint32_t crc32(const void* data, std::size_t bytes, std::uint32_t before = 0) noexcept {
  const auto* at = static_cast<const unsigned char*>(data);
  std::uint32_t crc = ~before;
  for (std::size_t i = 0; i < bytes; ++i) crc = detail::kCrcTable[(crc ^ at[i]) & 0xFFU] ^ (crc >> 8);
  return ~crc;
}

constexpr std::size_t aligned(std::size_t bytes) noexcept { return (bytes + 63) / 64 * 64; }
constexpr std::size_t record_bytes(std::uint32_t floats) noexcept { return aligned(40 + std::size_t{4} * floats); }

// What one side tells the other. `time_ns` is CLOCK_MONOTONIC: of capture (states), until when it is valid (commands).
struct Record {
  std::uint64_t counter = 0;
  std::int64_t time_ns = 0;
  std::uint32_t flags = 0;
  std::uint32_t count = 0;
  std::array<float, kMostFloats> values{};
};

namespace detail {

// The lock is the first word; everything else is copied word by word. Acquire on every load and release on every store
// is what keeps the copy between its two locks without a fence, which ThreadSanitizer would not understand.
struct RawHead {
  std::uint32_t crc;
  std::uint32_t count;
  std::uint64_t counter;
  std::int64_t time_ns;
  std::uint32_t flags;
  std::uint32_t unused;
};
static_assert(sizeof(RawHead) == 32);
constexpr std::size_t kHeadWords = 4;
constexpr std::size_t kFloatsAtWord = 5;  // from the record's beginning

// Over everything behind the lock but itself.
inline std::uint32_t checksum(const RawHead& head, const float* values) noexcept {
  const std::uint32_t begun = crc32(reinterpret_cast<const unsigned char*>(&head) + 4, sizeof(head) - 4);
  return crc32(values, std::size_t{4} * head.count, begun);
}

inline std::uint64_t load(const std::uint64_t* word, int order) noexcept { return __atomic_load_n(word, order); }
inline void store(std::uint64_t* word, std::uint64_t value, int order) noexcept {
  __atomic_store_n(word, value, order);
}

}  // namespace detail

class RecordReader {
 public:
  RecordReader(const void* memory, std::uint32_t floats) noexcept
      : words_(static_cast<const std::uint64_t*>(memory)), floats_(floats) {}

  // Copy the newest record. False if there is none, or it is being written or torn after a few tries: then the values
  // of `record` may be anything, and its counter is what it was. Never waits for the writer.
  bool read(Record& record) const noexcept {
    for (int attempt = 0; attempt < kTries; ++attempt) {
      if (attempt_read(record)) return true;
    }
    return false;
  }

 private:
  static constexpr int kTries = 4;

  bool attempt_read(Record& record) const noexcept {
    const std::uint64_t before = detail::load(words_, __ATOMIC_ACQUIRE);
    if ((before & 1U) != 0) return false;
    std::array<std::uint64_t, detail::kHeadWords> head_words{};
    for (std::size_t i = 0; i < head_words.size(); ++i) {
      head_words[i] = detail::load(words_ + 1 + i, __ATOMIC_ACQUIRE);
    }
    for (std::size_t i = 0; i < floats_; i += 2) {
      const std::uint64_t two = detail::load(words_ + detail::kFloatsAtWord + i / 2, __ATOMIC_ACQUIRE);
      std::memcpy(&record.values[i], &two, i + 1 < floats_ ? 8 : 4);
    }
    if (detail::load(words_, __ATOMIC_RELAXED) != before) return false;
    detail::RawHead head{};
    std::memcpy(&head, head_words.data(), sizeof(head_words));
    if (head.counter == 0 || head.count != floats_) return false;
    if (detail::checksum(head, record.values.data()) != head.crc) return false;
    record.counter = head.counter;
    record.time_ns = head.time_ns;
    record.flags = head.flags;
    record.count = head.count;
    return true;
  }

  const std::uint64_t* words_;
  std::uint32_t floats_;
};

// Of one thread. Goes on where a killed writer left off.
class RecordWriter {
 public:
  RecordWriter(void* memory, std::uint32_t floats) noexcept
      : words_(static_cast<std::uint64_t*>(memory)), floats_(floats) {
    // The clock runs faster than anybody writes: above whatever a killed writer counted to, even if that is torn.
    counter_ = static_cast<std::uint64_t>(now_ns());
    Record left;
    if (RecordReader(memory, floats).read(left) && left.counter > counter_) counter_ = left.counter;
  }

  void write(std::int64_t time_ns, std::uint32_t flags, const float* values) noexcept {
    detail::RawHead head{0, floats_, ++counter_, time_ns, flags, 0};
    head.crc = detail::checksum(head, values);
    // Also if a killed writer left it odd.
    const std::uint64_t odd = (detail::load(words_, __ATOMIC_RELAXED) + 1) | 1U;
    detail::store(words_, odd, __ATOMIC_RELAXED);
    std::array<std::uint64_t, detail::kHeadWords> head_words{};
    std::memcpy(head_words.data(), &head, sizeof(head_words));
    for (std::size_t i = 0; i < head_words.size(); ++i) {
      detail::store(words_ + 1 + i, head_words[i], __ATOMIC_RELEASE);
    }
    for (std::size_t i = 0; i < floats_; i += 2) {
      std::uint64_t two = 0;
      std::memcpy(&two, values + i, i + 1 < floats_ ? 8 : 4);
      detail::store(words_ + detail::kFloatsAtWord + i / 2, two, __ATOMIC_RELEASE);
    }
    detail::store(words_, odd + 1, __ATOMIC_RELEASE);
  }

 private:
  std::uint64_t* words_;
  std::uint32_t floats_;
  std::uint64_t counter_ = 0;
};

// What both sides have agreed about. The arrays' first `owner_floats` entries count, if there are `joints`.
struct Header {
  std::uint32_t owner_floats = 0;  // of a record that the file's owner writes: targets, rad
  std::uint32_t guest_floats = 0;  // of a record that the other side writes: states
  std::uint32_t joints = 0;        // 0, or owner_floats
  std::int64_t longest_validity_ns = 0;
  std::array<std::uint8_t, 32> digest{};     // of the robot's profile
  std::array<float, kMostFloats> kp{};       // N m/rad, which the policy was made for
  std::array<float, kMostFloats> kd{};       // N m s/rad
  std::array<float, kMostFloats> pose{};     // rad, where the policy starts from
};

enum class Error {
  none,
  missing,
  not_ours,
  no_file,
  too_short,
  wrong_kind,
  wrong_version,
  damaged,
  wrong_size,
  wrong_digest,
  no_memory,
  refused,
  address,
};

// What is wrong, and what to do about it.
inline const char* text(Error error) noexcept {
  switch (error) {
    case Error::none: return "fine";
    case Error::missing: return "cannot be opened (is the robot's program running, with the same path and user?)";
    case Error::not_ours: return "belongs to another user, or others may open it (remove it, start its owner again)";
    case Error::no_file: return "is no regular file (check the path)";
    case Error::too_short: return "is not whole (start its owner again)";
    case Error::wrong_kind: return "is no bridge's file (check the path)";
    case Error::wrong_version: return "has another layout (build the controller with this version's header)";
    case Error::damaged: return "has a damaged header (start its owner again)";
    case Error::wrong_size: return "carries other numbers of states or targets (use the profile of this robot)";
    case Error::wrong_digest: return "was made for another robot profile (use the profile of this robot)";
    case Error::no_memory: return "cannot be mapped (out of memory?)";
    case Error::refused: return "does not answer (is the robot's program running?)";
    case Error::address: return "is no address (check the path or port)";
  }
  return "unknown";
}

struct Expectation {
  std::uint32_t guest_floats = 0;
  std::uint32_t owner_floats = 0;
  std::optional<std::array<std::uint8_t, 32>> digest{};
};

// The guest's mapping of a file that its owner has made.
class SharedFile {
 public:
  static std::optional<SharedFile> open(const char* path, const Expectation& expected, Error& error) noexcept {
    const int fd = ::open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
      error = Error::missing;
      return std::nullopt;
    }
    std::optional<SharedFile> file;
    struct stat about {};
    error = ::fstat(fd, &about) != 0 ? Error::missing : check_owner(about);
    if (error == Error::none) file = map(fd, about, expected, error);
    ::close(fd);
    return file;
  }

  SharedFile(const SharedFile&) = delete;
  SharedFile& operator=(const SharedFile&) = delete;
  SharedFile(SharedFile&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)), bytes_(other.bytes_), inode_(other.inode_),
        device_(other.device_), header_(other.header_), reader_(other.reader_), writer_(other.writer_) {}
  SharedFile& operator=(SharedFile&& other) noexcept {
    if (this != &other) {
      unmap();
      memory_ = std::exchange(other.memory_, nullptr);
      bytes_ = other.bytes_;
      inode_ = other.inode_;
      device_ = other.device_;
      header_ = other.header_;
      reader_ = other.reader_;
      writer_ = other.writer_;
    }
    return *this;
  }
  ~SharedFile() { unmap(); }

  const Header& header() const noexcept { return header_; }
  const RecordReader& reader() const noexcept { return reader_; }
  RecordWriter& writer() noexcept { return writer_; }

  // Whether the name stands for another file by now, because its owner was started again with another header. One
  // system call: ask now and then, not at 1 kHz.
  bool replaced(const char* path) const noexcept {
    struct stat about {};
    return ::stat(path, &about) != 0 || about.st_ino != inode_ || about.st_dev != device_;
  }

 private:
  struct RawHeader {
    char magic[8];
    std::uint32_t version;
    std::uint32_t crc;
    std::uint32_t owner_floats;
    std::uint32_t guest_floats;
    std::uint32_t joints;
    std::uint32_t unused;
    std::int64_t longest_validity_ns;
    std::uint8_t unused_too[24];
    std::uint8_t digest[32];
    std::uint8_t unused_as_well[32];
  };
  static_assert(sizeof(RawHeader) == 128);
  static constexpr std::size_t kCovered = 16;  // where what is under the checksum begins

  SharedFile(void* memory, std::size_t bytes, const struct stat& about, const Header& header,
             std::size_t owner_at, std::size_t guest_at) noexcept
      : memory_(memory), bytes_(bytes), inode_(about.st_ino), device_(about.st_dev), header_(header),
        reader_(static_cast<unsigned char*>(memory) + owner_at, header.owner_floats),
        writer_(static_cast<unsigned char*>(memory) + guest_at, header.guest_floats) {}

  static Error check_owner(const struct stat& about) noexcept {
    if (!S_ISREG(about.st_mode)) return Error::no_file;
    if (about.st_uid != ::geteuid() || (about.st_mode & 077U) != 0) return Error::not_ours;
    return about.st_size < static_cast<off_t>(sizeof(RawHeader)) ? Error::too_short : Error::none;
  }

  // Beyond the file's end nothing is mapped and nothing is read: that would be a SIGBUS.
  static std::optional<SharedFile> map(int fd, const struct stat& about, const Expectation& expected,
                                       Error& error) noexcept {
    RawHeader raw{};
    if (::pread(fd, &raw, sizeof(raw), 0) != static_cast<ssize_t>(sizeof(raw))) {
      error = Error::too_short;
      return std::nullopt;
    }
    error = check(raw, expected);
    if (error != Error::none) return std::nullopt;
    const std::size_t owner_at = sizeof(RawHeader) + aligned(std::size_t{12} * raw.joints);
    const std::size_t guest_at = owner_at + record_bytes(raw.owner_floats);
    const std::size_t bytes = guest_at + record_bytes(raw.guest_floats);
    if (about.st_size != static_cast<off_t>(bytes)) {
      error = Error::too_short;
      return std::nullopt;
    }
    void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (memory == MAP_FAILED) {
      error = Error::no_memory;
      return std::nullopt;
    }
    const auto* start = static_cast<const unsigned char*>(memory);
    Header header = decode(raw, start);
    if (crc32(start + kCovered, owner_at - kCovered) != raw.crc || !gains_fine(header)) {
      ::munmap(memory, bytes);
      error = Error::damaged;
      return std::nullopt;
    }
    return SharedFile(memory, bytes, about, header, owner_at, guest_at);
  }

  static Error check(const RawHeader& raw, const Expectation& expected) noexcept {
    if (std::memcmp(raw.magic, "PLOOPBRG", sizeof(raw.magic)) != 0) return Error::wrong_kind;
    if (raw.version != 1) return Error::wrong_version;
    const auto fits = [](std::uint32_t floats) { return floats >= 1 && floats <= kMostFloats; };
    if (!fits(raw.owner_floats) || !fits(raw.guest_floats)) return Error::damaged;
    if (raw.joints != 0 && raw.joints != raw.owner_floats) return Error::damaged;
    if (raw.longest_validity_ns <= 0 || raw.longest_validity_ns > kLongestValidity) return Error::damaged;
    if (raw.owner_floats != expected.owner_floats || raw.guest_floats != expected.guest_floats) {
      return Error::wrong_size;
    }
    if (expected.digest && std::memcmp(raw.digest, expected.digest->data(), sizeof(raw.digest)) != 0) {
      return Error::wrong_digest;
    }
    return Error::none;
  }

  static Header decode(const RawHeader& raw, const unsigned char* start) noexcept {
    Header header;
    header.owner_floats = raw.owner_floats;
    header.guest_floats = raw.guest_floats;
    header.joints = raw.joints;
    header.longest_validity_ns = raw.longest_validity_ns;
    std::memcpy(header.digest.data(), raw.digest, sizeof(raw.digest));
    const std::size_t array = std::size_t{4} * raw.joints;
    std::memcpy(header.kp.data(), start + sizeof(RawHeader), array);
    std::memcpy(header.kd.data(), start + sizeof(RawHeader) + array, array);
    std::memcpy(header.pose.data(), start + sizeof(RawHeader) + 2 * array, array);
    return header;
  }

  static bool gains_fine(const Header& header) noexcept {
    for (std::size_t i = 0; i < header.joints; ++i) {
      if (!std::isfinite(header.kp[i]) || !std::isfinite(header.kd[i]) || !std::isfinite(header.pose[i])) return false;
      if (header.kp[i] < 0 || header.kd[i] < 0) return false;
    }
    return true;
  }

  void unmap() noexcept {
    if (memory_ != nullptr) ::munmap(memory_, bytes_);
    memory_ = nullptr;
  }

  void* memory_;
  std::size_t bytes_;
  ino_t inode_;
  dev_t device_;
  Header header_;
  RecordReader reader_;
  RecordWriter writer_;
};

// Obeys the newest command for as long as it is valid; the twin of `MotorLatch` in policyloop/robot/motors.py.
//
// What is newer and wrong (not finite, too late, valid for suspiciously long, of another size, or an order to damp)
// ends what came before at once: a sender that says such things is not obeyed. It does not count as the newest, so
// that one wrong counter cannot lock everybody out.
class CommandLatch {
 public:
  explicit CommandLatch(std::uint32_t targets, std::int64_t longest_ns = kLongestValidity) noexcept
      : targets_(targets), longest_ns_(longest_ns < kLongestValidity ? longest_ns : kLongestValidity) {}

  // Take a command; false if it is not newer than the last one, or must not be obeyed.
  bool accept(const Record& command, std::int64_t now) noexcept {
    if (command.counter <= newest_) return false;
    valid_until_ns_ = 0;
    if (command.count != targets_ || command.time_ns <= now || command.time_ns - now > longest_ns_) return false;
    for (std::size_t i = 0; i < targets_; ++i) {
      if (!std::isfinite(command.values[i])) return false;
    }
    newest_ = command.counter;
    if ((command.flags & kDrive) == 0) return false;
    std::memcpy(values_.data(), command.values.data(), std::size_t{4} * targets_);
    valid_until_ns_ = command.time_ns;
    return true;
  }

  // Whether there is a command to drive that is valid now; otherwise damp.
  bool driving(std::int64_t now) const noexcept { return now < valid_until_ns_; }

  // The targets, rad; only while `driving`.
  const float* values() const noexcept { return values_.data(); }

 private:
  std::uint32_t targets_;
  std::int64_t longest_ns_;
  std::uint64_t newest_ = 0;
  std::int64_t valid_until_ns_ = 0;
  std::array<float, kMostFloats> values_{};
};

}  // namespace policyloop

#endif  // POLICYLOOP_BRIDGE_HPP
