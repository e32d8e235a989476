// What the tests in Python and bench/bridge.py ask of the C++ side. Sizes: 33 states, 12 targets.
//
//   probe open FILE                 open it; prints what is wrong, or "fine"
//   probe read FILE N               read the owner's record N times as fast as possible; prints how many were torn
//   probe race N                    the same, against a writer of its own in another process
//   probe write FILE SECONDS        write states as fast as possible: each full of one number, which is its flags too
//   probe watch FILE SECONDS HZ     obey commands; prints when driving begins and ends
//   probe latency FILE MS           busily wait for commands that are valid for MS; prints each one's age, ns
//   probe frames unix|tcp WHERE N   ask N times; prints what came
#include <sys/wait.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "policyloop_bridge.hpp"
#include "policyloop_frames.hpp"

using namespace policyloop;

namespace {

constexpr std::uint32_t kStates = 33;
constexpr std::uint32_t kTargets = 12;

void rest(std::int64_t ns) {
  timespec time{ns / 1'000'000'000, ns % 1'000'000'000};
  nanosleep(&time, nullptr);
}

int read_busily(const RecordReader& reader, long long reads) {
  Record record;
  long long intact = 0;
  long long torn = 0;
  long long busy = 0;
  long long changes = 0;
  std::uint64_t newest = 0;
  long long backwards = 0;
  const std::int64_t begun = now_ns();
  while (intact < reads && now_ns() - begun < 300'000'000'000) {
    if (!reader.read(record)) {
      ++busy;
      continue;
    }
    ++intact;
    backwards += record.counter < newest ? 1 : 0;
    changes += record.counter != newest ? 1 : 0;
    newest = record.counter;
    const float expected = static_cast<float>(record.time_ns % 4096);
    for (std::size_t i = 0; i < kTargets; ++i) {
      if (record.values[i] != expected) {
        ++torn;
        break;
      }
    }
  }
  std::printf("{\"reads\": %lld, \"torn\": %lld, \"backwards\": %lld, \"gave_up\": %lld, \"records\": %lld, \"ns\": %lld}\n",
              intact, torn, backwards, busy, changes, static_cast<long long>(now_ns() - begun));
  return torn == 0 && backwards == 0 && intact == reads ? 0 : 1;
}

int race(long long reads) {
  void* memory = mmap(nullptr, record_bytes(kTargets), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  const pid_t reading = getpid();
  const pid_t writing = fork();
  if (writing < 0) return 1;
  if (writing == 0) {
    RecordWriter writer(memory, kTargets);
    std::array<float, kTargets> values{};
    for (std::int64_t n = 0; getppid() == reading; ++n) {
      values.fill(static_cast<float>(n % 4096));
      writer.write(n, 0, values.data());
    }
    _exit(0);
  }
  const int wrong = read_busily(RecordReader(memory, kTargets), reads);
  kill(writing, SIGKILL);
  waitpid(writing, nullptr, 0);
  return wrong;
}

int write_busily(SharedFile& file, double seconds) {
  const std::int64_t end = now_ns() + static_cast<std::int64_t>(seconds * 1e9);
  std::array<float, kStates> values{};
  for (std::uint32_t n = 0; now_ns() < end; n = (n + 1) % 4096) {
    values.fill(static_cast<float>(n));
    file.writer().write(now_ns(), n, values.data());
  }
  return 0;
}

int watch(const SharedFile& file, double seconds, double hz) {
  CommandLatch latch(kTargets, file.header().longest_validity_ns);
  Record command;
  bool driving = false;
  std::int64_t looked = now_ns();
  const std::int64_t end = looked + static_cast<std::int64_t>(seconds * 1e9);
  while (looked < end) {
    const std::int64_t now = now_ns();
    if (file.reader().read(command)) latch.accept(command, now);
    if (latch.driving(now) != driving) {
      driving = !driving;
      std::printf("%s %lld %lld\n", driving ? "drive" : "damp", static_cast<long long>(now),
                  static_cast<long long>(now - looked));
      std::fflush(stdout);
    }
    looked = now;
    rest(static_cast<std::int64_t>(1e9 / hz));
  }
  return 0;
}

int latency(const SharedFile& file, double valid_ms) {
  Record command;
  std::uint64_t newest = 0;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::printf("ready\n");
  while (true) {
    if (!file.reader().read(command) || command.counter == newest) continue;
    const std::int64_t now = now_ns();
    newest = command.counter;
    std::printf("%lld\n", static_cast<long long>(now - (command.time_ns - static_cast<std::int64_t>(valid_ms * 1e6))));
  }
}

int ask(const std::string& kind, const char* where, long long times) {
  Error error = Error::none;
  auto client = kind == "unix" ? FrameClient::connect_unix(where, kStates, kTargets, error)
                               : FrameClient::connect_tcp(static_cast<std::uint16_t>(std::atoi(where)), kStates,
                                                          kTargets, error);
  if (!client) {
    std::printf("%s\n", text(error));
    return 1;
  }
  std::array<float, kStates> states{};
  std::array<float, kTargets> targets{};
  for (long long n = 0; n < times; ++n) {
    states.fill(static_cast<float>(n));
    client->send(states.data());
    FrameClient::Reply reply = FrameClient::Reply::waiting;
    while ((reply = client->receive(targets.data())) == FrameClient::Reply::waiting) rest(100'000);
    if (reply == FrameClient::Reply::closed) std::printf("closed\n");
    if (reply == FrameClient::Reply::damp) std::printf("damp\n");
    if (reply == FrameClient::Reply::targets) std::printf("%g\n", static_cast<double>(targets[kTargets - 1]));
    if (!client->open()) return 1;
  }
  return 0;
}

}  // namespace

int main(int count, char** words) {
  const std::string what = count > 2 ? words[1] : "";
  if (what == "frames" && count == 5) return ask(words[2], words[3], std::atoll(words[4]));
  if (what == "race") return race(std::atoll(words[2]));
  Error error = Error::none;
  auto file = SharedFile::open(count > 2 ? words[2] : "", {kStates, kTargets, {}}, error);
  if (!file || what == "open") {
    std::printf("%s\n", text(error));
    return file ? 0 : 1;
  }
  if (what == "read" && count == 4) return read_busily(file->reader(), std::atoll(words[3]));
  if (what == "write" && count == 4) return write_busily(*file, std::atof(words[3]));
  if (what == "watch" && count == 5) return watch(*file, std::atof(words[3]), std::atof(words[4]));
  if (what == "latency" && count == 4) return latency(*file, std::atof(words[3]));
  return 2;
}
