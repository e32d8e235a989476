"""The loop: a scripted driver records, the learner clones it, the clone drives, PPO improves it, each policy ships.

Everything runs as separate processes over real sockets, just as with a real robot; the robots are
simulated and run as fast as the cores allow.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from policyloop.bundle.store import Store
from policyloop.demo.processes import Crew
from policyloop.errors import ConnectionFailed, PolicyloopError, StorageError, UsageError
from policyloop.evaluate import EVALUATION_ARENAS, EvaluationReport
from policyloop.promotion import merit

__all__ = ["DemoResult", "DemoSettings", "run_loop"]

_POLL_S = 0.2
_VALIDATION_ARENAS = 5000
"""Arenas on which the policy to keep is chosen; neither training's nor the final ones."""

_REPORT_SHARE_S = 110.0
"""What evaluation and report take of the time on two cores."""

Report = Callable[[str, float, float, str], None]
"""Called with (phase, done, total, note)."""


class DemoSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo does."""

    out: Path
    minutes: float = 10.0
    seed: int = 0
    profile: str = "rover-mini"
    demonstrations: int = 4000
    """Steps that the scripted driver records; 0 = learn from nothing."""
    episodes: int = 50
    robot_processes: int = 2
    robots_per_process: int = 8
    resume: bool = False


class DemoResult(msgspec.Struct, kw_only=True):
    """`report.json`."""

    seed: int
    minutes: float
    machine: str
    drivers: dict[str, EvaluationReport]
    clone: str
    best: str
    progress: list[dict[str, Any]]
    swaps: int
    phases_s: dict[str, float]


_FROM_A_CLONE = """update_interval = 2048
checkpoint_interval = 10

[ppo]
learning_rate = 7e-4
minibatch = 128
gamma = 0.95            # looks two seconds ahead: enough to turn away, little enough to learn in minutes
desired_kl = 0.02
entropy_weight = 0.0
initial_log_std = -1.3  # wide enough for a clone that bumps into things to find out
final_log_std = -1.6

[reward]
collision = -200.0      # with a short horizon dying would be cheaper otherwise

[bc]
mirror = false  # the teacher turns left on the spot; a mirror would teach both sides, and their mean
"""

_FROM_NOTHING = """update_interval = 2048
checkpoint_interval = 10

[ppo]
learning_rate = 7e-4
minibatch = 128
gamma = 0.95
desired_kl = 0.02
critic_warmup_updates = 1
entropy_weight = 0.0
initial_log_std = -0.5
final_log_std = -1.4

[reward]
collision = -200.0      # with a short horizon dying would be cheaper otherwise
"""


def _learner_settings(demonstrations: int) -> str:
    """Return the demo's learner settings as TOML; docs/benchmarks.md says how they were found."""
    return f"""learner = "ppo"
demonstrations = {demonstrations}
stop_and_go = true
threads = {max(1, min(4, os.cpu_count() or 1))}
{_FROM_A_CLONE if demonstrations else _FROM_NOTHING}"""


