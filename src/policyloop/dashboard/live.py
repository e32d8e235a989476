"""Follows everything that the page shows, and tells every open page as often as its line bears.

A page says when it has shown a frame, and at most two are under way: one that is slow gets fewer frames, never a
queue of old ones, and one that says nothing is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Protocol

import anyio
import msgspec

from policyloop.dashboard.controls import Controls
from policyloop.dashboard.frame import End, Trails, live_frame
from policyloop.dashboard.learning import LearnerView
from policyloop.dashboard.page import Page
from policyloop.dashboard.pictures import picture_message, render
from policyloop.dashboard.plotjuggler import PlotStream
from policyloop.dashboard.robots import Robots
from policyloop.dashboard.tail import JournalTail
from policyloop.dashboard.versions import StoreView
from policyloop.errors import WireError

__all__ = ["Live", "LiveSettings", "TooManyPages"]

log = logging.getLogger(__name__)

_UNDER_WAY = 2
"""Frames that a page has not shown yet."""


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
                self._frame = msgspec.json.encode(live_frame(self.tail, self.robots, self.learner, self.controls))
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
            page.next_frame()
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
            yield msgspec.json.encode(Trails(trails)).decode()
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
        yield msgspec.json.encode(End(page.frame, page.lag_s)).decode()


def _tagged(kind: str, shown: msgspec.Struct) -> str:
    return msgspec.json.encode({"kind": kind, **msgspec.structs.asdict(shown)}).decode()
