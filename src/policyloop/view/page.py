"""An episode as one HTML file: it opens from a disk, asks no network, and runs nothing that was recorded."""

from __future__ import annotations

import html
from importlib import resources
from string import Template

import msgspec

from policyloop.view.reel import Reel

__all__ = ["episode_page"]


def episode_page(reel: Reel) -> str:
    """Return the page."""
    template = Template((resources.files("policyloop.view") / "page.html").read_text(encoding="utf-8"))
    title = html.escape(f"{reel.robot}, episode {reel.number}")
    return template.substitute(title=title, reel=_embedded(msgspec.json.encode(reel).decode()))


def _embedded(json: str) -> str:
    """Return JSON that cannot end the element that it stands in, whatever its strings hold."""
    return json.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