class _Phases:
    """Names the phase that runs and keeps its time."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.seconds: dict[str, float] = {}
        self._name, self._since = "", time.monotonic()

    def tell(self, name: str, done: float, total: float, note: str = "") -> None:
        now = time.monotonic()
        if self._name:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
        self._name, self._since = name, now
        self._report(name, done, total, note)


def run_loop(settings: DemoSettings, stop: threading.Event, report: Report) -> DemoResult:
    """Run the demo and return its result.

    Raises:
        UsageError: The output folder is in use and `resume` is not asked for.
        PolicyloopError: A process failed; its last words are in the message.
        KeyboardInterrupt: `stop` was set.
    """
    out = settings.out
    if not settings.resume and any((out / name).exists() for name in ("journal", "checkpoints", "report.json")):
        raise UsageError(f"{out} already holds a demo", "add --resume to go on, or choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "learner.toml").write_text(_learner_settings(settings.demonstrations))
    except OSError as error:
        raise StorageError(f"cannot write to {out}: {error.strerror}", "choose another --out") from error
    phases = _Phases(report)
    with Crew(out / "logs") as crew:
        _learn(settings, crew, stop, phases)
    clone, best = _choose(settings, stop, phases)
    drivers = _evaluate(settings, clone, best, stop, phases)
    phases.tell("report", 0, 1)
    return DemoResult(
        seed=settings.seed,
        minutes=settings.minutes,
        machine=f"{os.cpu_count()} cores",
        drivers=drivers,
        clone=str(clone.relative_to(out)),
        best=str(best.relative_to(out)),
        progress=_progress(out),
        swaps=_swaps(out),
        phases_s=phases.seconds,
    )


def _check(stop: threading.Event) -> None:
    if stop.wait(_POLL_S):
        raise KeyboardInterrupt


def _learn(settings: DemoSettings, crew: Crew, stop: threading.Event, phases: _Phases) -> None:
    """Record, clone, and improve until the time is up."""
    out = settings.out
    phases.tell("starting the trainer", 0, 1)
    log = out / "logs" / "trainer.log"
    before = log.stat().st_size if log.exists() else 0
    minutes = max(0.2, settings.minutes - _REPORT_SHARE_S / 60)
    crew.start("trainer", [*_trainer_command(settings), "--minutes", f"{minutes:.3f}"])
    address = _listening(crew, log, before, stop)
    robots = [f"robots-{index}" for index in range(settings.robot_processes)]
    if settings.demonstrations and Store(out / "store").current is None:
        for index, name in enumerate(robots):
            steps = settings.demonstrations // settings.robot_processes + settings.robots_per_process
            crew.start(name, [*_robot_command(settings, index, address), "--driver", "scripted", "--steps", str(steps)])
        _wait(crew, lambda: any([crew.running(name) for name in robots]), settings, stop, phases)
        crew.stop(*robots)
    _wait(crew, lambda: Store(out / "store").current is None, settings, stop, phases)
    for index, name in enumerate(robots):
        crew.start(name, [*_robot_command(settings, index, address), *_pupil(settings)])
    _wait(crew, lambda: all([crew.running(name) for name in robots]), settings, stop, phases)
    crew.stop(*robots)


def _trainer_command(settings: DemoSettings) -> list[str]:
    out = settings.out
    command = ["train", "--profile", settings.profile, "--port", "0", "--seed", str(settings.seed)]
    for option, folder in (("journal", "journal"), ("checkpoint-dir", "checkpoints"), ("tensorboard-dir", "runs")):
        command += [f"--{option}", str(out / folder)]
    command += ["--store", str(out / "store"), "--settings", str(out / "learner.toml")]
    return [*command, "--resume"] if settings.resume else command


def _robot_command(settings: DemoSettings, index: int, address: str) -> list[str]:
    return [
        *("sim", "--profile", settings.profile, "--connect", address),
        *("--robots", str(settings.robots_per_process), "--name", f"rover-{index}"),
        *("--seed", str(1000 * settings.seed + index), "--spool", str(settings.out / "spool")),
        *("--gate", "limits"),
    ]


def _pupil(settings: DemoSettings) -> list[str]:
    """Return the options of robots that learn; one of each process has a teacher at its side."""
    assisted = ["--assisted", "1"] if settings.demonstrations else []
    return ["--driver", str(settings.out / "store"), *assisted]


def _listening(crew: Crew, log: Path, skip: int, stop: threading.Event) -> str:
    """Return the address that the trainer says it listens at."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s and crew.running("trainer"):
        text = log.read_bytes()[skip:].decode(errors="replace") if log.exists() else ""
        if "listening at " in text:
            return text.split("listening at ", 1)[1].split()[0].rstrip(",")
        _check(stop)
    raise ConnectionFailed("the trainer does not start", f"see {log}")


def _wait(
    crew: Crew, pending: Callable[[], bool], settings: DemoSettings, stop: threading.Event, phases: _Phases
) -> None:
    """Wait while `pending` and the trainer runs, and say how far it is."""
    started_s = time.monotonic()
    while crew.running("trainer") and pending():
        _check(stop)
        lines = _progress(settings.out)
        newest = lines[-1] if lines else {}
        if newest.get("update"):
            note = f"update {newest['update']}, policy {newest['version']}, return {newest.get('episode_score', 0):.0f}"
            total = settings.minutes * 60 - _REPORT_SHARE_S
            phases.tell("improving by PPO", newest["elapsed_s"], total, note)
        elif Store(settings.out / "store").current is not None:
            phases.tell("driving the clone" if settings.demonstrations else "driving untrained", 0, 1)
        elif settings.demonstrations:
            phases.tell("recording and cloning", time.monotonic() - started_s, 60)


