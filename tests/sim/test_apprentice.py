from __future__ import annotations

import numpy as np
from tests.sim.test_assistance import Recorded

from policyloop.core.step import Action, Command, Observation
from policyloop.sim.apprentice import Apprentice

SEEN = Observation({"proprio": np.zeros(6, np.float32)}, 0)


def test_what_the_teacher_proposes_is_recorded_and_what_the_pupil_proposes_is_driven() -> None:
    pupil, teacher = Recorded("policy"), Recorded("scripted")
    pupil.propose = lambda observation: Action((0.3, -1.0), "policy")  # type: ignore[method-assign]
    apprentice = Apprentice(pupil, teacher)
    action = apprentice.propose(SEEN)
    assert action == Action((0.0, 0.0), "scripted")
    assert apprentice(action) == (0.3, -1.0)


def test_both_are_told_what_was_done_and_when_an_episode_begins() -> None:
    pupil, teacher = Recorded("policy"), Recorded("scripted")
    apprentice = Apprentice(pupil, teacher)
    done = Command((0.1, 0.2))
    apprentice.executed(done)
    apprentice.reset()
    assert pupil.commands == teacher.commands == [done]
    assert pupil.resets == teacher.resets == 1
