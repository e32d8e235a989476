// Read ticks from stdin (time ns, request, commanded, then gyro 3, gravity 3, position 12, velocity 12, command 12), and
// write for each the mode, its cause, and target, kp, kd of the 12 joints. For the comparison with the Python twin.
#include <cstdio>

#include "policyloop_modes.hpp"

using namespace policyloop;

namespace {

template <std::size_t Size>
bool take(std::array<float, Size>& values) {
  for (float& value : values) {
    if (std::scanf("%f", &value) != 1) return false;
  }
  return true;
}

template <std::size_t Size>
void give(const std::array<float, Size>& values) {
  for (const float value : values) std::printf(" %.9g", static_cast<double>(value));
}

}  // namespace

int main() {
  ModeSettings<12> settings;
  for (std::size_t leg = 0; leg < 4; ++leg) {
    settings.pose[3 * leg + 1] = -0.65F;
    settings.pose[3 * leg + 2] = 1.3F;
  }
  settings.kp.fill(30.0F);
  settings.kd.fill(1.0F);
  const ModeMachine<12> machine(settings);
  Posture<12> posture = machine.begin(Request::none, 0);
  long long now = 0;
  float request = 0;
  int commanded = 0;
  while (std::scanf("%lld %f %d", &now, &request, &commanded) == 3) {
    Sensors<12> sensors;
    std::array<float, 12> command{};
    if (!take(sensors.gyro) || !take(sensors.gravity) || !take(sensors.position) || !take(sensors.velocity) ||
        !take(command)) {
      return 1;
    }
    posture = machine.next(posture, request_of(request), sensors, commanded != 0, now);
    const Setpoint<12> out = machine.setpoint(posture, command.data(), now);
    std::printf("%s %d", text(posture.mode), static_cast<int>(posture.cause));
    give(out.target);
    give(out.kp);
    give(out.kd);
    std::printf("\n");
  }
  return 0;
}
