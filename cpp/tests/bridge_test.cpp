// Records, the latch, and what `SharedFile::open` refuses.
#include "policyloop_bridge.hpp"

#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "policyloop_frames.hpp"

using namespace policyloop;

namespace {

constexpr std::int64_t kMs = 1'000'000;

struct alignas(64) Memory {
  unsigned char bytes[record_bytes(33)]{};
};

void test_crc() {
  CHECK(crc32("123456789", 9) == 0xCBF43926U);  // the check value of CRC-32/ISO-HDLC
  CHECK(crc32("6789", 4, crc32("12345", 5)) == 0xCBF43926U);
}

void test_record() {
  for (const std::uint32_t floats : {1U, 12U, 33U}) {
    Memory memory;
    Record record;
    RecordReader reader(memory.bytes, floats);
    CHECK(!reader.read(record));
    std::vector<float> values(floats, 0.5F);
    values.back() = -7.25F;
    RecordWriter(memory.bytes, floats).write(123, 5, values.data());
    CHECK(reader.read(record));
    CHECK(record.time_ns == 123 && record.flags == 5 && record.count == floats);
    CHECK(record.values[floats - 1] == -7.25F);
    const std::uint64_t first = record.counter;
    RecordWriter(memory.bytes, floats).write(124, 5, values.data());
    CHECK(reader.read(record) && record.counter > first);
  }
}

void test_every_flipped_byte_is_noticed() {
  Memory memory;
  Record record;
  const std::vector<float> values(33, 1.5F);
  RecordWriter(memory.bytes, 33).write(1, 1, values.data());
  const RecordReader reader(memory.bytes, 33);
  for (std::size_t i = 8; i < 40 + 33 * 4; ++i) {
    memory.bytes[i] ^= 0x10U;
    CHECK(!reader.read(record));
    memory.bytes[i] ^= 0x10U;
  }
  CHECK(reader.read(record));
}

void test_killed_in_the_middle() {
  Memory memory;
  Record record;
  const std::vector<float> values(33, 1.5F);
  RecordWriter(memory.bytes, 33).write(1, 1, values.data());
  memory.bytes[0] += 1;  // odd, and half a record
  memory.bytes[70] ^= 0xFFU;
  const RecordReader reader(memory.bytes, 33);
  CHECK(!reader.read(record));
  RecordWriter(memory.bytes, 33).write(2, 0, values.data());
  CHECK(reader.read(record) && record.time_ns == 2 && memory.bytes[0] % 2 == 0);
}

void test_two_threads() {
  Memory memory;
  RecordWriter writer(memory.bytes, 33);
  std::atomic<bool> stop{false};
  std::thread writing([&] {
    std::array<float, 33> values{};
    for (float n = 0; !stop.load(std::memory_order_relaxed); n = n < 1e6F ? n + 1 : 0) {
      values.fill(n);
      writer.write(static_cast<std::int64_t>(n), 0, values.data());
    }
  });
  Record record;
  std::uint64_t newest = 0;
  for (int read = 0; read < 100'000;) {
    if (!RecordReader(memory.bytes, 33).read(record)) continue;
    ++read;
    CHECK(record.counter >= newest);
    newest = record.counter;
    for (std::size_t i = 0; i < 33; ++i) CHECK(record.values[i] == static_cast<float>(record.time_ns));
  }
  stop = true;
  writing.join();
}

Record command(std::uint64_t counter, std::int64_t until_ms, float value = 0.25F, std::uint32_t flags = kDrive) {
  Record record;
  record.counter = counter;
  record.time_ns = until_ms * kMs;
  record.flags = flags;
  record.count = 2;
  record.values[0] = record.values[1] = value;
  return record;
}

void test_latch() {
  CommandLatch latch(2);
  CHECK(!latch.driving(0));
  CHECK(latch.accept(command(1, 50), 0));
  CHECK(latch.driving(50 * kMs - 1) && latch.values()[1] == 0.25F);
  CHECK(!latch.driving(50 * kMs));
  CHECK(!latch.accept(command(1, 90), 0) && latch.driving(0));  // not newer: changes nothing
  CHECK(latch.accept(command(7, 100, 0.5F), 0));                // as long as it may be
  CHECK(!latch.accept(command(6, 60), 0) && latch.values()[0] == 0.5F);
  CHECK(!latch.accept(command(8, 50, 0.5F, 0), 0) && !latch.driving(0));  // an order to damp
  CHECK(!latch.accept(command(7, 50), 0));
}

void test_latch_refuses() {
  for (const Record& wrong : {command(9, 101), command(9, 0), command(9, -1), command(9, 20, NAN),
                              command(9, 20, INFINITY), command(9, INT64_MAX / kMs), command(9, INT64_MIN / kMs)}) {
    CommandLatch latch(2);
    CHECK(latch.accept(command(1, 50), 0));
    CHECK(!latch.accept(wrong, 0));
    CHECK(!latch.driving(0));
    CHECK(latch.accept(command(2, 50), 0));  // the wrong one's counter counts for nothing
  }
  CommandLatch latch(3);
  CHECK(!latch.accept(command(1, 50), 0));
  CommandLatch strict(2, 20 * kMs);
  CHECK(!strict.accept(command(1, 50), 0) && strict.accept(command(1, 20), 0));
}

// A file as its owner makes it, with gains for its two joints.
struct Made {
  std::vector<unsigned char> bytes;
  std::string path;

