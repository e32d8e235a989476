"""The dashboard beside a gateway: how often the page changes, and whether the robots notice.

python bench/dashboard.py [--robots 8] [--seconds 30] [--profile rover-mini]

Robots are programs of their own (`policyloop run --io sim`, 10 Hz in real time) with a policy that was never trained.
They drive beside the gateway alone, with the dashboard and a reader that takes every frame and picture as a page on
another machine would, with a page open in Chromium on this one, and alone again. How they keep time is read from when
they captured, in the journal; who trips is armed again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import numpy as np
from machine import machine
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from policyloop.bundle.store import Store
from policyloop.convert.export import export_bundle, probe_features
from policyloop.core.profile import load_profile
from policyloop.errors import PolicyloopError
from policyloop.learn.networks import make_network
from policyloop.link.journal import Journal
from policyloop.robot.control import ask_robot

START_S = 60.0
"""At most, until every robot can be armed."""


def policyloop(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start a command."""
    command = [sys.executable, "-m", "policyloop", *map(str, arguments)]
    return subprocess.Popen(command, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, **options)


@contextmanager
def listening(*arguments: object) -> Iterator[tuple[str, int]]:
    """Run a command that says where it listens; gives that and its process id."""
    process = policyloop(*arguments, stderr=subprocess.PIPE, stdout=DEVNULL)
    assert process.stderr is not None
    line = process.stderr.readline()
    try:
        yield next(word for word in line.split() if "://" in word), process.pid
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def opened_page(folder: Path, url: str) -> Iterator[Any]:
    """Open the page in Chromium, with the lowest priority: it belongs on another machine."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("there is no browser: apt install chromium")
    modest = folder / "chromium"
    modest.write_text(f'#!/bin/sh\nexec nice -n 19 {program} "$@"\n')
    modest.chmod(0o700)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=modest, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(url)
        yield page
        browser.close()


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process, s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Reader:
    """Takes every frame, and the pictures of all robots, as a page elsewhere would."""

    def __init__(self, url: str, robots: int) -> None:
        self.frames = 0
        self._look = [f"r{i}" for i in range(robots)]
        self._line = connect(url.replace("http", "ws") + "live", origin=url.rstrip("/"))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with suppress(ConnectionClosed):
            for message in self._line:
                if isinstance(message, str) and message.startswith('{"kind":"end"'):
                    self.frames = json.loads(message)["frame"]
                    self._line.send(json.dumps({"frame": self.frames, "look": self._look}))

    def close(self) -> None:
        """End."""
        self._line.close()
        self._thread.join()


def frames_of(page: Any) -> int:
    """Return how many frames a page has shown."""
    return int(page.evaluate("document.body.dataset.frames"))


def arm(sockets: list[Path], patience_s: float = 0.0) -> int:
    """Arm every robot that is not armed, as soon as it can be; returns how many."""
    count, deadline_s = 0, time.monotonic() + patience_s
    for path in sockets:
        while True:
            try:
                if ask_robot(path, "status").state != "armed":
                    ask_robot(path, "arm")
                    count += 1
                break
            except PolicyloopError:  # it has not begun yet, or its input is not healthy yet
                if time.monotonic() > deadline_s:
                    break
                time.sleep(0.2)
    return count


def pass_time(seconds: float, sockets: list[Path], shown: Callable[[], int] | None = None) -> str:
    """Wait, arm who has tripped, and ask how many frames were shown; returns what was seen."""
    frames, trips, until_s = [], 0, time.monotonic() + seconds
    while time.monotonic() < until_s:
        if shown is not None:
            frames.append((time.monotonic(), shown()))
        time.sleep(1)
        trips += arm(sockets)
    seen = f"{trips} trips"
    if shown is not None:
        rates = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(frames)]
        seen += f", {np.mean(rates):.1f} frames/s (slowest second {min(rates):.1f})"
    return seen


def punctuality(journal: Path, begun_ns: int, ended_ns: int) -> str:
    """Return how robots kept time between two moments, by when they captured."""
    opened = Journal(journal)
    period_ms = opened.profile.rates.period_ns * 1e-6
    captured: dict[str, list[int]] = {}
    for record in opened.headers():
        if begun_ns <= record.stamps.captured_ns <= ended_ns:
            captured.setdefault(record.robot, []).append(record.stamps.captured_ns)
    opened.close()
    if not captured:
        return "nobody drove"
    gaps_ms = np.concatenate([np.diff(np.sort(stamps)) for stamps in captured.values()]) * 1e-6
    missed = int(np.maximum(np.rint(gaps_ms / period_ms) - 1, 0).sum())
    off = np.abs(gaps_ms - period_ms)
    return (
        f"{len(captured)} robots, {len(gaps_ms)} ticks, {missed} missed; off by {np.median(off):.1f} ms "
        f"(p99 {np.percentile(off, 99):.0f}, worst {off.max():.0f})"
    )


def measure(folder: Path, bundle: Path, arguments: argparse.Namespace) -> None:
    """Let the robots drive, and print how they kept time with and without the dashboard."""
    gateway = ("gateway", "--journal", folder / "journal", "--profile", arguments.profile, "--port", 0)
    with ExitStack() as opened:
        address, _ = opened.enter_context(listening(*gateway))
        sockets = [folder / f"{i}.sock" for i in range(arguments.robots)]
        options = ("--profile", arguments.profile, "--policy", bundle, "--connect", address, "--explore")
        for i, path in enumerate(sockets):
            robot = policyloop(
                "run", *options, "--name", f"r{i}", "--seed", i, "--control", path, stdout=DEVNULL, stderr=DEVNULL
            )
            opened.callback(robot.wait)
            opened.callback(robot.terminate)
        arm(sockets, START_S)
        for who in ("nobody", "reader", "page", "nobody"):
            with ExitStack() as stack:
                pid, shown = os.getpid(), None
                if who != "nobody":
                    url, pid = stack.enter_context(listening("dashboard", "--journal", folder / "journal", "--port", 0))
                if who == "page":
                    page = stack.enter_context(opened_page(folder, url))
                    page.locator('body[data-contact="live"]').wait_for()
                    shown = partial(frames_of, page)
                elif who == "reader":
                    reader = Reader(url, arguments.robots)
                    stack.callback(reader.close)
                    shown = partial(getattr, reader, "frames")
                pass_time(3, sockets)
                begun_ns, before_s = time.monotonic_ns(), cpu_s(pid)
                seen = pass_time(arguments.seconds, sockets, shown)
                ended_ns, used_s = time.monotonic_ns(), cpu_s(pid) - before_s
                cost = "" if shown is None else f", dashboard {1e9 * used_s / (ended_ns - begun_ns):.0%} of a core"
            print(f"{who}: {seen}{cost}\n  {punctuality(folder / 'journal', begun_ns, ended_ns)}", flush=True)
    print(f"load now {os.getloadavg()[0]:.1f}")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robots", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--profile", default="rover-mini")
    arguments = parser.parse_args()
    print(machine())
    profile = load_profile(arguments.profile)
    policy = export_bundle(
        make_network("spatial", profile),
        profile,
        profile.nominal_normalizer,
        network_name="spatial",
        version=1,
        noise_hold_ticks=3,
        observations=probe_features(profile, 2),
        training={},
    )
    with tempfile.TemporaryDirectory(prefix="policyloop-bench-") as temporary:
        folder = Path(temporary)
        measure(folder, Store(folder / "store").add(policy), arguments)


if __name__ == "__main__":
    main()
