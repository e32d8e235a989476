from __future__ import annotations

import math
import time

import msgspec
import numpy as np
import pytest

from policyloop.core.profile import EpisodeRules, RobotProfile
from policyloop.core.step import Action, Command, Observation, Source, Stamps, Step
from policyloop.robot.recorder import Recorder


class Recording:
    """A recorder with what it emitted, fed one reading at a time."""

    def __init__(self, profile: RobotProfile) -> None:
        self.steps: list[Step] = []
        self.profile = profile
        self.recorder = Recorder(profile, "r0", "b0", self.steps.append)
        self.ticks = 0

    def look(
        self, *, linear: float = 0.0, angular: float = 0.0, distance: float = 5.0, contact: bool = False
    ) -> tuple[Observation, bool]:
        """Show the recorder what is seen now; returns it, and whether that ended the episode."""
        arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in self.profile.observation_specs.items()}
        arrays["proprio"][:] = linear, angular, 0, 0, 9.81, distance
        observation = Observation(arrays, self.ticks * 100, contact)
        return observation, self.recorder.observe(observation)

    def tick(
        self,
        *,
        source: Source = "policy",
        proposed: tuple[float, float] = (0.5, 0.0),
        done: tuple[float, float] | None = None,
        reasons: tuple[str, ...] = (),
        **seen: float,
    ) -> bool:
        """Look and act once; returns whether the look ended an episode."""
        observation, ended = self.look(**seen)  # type: ignore[arg-type]
        captured_ns = observation.captured_ns
        self.recorder.act(
            observation,
            Action(proposed, source),
            Command(done or proposed, reasons),
            Stamps(captured_ns, captured_ns + 10, captured_ns + 20),
        )
        self.ticks += 1
        return ended


@pytest.fixture
def recording(mini: RobotProfile) -> Recording:
    return Recording(mini)


@pytest.fixture
def short(mini: RobotProfile) -> Recording:
    """Episodes of three steps."""
    return Recording(msgspec.structs.replace(mini, episode=EpisodeRules(max_steps=3)))


def test_a_step_is_emitted_only_when_its_outcome_is_seen(recording: Recording) -> None:
    recording.tick()
    assert recording.steps == []
    recording.look()
    assert len(recording.steps) == 1


def test_the_reward_of_a_step_reads_the_next_observation(recording: Recording) -> None:
    recording.tick(linear=0.6, angular=1.0, distance=0.2)
    recording.look(linear=0.2, angular=-0.4, distance=2.0)
    record = recording.steps[0].record
    # 2 * 0.2 - 0.5 * |-0.4| - 0.01, and nothing close
    assert record.reward == pytest.approx(0.19, abs=1e-6)
    assert record.reward_terms == pytest.approx(
        {"forward": 0.4, "spin": -0.2, "close": 0.0, "near": 0.0, "time": -0.01}, abs=1e-6
    )


@pytest.mark.parametrize(
    ("distance", "price"), [(0.5, 0.0), (0.49, -1.0), (0.31, -1.0), (0.29, -5.0), (0.16, -5.0), (0.0, -5.0)]
)
def test_coming_near_costs_and_the_unknown_counts_as_near(recording: Recording, distance: float, price: float) -> None:
    recording.tick()
    recording.look(distance=distance)
    assert recording.steps[0].record.reward == pytest.approx(price - 0.01, abs=1e-6)


def test_a_step_carries_the_observation_it_was_decided_on(recording: Recording) -> None:
    recording.tick(linear=0.1)
    recording.tick(linear=0.2)
    recording.tick(linear=0.3)
    assert [step.observation["proprio"][0] for step in recording.steps] == pytest.approx([0.1, 0.2])
    assert [step.final_observation for step in recording.steps] == [None, None]


@pytest.mark.parametrize(
    ("distance", "contact", "terminated"),
    [
        (0.149, False, True),
        (0.01, False, True),
        (0.151, False, False),
        (0.0, False, False),  # unknown is no collision
        (5.0, True, True),
        (0.0, True, True),
    ],
)
def test_contact_and_a_known_distance_below_15_cm_terminate(
    recording: Recording, distance: float, contact: bool, terminated: bool
) -> None:
    recording.tick()
    observation, ended = recording.look(distance=distance, contact=contact)
    (step,) = recording.steps
    assert ended == step.record.terminated == step.record.ended == terminated
    assert not step.record.truncated
    assert step.record.contact == contact
    assert step.final_observation is (observation.arrays if terminated else None)
    assert [episode.collided for episode in recording.recorder.episodes] == [True] * terminated


def test_an_episode_is_truncated_at_max_steps_with_its_final_observation(short: Recording) -> None:
    assert [short.tick() for _ in range(3)] == [False] * 3
    observation, ended = short.look(linear=0.25)
    assert ended
    assert [(step.record.terminated, step.record.truncated) for step in short.steps] == [
        (False, False),
        (False, False),
        (False, True),
    ]
    assert short.steps[-1].final_observation is observation.arrays
    assert [(episode.steps, episode.collided) for episode in short.recorder.episodes] == [(3, False)]


def test_a_collision_in_the_last_step_terminates_instead_of_truncating(short: Recording) -> None:
    for _ in range(3):
        short.tick()
    short.look(contact=True)
    record = short.steps[-1].record
    assert (record.terminated, record.truncated) == (True, False)
    assert short.recorder.episodes[0].collided


