"""Follows everything that the page shows, and tells every open page as often as its line bears.

A page says when it has shown a frame, and at most two are under way: one that is slow gets fewer frames, never a
queue of old ones, and one that says nothing is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import anyio
import msgspec

from policyloop.dashboard.controls import Controls, ControlShown
from policyloop.dashboard.learning import LearnerView, time_to_next_update
from policyloop.dashboard.pictures import picture_message, render
from policyloop.dashboard.plotjuggler import PlotStream
from policyloop.dashboard.robots import Point, Robots, RobotShown
from policyloop.dashboard.tail import JournalTail
from policyloop.dashboard.versions import StoreView
from policyloop.errors import WireError

__all__ = ["Live", "LiveSettings", "Page", "TooManyPages"]

log = logging.getLogger(__name__)

_MAX_LOOKED_AT = 16
_UNDER_WAY = 2
"""Frames that a page has not shown yet."""
_MAX_ANSWER_BYTES = 8192


class LiveSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How often, and how much.

    Attributes:
        frame_s: From one look at the journal to the next, and from one frame to the next.
        files_s: The same of the learner's numbers, the store and the robots' status.
        max_pages: Pages open at a time.
        bytes_per_s: Of each page; above that, frames are left out.
        send_timeout_s: A page that takes nothing for so long is dropped.
    """

    frame_s: float = 0.1
    files_s: float = 1.0
    max_pages: int = 16
    bytes_per_s: float = 2e6
    send_timeout_s: float = 5.0


class TooManyPages(Exception):
    """No further page can be opened."""


class _Line(Protocol):
    """To one page."""

    async def send_text(self, data: str) -> None: ...

    async def send_bytes(self, data: bytes) -> None: ...


class _Answer(msgspec.Struct, forbid_unknown_fields=True):
    """What a page says: which frame it has shown, and whose pictures are on its screen."""

    frame: int
    look: list[str]


class _Action(msgspec.Struct, frozen=True):
    name: str
    unit: str
    low: float
    high: float


class _LiveMessage(msgspec.Struct, frozen=True, kw_only=True, tag="live", tag_field="kind"):
    """What changes all the time."""

    profile: str
    period_s: float
    depth_m: tuple[float, float] | None
    actions: list[_Action]
    journal_problem: str
    steps: int
    size_bytes: int
    not_stored: dict[str, int]
    events: dict[str, int]
    unread: int | None
    next_update_s: float | None
    staleness: dict[str, int]
    robots: list[RobotShown]
    controls: list[ControlShown]


class _Trails(msgspec.Struct, frozen=True, tag="trails", tag_field="kind"):
    """By robot; a list, for a name may be anything."""

    trails: list[tuple[str, list[Point]]]


class _End(msgspec.Struct, frozen=True, tag="end", tag_field="kind"):
    """A frame is complete; `lag_s` is how long an earlier one took until it was shown."""

    frame: int
    lag_s: float


@dataclass(eq=False)
class Page:
    """One open page, and what it has been told already.

    Attributes:
        sent: Frames by number, and when they were; gone when they are shown.
        lag_s: From sending the newest frame that was shown, until the page said so.
    """

    looks_at: set[str] = field(default_factory=set)
    frame: int = 0
    sent: dict[int, float] = field(default_factory=dict)
    shown: asyncio.Event = field(default_factory=asyncio.Event)
    lag_s: float = 0.0
    position: int = -1
    pictured: dict[str, int] = field(default_factory=dict)
    learner: int = -1
    store: int = -1
    credit_bytes: float = 0.0
    credited_s: float = 0.0

    def earn(self, bytes_per_s: float) -> bool:
        """Add to its credit what has accrued, a second's worth at most; False if it has none."""
        now_s = time.monotonic()
        self.credit_bytes = min(bytes_per_s, self.credit_bytes + bytes_per_s * (now_s - self.credited_s))
        self.credited_s = now_s
        return self.credit_bytes > 0


