// Walk through every reachable state of the mode machine with every event, and hold each step against rules that are
// written down here once more, as a table of what must be.
#include "policyloop_modes.hpp"

#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "check.hpp"

using namespace policyloop;

namespace {

constexpr std::size_t kJoints = 3;
constexpr std::int64_t kMs = 1'000'000;
using Machine = ModeMachine<kJoints>;

enum class Body { rest, far, moving, turning, rolled, pitched, upside_down, broken };
constexpr Body kBodies[] = {Body::rest,   Body::far,     Body::moving,      Body::turning,
                            Body::rolled, Body::pitched, Body::upside_down, Body::broken};

struct Event {
  Request request;
  Body body;
  bool commanded;
  std::int64_t after_ns;
};

ModeSettings<kJoints> settings() {
  ModeSettings<kJoints> made;
  made.pose = {0.0F, -0.65F, 1.3F};
  made.kp = {30.0F, 31.0F, 32.0F};
  made.kd = {1.0F, 1.1F, 1.2F};
  return made;
}

Sensors<kJoints> sensors(Body body) {
  Sensors<kJoints> made;
  made.gravity = {0.0F, 0.0F, -1.0F};
  made.position = settings().pose;
  switch (body) {
    case Body::rest: break;
    case Body::far: made.position[1] += 0.5F; break;
    case Body::moving: made.velocity[2] = -0.6F; break;
    case Body::turning: made.gyro[0] = 0.6F; break;
    case Body::rolled: made.gravity = {0.0F, 0.51F, -0.86F}; break;
    case Body::pitched: made.gravity = {-0.72F, 0.0F, -0.69F}; break;
    case Body::upside_down: made.gravity = {0.0F, 0.0F, 1.0F}; break;
    case Body::broken: made.velocity[0] = NAN; break;
  }
  return made;
}

bool leans(Body body) { return body == Body::rolled || body == Body::pitched || body == Body::upside_down; }
bool still(Body body) { return body == Body::rest || body == Body::far; }

// What must be, by the words of the specification and not by those of the code.
Mode expected(const Posture<kJoints>& before, const Event& event, bool fresh, bool ramped) {
  if (event.body == Body::broken || event.request == Request::stop) return Mode::damping;
  const bool upright = !leans(event.body);
  if (before.mode == Mode::policy) {
    return upright && event.commanded && event.request != Request::idle ? Mode::policy : Mode::damping;
  }
  if (before.mode == Mode::stand_up) {
    if (!upright || event.request == Request::idle) return Mode::damping;
    const bool goes = event.request == Request::policy && event.commanded && ramped && event.body != Body::far;
    return goes ? Mode::policy : Mode::stand_up;
  }
  if (fresh && event.request == Request::idle) return Mode::idle;
  return fresh && event.request == Request::stand_up && still(event.body) ? Mode::stand_up : before.mode;
}

void check_setpoint(const Machine& machine, const Posture<kJoints>& posture, std::int64_t now) {
  if (posture.mode == Mode::policy) CHECK(machine.setpoint(posture, nullptr, now).kd[0] == 4.0F);
  const float command[kJoints] = {0.1F, 0.2F, 0.3F};
  const Setpoint<kJoints> out = machine.setpoint(posture, command, now);
  for (std::size_t i = 0; i < kJoints; ++i) {
    const ModeSettings<kJoints> made = settings();
    const float low = std::fmin(posture.start[i], made.pose[i]) - 1e-6F;
    const float high = std::fmax(posture.start[i], made.pose[i]) + 1e-6F;
    switch (posture.mode) {
      case Mode::idle: CHECK(out.kp[i] == 0 && out.kd[i] == 0 && out.target[i] == 0); break;
      case Mode::stand_up:
        CHECK(out.kp[i] == 100.0F && out.kd[i] == 2.5F && out.target[i] >= low && out.target[i] <= high);
        break;
      case Mode::policy:
        CHECK(out.kp[i] == made.kp[i] && out.kd[i] == made.kd[i] && out.target[i] == command[i]);
        break;
      case Mode::damping: CHECK(out.kp[i] == 0 && out.kd[i] == 4.0F && out.target[i] == 0); break;
    }
  }
}

// What a state is, as far as it matters for what comes: two with equal keys behave alike.
using Key = std::tuple<Mode, Request, bool, bool, bool>;

Key key(const Posture<kJoints>& posture, std::int64_t now) {
  const bool ramped = now - posture.since_ns >= settings().stand_up_ns;
  return {posture.mode, posture.request, posture.pending, ramped, posture.start == settings().pose};
}

std::vector<Event> events() {
  std::vector<Event> all;
  for (std::uint32_t request = 0; request <= 4; ++request) {
    for (const Body body : kBodies) {
      for (const bool commanded : {false, true}) {
        for (const std::int64_t after_ns : {kMs, 2000 * kMs}) {
          all.push_back({static_cast<Request>(request), body, commanded, after_ns});
        }
      }
    }
  }
  return all;
}

struct Found {
  Posture<kJoints> posture;
  std::int64_t now;
};

void walk() {
  const Machine machine(settings());
  const std::vector<Event> all = events();
  std::map<Key, Found> reached;
  std::set<std::pair<Mode, Mode>> steps;
  std::vector<Found> open;
  for (std::uint32_t held = 0; held <= 4; ++held) open.push_back({machine.begin(static_cast<Request>(held), 0), 0});
  std::size_t pairs = 0;
  while (!open.empty()) {
    const Found at = open.back();
    open.pop_back();
    if (!reached.emplace(key(at.posture, at.now), at).second) continue;
    for (const Event& event : all) {
      const std::int64_t now = at.now + event.after_ns;
      const Posture<kJoints>& before = at.posture;
      const Posture<kJoints> after = machine.next(before, event.request, sensors(event.body), event.commanded, now);
      const bool fresh = before.pending || event.request != before.request;
      const bool ramped = now - before.since_ns >= settings().stand_up_ns;
      CHECK(after.mode == expected(before, event, fresh, ramped));
      CHECK(after.mode == before.mode ? after.since_ns == before.since_ns : after.since_ns == now);
      CHECK(after.request == event.request);
      check_setpoint(machine, after, now);
      steps.insert({before.mode, after.mode});
      open.push_back({after, now});
      ++pairs;
    }
  }
  // Every mode to itself and to damping; idle and damping to stand_up; damping to idle; stand_up to policy.
  const std::set<std::pair<Mode, Mode>> allowed{
      {Mode::idle, Mode::idle},         {Mode::stand_up, Mode::stand_up}, {Mode::policy, Mode::policy},
      {Mode::damping, Mode::damping},   {Mode::idle, Mode::damping},      {Mode::stand_up, Mode::damping},
      {Mode::policy, Mode::damping},    {Mode::idle, Mode::stand_up},     {Mode::damping, Mode::stand_up},
      {Mode::damping, Mode::idle},      {Mode::stand_up, Mode::policy}};
  CHECK(steps == allowed);
  std::printf("%zu states, %zu pairs of state and event\n", reached.size(), pairs);
}

void test_nothing_held_at_the_start_moves() {
  const Machine machine(settings());
  Posture<kJoints> posture = machine.begin(Request::stand_up, 0);
  for (std::int64_t tick = 1; tick < 100; ++tick) {
    posture = machine.next(posture, Request::stand_up, sensors(Body::rest), true, tick * kMs);
    CHECK(posture.mode == Mode::idle);
  }
}

void test_the_ramp_is_smooth() {
  const Machine machine(settings());
  Sensors<kJoints> lying = sensors(Body::far);
  const Posture<kJoints> posture = machine.next(machine.begin(Request::none, 0), Request::stand_up, lying, false, 0);
  float before = lying.position[1];
  CHECK(machine.setpoint(posture, nullptr, 0).target[1] == before);
  for (std::int64_t tick = 1; tick <= 1500; ++tick) {
    const float now = machine.setpoint(posture, nullptr, tick * kMs).target[1];
    CHECK(now <= before && before - now < 0.5F * 1.6F / 1500.0F);
    before = now;
  }
  CHECK(before == settings().pose[1]);
}

void test_exits_at_thirty_and_forty_five_degrees() {
  const Machine machine(settings());
  Posture<kJoints> standing;
  standing.mode = Mode::stand_up;
  const auto mode_at = [&](double roll_deg, double pitch_deg) {
    const double roll = roll_deg * 3.14159265358979 / 180;
    const double pitch = pitch_deg * 3.14159265358979 / 180;
    Sensors<kJoints> made = sensors(Body::rest);
    made.gravity = {static_cast<float>(std::sin(pitch)), static_cast<float>(-std::cos(pitch) * std::sin(roll)),
                    static_cast<float>(-std::cos(pitch) * std::cos(roll))};
    return machine.next(standing, Request::none, made, false, 0).mode;
  };
  for (const double sign : {-1.0, 1.0}) {
    CHECK(mode_at(sign * 29.9, 0) == Mode::stand_up && mode_at(sign * 30.1, 0) == Mode::damping);
    CHECK(mode_at(0, sign * 44.9) == Mode::stand_up && mode_at(0, sign * 45.1) == Mode::damping);
    CHECK(mode_at(sign * 29.9, 40) == Mode::stand_up && mode_at(sign * 30.1, 40) == Mode::damping);
  }
}

void test_requests() {
  for (const float wrong : {NAN, INFINITY, -1.0F, 5.0F, 1.5F}) CHECK(request_of(wrong) == Request::stop);
  CHECK(request_of(3.0F) == Request::policy && request_of(0.0F) == Request::none);
}

}  // namespace

int main() {
  walk();
  test_nothing_held_at_the_start_moves();
  test_the_ramp_is_smooth();
  test_exits_at_thirty_and_forty_five_degrees();
  test_requests();
  return failures == 0 ? 0 : 1;
}
