"""Where and how urgently the robot's program runs: on the big cores, in real time, without long pauses for garbage.

Threads inherit the cores of the thread that starts them, and libraries start threads when they are imported: pin first.
They do not inherit real-time priority, on purpose: of a robot's threads only the control loop and the one that asks
the policy for it (`runtime.inference`) have a deadline; spool, camera codec, and trials of new versions have none.
"""

from __future__ import annotations

import gc
import logging
import os
from pathlib import Path

from policyloop.errors import ConfigError

__all__ = ["big_cores", "freeze_garbage", "pin_to_big_cores", "schedule", "set_real_time"]

log = logging.getLogger(__name__)

_CPUS = Path("/sys/devices/system/cpu")
_MEASURES = ("cpu_capacity", "cpufreq/cpuinfo_max_freq")
_BIG_SHARE = 0.85
"""Of the largest core's capacity or frequency: big cores of one chip differ by some percent (an RK3588's are sorted at
the factory), little ones are at most 0.82 of them in frequency (RK3588: 1.8 of 2.2 GHz) and about half in capacity."""


def schedule(*, on_big_cores: bool, priority: int) -> None:
    """Give this thread its cores and its priority; see `pin_to_big_cores` and `set_real_time`."""
    if on_big_cores:
        pin_to_big_cores()
    if priority:
        set_real_time(priority)


def big_cores(allowed: set[int], cpus: Path = _CPUS) -> set[int]:
    """Return the big ones of the cores `allowed`; empty where they are alike or the kernel does not say."""
    for measure in _MEASURES:
        sizes = {core: _number(cpus / f"cpu{core}" / measure) for core in allowed}
        big = {core for core, size in sizes.items() if size and size >= _BIG_SHARE * max(sizes.values())}
        if 0 < len(big) < len(allowed) and all(sizes.values()):
            return big
    return set()


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def pin_to_big_cores(cpus: Path = _CPUS) -> set[int]:
    """Keep this thread, and those that it will start, on the big cores; returns them, empty = nothing was done.

    Raises:
        ConfigError: The system refuses.
    """
    big = big_cores(os.sched_getaffinity(0), cpus)
    if not big:
        log.info("no cores are bigger than others: the program may use all of them")
        return big
    try:
        os.sched_setaffinity(0, big)
    except OSError as error:
        raise ConfigError(
            f"cannot run on the big cores {sorted(big)}: {error.strerror}", "leave --big-cores out"
        ) from error
    log.info("runs on the big cores %s", sorted(big))
    return big


def set_real_time(priority: int) -> None:
    """Put this thread before everything that is not real-time; the threads and processes that it starts stay ordinary.

    Args:
        priority: Of SCHED_FIFO, 1 to 99.

    Raises:
        ConfigError: The system does not permit it.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError as error:
        raise ConfigError(
            f"real-time priority {priority} is refused: {error.strerror}",
            f"give the service LimitRTPRIO={priority} (systemd/policyloop-run.service does) or CAP_SYS_NICE, "
            "or leave --real-time out",
        ) from error


def freeze_garbage() -> None:
    """Exempt all that is there from garbage collection; `gc.unfreeze` undoes it.

    The collector looks at everything now and then, modules included, in the middle of some tick.
    """
    gc.collect()
    gc.freeze()
