from __future__ import annotations

import json
import time

import pytest

from policyloop.dashboard import page as page_module
from policyloop.dashboard.page import Page


@pytest.mark.parametrize("text", ["", "no", "[]", '{"look": 3, "frame": 1}', '{"look": ["r0"]}', "x" * 9000])
def test_what_a_page_says_wrongly_is_passed_over(text: str) -> None:
    page = Page(looks_at={"r1"}, sent={1: 0.0})
    page.hear(text)
    assert (page.looks_at, page.sent) == ({"r1"}, {1: 0.0})


def test_a_page_may_look_at_so_many_and_no_more() -> None:
    page = Page()
    page.hear(json.dumps({"frame": 5, "look": [f"r{i}" for i in range(100)]}))
    assert len(page.looks_at) == 16


def test_a_frame_that_is_shown_clears_those_before_it_and_tells_the_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    page, now_s = Page(), time.monotonic()
    for at_s in (0.0, 1.0, 2.0):
        monkeypatch.setattr(page_module.time, "monotonic", lambda at_s=at_s: now_s + at_s)
        page.next_frame()
    monkeypatch.setattr(page_module.time, "monotonic", lambda: now_s + 4.0)
    page.hear('{"frame": 2, "look": []}')
    assert (page.lag_s, list(page.sent), page.shown.is_set()) == (pytest.approx(3.0), [3], True)
    page.hear('{"frame": 99, "look": []}')  # that it never got
    assert list(page.sent) == [3]


def test_credit_grows_with_time_and_no_further_than_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    page, now_s = Page(credited_s=100.0), 100.0
    for passed_s, spent, left in ((0.25, 0, 250.0), (60.0, 0, 1000.0), (60.0, 1500, -500.0)):
        now_s += passed_s
        monkeypatch.setattr(page_module.time, "monotonic", lambda now_s=now_s: now_s)
        assert page.earn(1000.0)
        page.credit_bytes -= spent
        assert page.credit_bytes == left
    assert not page.earn(1000.0)
