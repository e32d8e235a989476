// Modes of a legged robot: idle, stand up, policy, damping. Pure: time and sensors come in, a mode and set-points come
// out. Its twin, with the same numbers, is policyloop/robot/posture.py; a test compares them on random traces.
//
//   idle --stand up--> stand_up --policy--> policy        no torque; to the pose and hold; what the policy says
//     ^                    |                   |
//     '------ idle ----- damping <-------------'          kp 0: latched until a new request, from rest
#ifndef POLICYLOOP_MODES_HPP
#define POLICYLOOP_MODES_HPP

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace policyloop {

enum class Mode : std::uint32_t { idle = 0, stand_up = 1, policy = 2, damping = 3 };
enum class Request : std::uint32_t { none = 0, idle = 1, stand_up = 2, policy = 3, stop = 4 };
enum class Cause : std::uint32_t { none = 0, request = 1, stop = 2, sensors = 3, leaning = 4, no_command = 5 };

inline const char* text(Mode mode) noexcept {
  constexpr std::array<const char*, 4> names{"idle", "stand_up", "policy", "damping"};
  return names[static_cast<std::size_t>(mode)];
}

inline const char* text(Cause cause) noexcept {
  constexpr std::array<const char*, 6> names{"start",   "request",         "stop request",
                                             "sensors", "the robot leans", "no valid command"};
  return names[static_cast<std::size_t>(cause)];
}

// Return the request that a number means; what means none is a stop.
inline Request request_of(float code) noexcept {
  for (std::uint32_t known = 0; known <= 4; ++known) {
    if (code == static_cast<float>(known)) return static_cast<Request>(known);
  }
  return Request::stop;
}

template <std::size_t Joints>
struct Sensors {
  std::array<float, 3> gyro{};           // rad/s, body frame
  std::array<float, 3> gravity{};        // projected: (0, 0, -1) when upright
  std::array<float, Joints> position{};  // rad
  std::array<float, Joints> velocity{};  // rad/s
};

template <std::size_t Joints>
struct Setpoint {
  std::array<float, Joints> target{};  // rad
  std::array<float, Joints> kp{};      // N m/rad
  std::array<float, Joints> kd{};      // N m s/rad
};

template <std::size_t Joints>
struct ModeSettings {
  std::array<float, Joints> pose{};  // rad, where the policy starts from
  std::array<float, Joints> kp{};    // N m/rad, of the policy
  std::array<float, Joints> kd{};    // N m s/rad
  float stand_up_kp = 100.0F;        // N m/rad
  float stand_up_kd = 2.5F;          // N m s/rad
  float damping_kd = 4.0F;           // N m s/rad
  std::int64_t stand_up_ns = 1'500'000'000;
  double most_roll_rad = 30.0 * 3.14159265358979323846 / 180.0;
  double most_pitch_rad = 45.0 * 3.14159265358979323846 / 180.0;
  double rest_radps = 0.5;  // no joint moves faster, nor does the body turn faster: at rest
  double near_rad = 0.3;    // every joint as close to the pose as this: stood up
};

template <std::size_t Joints>
struct Posture {
  Mode mode = Mode::idle;
  Cause cause = Cause::none;         // of the mode
  Request request = Request::none;   // the last one
  bool pending = false;              // it was made in this mode, or in one that is not damping, and is still held
  std::int64_t since_ns = 0;         // when the mode began
  std::array<float, Joints> start{}; // rad, of the joints at that time
};

template <std::size_t Joints>
class ModeMachine {
 public:
  explicit ModeMachine(const ModeSettings<Joints>& settings) noexcept : settings_(settings) {}

  // Return the mode to begin with. A request that is held already was not made to this program: it does nothing.
  Posture<Joints> begin(Request held, std::int64_t now) const noexcept {
    Posture<Joints> posture;
    posture.request = held;
    posture.since_ns = now;
    return posture;
  }

  // Return the posture after a tick. `commanded`: a command to drive is valid now.
  Posture<Joints> next(const Posture<Joints>& before, Request request, const Sensors<Joints>& sensors, bool commanded,
                       std::int64_t now) const noexcept {
    Posture<Joints> after = before;
    after.pending = request != before.request || before.pending;
    after.request = request;
    const Cause fault = fault_of(before.mode, request, sensors, commanded);
    if (fault != Cause::none) {
      if (before.mode == Mode::damping) {
        after.pending = false;
        return after;
      }
      return entered(after, Mode::damping, fault, sensors, now);
    }
    const Mode mode = wanted(after, sensors, commanded, now);
    return mode == before.mode ? after : entered(after, mode, Cause::request, sensors, now);
  }

  // Return what the joints do now. `command`: the targets of the policy, read only in its mode; null damps there.
  Setpoint<Joints> setpoint(const Posture<Joints>& posture, const float* command, std::int64_t now) const noexcept {
    Setpoint<Joints> out;
    const bool speechless = posture.mode == Mode::policy && command == nullptr;
    switch (speechless ? Mode::damping : posture.mode) {
      case Mode::idle: break;
      case Mode::stand_up: {
        const double part = ramp(posture, now);
        for (std::size_t i = 0; i < Joints; ++i) {
          const double from = posture.start[i];
          const double to = settings_.pose[i];
          out.target[i] = static_cast<float>(from + part * (to - from));
        }
        out.kp.fill(settings_.stand_up_kp);
        out.kd.fill(settings_.stand_up_kd);
        break;
      }
      case Mode::policy:
        for (std::size_t i = 0; i < Joints; ++i) out.target[i] = command[i];
        out.kp = settings_.kp;
        out.kd = settings_.kd;
        break;
      case Mode::damping: out.kd.fill(settings_.damping_kd); break;
    }
    return out;
  }

 private:
  Cause fault_of(Mode mode, Request request, const Sensors<Joints>& sensors, bool commanded) const noexcept {
    if (!all_finite(sensors)) return Cause::sensors;
    if (request == Request::stop) return Cause::stop;
    if (mode != Mode::stand_up && mode != Mode::policy) return Cause::none;
    if (leaning(sensors)) return Cause::leaning;
    return mode == Mode::policy && !commanded ? Cause::no_command : Cause::none;
  }

  Mode wanted(const Posture<Joints>& posture, const Sensors<Joints>& sensors, bool commanded,
              std::int64_t now) const noexcept {
    const Request request = posture.request;
    switch (posture.mode) {
      case Mode::idle:
      case Mode::damping:
        if (posture.pending && request == Request::stand_up && at_rest(sensors)) return Mode::stand_up;
        return posture.pending && request == Request::idle ? Mode::idle : posture.mode;
      case Mode::stand_up:
        if (request == Request::idle) return Mode::damping;
        return request == Request::policy && commanded && stands(posture, sensors, now) ? Mode::policy : Mode::stand_up;
      case Mode::policy: break;
    }
    return request == Request::idle ? Mode::damping : Mode::policy;
  }

  static Posture<Joints> entered(Posture<Joints> posture, Mode mode, Cause cause, const Sensors<Joints>& sensors,
                                 std::int64_t now) noexcept {
    posture.mode = mode;
    posture.cause = cause;
    posture.since_ns = now;
    posture.start = sensors.position;
    // What is held while damping begins must be asked for again.
    if (mode == Mode::damping) posture.pending = false;
    return posture;
  }

  bool leaning(const Sensors<Joints>& sensors) const noexcept {
    const double x = sensors.gravity[0];
    const double y = sensors.gravity[1];
    const double z = sensors.gravity[2];
    const double roll = std::atan2(-y, -z);
    const double pitch = std::atan2(x, std::sqrt(y * y + z * z));
    return std::fabs(roll) > settings_.most_roll_rad || std::fabs(pitch) > settings_.most_pitch_rad;
  }

  bool at_rest(const Sensors<Joints>& sensors) const noexcept {
    for (const float rate : sensors.gyro) {
      if (std::fabs(double{rate}) > settings_.rest_radps) return false;
    }
    for (const float rate : sensors.velocity) {
      if (std::fabs(double{rate}) > settings_.rest_radps) return false;
    }
    return !leaning(sensors);
  }

  bool stands(const Posture<Joints>& posture, const Sensors<Joints>& sensors, std::int64_t now) const noexcept {
    if (now - posture.since_ns < settings_.stand_up_ns) return false;
    for (std::size_t i = 0; i < Joints; ++i) {
      if (std::fabs(double{sensors.position[i]} - double{settings_.pose[i]}) > settings_.near_rad) return false;
    }
    return true;
  }

  // Smooth from 0 to 1, without a jump in speed at either end.
  double ramp(const Posture<Joints>& posture, std::int64_t now) const noexcept {
    const double share = static_cast<double>(now - posture.since_ns) / static_cast<double>(settings_.stand_up_ns);
    const double part = share < 0.0 ? 0.0 : share > 1.0 ? 1.0 : share;
    return part * part * (3.0 - 2.0 * part);
  }

  static bool all_finite(const Sensors<Joints>& sensors) noexcept {
    return finite(sensors.gyro) && finite(sensors.gravity) && finite(sensors.position) && finite(sensors.velocity);
  }

  template <std::size_t Size>
  static bool finite(const std::array<float, Size>& values) noexcept {
    for (const float value : values) {
      if (!std::isfinite(value)) return false;
    }
    return true;
  }

  ModeSettings<Joints> settings_;
};

}  // namespace policyloop

#endif  // POLICYLOOP_MODES_HPP
