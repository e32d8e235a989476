from __future__ import annotations

import numpy as np

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Command, Observation, Source
from policyloop.sim.assistance import AssistedDriver


class Recorded:
    """Proposes always the same and keeps what it was told."""

    def __init__(self, source: Source) -> None:
        self.source: Source = source
        self.seen = self.resets = 0
        self.commands: list[Command] = []

    def propose(self, observation: Observation) -> Action:
        self.seen += 1
        return Action((0.0, 0.0), self.source)

    def executed(self, command: Command) -> None:
        self.commands.append(command)

    def reset(self) -> None:
        self.resets += 1


def moving(linear_mps: float, angular_radps: float = 0.0) -> Observation:
    return Observation({"proprio": np.array([linear_mps, angular_radps, 0, 0, 9.81, 2], np.float32)}, 0)


def sources(driver: AssistedDriver, observation: Observation, ticks: int) -> str:
    return "".join(driver.propose(observation).source[0] for _ in range(ticks))


def test_the_teacher_takes_over_after_a_second_of_idling_for_two_and_a_half(mini: RobotProfile) -> None:
    driver = AssistedDriver(Recorded("policy"), Recorded("scripted"), mini)
    assert sources(driver, moving(0.0), 60) == (2 * ("p" * 9 + "s" * 25))[:60]
    assert driver.interventions == 2


def test_the_teacher_stays_even_when_the_robot_moves_again(mini: RobotProfile) -> None:
    driver = AssistedDriver(Recorded("policy"), Recorded("scripted"), mini)
    assert sources(driver, moving(0.0), 10)[-1] == "s"
    assert sources(driver, moving(0.5), 30) == "s" * 24 + "p" * 6


def test_a_robot_that_drives_or_turns_is_left_alone(mini: RobotProfile) -> None:
    driver = AssistedDriver(Recorded("policy"), Recorded("scripted"), mini)
    assert sources(driver, moving(0.2), 30) == sources(driver, moving(0.0, 0.5), 30) == "p" * 30
    assert sources(driver, moving(0.0), 9) == "p" * 9
    assert sources(driver, moving(0.2), 1) == "p"
    assert sources(driver, moving(0.0), 9) == "p" * 9
    assert driver.interventions == 0


def test_the_teacher_looks_on_while_the_pupil_drives(mini: RobotProfile) -> None:
    pupil, teacher = Recorded("policy"), Recorded("scripted")
    driver = AssistedDriver(pupil, teacher, mini)
    sources(driver, moving(0.3), 5)
    driver.executed(Command((0.1, 0.2)))
    driver.reset()
    assert (teacher.seen, pupil.seen) == (5, 5)
    assert pupil.commands == teacher.commands == [Command((0.1, 0.2))]
    assert pupil.resets == teacher.resets == 1


def test_a_new_episode_begins_with_the_pupil(mini: RobotProfile) -> None:
    driver = AssistedDriver(Recorded("policy"), Recorded("scripted"), mini)
    assert sources(driver, moving(0.0), 12)[-1] == "s"
    driver.reset()
    assert sources(driver, moving(0.0), 9) == "p" * 9
