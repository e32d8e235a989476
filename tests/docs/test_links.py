"""Every link of the documentation leads to something that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.blocks import REPOSITORY, pages

_LINK = re.compile(r"\]\((?!https?://)([^)\s#]*)(?:#([^)\s]+))?\)")
_FENCED = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the builder make them."""
    headings = re.findall(r"^#+ +(.+)$", _FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: str) -> None:
    path = REPOSITORY / page
    for target, anchor in _LINK.findall(_FENCED.sub("", path.read_text())):
        there = (path.parent / target).resolve() if target else path
        assert there.exists(), f"{page}: {target}"
        assert there.is_relative_to(REPOSITORY), f"{page}: {target} leads out of the repository"
        if anchor and there.suffix == ".md":
            assert anchor in _anchors(there), f"{page}: {target}#{anchor}"


def test_a_page_that_is_missing_would_be_noticed() -> None:
    assert _LINK.findall("[a](b.md#c) [d](https://e.f) ![g](h.webp)") == [("b.md", "c"), ("h.webp", "")]
    assert not (REPOSITORY / "docs" / "no-such-page.md").exists()
