"""What the learner's settings say of a training."""

from __future__ import annotations

import pytest

from policyloop.learn.settings import LearnerSettings


@pytest.mark.parametrize(
    ("total_updates", "time_budget_s", "share"),
    [(0, 0.0, 0.0), (10, 0.0, 0.3), (0, 100.0, 0.4), (10, 100.0, 0.4), (4, 100.0, 0.75), (2, 0.0, 1.0)],
)
def test_the_plan_that_ends_first_says_how_much_is_done(total_updates: int, time_budget_s: float, share: float) -> None:
    settings = LearnerSettings(total_updates=total_updates, time_budget_s=time_budget_s)
    assert settings.share_done(3, elapsed_s=40.0) == pytest.approx(share)
