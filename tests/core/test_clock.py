import time

from policyloop.core.clock import MonotonicClock, VirtualClock


def test_virtual_time_stands_still_until_somebody_sleeps():
    clock = VirtualClock(start_ns=7)
    assert [clock.now_ns(), clock.now_ns()] == [7, 7]
    clock.sleep_until_ns(1_000)
    assert clock.now_ns() == 1_000


def test_virtual_time_never_runs_backwards():
    clock = VirtualClock(start_ns=500)
    clock.sleep_until_ns(499)
    assert clock.now_ns() == 500


def test_advance_adds_to_virtual_time():
    clock = VirtualClock()
    clock.advance_ns(30)
    clock.advance_ns(12)
    assert clock.now_ns() == 42


def test_an_hour_of_virtual_time_costs_no_real_time():
    clock = VirtualClock()
    started_s = time.monotonic()
    for tick in range(1, 36_001):
        clock.sleep_until_ns(tick * 100_000_000)
    assert clock.now_ns() == 3600 * 10**9
    assert time.monotonic() - started_s < 60


def test_monotonic_clock_reads_the_system_clock():
    before_ns = time.monotonic_ns()
    now_ns = MonotonicClock().now_ns()
    assert before_ns <= now_ns <= time.monotonic_ns()


def test_monotonic_sleep_ends_after_the_deadline():
    clock = MonotonicClock()
    deadline_ns = clock.now_ns() + 5_000_000
    clock.sleep_until_ns(deadline_ns)
    assert clock.now_ns() >= deadline_ns


def test_monotonic_sleep_until_the_past_returns_at_once():
    clock = MonotonicClock()
    started_ns = clock.now_ns()
    clock.sleep_until_ns(started_ns - 3600 * 10**9)
    assert clock.now_ns() - started_ns < 60 * 10**9
