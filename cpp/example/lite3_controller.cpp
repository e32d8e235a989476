// A 1 kHz controller for a legged robot with twelve joints: reads its sensors, walks with a policy's targets, and damps
// when the policy dies, stalls, or says what no robot should do. It never blocks and has one thread.
//
//   lite3_controller --hardware FILE (--program FILE | --unix PATH | --tcp PORT) [--seconds S] ...
//
// The "hardware" here is another shared file of the same kind, whose owner is a simulator: it writes 34 floats (gyro 3,
// projected gravity 3, user command 3, joint position 12, joint velocity 12, request 1), this controller answers with
// 36 (target, kp, kd of each joint) and its mode in the flags. On the robot, the two functions of `Hardware` are where
// the vendor's SDK is called: receive the newest state from its UDP client without waiting, send one joint command.
// That was not done: nothing here was measured on a robot.
#include <poll.h>
#include <sched.h>

#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "policyloop_bridge.hpp"
#include "policyloop_frames.hpp"
#include "policyloop_modes.hpp"

namespace {

using namespace policyloop;

constexpr std::size_t kJoints = 12;
constexpr std::uint32_t kStates = 33;
constexpr std::uint32_t kTargets = 12;
constexpr std::uint32_t kSensorFloats = 34;
constexpr std::uint32_t kSetpointFloats = 36;
constexpr std::int64_t kMs = 1'000'000;
constexpr std::int64_t kLookAgain = 200 * kMs;
constexpr std::int64_t kNoAnswer = 500 * kMs;

volatile std::sig_atomic_t stopped = 0;
extern "C" void stop(int) { stopped = 1; }

struct Options {
  const char* hardware = nullptr;
  const char* program = nullptr;
  const char* unix_path = nullptr;
  std::uint16_t tcp_port = 0;
  double seconds = 0.0;  // 0: until it is told to stop
  std::int64_t period_ns = kMs;
  std::int64_t frame_period_ns = 12 * kMs;
  std::int64_t reply_valid_ns = 50 * kMs;
  std::int64_t sensor_timeout_ns = 50 * kMs;
  float damping_kd = 4.0F;
  bool realtime = false;
};

// Print a line, unless that would block: somebody may have stopped the terminal, and the robot must not care.
[[gnu::format(printf, 1, 2)]] void say(const char* format, ...) {
  std::array<char, 512> line{};
  va_list arguments;
  va_start(arguments, format);
  const int wanted = std::vsnprintf(line.data(), line.size() - 1, format, arguments);
  va_end(arguments);
  if (wanted < 0) return;
  const std::size_t size = std::strlen(line.data());
  line[size] = '\n';
  pollfd out{STDOUT_FILENO, POLLOUT, 0};
  if (::poll(&out, 1, 0) != 1 || (out.revents & POLLOUT) == 0) return;
  if (::write(STDOUT_FILENO, line.data(), size + 1) < 0) return;  // nobody listens: not the robot's problem
}

struct Reading {
  Sensors<kJoints> sensors;
  std::array<float, kStates> states{};
  Request request = Request::none;
  std::int64_t captured_ns = 0;
};

class Hardware {
 public:
  Hardware(SharedFile file, std::int64_t timeout_ns) noexcept : file_(std::move(file)), timeout_ns_(timeout_ns) {}

  // Vendor: take the newest state of the SDK's receiver here.
  const Reading& read(std::int64_t now) noexcept {
    if (file_.reader().read(record_)) unpack();
    if (now - reading_.captured_ns > timeout_ns_) reading_.sensors.position.fill(NAN);  // silent is as bad as broken
    return reading_;
  }

  // Vendor: send one joint command with the SDK's sender here.
  void write(const Setpoint<kJoints>& setpoint, Mode mode, std::int64_t now) noexcept {
    std::array<float, kSetpointFloats> out{};
    std::memcpy(out.data(), setpoint.target.data(), sizeof(setpoint.target));
    std::memcpy(out.data() + kJoints, setpoint.kp.data(), sizeof(setpoint.kp));
    std::memcpy(out.data() + 2 * kJoints, setpoint.kd.data(), sizeof(setpoint.kd));
    file_.writer().write(now, static_cast<std::uint32_t>(mode), out.data());
  }

