from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policyloop.errors import ConfigError
from policyloop.robot import scheduling
from policyloop.robot.scheduling import big_cores, freeze_garbage, pin_to_big_cores, schedule, set_real_time
from policyloop.runtime.inference import InferenceThread

ALL = set(range(8))
FIFO = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK


@pytest.fixture
def make_cpus(tmp_path: Path) -> Callable[..., Path]:
    """Return `make_cpus(cpu_capacity=[...], frequency_khz=[...])`: the kernel's files about its cores."""

    def make(**measures: list[int]) -> Path:
        for name, file in (("cpu_capacity", "cpu_capacity"), ("frequency_khz", "cpufreq/cpuinfo_max_freq")):
            for core, number in enumerate(measures.get(name, [])):
                path = tmp_path / f"cpu{core}" / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{number}\n")
        return tmp_path

    return make


def in_a_thread(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in a thread that ends with it: cores and priority are a thread's own."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]


def test_the_big_cores_of_an_rk3588_are_its_last_four(make_cpus: Callable[..., Path]) -> None:
    assert big_cores(ALL, make_cpus(cpu_capacity=[530] * 4 + [1024] * 4)) == {4, 5, 6, 7}


def test_big_cores_may_differ_by_some_percent(make_cpus: Callable[..., Path]) -> None:
    assert big_cores(ALL, make_cpus(cpu_capacity=[430] * 4 + [1024, 1024, 963, 963])) == {4, 5, 6, 7}


def test_without_capacities_the_frequencies_count(make_cpus: Callable[..., Path]) -> None:
    cpus = make_cpus(frequency_khz=[1_800_000] * 4 + [2_256_000, 2_256_000, 2_400_000, 2_400_000])
    assert big_cores(ALL, cpus) == {4, 5, 6, 7}


def test_equal_capacities_leave_it_to_the_frequencies(make_cpus: Callable[..., Path]) -> None:
    cpus = make_cpus(cpu_capacity=[1024] * 4, frequency_khz=[3_900_000, 3_900_000, 5_200_000, 5_000_000])
    assert big_cores({0, 1, 2, 3}, cpus) == {2, 3}


@pytest.mark.parametrize("measures", [{}, {"cpu_capacity": [1024] * 8}, {"frequency_khz": [2_000_000] * 8}])
def test_cores_that_are_alike_or_unknown_are_no_choice(
    measures: dict[str, list[int]], make_cpus: Callable[..., Path]
) -> None:
    assert big_cores(ALL, make_cpus(**measures)) == set()


def test_a_core_that_nothing_is_known_about_makes_no_choice(make_cpus: Callable[..., Path]) -> None:
    assert big_cores(ALL, make_cpus(cpu_capacity=[530] * 4 + [1024] * 3)) == set()


def test_only_cores_that_the_process_may_use_count(make_cpus: Callable[..., Path]) -> None:
    cpus = make_cpus(cpu_capacity=[530] * 4 + [1024] * 4)
    assert big_cores({2, 3, 4}, cpus) == {4}
    assert big_cores({0, 1}, cpus) == set()


def test_nonsense_in_the_kernels_files_is_no_choice(make_cpus: Callable[..., Path]) -> None:
    cpus = make_cpus(cpu_capacity=[530] * 4 + [1024] * 4)
    (cpus / "cpu5" / "cpu_capacity").write_text("many\n")
    assert big_cores(ALL, cpus) == set()


def test_a_pinned_thread_and_those_that_it_starts_stay_on_the_big_cores(tmp_path: Path) -> None:
    mine = os.sched_getaffinity(0)
    if len(mine) < 2:
        pytest.skip("NOT TESTED, this process may use one core only")
    big = max(mine)
    for core in mine:
        (tmp_path / f"cpu{core}").mkdir()
        (tmp_path / f"cpu{core}" / "cpu_capacity").write_text("1024" if core == big else "400")

    def pin() -> tuple[set[int], set[int], set[int]]:
        return pin_to_big_cores(tmp_path), os.sched_getaffinity(0), in_a_thread(lambda: os.sched_getaffinity(0))

    assert in_a_thread(pin) == ({big}, {big}, {big})
    assert os.sched_getaffinity(0) == mine


def test_without_a_choice_nothing_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: pytest.fail("pinned"))
    assert pin_to_big_cores(tmp_path) == set()