class Live:
    """Everything that is watched.

    Args:
        tail: Of the journal; None = there is none to show. The same goes for the others.
        learner: Of the run.
        store: Of the policies.
        controls: Robots on this machine.
        stream: Where live steps go besides.
        settings: Numbers.
    """

    def __init__(
        self,
        tail: JournalTail | None,
        learner: LearnerView | None,
        store: StoreView | None,
        controls: Controls,
        stream: PlotStream | None = None,
        settings: LiveSettings | None = None,
    ) -> None:
        self.tail, self.learner, self.store, self.controls = tail, learner, store, controls
        self.robots = Robots()
        self._stream = stream
        self._settings = settings or LiveSettings()
        self._pages: set[Page] = set()
        self._beat = asyncio.Event()
        self._frame = b""
        self._pictures: dict[str, tuple[int, dict[str, bytes]]] = {}

    # -- watching -------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Follow the journal until cancelled."""
        while True:
            begun_s = time.monotonic()
            if self.tail is not None:
                seen = await asyncio.to_thread(self.tail.read)
                self.robots.take(seen)
                if self._stream is not None and self.tail.profile is not None:
                    self._stream.send([step for step in seen if step.live], self.tail.profile)
            self._frame = b""
            if self._pages:
                await self._render()
                self._frame = msgspec.json.encode(self._message())
            beat, self._beat = self._beat, asyncio.Event()
            beat.set()
            await asyncio.sleep(max(0.01, self._settings.frame_s - (time.monotonic() - begun_s)))

    async def look_after_files(self) -> None:
        """Follow the learner's numbers, the store and what the gateway counted until cancelled."""
        while True:
            for part in (self.learner, self.store):
                if part is not None:
                    await asyncio.to_thread(part.read)
            if self.tail is not None:
                await asyncio.to_thread(self.tail.read_counts)
            await asyncio.sleep(self._settings.files_s)

    async def look_after(self, robot: str) -> None:
        """Follow one robot's program until cancelled; one that hangs keeps no other waiting."""
        while True:
            await asyncio.to_thread(self.controls.look, robot)
            await asyncio.sleep(self._settings.files_s)

    async def _render(self) -> None:
        """Make the pictures that somebody looks at."""
        wanted = {name for page in self._pages for name in page.looks_at}
        self._pictures = {name: made for name, made in self._pictures.items() if name in wanted}
        if self.tail is None or self.tail.profile is None:
            return
        for name in wanted:
            view = self.robots.find(name)
            newest = view.newest if view is not None else None
            if newest is None or self._pictures.get(name, (-1, {}))[0] == newest.position:
                continue
            try:
                made = await asyncio.to_thread(render, newest.frames, self.tail.profile)
            except WireError as error:
                log.warning("a picture of %r is left out: %s", name, error)
                made = {}
            self._pictures[name] = newest.position, made

    def _message(self) -> _LiveMessage:
        profile = self.tail.profile if self.tail is not None else None
        version = self.learner.newest_version if self.learner is not None else None
        views = self.robots.views
        unread = self._unread()
        return _LiveMessage(
            profile=profile.name if profile else "",
            period_s=profile.rates.period_ns * 1e-9 if profile else 0.1,
            depth_m=(profile.camera.depth_near_m, profile.camera.depth_max_m) if profile and profile.camera else None,
            actions=[_Action(entry.name, entry.unit, entry.low, entry.high) for entry in profile.action]
            if profile
            else [],
            journal_problem=self.tail.problem if self.tail else "",
            steps=self.tail.steps if self.tail else 0,
            size_bytes=self.tail.size_bytes if self.tail else 0,
            not_stored=self.tail.refused if self.tail else {},
            events=self.tail.events if self.tail else {},
            unread=unread,
            next_update_s=self._next_update_s(unread),
            staleness=self._staleness(version),
            robots=[shown for view in views if (shown := view.shown(version)) is not None],
            controls=self.controls.shown(),
        )

    def _unread(self) -> int | None:
        """Return how many stored steps the learner has not accounted for."""
        if self.tail is None or self.learner is None or not self.learner.ledger:
            return None
        return max(0, self.tail.steps - sum(self.learner.ledger.values()))

    def _next_update_s(self, unread: int | None) -> float | None:
        if self.learner is None or unread is None:
            return None
        rate_hz = sum(view.rate_hz for view in self.robots.views)
        rollout = int(self.learner.number("rollout") or 0)
        return time_to_next_update(rollout, unread, self.robots.policy_share, rate_hz)

    def _staleness(self, newest: int | None) -> dict[str, int]:
        """Count the last policy steps by how many versions lie between their policy and the newest."""
        found: dict[str, int] = {}
        for version in (version for view in self.robots.views for version in view.versions if newest is not None):
            behind = str(max(0, (newest or 0) - version))
            found[behind] = found.get(behind, 0) + 1
        return dict(sorted(found.items(), key=lambda entry: int(entry[0])))

    # -- telling --------------------------------------------------------------------------------

    def open(self) -> Page:
        """Take in another page; TooManyPages if there are enough."""
        if len(self._pages) >= self._settings.max_pages:
            raise TooManyPages
        page = Page()
        self._pages.add(page)
        return page

    def close(self, page: Page) -> None:
        """Forget a page."""
        self._pages.discard(page)

    @staticmethod
    def hear(page: Page, text: str) -> None:
        """Take in what a page says; what is no such thing is passed over."""
        if len(text) > _MAX_ANSWER_BYTES:
            return
        try:
            answer = msgspec.json.decode(text, type=_Answer)
        except msgspec.DecodeError:
            return
        page.looks_at = set(answer.look[:_MAX_LOOKED_AT])
        if (sent_s := page.sent.get(answer.frame)) is not None:
            page.lag_s = time.monotonic() - sent_s
            page.sent = {frame: s for frame, s in page.sent.items() if frame > answer.frame}
            page.shown.set()

    async def tell(self, page: Page, line: _Line) -> None:
        """Send a page frame after frame until it is gone.

        Raises:
            TimeoutError: It takes nothing, or shows nothing.
        """
        while True:
            await self._beat.wait()
            while len(page.sent) >= _UNDER_WAY:
                page.shown.clear()
                with anyio.fail_after(self._settings.send_timeout_s):
                    await page.shown.wait()
            if not self._frame or not page.earn(self._settings.bytes_per_s):
                continue
            page.frame += 1
            page.sent[page.frame] = time.monotonic()
            for message in self._messages(page):
                page.credit_bytes -= len(message)
                with anyio.fail_after(self._settings.send_timeout_s):
                    await (line.send_text(message) if isinstance(message, str) else line.send_bytes(message))

    def _messages(self, page: Page) -> Iterator[str | bytes]:
        """Yield a frame: what this page has not been told yet, pictures as far as its credit goes."""
        yield self._frame.decode()
        trails = [(view.name, view.trail(page.position)) for view in self.robots.views]
        if trails := [(name, points) for name, points in trails if points]:
            page.position = max(points[-1].position for _, points in trails)
            yield msgspec.json.encode(_Trails(trails)).decode()
        if self.learner is not None and page.learner != self.learner.revision:
            page.learner = self.learner.revision
            yield _tagged("learner", self.learner.shown())
        if self.store is not None and page.store != self.store.revision:
            page.store = self.store.revision
            yield _tagged("store", self.store.shown)
        for name in sorted(page.looks_at):
            position, made = self._pictures.get(name, (-1, {}))
            if page.credit_bytes <= 0 or page.pictured.get(name) == position:
                continue
            page.pictured[name] = position
            for kind, jpeg in made.items():
                yield picture_message(name, kind, position, jpeg)
        page.pictured = {name: at for name, at in page.pictured.items() if name in page.looks_at}
        yield msgspec.json.encode(_End(page.frame, page.lag_s)).decode()


def _tagged(kind: str, shown: msgspec.Struct) -> str:
    return msgspec.json.encode({"kind": kind, **msgspec.structs.asdict(shown)}).decode()