 private:
  void unpack() noexcept {
    const float* at = record_.values.data();
    std::memcpy(reading_.states.data(), at, sizeof(reading_.states));
    std::memcpy(reading_.sensors.gyro.data(), at, 3 * sizeof(float));
    std::memcpy(reading_.sensors.gravity.data(), at + 3, 3 * sizeof(float));
    std::memcpy(reading_.sensors.position.data(), at + 9, kJoints * sizeof(float));
    std::memcpy(reading_.sensors.velocity.data(), at + 21, kJoints * sizeof(float));
    reading_.request = request_of(at[33]);
    reading_.captured_ns = record_.time_ns;
  }

  SharedFile file_;
  std::int64_t timeout_ns_;
  Record record_;
  Reading reading_;
};

// The policy's side, by whichever way: states go out, commands end in the latch.
class Policy {
 public:
  explicit Policy(const Options& options) noexcept : options_(options), latch_(kTargets) {}

  // Look for the other side if there is none: now and then, and never while it drives.
  void look(std::int64_t now) noexcept {
    if (now < look_ns_) return;
    look_ns_ = now + kLookAgain;
    if (options_.program == nullptr) return look_for_socket();
    if (file_ && !file_->replaced(options_.program)) return;
    Error error = Error::none;
    auto found = SharedFile::open(options_.program, {kStates, kTargets, {}}, error);
    tell(error);
    if (found && found->header().joints == 0) return tell(Error::wrong_size);
    if (found) file_ = std::move(found);
  }

  void leave() noexcept { file_.reset(); }

  // The gains and the pose that the policy was made for, if the other side tells.
  void adopt(ModeSettings<kJoints>& settings) const noexcept {
    if (!file_) return;
    const Header& header = file_->header();
    std::memcpy(settings.kp.data(), header.kp.data(), sizeof(settings.kp));
    std::memcpy(settings.kd.data(), header.kd.data(), sizeof(settings.kd));
    std::memcpy(settings.pose.data(), header.pose.data(), sizeof(settings.pose));
  }

  // `asks`: the robot walks, or would with the next answer.
  void exchange(const Reading& reading, Mode mode, bool asks, std::int64_t now) noexcept {
    if (file_) {
      file_->writer().write(reading.captured_ns, mode == Mode::policy ? kInPolicyMode : 0, reading.states.data());
      if (file_->reader().read(command_)) latch_.accept(command_, now);
    } else if (client_) {
      exchange_frames(reading, asks, now);
    }
  }

  bool connected() const noexcept { return file_.has_value() || client_.has_value(); }

  bool driving(std::int64_t now) const noexcept { return latch_.driving(now); }
  const float* values() const noexcept { return latch_.values(); }

 private:
  void look_for_socket() noexcept {
    if (client_) return;
    Error error = Error::none;
    auto found = options_.unix_path != nullptr
                     ? FrameClient::connect_unix(options_.unix_path, kStates, kTargets, error)
                     : FrameClient::connect_tcp(options_.tcp_port, kStates, kTargets, error);
    tell(error);
    if (found) client_.emplace(std::move(*found));
  }