def test_sequence_goes_on_while_index_starts_again_with_each_episode(short: Recording) -> None:
    for _ in range(2):
        for _ in range(3):
            short.tick()
        short.look()
    short.tick()
    short.look(contact=True)
    records = [step.record for step in short.steps]
    assert [record.sequence for record in records] == list(range(7))
    assert [record.index for record in records] == [0, 1, 2, 0, 1, 2, 0]
    assert [record.episode for record in records] == [0, 0, 0, 1, 1, 1, 2]
    assert [episode.steps for episode in short.recorder.episodes] == [3, 3, 1]


def test_the_first_look_of_an_episode_is_the_outcome_of_nothing(recording: Recording) -> None:
    recording.tick()
    recording.look(contact=True)
    _, ended = recording.look(contact=True)
    assert not ended
    assert len(recording.steps) == 1


def test_previous_command_is_the_last_one_done_in_this_episode(recording: Recording) -> None:
    recording.tick(proposed=(0.6, 0.1), done=(0.3, 0.1))
    recording.tick(proposed=(0.5, 0.2))
    recording.look(contact=True)
    recording.tick(proposed=(0.4, 0.3))
    recording.look()
    records = [step.record for step in recording.steps]
    assert [record.previous_command for record in records] == [(0.0, 0.0), (0.3, 0.1), (0.0, 0.0)]
    assert [record.action.values for record in records] == [(0.6, 0.1), (0.5, 0.2), (0.4, 0.3)]
    assert [record.command.values for record in records] == [(0.3, 0.1), (0.5, 0.2), (0.4, 0.3)]


def test_interventions_are_marked_at_start_while_they_last_and_after_the_stop(recording: Recording) -> None:
    sources: list[Source] = ["policy", "human", "human", "human", "policy", "policy", "human", "policy"]
    for source in sources:
        recording.tick(source=source)
    recording.look()
    assert [step.record.intervention for step in recording.steps] == [
        *("", "start", "hold", "hold", "stop", "", "start", "stop")
    ]


def test_an_intervention_starts_anew_in_a_new_episode(recording: Recording) -> None:
    recording.tick(source="human")
    recording.tick(source="human")
    recording.look(contact=True)
    recording.tick(source="human")
    recording.look()
    assert [step.record.intervention for step in recording.steps] == ["start", "hold", "start"]


def test_a_scripted_teacher_is_no_intervention(recording: Recording) -> None:
    recording.tick(source="scripted")
    recording.tick(source="policy")
    recording.look()
    assert [step.record.intervention for step in recording.steps] == ["", ""]


def test_the_summary_adds_up_score_forward_distance_and_gated_steps(short: Recording) -> None:
    short.tick(reasons=("limits",))
    short.tick(linear=0.6, reasons=("distance",))
    short.tick(linear=-0.1, reasons=("disturbed", "limits"))
    short.look(linear=0.5, distance=0.4)
    (episode,) = short.recorder.episodes
    # 10 Hz: 0.06 m + 0 (backwards does not count) + 0.05 m
    assert episode.distance_m == pytest.approx(0.11, abs=1e-6)
    # 1.2 - 0.2 + 1.0 - 1 (near) - 3 * 0.01
    assert episode.score == pytest.approx(0.97, abs=1e-6)
    assert episode.gated == 1
    assert episode.score == pytest.approx(math.fsum(step.record.reward for step in short.steps), abs=1e-9)


@pytest.mark.parametrize("reason", ["distance", "contact", "stale", "not-finite", "bad-observation"])
def test_stops_for_lack_of_room_or_data_count_as_gated(short: Recording, reason: str) -> None:
    for _ in range(3):
        short.tick(reasons=("disturbed", reason))
    short.look()
    assert short.recorder.episodes[0].gated == 3


def test_the_next_episode_keeps_its_own_score(short: Recording) -> None:
    for _ in range(2):
        for _ in range(3):
            short.tick(linear=0.5)
        short.look(linear=0.5)
    first, second = short.recorder.episodes
    assert first == second


def test_a_collision_is_priced_where_the_profile_prices_it(mini: RobotProfile) -> None:
    recording = Recording(msgspec.structs.replace(mini, reward={"collision": -80.0}))
    recording.tick()
    recording.tick()
    recording.look(contact=True)
    assert [step.record.reward for step in recording.steps] == [0.0, -80.0]


def test_a_record_says_who_when_and_with_which_profile(recording: Recording, mini: RobotProfile) -> None:
    before_s = time.time()
    recording.tick()
    recording.tick()
    recording.look()
    record = recording.steps[1].record
    assert (record.robot, record.boot, record.profile_digest) == ("r0", "b0", mini.digest)
    assert record.stamps == Stamps(100, 110, 120)
    assert before_s <= record.wall_clock_s <= time.time()
    assert not record.gap


def test_a_recorder_without_a_receiver_still_keeps_score(mini: RobotProfile) -> None:
    recording = Recording(mini)
    recording.recorder = Recorder(mini, "r0", "b0")
    recording.tick()
    recording.look(linear=0.5, contact=True)
    assert recording.steps == []
    assert recording.recorder.episodes[0].score == pytest.approx(0.99, abs=1e-6)
