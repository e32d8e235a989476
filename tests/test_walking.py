"""How well a policy walks: through the robot's own program, in simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Command, Observation
from policyloop.errors import UsageError, VerificationError
from policyloop.evaluate import BorrowedPolicy, drive_episode, evaluate
from policyloop.runtime.policy import Policy
from policyloop.walking import WALKS, WalkConditions, walk

POSE = np.array([0, -0.65, 1.3] * 4)
HOLDING_NM = np.array([1.80, -0.52, -3.30, -1.86, -0.42, -3.22, 2.40, -0.57, -4.02, -2.42, -0.46, -3.94])
HOLDING = Action(tuple((POSE + HOLDING_NM / 30).tolist()), "scripted")
ZEROS = Action(tuple(POSE.tolist()), "scripted")
DOWN = Action((0.0, -2.5, 2.7) * 4, "scripted")
CALM = WalkConditions(push_mps=0.0)


class Answers:
    """A driver that is a function."""

    def __init__(self, answer: Callable[[Observation], Action]) -> None:
        self.propose = answer

    def executed(self, command: Command) -> None:
        pass

    def reset(self) -> None:
        pass


def always(action: Action) -> Answers:
    return Answers(lambda observation: action)


def failing(observation: Observation) -> Action:
    raise ValueError("no idea")


# -- one walk ---------------------------------------------------------------------------------


def test_a_walk_is_as_long_as_it_was_meant_to_be_and_who_stands_as_asked_gets_a_second_for_a_second(
    lite3: RobotProfile,
) -> None:
    asked: list[np.ndarray] = []

    def stand(observation: Observation) -> Action:
        asked.append(observation.arrays["proprio"][6:9])
        return HOLDING

    stood = walk(lite3, Answers(stand), (0.0, 0.0, 0.0), 3, WalkConditions(seconds=4.0, push_mps=0.0))
    assert len(asked) == 333
    assert np.all(np.array(asked) == 0)
    assert not stood.fell
    assert stood.score == pytest.approx(4.0, abs=0.15)
    assert abs(stood.distance_m) < 0.1
    assert abs(stood.forward_mps) < 0.01
    assert stood.height_m == pytest.approx(0.348, abs=0.005)
    assert stood.feet_up == (0.0,) * 4
    assert max(stood.roll_deg, stood.pitch_deg) < 2
    assert stood.gated == 0


def test_who_stands_where_a_walk_is_wanted_scores_what_the_bell_says(lite3: RobotProfile) -> None:
    wanted = (0.3, 0.0, 0.4)
    stood = walk(lite3, always(HOLDING), wanted, 3, WalkConditions(seconds=6.0, push_mps=0.0))
    assert stood.wanted == wanted
    assert stood.score == pytest.approx(6 * math.exp(-(0.09 + 0.16) / 0.25), abs=0.15)


def test_who_lies_down_has_fallen_and_scores_for_no_longer(lite3: RobotProfile) -> None:
    lay = walk(lite3, always(DOWN), (0.0, 0.0, 0.0), 3, CALM)
    assert lay.fell
    assert 0 < lay.score < 2
    assert math.isnan(lay.forward_mps) and math.isnan(lay.roll_deg)  # there was no time after two seconds
    assert math.isfinite(lay.distance_m)


def test_equal_seeds_are_equal_walks_and_others_others(lite3: RobotProfile) -> None:
    short = WalkConditions(seconds=3.5)
    one, again, other = (walk(lite3, always(HOLDING), (0.0, 0.0, 0.0), seed, short) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_pushes_are_felt_and_latency_too(lite3: RobotProfile, lite3_policy: Policy) -> None:
    policy = Answers(lite3_policy.act)
    calm, pushed, late = (
        walk(lite3, policy, (0.5, 0.0, 0.0), 5, WalkConditions(seconds=5.0, push_mps=push_mps, latency_s=latency_s))
        for push_mps, latency_s in ((0.0, 0.0), (0.4, 0.0), (0.0, 0.024))
    )
    assert not calm.fell and not pushed.fell and not late.fell
    assert len({calm.forward_mps, pushed.forward_mps, late.forward_mps}) == 3


def test_a_driver_that_fails_is_an_error_and_no_score(lite3: RobotProfile) -> None:
    with pytest.raises(VerificationError, match="the driver failed in 10 ticks of walk 7"):
        walk(lite3, Answers(failing), (0.5, 0.0, 0.0), 7, WalkConditions(seconds=0.12))


# -- an evaluation ----------------------------------------------------------------------------


def test_the_vendors_policy_walks_as_ten_commands_ask(lite3: RobotProfile, lite3_policy: Policy) -> None:
    report = evaluate(lite3, BorrowedPolicy("vendor", lite3_policy), episodes=10, arena_seed=1_000_000)
    assert (report.driver, report.gate, report.episodes) == ("vendor", "limits", 10)
    assert report.collision_rate == 0
    assert report.return_mean > 8
    assert min(report.returns) > 6
    assert max(report.returns) <= 10
    assert report.return_ci is not None
    assert report.return_ci[0] <= report.return_mean <= report.return_ci[1]


class Zeros(BorrowedPolicy):
    """A policy whose outputs are zeros."""

    def __init__(self) -> None:
        self.name = "zeros"

    def propose(self, observation: Observation) -> Action:
        return ZEROS


def test_a_policy_of_zeros_does_not_walk(lite3: RobotProfile) -> None:
    """At the policy's gains it does not even stand."""
    report = evaluate(lite3, Zeros(), episodes=10, arena_seed=1_000_000)
    assert report.return_mean < 5
    assert report.distance_m < 0.5


def test_the_seed_chooses_the_command_in_turn(lite3: RobotProfile) -> None:
    seen: list[tuple[float, ...]] = []

    class Looks(Zeros):
        def propose(self, observation: Observation) -> Action:
            wanted = tuple(observation.arrays["proprio"][6:9].tolist())
            if not seen or seen[-1] != wanted:
                seen.append(wanted)
            return DOWN

    for seed in range(20, 30):
        drive_episode(lite3, Looks(), seed, "limits")
    assert [pytest.approx(want, abs=1e-6) for want in WALKS] == seen
    assert len(set(WALKS)) == 10


def test_a_fall_counts_as_a_collision(lite3: RobotProfile) -> None:
    class Lies(Zeros):
        def propose(self, observation: Observation) -> Action:
            return DOWN

    report = evaluate(lite3, Lies(), episodes=2, arena_seed=1_000_000)
    assert report.collision_rate == 1
    assert report.return_mean < 2


@pytest.mark.parametrize("name", ["scripted", "random"])
def test_no_script_walks(name: str, lite3: RobotProfile) -> None:
    with pytest.raises(UsageError, match=f"no driver '{name}' walks") as caught:
        evaluate(lite3, name, episodes=1)
    assert caught.value.remedy == "give a policy for this robot"
    assert caught.value.exit_code == 2