  void exchange_frames(const Reading& reading, bool asks, std::int64_t now) noexcept {
    // A frame says nothing about the age of its state: what is old is not sent. Nor does it say whether the robot does
    // what the answer says, and a policy that is told its own last output goes astray if it does not: nobody asks who
    // would not obey.
    const bool fresh = now - reading.captured_ns <= options_.sensor_timeout_ns;
    if (asks && fresh && now >= ask_ns_ && client_->send(reading.states.data())) {
      asked_ns_ = now;
      ask_ns_ = now + options_.frame_period_ns;
      waiting_ = true;
    }
    const FrameClient::Reply reply = client_->receive(command_.values.data());
    if (reply == FrameClient::Reply::closed || (waiting_ && now - asked_ns_ > kNoAnswer)) {
      client_.reset();
      waiting_ = false;
      return;
    }
    if (reply == FrameClient::Reply::waiting) return;
    waiting_ = false;
    // A reply says nothing about time: it counts from the moment of the question.
    command_.counter += 1;
    command_.time_ns = asked_ns_ + options_.reply_valid_ns;
    command_.flags = reply == FrameClient::Reply::targets ? kDrive : 0;
    command_.count = kTargets;
    latch_.accept(command_, now);
  }

  void tell(Error error) noexcept {
    if (error != told_ && error != Error::none) say("the policy's side %s", text(error));
    told_ = error;
  }

  const Options& options_;
  std::optional<SharedFile> file_;
  std::optional<FrameClient> client_;
  CommandLatch latch_;
  Record command_;
  std::int64_t look_ns_ = 0;
  std::int64_t ask_ns_ = 0;
  std::int64_t asked_ns_ = 0;
  bool waiting_ = false;
  Error told_ = Error::none;
};

ModeSettings<kJoints> lite3(const Options& options) {
  ModeSettings<kJoints> settings;
  for (std::size_t leg = 0; leg < 4; ++leg) {
    settings.pose[3 * leg] = 0.0F;
    settings.pose[3 * leg + 1] = -0.65F;
    settings.pose[3 * leg + 2] = 1.3F;
  }
  settings.kp.fill(30.0F);
  settings.kd.fill(1.0F);
  settings.damping_kd = options.damping_kd;
  return settings;
}

struct Timing {
  std::int64_t ticks = 0;
  std::int64_t late = 0;  // more than one period
  std::int64_t worst_ns = 0;
};

void sleep_until(std::int64_t deadline_ns) noexcept {
  timespec until{};
  until.tv_sec = deadline_ns / 1'000'000'000;
  until.tv_nsec = deadline_ns % 1'000'000'000;
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
}

// Tick at a fixed rate; what was missed is counted and skipped.
Timing run(const Options& options, Hardware& hardware, Policy& policy) {
  Timing timing;
  ModeSettings<kJoints> settings = lite3(options);
  policy.look(now_ns());
  policy.adopt(settings);
  ModeMachine<kJoints> machine(settings);
  std::int64_t deadline = now_ns();
  const std::int64_t end = options.seconds > 0 ? deadline + static_cast<std::int64_t>(options.seconds * 1e9) : 0;
  Posture<kJoints> posture = machine.begin(hardware.read(deadline).request, deadline);
  say("mode %s", text(posture.mode));
  while (stopped == 0 && (end == 0 || deadline < end)) {
    sleep_until(deadline);
    const std::int64_t now = now_ns();
    const Reading& reading = hardware.read(now);
    const bool stood_up = posture.mode == Mode::stand_up && now - posture.since_ns >= settings.stand_up_ns;
    const bool asks = posture.mode == Mode::policy || (stood_up && reading.request == Request::policy);
    policy.exchange(reading, posture.mode, asks, now);
    const Mode before = posture.mode;
    posture = machine.next(posture, reading.request, reading.sensors, policy.driving(now), now);
    hardware.write(machine.setpoint(posture, policy.values(), now), posture.mode, now);
    if (posture.mode != before) say("mode %s: %s", text(posture.mode), text(posture.cause));
    const bool nothing_driven = posture.mode == Mode::idle || posture.mode == Mode::damping;
    if (nothing_driven || (posture.mode == Mode::stand_up && !policy.connected())) {
      // The gains may be another policy's by now. A robot that stands takes them only with the pose that it stands in.
      policy.look(now);
      ModeSettings<kJoints> found = settings;
      policy.adopt(found);
      if (nothing_driven || found.pose == settings.pose) {
        settings = found;
        machine = ModeMachine<kJoints>(settings);
      } else {
        say("the policy starts from another pose: request idle, then stand up again");
        policy.leave();
      }
    }
    timing.ticks += 1;
    timing.late += now - deadline > options.period_ns ? 1 : 0;
    timing.worst_ns = now - deadline > timing.worst_ns ? now - deadline : timing.worst_ns;
    deadline += options.period_ns;
    const std::int64_t behind = now_ns() - deadline;
    if (behind > options.period_ns) deadline += behind / options.period_ns * options.period_ns;
  }
  const std::int64_t now = now_ns();
  posture = machine.next(posture, Request::stop, hardware.read(now).sensors, false, now);
  hardware.write(machine.setpoint(posture, nullptr, now), posture.mode, now);
  return timing;
}

bool parse(int count, char** words, Options& options) {
  for (int i = 1; i < count; ++i) {
    const char* name = words[i];
    if (std::strcmp(name, "--realtime") == 0) {
      options.realtime = true;
      continue;
    }
    if (++i >= count) return false;
    const char* value = words[i];
    const double number = std::atof(value);
    const auto ns = static_cast<std::int64_t>(number * 1e6);
    if (std::strcmp(name, "--hardware") == 0) options.hardware = value;
    else if (std::strcmp(name, "--program") == 0) options.program = value;
    else if (std::strcmp(name, "--unix") == 0) options.unix_path = value;
    else if (std::strcmp(name, "--tcp") == 0) options.tcp_port = static_cast<std::uint16_t>(number);
    else if (std::strcmp(name, "--seconds") == 0) options.seconds = number;
    else if (std::strcmp(name, "--period-ms") == 0) options.period_ns = ns;
    else if (std::strcmp(name, "--frame-period-ms") == 0) options.frame_period_ns = ns;
    else if (std::strcmp(name, "--reply-valid-ms") == 0) options.reply_valid_ns = ns;
    else if (std::strcmp(name, "--sensor-timeout-ms") == 0) options.sensor_timeout_ns = ns;
    else if (std::strcmp(name, "--damping-kd") == 0) options.damping_kd = static_cast<float>(number);
    else return false;
  }
  const int ways = (options.program != nullptr) + (options.unix_path != nullptr) + (options.tcp_port != 0);
  return options.hardware != nullptr && ways == 1 && options.period_ns > 0 && options.damping_kd >= 0;
}

void become_realtime() {
  sched_param priority{};
  priority.sched_priority = 80;
  if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0 || sched_setscheduler(0, SCHED_FIFO, &priority) != 0) {
    say("not real-time: %s (needs CAP_SYS_NICE and CAP_IPC_LOCK)", std::strerror(errno));
  }
}

}  // namespace

