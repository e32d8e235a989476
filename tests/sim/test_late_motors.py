from __future__ import annotations

import itertools

import numpy as np
import pytest

from policyloop.core.step import Command, TimedCommand
from policyloop.sim.late_motors import LateMotors

MS = 1_000_000
STOP = Command((0.0, 0.0))
GO = Command((0.5, 0.1))


def motors(latency_ms: int = 0, jitter_ms: int = 0, seed: int = 0) -> LateMotors:
    return LateMotors(STOP, latency_ms * MS, jitter_ms * MS, np.random.default_rng(seed))


def order(sequence: int = 1, valid_until_ms: int = 200, command: Command = GO) -> TimedCommand:
    return TimedCommand(command, sequence, valid_until_ms * MS)


def test_without_delay_they_are_a_latch() -> None:
    prompt = motors()
    assert prompt.accept(order(), 0)
    assert prompt.command(0) == GO
    assert prompt.command(199 * MS) == GO
    assert prompt.command(200 * MS) == STOP
    assert not prompt.accept(order(1, 300), 100 * MS)  # no newer than the first
    assert not prompt.accept(order(2, 150), 160 * MS)  # too late


def test_a_command_is_obeyed_from_its_arrival_to_the_end_of_its_validity() -> None:
    late = motors(latency_ms=30)
    assert late.accept(order(), 0)
    obeyed = [late.command(ms * MS) == GO for ms in range(210)]
    assert obeyed == [False] * 30 + [True] * 170 + [False] * 10


@pytest.mark.parametrize("latency_ms", [200, 250])
def test_a_command_that_arrives_after_its_validity_is_never_obeyed(latency_ms: int) -> None:
    late = motors(latency_ms)
    late.accept(order(), 0)
    assert all(late.command(ms * MS) == STOP for ms in range(400))


def arrivals_ms(late: LateMotors, commands: int = 40, every_ms: int = 10) -> dict[float, int]:
    """Send commands 0, 1, 2, ...; return when each was first obeyed."""
    found: dict[float, int] = {}
    for ms in range(commands * every_ms + 100):
        if ms % every_ms == 0 and ms < commands * every_ms:
            late.accept(order(1 + ms // every_ms, ms + 300, Command((float(ms // every_ms), 0.1))), ms * MS)
        now = late.command(ms * MS)
        if now != STOP:
            found.setdefault(now.values[0], ms)
    return found


def test_jitter_delays_each_command_by_another_amount_within_its_range() -> None:
    delays = [ms - 100 * number for number, ms in arrivals_ms(motors(20, 30), every_ms=100).items()]
    assert len(delays) == 40
    assert 20 <= min(delays) < 25
    assert 45 < max(delays) <= 51  # looked at once in a millisecond


def test_no_command_overtakes_another() -> None:
    found = arrivals_ms(motors(20, 60))
    assert list(found) == sorted(found)
    assert all(one <= other for one, other in itertools.pairwise(found.values()))


def test_equal_seeds_give_equal_delays() -> None:
    first, second, other = (arrivals_ms(motors(20, 60, seed)) for seed in (1, 1, 2))
    assert first == second != other