def _progress(out: Path) -> list[dict[str, Any]]:
    path = out / "runs" / "progress.jsonl"
    if not path.exists():
        return []
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines() if line.endswith(b"}")]


def _swaps(out: Path) -> int:
    """Count the policies that drove, from what the learner trained on."""
    return max((int(line.get("version", 0)) for line in _progress(out)), default=0)


def _checkpoints(out: Path) -> list[Path]:
    return sorted((out / "checkpoints").glob("[0-9]*"))


def _choose(settings: DemoSettings, stop: threading.Event, phases: _Phases) -> tuple[Path, Path]:
    """Return the first policy and the best of the newest ones, by driving validation arenas.

    They are ranked as `policyloop promote` ranks. Who stands first is shown even if it is not clearly better than the
    clone: a demo shows what was learned.
    """
    checkpoints = _checkpoints(settings.out)
    if not checkpoints:
        raise PolicyloopError("the trainer left no checkpoint", "give it more --minutes")
    candidates = checkpoints[-6:]
    jobs = {
        path.name: [str(path), "--episodes", "32", "--arena-seed", str(_VALIDATION_ARENAS), "--gate", "limits"]
        for path in candidates
    }
    reports = dict(_evaluations(settings, jobs, stop, lambda done: phases.tell("choosing", done, len(jobs))))
    found = {name: merit(report.return_mean, report.collision_rate) for name, report in reports.items()}
    best = max(candidates, key=lambda path: found[path.name])
    shutil.rmtree(settings.out / "best", ignore_errors=True)
    shutil.copytree(best / "bundle", settings.out / "best")
    return checkpoints[0] / "bundle", settings.out / "best"


def _evaluate(
    settings: DemoSettings, clone: Path, best: Path, stop: threading.Event, phases: _Phases
) -> dict[str, EvaluationReport]:
    """Let all drivers meet the same unseen arenas."""
    first = "clone" if settings.demonstrations else "untrained"
    names = {
        "scripted": ("scripted", "limits"),
        "random": ("random", "limits"),
        first: (str(clone), "limits"),
        "learned": (str(best), "limits"),
        f"{first} + gate": (str(clone), "full"),
        "learned + gate": (str(best), "full"),
    }
    jobs = {
        name: [driver, "--episodes", str(settings.episodes), "--arena-seed", str(EVALUATION_ARENAS), "--gate", gate]
        for name, (driver, gate) in names.items()
    }
    reports = dict(_evaluations(settings, jobs, stop, lambda done: phases.tell("evaluating", done, len(jobs))))
    return {name: msgspec.structs.replace(reports[name], driver=name) for name in names}


def _evaluations(
    settings: DemoSettings, jobs: dict[str, list[str]], stop: threading.Event, progress: Callable[[int], None]
) -> Iterator[tuple[str, EvaluationReport]]:
    """Run `policyloop evaluate` for each job, one per core at a time."""
    logs = settings.out / "logs"
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        futures = {name: pool.submit(_evaluation, settings, arguments, stop) for name, arguments in jobs.items()}
        while not all(future.done() for future in futures.values()):
            progress(sum(future.done() for future in futures.values()))
            if stop.wait(_POLL_S):
                raise KeyboardInterrupt
    for name, future in futures.items():
        report = future.result()
        (logs / f"evaluate-{name.replace(' ', '')}.json").write_bytes(msgspec.json.encode(report))
        yield name, report


def _evaluation(settings: DemoSettings, arguments: list[str], stop: threading.Event) -> EvaluationReport:
    """Run one evaluation in a process of its own."""
    name = f"evaluate-{threading.get_ident()}"
    with Crew(settings.out / "logs") as crew:
        log = settings.out / "logs" / f"{name}.log"
        log.unlink(missing_ok=True)
        crew.start(name, ["evaluate", *arguments, "--profile", settings.profile, "--json"])
        while crew.running(name):
            if stop.wait(_POLL_S):
                raise KeyboardInterrupt
        report = msgspec.json.decode(log.read_bytes(), type=EvaluationReport)
        log.unlink()
    return report
