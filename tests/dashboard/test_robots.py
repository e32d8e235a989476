from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Command, Stamps, Step, TrainerClock
from policyloop.dashboard import robots as robots_module
from policyloop.dashboard.robots import Percentiles, Robots, percentiles
from policyloop.dashboard.tail import Seen


@pytest.fixture
def seen(mini: RobotProfile, make_step: Callable[..., Step]) -> Callable[..., Seen]:
    """Return `seen(sequence, live=True, **record)`: a step that has just been heard."""

    def make(sequence: int = 0, *, live: bool = True, behind_s: float | None = None, **changes: Any) -> Seen:
        record = make_step(mini, sequence, **changes).record
        if behind_s is not None:
            offset_ns = time.time_ns() - record.stamps.captured_ns - round(behind_s * 1e9)
            record = msgspec.structs.replace(record, trainer_clock=TrainerClock(offset_ns, 1000))
        return Seen(sequence, record, [], time.monotonic(), time.time_ns(), live)

    return make


def shown(robots: Robots, name: str = "r0", newest: int | None = None) -> Any:
    view = robots.find(name)
    assert view is not None
    return view.shown(newest)


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    assert percentiles([float(i) for i in range(100, 0, -1)]) == Percentiles(51.0, 96.0, 100.0)
    assert percentiles([7.0]) == Percentiles(7.0, 7.0, 7.0)


def test_latencies_are_those_of_the_stamps(seen: Callable[..., Seen]) -> None:
    robots = Robots()
    robots.take([seen(0, stamps=Stamps(10_000_000, 15_000_000, 22_000_000), behind_s=0.05)])
    latency = shown(robots).latency
    assert (latency["inferred"].p50, latency["acted"].p99) == (5.0, 12.0)
    assert 50 <= latency["stored"].p50 < 60


def test_a_clock_that_was_never_compared_tells_no_latency_to_here(seen: Callable[..., Seen]) -> None:
    robots = Robots()
    robots.take([seen(0)])
    assert "stored" not in shown(robots).latency
    assert shown(robots).behind_s is None


def test_a_spool_that_drains_is_seen_as_behind(seen: Callable[..., Seen]) -> None:
    robots = Robots()
    robots.take([seen(0, behind_s=30.0), seen(1, behind_s=30.0)])
    assert shown(robots).behind_s == pytest.approx(30, abs=0.5)
    assert shown(robots).waiting == pytest.approx(300, abs=5)  # the profile records 10 a second


def test_the_clock_of_a_simulation_is_not_believed(seen: Callable[..., Seen]) -> None:
    robots = Robots()
    robots.take([seen(0, behind_s=20_000.0, wall_clock_s=time.time())])
    assert shown(robots).behind_s is None


def test_gaps_are_counted_within_one_start(seen: Callable[..., Seen]) -> None:
    robots = Robots()
    robots.take([seen(4), seen(5), seen(9), seen(10, gap=True), seen(0, boot="b1")])
    assert (shown(robots).gaps, shown(robots).missing, shown(robots).steps) == (2, 3, 5)


def test_what_the_gate_says_is_told_as_runs_newest_first(seen: Callable[..., Seen]) -> None:
    robots = Robots()
    commands = [(), ("slew",), ("slew",), ("slew", "distance")]
    robots.take(seen(i, command=Command((0.0, 0.0), reasons)) for i, reasons in enumerate(commands))
    events = shown(robots).events
    assert [(event.reasons, event.steps) for event in events] == [(("slew", "distance"), 1), (("slew",), 2), ((), 1)]
    assert all(0 <= event.age_s < 5 for event in events)
    assert shown(robots).shares == {"slew": 0.75, "distance": 0.25}


def test_reasons_that_a_robot_makes_up_take_no_memory(seen: Callable[..., Seen]) -> None:
    robots = Robots()
    robots.take(seen(i, command=Command((0.0, 0.0), (f"{i:03}" + 100 * "x",))) for i in range(100))
    view = robots.find("r0")
    assert view is not None
    assert len(view.reasons) <= 33
    assert view.reasons["other"] == 68
    assert all(len(reason) <= 40 for reason in view.reasons)


def test_names_that_come_from_the_network_take_no_memory(
    seen: Callable[..., Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robots_module, "MAX_ROBOTS", 3)
    robots = Robots()
    robots.take(seen(i, robot=f"r{i}") for i in range(5))
    assert [view.name for view in robots.views] == ["r2", "r3", "r4"]  # those that were heard last


def test_the_return_is_that_of_the_episode(seen: Callable[..., Seen]) -> None:
    robots = Robots()
    steps = [seen(i, index=i % 3, reward_terms={"a": 1.0, "b": 0.5}) for i in range(5)]
    robots.take(steps)
    assert shown(robots).score == 3.0  # two steps of the second episode


def test_versions_behind_need_a_learner_that_has_shipped(seen: Callable[..., Seen]) -> None:
    robots = Robots()
    robots.take([seen(0)])
    assert [shown(robots, newest=version).versions_behind for version in (None, 1, 4)] == [None, 0, 3]
    robots.take([seen(1, source="human")])
    assert shown(robots, newest=4).versions_behind is None


def test_steps_that_were_there_before_are_as_old_as_they_are(seen: Callable[..., Seen]) -> None:
    robots = Robots()
    robots.take([seen(0, live=False, wall_clock_s=time.time() - 120)])
    assert shown(robots).age_s == pytest.approx(120, abs=2)
    assert shown(robots).rate_hz == 0


def test_the_trail_is_what_came_since(seen: Callable[..., Seen]) -> None:
    robots = Robots()
    robots.take(seen(i) for i in range(4))
    view = robots.find("r0")
    assert view is not None
    assert [point.position for point in view.trail(1)] == [2, 3]
    assert view.trail(1)[0].action == seen(2).record.action.values


def test_the_share_of_the_policy_counts_drawn_steps_only(seen: Callable[..., Seen]) -> None:
    robots = Robots()
    assert robots.policy_share == 0
    robots.take([seen(0), seen(1), seen(2, source="human"), seen(3, source="scripted")])
    assert robots.policy_share == 0.5
