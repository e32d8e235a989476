"""What a page is told: newest first, within its means, and never from a queue."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.dashboard.controls import Controls
from policyloop.dashboard.learning import LearnerView
from policyloop.dashboard.live import Live, LiveSettings
from policyloop.dashboard.page import Page
from policyloop.dashboard.tail import JournalTail
from policyloop.link.journal import Journal
from policyloop.wire.codec import encode_step

QUICK = {"frame_s": 0.01, "files_s": 0.02}


class Line:
    """A line to a page that shows every frame at once, until it is told to be slow.

    Attributes:
        messages: Texts, decoded.
        pictures: Heads of pictures.
    """

    def __init__(self, page: Page, *, answers: bool = True, look: tuple[str, ...] = ()) -> None:
        self.page, self.answers, self.look = page, answers, look
        self.messages: list[Any] = []
        self.pictures: list[Any] = []

    async def send_text(self, data: str) -> None:
        message = json.loads(data)
        self.messages.append(message)
        if message["kind"] == "end" and self.answers:
            self.page.hear(json.dumps({"frame": message["frame"], "look": self.look}))

    async def send_bytes(self, data: bytes) -> None:
        (length,) = struct.unpack_from("<I", data)
        self.pictures.append(json.loads(data[4 : 4 + length]))

    def of(self, kind: str) -> list[Any]:
        return [message for message in self.messages if message["kind"] == kind]


def append(journal: Journal, step: Step) -> None:
    journal.append(encode_step(step, journal.profile))


async def watched(
    live: Live, lines: list[Line], until: Callable[[], bool], change: Callable[[], None] = lambda: None
) -> None:
    """Let a Live follow and tell, until something holds; `change` happens once every line has had a frame."""
    tasks = [asyncio.create_task(live.follow()), asyncio.create_task(live.look_after_files())]
    tasks += [asyncio.create_task(live.tell(line.page, line)) for line in lines]
    try:
        deadline_s = time.monotonic() + 20
        while not all(line.messages for line in lines):
            await asyncio.sleep(0.005)
        change()
        while not until():
            assert time.monotonic() < deadline_s, "waited in vain"
            await asyncio.sleep(0.005)
            for task in tasks:
                if task.done():
                    task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def live(journal: Journal, tmp_path: Path) -> Any:
    """One that watches the journal and a run."""
    tail = JournalTail(tmp_path / "journal")
    yield Live(tail, LearnerView(tmp_path), None, Controls({}), settings=LiveSettings(**QUICK))
    tail.close()


def test_steps_reach_every_page_and_each_trail_once(
    live: Live, journal: Journal, mini: RobotProfile, make_step: Callable[..., Step]
) -> None:
    append(journal, make_step(mini, 0))
    lines = [Line(live.open(), look=("r0",)) for _ in range(2)]

    def change() -> None:
        append(journal, make_step(mini, 1))

    asyncio.run(
        watched(live, lines, lambda: all(any(p["position"] == 1 for p in line.pictures) for line in lines), change)
    )
    for line in lines:
        assert line.of("live")[-1]["robots"][0]["steps"] == 2
        positions = [point[0] for trails in line.of("trails") for name, points in trails["trails"] for point in points]
        assert positions == [0, 1]
        kinds = [(picture["picture"], picture["position"]) for picture in line.pictures]
        assert len(kinds) == len(set(kinds)) and {("rgb", 1), ("depth", 1)} <= set(kinds)
        assert [action["unit"] for action in line.of("live")[0]["actions"]] == ["m/s", "rad/s"]


def test_pictures_are_made_only_of_what_somebody_looks_at(
    live: Live, journal: Journal, mini: RobotProfile, make_step: Callable[..., Step]
) -> None:
    for robot in ("r0", "r1"):
        append(journal, make_step(mini, 0, robot=robot))
    line = Line(live.open(), look=("r1", "nobody"))
    asyncio.run(watched(live, [line], lambda: len(line.pictures) >= 2))
    assert {picture["robot"] for picture in line.pictures} == {"r1"}
    assert set(live._pictures) == {"r1"}


def test_what_the_learner_said_is_told_when_it_changes(live: Live, tmp_path: Path) -> None:
    line = Line(live.open())

    def change() -> None:
        (tmp_path / "progress.jsonl").write_text('{"step": 9, "entropy": 0.5, "version": 4}\n')

    def told() -> bool:
        return len(line.of("live")) > 10 and any(message["curves"] for message in line.of("learner"))

    asyncio.run(watched(live, [line], told, change))
    assert len(line.of("learner")) <= 3  # nothing, that there is no file, and the line
    assert line.of("learner")[-1]["curves"][0]["points"] == [[9, 0.5]]


def test_the_next_update_is_foretold_from_what_is_unread(
    live: Live, journal: Journal, mini: RobotProfile, make_step: Callable[..., Step], tmp_path: Path
) -> None:
    (tmp_path / "progress.jsonl").write_text('{"step": 9, "rollout": 100, "version": 3, "ledger": {"trained": 2}}\n')
    line = Line(live.open())

    def change() -> None:
        for sequence in range(6):
            append(journal, make_step(mini, sequence))

    asyncio.run(watched(live, [line], lambda: line.of("live")[-1]["unread"] == 4, change))
    last = line.of("live")[-1]
    assert last["unread"] == 4
    assert last["next_update_s"] == pytest.approx((100 - 4) / (6 / 3), rel=0.2)  # six steps in the last three seconds
    assert last["staleness"] == {"2": 6}


def test_a_page_that_shows_nothing_gets_two_frames_and_is_dropped(journal: Journal, tmp_path: Path) -> None:
    tail = JournalTail(tmp_path / "journal")
    live = Live(tail, None, None, Controls({}), settings=LiveSettings(**QUICK, send_timeout_s=0.2))
    deaf = Line(live.open(), answers=False)
    with pytest.raises(TimeoutError):
        asyncio.run(watched(live, [deaf], lambda: False))
    assert len(deaf.of("end")) == 2
    tail.close()


def test_a_thin_line_gets_fewer_frames_and_always_the_newest(
    journal: Journal, mini: RobotProfile, make_step: Callable[..., Step], tmp_path: Path
) -> None:
    tail = JournalTail(tmp_path / "journal")
    live = Live(tail, None, None, Controls({}), settings=LiveSettings(**QUICK, bytes_per_s=20_000))
    append(journal, make_step(mini, 0))
    line = Line(live.open(), look=("r0",))
    heard: list[int] = []

    async def run() -> None:
        begun = asyncio.get_running_loop().time()

        def until() -> bool:
            append(journal, make_step(mini, journal.next))
            heard.append(journal.next)
            return asyncio.get_running_loop().time() - begun > 1.5

        await watched(live, [line], until)

    asyncio.run(run())
    sent = sum(len(json.dumps(message)) for message in line.messages)
    assert sent < 20_000 * 3.5
    assert len(line.of("live")) < 60
    assert line.of("live")[-1]["steps"] > heard[-1] - 200
    tail.close()


def test_nothing_old_is_kept_for_a_page_that_comes_later(
    live: Live, journal: Journal, mini: RobotProfile, make_step: Callable[..., Step]
) -> None:
    append(journal, make_step(mini, 0))
    line = Line(live.open())
    asyncio.run(watched(live, [line], lambda: len(line.of("live")) > 2))
    live.close(line.page)

    async def alone() -> None:
        following = asyncio.create_task(live.follow())
        await asyncio.sleep(0.1)
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following

    asyncio.run(alone())
    assert live._frame == b""


def test_a_page_that_does_not_read_is_dropped_over_a_real_socket(
    serve: Callable[..., Any], journal: Journal, tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    served = serve(tmp_path / "journal", **QUICK, send_timeout_s=0.3)
    with connect(served.url.replace("http", "ws") + "live", origin=served.url.rstrip("/")) as page:
        wait_for(lambda: len(served.live._pages) == 1)
        wait_for(lambda: len(served.live._pages) == 0)
        with pytest.raises(ConnectionClosed):
            while True:
                page.recv(timeout=10)
