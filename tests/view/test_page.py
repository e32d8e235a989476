"""The page: complete in itself, escaped, bounded; and in a real browser where there is one."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Command, Step
from policyloop.link.journal import Journal
from policyloop.view.episodes import find_episode
from policyloop.view.page import episode_page
from policyloop.view.reel import Reel, load_reel

Record = Callable[[list[Step]], Journal]
CHROMIUM = Path("/usr/bin/chromium")
EVIL = "</script><img src=x onerror=\"document.title='taken'\">&amp;<!--"

browser_only = pytest.mark.skipif(
    importlib.util.find_spec("playwright") is None or not CHROMIUM.exists(),
    reason="NOT TESTED IN A BROWSER: needs playwright and /usr/bin/chromium",
)


@pytest.fixture
def reel(record: Record, mini: RobotProfile, make_step: Callable[..., Step]) -> Reel:
    steps = [
        make_step(
            mini,
            sequence,
            robot=EVIL,
            command=Command((0.0, 0.1), (EVIL,) if sequence == 2 else ()),
            reward_terms={EVIL: 1.0, "time": -0.01},
        )
        for sequence in range(5)
    ]
    steps[3] = make_step(mini, 3, robot=EVIL, action=Action((0.1, 0.2), "human"), intervention="start")
    journal = record(steps)
    return load_reel(journal, find_episode(journal)[1])


def test_the_page_holds_the_whole_reel_and_nothing_recorded_as_markup(reel: Reel) -> None:
    page = episode_page(reel)
    found = re.search(r'<script type="application/json" id="reel">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    assert msgspec.json.decode(found[1], type=Reel) == reel
    assert "<img src=x" not in page
    assert page.count("</script>") == 2
    assert page.count("<!--") == 0


def test_the_page_asks_no_network(reel: Reel) -> None:
    page = episode_page(reel)
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|src=[\"']//|@import|url\(", page.replace("data:", ""))


def test_the_page_is_bounded_by_the_pictures_budget(
    record: Record, mini: RobotProfile, make_step: Callable[..., Step]
) -> None:
    journal = record([make_step(mini, sequence) for sequence in range(40)])
    episode = find_episode(journal)[1]
    small = episode_page(load_reel(journal, episode, picture_bytes=10_000, most_shots=10))
    whole = episode_page(load_reel(journal, episode))
    empty = episode_page(load_reel(journal, episode, picture_bytes=0, most_shots=1))
    assert len(small) <= len(empty) + 10_000 + 10 * 1500
    assert len(whole) > len(small)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@browser_only
def test_in_a_browser_the_scrubber_moves_through_the_episode(reel: Reel, browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "episode.html"
    path.write_text(episode_page(reel), encoding="utf-8")
    page = browser.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert page.title() == f"{EVIL}, episode 0"
    assert page.inner_text("#reasons") == "let it pass"
    first = page.get_attribute("#rgb", "src")
    page.fill("#time", "2")
    assert page.inner_text("#reasons") == EVIL
    assert page.inner_text("#clock") == "0.20 s"
    assert page.get_attribute("#rgb", "src") != first
    assert page.eval_on_selector("#rgb", "picture => picture.decode().then(() => picture.naturalWidth)") == 64
    page.keyboard.press("ArrowRight")
    assert "human" in page.inner_text("#step")
    assert "intervention: start" in page.inner_text("#step")
    page.fill("#time", "2")
    assert EVIL in page.inner_text("#reward")
    page.click("#play")
    page.get_by_text("0.40 s", exact=True).wait_for()
    assert page.inner_text("#play") == "Play"
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.close()