int main(int count, char** words) {
  Options options;
  if (!parse(count, words, options)) {
    std::fputs(
        "usage: lite3_controller --hardware FILE (--program FILE | --unix PATH | --tcp PORT) [--seconds S]\n"
        "  [--period-ms 1] [--frame-period-ms 12] [--reply-valid-ms 50] [--sensor-timeout-ms 50] [--damping-kd 4]\n"
        "  [--realtime]\n",
        stderr);
    return 2;
  }
  std::signal(SIGINT, stop);
  std::signal(SIGTERM, stop);
  std::signal(SIGPIPE, SIG_IGN);
  Error error = Error::none;
  auto file = SharedFile::open(options.hardware, {kSetpointFloats, kSensorFloats, {}}, error);
  if (!file) {
    std::fprintf(stderr, "%s %s\n", options.hardware, text(error));
    return 4;
  }
  if (options.realtime) become_realtime();
  Hardware hardware(std::move(*file), options.sensor_timeout_ns);
  Policy policy(options);
  const Timing timing = run(options, hardware, policy);
  say("%lld ticks of %.3f ms, %lld more than one late, worst %.3f ms", static_cast<long long>(timing.ticks),
      static_cast<double>(options.period_ns) / 1e6, static_cast<long long>(timing.late),
      static_cast<double>(timing.worst_ns) / 1e6);
  return 0;
}