def test_a_system_that_refuses_to_pin_is_named(make_cpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: ALL)
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with pytest.raises(ConfigError, match=r"\[4, 5, 6, 7\]: Invalid argument"):
        pin_to_big_cores(make_cpus(cpu_capacity=[530] * 4 + [1024] * 4))


def test_a_refused_priority_says_what_to_give_to_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with pytest.raises(ConfigError, match="priority 40 is refused: Operation not permitted") as caught:
        set_real_time(40)
    assert "LimitRTPRIO=40" in caught.value.remedy
    assert "CAP_SYS_NICE" in caught.value.remedy
    assert caught.value.exit_code == 3


def test_what_nobody_asked_for_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: pytest.fail("scheduled"))
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: pytest.fail("pinned"))
    schedule(on_big_cores=False, priority=0)


def test_cores_come_before_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(scheduling, "pin_to_big_cores", lambda: calls.append("cores"))
    monkeypatch.setattr(scheduling, "set_real_time", calls.append)
    schedule(on_big_cores=True, priority=7)
    assert calls == ["cores", 7]


@pytest.fixture
def permitted() -> None:
    """Real-time priority is permitted here; the test is skipped, loudly, where it is not."""
    try:
        in_a_thread(lambda: set_real_time(1))
    except ConfigError as error:
        pytest.skip(f"NOT TESTED, {error}")


@pytest.mark.usefixtures("permitted")
def test_what_a_real_time_thread_starts_is_ordinary() -> None:
    show = "import os; print(os.sched_getscheduler(0))"

    def start() -> tuple[int, int, int, str]:
        set_real_time(3)
        child = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
        thread = in_a_thread(lambda: os.sched_getscheduler(0))
        return os.sched_getscheduler(0), os.sched_getparam(0).sched_priority, thread, child.stdout.strip()

    assert in_a_thread(start) == (FIFO, 3, os.SCHED_OTHER, str(os.SCHED_OTHER))
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


class Asked:
    """A policy that answers with the scheduling of the thread that asks it."""

    def act(self, observation: object, exploration: object = None) -> tuple[int, int]:
        return os.sched_getscheduler(0), os.sched_getparam(0).sched_priority


def ask() -> Any:
    thread = InferenceThread(20.0)
    policy: Any = Asked()
    answer: Any = thread.act(policy, policy)
    thread.close()
    return answer


@pytest.mark.usefixtures("permitted")
@pytest.mark.parametrize(("priority", "below"), [(40, 39), (1, 1)])
def test_inference_comes_right_after_the_loop_that_waits_for_it(priority: int, below: int) -> None:
    def run() -> Any:
        set_real_time(priority)
        return ask()

    assert in_a_thread(run) == (FIFO, below)


def test_inference_for_an_ordinary_thread_is_ordinary() -> None:
    assert in_a_thread(ask) == (os.SCHED_OTHER, 0)


@pytest.mark.usefixtures("permitted")
def test_inference_without_permission_goes_on_without_priority(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    def run() -> Any:
        set_real_time(2)
        monkeypatch.setattr(os, "sched_setscheduler", refuse)
        return ask()

    assert in_a_thread(run) == (os.SCHED_OTHER, 0)
    assert "inference has no real-time priority: Operation not permitted" in caplog.text


def test_frozen_garbage_is_not_looked_at_again() -> None:
    freeze_garbage()
    try:
        assert gc.get_freeze_count() > len(gc.get_objects()) / 2
    finally:
        gc.unfreeze()
    assert gc.get_freeze_count() == 0
