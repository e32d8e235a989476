"""The fenced blocks of the documentation, and how each is to be tested.

A comment above a block declares it; several keys are separated by semicolons:

    <!-- test: session=tutorial -->                   run behind that session's earlier blocks, in the same folder
    <!-- test: session=rover; file=my_robot.py -->    becomes that file of the session's folder
    <!-- test: as=profile -->                         TOML: a profile; as=quantities: a piece of one
    <!-- test: as=policyloop.learn.ppo:PpoSettings -->   TOML: what it must load as
    <!-- test: parse=needs a robot -->                not run: every command and every option in it must exist
    <!-- test: by=tests/cli/test_walkthrough.py -->   that test runs it
    <!-- test: same=docs/tutorial.md -->              a block of that page, word for word

Without a declaration a block runs by itself in an empty folder.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

__all__ = ["REPOSITORY", "RUN", "Block", "all_blocks", "blocks_of", "inline_commands", "pages"]

REPOSITORY = Path(__file__).parents[2]
RUN = ("bash", "console", "python", "toml", "cpp")
"""Languages whose blocks must be true; others are pictures, or files of other programs."""
SHOWN = ("text", "yaml", "cmake")
_KEYS = {"session", "file", "as", "parse", "by", "same"}
_FENCE = re.compile(
    r"(?:^ *<!-- test: (?P<declared>[^\n]*) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>[^\s`]*)[^\n`]*\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
_FIRST = ("README.md", "docs/tutorial.md")
"""Pages whose sessions others go on with."""


class Block(NamedTuple):
    """One fenced block."""

    page: str
    line: int
    language: str
    text: str
    declared: dict[str, str]

    @property
    def where(self) -> str:
        """Page and line, for messages."""
        return f"{self.page}:{self.line}"

    @property
    def fate(self) -> str:
        """What becomes of it: run, parsed, or run elsewhere."""
        if "parse" in self.declared:
            return "parsed"
        return "elsewhere" if {"by", "same"} & set(self.declared) else "run"

    @property
    def session(self) -> str:
        """The session that it belongs to; a block without one is its own."""
        return self.declared.get("session", self.where)


def pages() -> list[str]:
    """Return every page with blocks for readers, in the order in which sessions run."""
    found = [
        *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *REPOSITORY.glob("docs/**/*.md"),
        *REPOSITORY.glob("ros/**/README.md"),
    ]
    names = sorted(path.relative_to(REPOSITORY).as_posix() for path in found)
    return [*_FIRST, *(name for name in names if name not in _FIRST)]


def blocks_of(page: str, text: str) -> list[Block]:
    """Return the blocks of a page.

    Raises:
        ValueError: A fence without a language, or with one that nobody knows; a declaration that means nothing.
    """
    found = []
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("indent")) + 1
        language, where = match["language"], f"{page}:{line}"
        if language.startswith("{"):  # a directive of the documentation's builder
            continue
        if language not in (*RUN, *SHOWN):
            raise ValueError(f"{where}: a block of '{language}'; name one of {', '.join((*RUN, *SHOWN))}")
        pairs = [pair.partition("=") for pair in (match["declared"] or "").split("; ") if pair]
        declared = {key: value for key, _, value in pairs}
        if set(declared) - _KEYS or not all(declared.values()):
            raise ValueError(f"{where}: test: {match['declared']}; keys are {', '.join(sorted(_KEYS))}")
        found.append(Block(page, line, language, textwrap.dedent(match["text"]), declared))
    return found


def all_blocks() -> list[Block]:
    """Return every block that must be true, and every file that a session is given."""
    found = [block for page in pages() for block in blocks_of(page, (REPOSITORY / page).read_text())]
    return [block for block in found if block.language in RUN or "file" in block.declared]


def inline_commands(text: str) -> list[str]:
    """Return the commands of ours that are named between single backticks."""
    return re.findall(r"`(policyloop [^`\n]+)`", _FENCE.sub("", text))