  Made() : bytes(128 + 64 + record_bytes(2) + record_bytes(3)), path("/tmp/policyloop_bridge_test_XXXXXX") {
    std::memcpy(bytes.data(), "PLOOPBRG", 8);
    put(8, 1U);
    put(16, 2U);
    put(20, 3U);
    put(24, 2U);
    put(32, kLongestValidity);
    for (std::size_t i = 0; i < 6; ++i) put(128 + 4 * i, 1.0F + static_cast<float>(i));
    ::close(::mkstemp(path.data()));
    seal();
  }
  ~Made() { ::unlink(path.c_str()); }

  template <typename Value>
  void put(std::size_t at, Value value) {
    std::memcpy(bytes.data() + at, &value, sizeof(value));
  }
  void seal() {
    put(12, crc32(bytes.data() + 16, 192 - 16));
    write(bytes.size());
  }
  void write(std::size_t size) {
    std::FILE* file = std::fopen(path.c_str(), "wb");
    CHECK(file != nullptr && std::fwrite(bytes.data(), 1, size, file) == size);
    std::fclose(file);
  }
  Error open(Expectation expected = {3, 2, {}}) {
    Error error = Error::none;
    const bool opened = SharedFile::open(path.c_str(), expected, error).has_value();
    CHECK(opened == (error == Error::none));
    return error;
  }
};

void test_open() {
  Made made;
  Error error = Error::none;
  auto file = SharedFile::open(made.path.c_str(), {3, 2, {}}, error);
  CHECK(file.has_value());
  CHECK(file->header().joints == 2 && file->header().kp[1] == 2.0F && file->header().pose[1] == 6.0F);
  CHECK(!file->replaced(made.path.c_str()));
  ::unlink(made.path.c_str());
  CHECK(file->replaced(made.path.c_str()));
  SharedFile moved = std::move(*file);
  const float states[3] = {1, 2, 3};
  moved.writer().write(1, 0, states);
  Record record;
  CHECK(!moved.reader().read(record));
}

void test_open_refuses() {
  Made made;
  CHECK(made.open({4, 2, {}}) == Error::wrong_size);
  CHECK(made.open({3, 3, {}}) == Error::wrong_size);
  CHECK(made.open({3, 2, std::array<std::uint8_t, 32>{1}}) == Error::wrong_digest);
  CHECK(made.open({3, 2, std::array<std::uint8_t, 32>{}}) == Error::none);
  for (std::size_t i = 0; i < 192; ++i) {
    made.bytes[i] ^= 0x01U;
    made.write(made.bytes.size());
    CHECK(made.open() != Error::none);
    made.bytes[i] ^= 0x01U;
  }
  for (std::size_t size = 0; size < made.bytes.size(); size += 13) {
    made.write(size);
    CHECK(made.open() == Error::too_short);
  }
  made.write(made.bytes.size());
  CHECK(made.open() == Error::none);
  ::chmod(made.path.c_str(), 0644);
  CHECK(made.open() == Error::not_ours);
  Error error = Error::none;
  CHECK(!SharedFile::open("/nowhere/at/all", {3, 2, {}}, error) && error == Error::missing);
  CHECK(!SharedFile::open("/tmp", {3, 2, {}}, error));
}

// A header that is sealed and wrong: its checksum does not help it.
template <typename Value>
void test_sealed(std::size_t at, Value value, Error expected) {
  Made made;
  made.put(at, value);
  made.seal();
  CHECK(made.open() == expected);
}

}  // namespace

int main() {
  test_crc();
  test_record();
  test_every_flipped_byte_is_noticed();
  test_killed_in_the_middle();
  test_two_threads();
  test_latch();
  test_latch_refuses();
  test_open();
  test_open_refuses();
  test_sealed(8, 2U, Error::wrong_version);
  test_sealed(16, 0U, Error::damaged);
  test_sealed(16, 0xFFFFFFFFU, Error::damaged);
  test_sealed(20, 1025U, Error::damaged);
  test_sealed(24, 1U, Error::damaged);
  test_sealed(32, std::int64_t{0}, Error::damaged);
  test_sealed(32, kLongestValidity + 1, Error::damaged);
  test_sealed(128, -1.0F, Error::damaged);
  test_sealed(148, NAN, Error::damaged);
  return failures == 0 ? 0 : 1;
}
