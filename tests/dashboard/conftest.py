"""A gateway, robots that drive in real time, and the dashboard beside them: real sockets, one process."""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from policyloop.bundle.signing import KeyRing
from policyloop.core.clock import MonotonicClock
from policyloop.core.profile import RobotProfile
from policyloop.dashboard.access import Access
from policyloop.dashboard.controls import Controls
from policyloop.dashboard.learning import LearnerView
from policyloop.dashboard.live import Live, LiveSettings
from policyloop.dashboard.server import DashboardServer
from policyloop.dashboard.tail import JournalTail
from policyloop.dashboard.versions import StoreView
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal
from policyloop.link.uplink import Uplink
from policyloop.robot.actor import Actor
from policyloop.robot.control import ControlSocket
from policyloop.robot.drivers import PolicyDriver
from policyloop.robot.recorder import Recorder
from policyloop.robot.service import UplinkThread
from policyloop.runtime.reload import PolicySlot
from policyloop.safety.arming import ArmingLimits, ArmingSwitch
from policyloop.safety.gate import SafetyGate
from policyloop.sim.driver import ScriptedDriver
from policyloop.sim.robot import SimulatedRobot

DESKTOP = {"width": 1400, "height": 900}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--screenshots DIR`: write the pictures of docs/dashboard.md there."""
    parser.addoption("--screenshots", default=None, help="directory for the pictures of docs/dashboard.md")


class SimulatedProgram:
    """A simulated robot: arming, gate, control socket and uplink as `policyloop run` has them.

    It ticks without the loop's watchdog, which a busy machine that runs tests would set off.
    """

    def __init__(
        self, profile: RobotProfile, address: str, name: str, folder: Path, bundle: Path | None = None
    ) -> None:
        self.arming = ArmingSwitch(ArmingLimits.of(profile), arm_once=True)
        self.socket = folder / f"{len(list(folder.iterdir()))}.sock"
        self._stop = threading.Event()
        self._opened = ExitStack()
        version = 0
        driver: Any = ScriptedDriver(profile)
        if bundle is not None:
            slot = PolicySlot(bundle, profile)
            self._opened.callback(slot.close)
            driver, version = PolicyDriver(slot, len(profile.action), np.random.default_rng(1)), slot.policy.version
        control = ControlSocket(self.socket, self.arming, lambda: version)
        self._opened.callback(control.close)
        link = UplinkThread(Uplink(address, profile, name, Path(self._opened.enter_context(_temporary()))))
        self._opened.callback(link.close)
        clock = MonotonicClock()
        robot = SimulatedRobot(profile, range(4), np.random.default_rng(len(name)), clock)
        recorder = Recorder(profile, name, link.boot, link.append)
        self._actor = Actor(profile, robot, robot, driver, SafetyGate(profile), recorder, clock, arming=self.arming)
        self._period_s = 1 / profile.rates.control_hz
        self._thread = threading.Thread(target=self._drive)
        self._thread.start()

    def _drive(self) -> None:
        while not self._stop.wait(self._period_s):
            self._actor.tick()

    def close(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join()
        self._opened.close()


def _temporary() -> Any:
    return tempfile.TemporaryDirectory(prefix="policyloop-")


@pytest.fixture
def journal(tmp_path: Path, mini: RobotProfile) -> Iterator[Journal]:
    """A journal that is open for writing, at `tmp_path/journal`."""
    journal = Journal(tmp_path / "journal", mini, writable=True)
    yield journal
    journal.close()


@pytest.fixture
def gateway(journal: Journal) -> Iterator[Gateway]:
    """A gateway that writes it."""
    gateway = Gateway(journal, journal.profile, "tcp://127.0.0.1:0")
    gateway.start()
    yield gateway
    gateway.close()
    gateway.check()


@pytest.fixture
def drive() -> Iterator[Callable[..., SimulatedProgram]]:
    """Return `drive(profile, address, name, bundle=None)`: a simulated robot that arms itself and drives."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(_temporary()))

        def start(*arguments: Any, **options: Any) -> SimulatedProgram:
            program = SimulatedProgram(*arguments, folder, **options)
            opened.callback(program.close)
            return program

        yield start


class Served:
    """A dashboard in a thread of its own.

    Attributes:
        live: What it shows.
        url: Where.
    """

    def __init__(self, live: Live, access: Access) -> None:
        self.live = live
        self._server = DashboardServer(live, access, "127.0.0.1", 0)
        self.url = self._server.url
        self.netloc = urlsplit(self.url).netloc
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.run()))
        self._thread.start()

    def request(
        self, method: str, path: str, body: str = "", headers: dict[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """Ask as its own page would, unless `headers` say otherwise; an empty one is left out."""
        connection = http.client.HTTPConnection(self.netloc, timeout=10)
        given = {"Host": self.netloc, "Origin": self.url.rstrip("/"), **(headers or {})}
        connection.putrequest(method, path, skip_host=True)
        for name, value in {**given, "Content-Length": str(len(body))}.items():
            if value:
                connection.putheader(name, value)
        connection.endheaders(body.encode())
        response = connection.getresponse()
        response.text = response.read().decode()  # type: ignore[attr-defined]
        connection.close()
        return response

    def close(self) -> None:
        """End."""
        if self._thread.is_alive():
            self._server.stop()
            self._thread.join()
            self._server.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Return `serve(journal=None, runs=None, store=None, sockets={}, token="", **settings)`."""
    with ExitStack() as opened:

        def start(
            journal: Path | None = None,
            runs: Path | None = None,
            store: Path | None = None,
            sockets: dict[str, Path] | None = None,
            token: str = "",
            **settings: Any,
        ) -> Served:
            tail = JournalTail(journal) if journal else None
            if tail is not None:
                opened.callback(tail.close)
            live = Live(
                tail,
                LearnerView(runs) if runs else None,
                StoreView(store, KeyRing(tmp_path / "keys")) if store else None,
                Controls(sockets or {}),
                settings=LiveSettings(**settings),
            )
            served = Served(live, Access("127.0.0.1", token))
            opened.callback(served.close)
            return served

        yield start


@pytest.fixture
def wait_for() -> Callable[[Callable[[], object]], None]:
    """Return `wait_for(condition)`: poll until it holds."""

    def wait(condition: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline_s, "waited in vain"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; the tests are skipped, loudly, where it is not installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="NOT TESTED, Playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("NOT TESTED, there is no browser: apt install chromium")
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=[*sandbox, "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Return `visit(url, viewport=DESKTOP, dark=False)`: a page in a browser without a past; errors fail the test."""
    errors: list[str] = []
    contexts = []

    def go(url: str, viewport: dict[str, int] = DESKTOP, *, dark: bool = False, phone: bool = False) -> Any:
        context = browser.new_context(
            viewport=viewport,
            color_scheme="dark" if dark else "light",
            device_scale_factor=1,
            has_touch=phone,
            is_mobile=phone,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if "Content Security" in said.text else None)
        page.goto(url)
        return page

    yield go
    for context in contexts:
        context.close()
    assert errors == []
