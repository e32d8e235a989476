"""Every command block in the documentation runs, or every command and option in it exists."""

from __future__ import annotations

import ast
import importlib
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from tests.docs.blocks import REPOSITORY, Block, all_blocks, blocks_of, inline_commands, pages
from tests.docs.command_line import check_commands, check_names, commands
from tests.docs.session import run_session

from policyloop.config import load_settings
from policyloop.core.profile import load_profile
from policyloop.core.spec import Quantity, RangedQuantity

BLOCKS = all_blocks()
PARSED = [block for block in BLOCKS if block.fate == "parsed"]
SHELL = ("bash", "console")


class _Quantities(msgspec.Struct, forbid_unknown_fields=True):
    """A piece of a profile."""

    proprio: tuple[Quantity, ...] = ()
    action: tuple[RangedQuantity, ...] = ()


def _sessions() -> dict[str, list[Block]]:
    found: dict[str, list[Block]] = {}
    for block in BLOCKS:
        if block.fate == "run" and (block.language in (*SHELL, "python") or "file" in block.declared):
            found.setdefault(block.session, []).append(block)
    return found


def _of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language and block.fate == "run"]


@pytest.mark.timeout(660)
@pytest.mark.parametrize("blocks", [pytest.param(blocks, id=name) for name, blocks in _sessions().items()])
def test_a_session_runs_as_printed(blocks: list[Block], tmp_path: Path) -> None:
    run_session(blocks, tmp_path)


@pytest.mark.parametrize("block", [pytest.param(block, id=block.where) for block in PARSED])
def test_what_cannot_run_here_names_only_what_exists(block: Block) -> None:
    assert len(block.declared["parse"]) > 8, "say why it cannot run"
    if block.language in SHELL:
        check_commands(block.text)
    else:
        assert block.language == "python", f"{block.where}: only commands and Python may be parsed"
        ast.parse(block.text)


@pytest.mark.parametrize("block", [pytest.param(block, id=block.where) for block in _of("toml")])
def test_toml_is_what_it_claims(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "block.toml"
    path.write_text(block.text)
    claim = block.declared["as"]
    if claim == "profile":
        load_profile(path)
    elif claim == "quantities":
        load_settings(_Quantities, path)
    else:
        module, _, name = claim.partition(":")
        load_settings(getattr(importlib.import_module(module), name), path)


@pytest.mark.skipif(shutil.which("c++") is None, reason="NO COMPILER: the C++ of the documentation is not tested")
@pytest.mark.parametrize("block", [pytest.param(block, id=block.where) for block in _of("cpp")])
def test_cpp_compiles(block: Block, tmp_path: Path) -> None:
    source = tmp_path / "block.cpp"
    source.write_text(block.text)
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    subprocess.run(["c++", *flags, "-I", str(REPOSITORY / "cpp"), str(source)], check=True)


@pytest.mark.parametrize("page", pages())
def test_commands_within_the_text_exist(page: str) -> None:
    for line in inline_commands((REPOSITORY / page).read_text()):
        for words in commands(line):
            check_names(words[1:] if words[0] == "policyloop" else [])


def test_what_is_run_elsewhere_is() -> None:
    texts = {(block.page, block.text) for block in BLOCKS if "same" not in block.declared}
    for block in BLOCKS:
        if test := block.declared.get("by"):
            assert Path(block.page).name in (REPOSITORY / test).read_text(), f"{test} does not read {block.page}"
        if page := block.declared.get("same"):
            assert (page, block.text) in texts, f"{block.where}: no such block in {page}"


def test_every_block_is_run_or_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    fates = Counter(block.fate for block in BLOCKS)
    covered = sum(map(len, _sessions().values())) + sum(
        len([block for block in _of(language) if "file" not in block.declared]) for language in ("toml", "cpp")
    )
    assert fates["run"] == covered
    assert fates.total() == len(BLOCKS) >= 40
    with capsys.disabled():
        said = ", ".join(f"{count} {fate}" for fate, count in sorted(fates.items()))
        sys.stdout.write(f"\n{len(BLOCKS)} blocks in {len(pages())} pages: {said}\n")


# -- the collector itself ---------------------------------------------------------------------


def test_blocks_are_found_with_their_declaration_wherever_they_stand() -> None:
    text = "# A\n\n<!-- test: session=a; file=x.py -->\n```python\nx = 1\n```\n\n1. b\n\n   ```bash\n   ls\n   ```\n"
    first, second = blocks_of("p.md", text)
    assert (first.line, first.text, first.session, first.declared["file"]) == (4, "x = 1\n", "a", "x.py")
    assert (second.line, second.text, second.session, second.fate) == (10, "ls\n", "p.md:10", "run")


@pytest.mark.parametrize(
    "text", ["```\nls\n```\n", "```sh\nls\n```\n", "<!-- test: skip=later -->\n```bash\nls\n```\n"]
)
def test_a_fence_or_declaration_that_nobody_knows_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"p\.md:\d"):
        blocks_of("p.md", text)


@pytest.mark.parametrize(
    "text",
    [
        "policyloop sing\n",
        "policyloop sim --robotts 4\n",
        "policyloop sim --robots many\n",
        "robot$ policyloop robot arm now\n",
        "policyloop keys new\n",
        "true && policyloop store\n",
        "make everything\n",
        "pip install 'policyloop[cuda]'\n",
        "ros2 launch policyloop_ros fly.launch.py\n",
        "policyloop doctor 'open\n",
        "policyloop train ... --offers\n",
    ],
)
def test_a_command_that_does_not_exist_is_found_without_running_it(text: str) -> None:
    with pytest.raises(ValueError):
        check_commands(text)


def test_commands_that_exist_pass() -> None:
    check_commands("trainer$ policyloop train --host 0.0.0.0 \\\n    --keys KEYS   # a comment, 'half quoted\n")
    check_commands("A=1 policyloop sim --robots 4 --steps 10 &\npolicyloop doctor | tee x && make demo ARGS=--resume\n")
    check_commands("policyloop train ... --offer\npip install --quiet '.[train,sim]'\n")


def test_a_session_fails_with_the_place_of_the_block_that_failed(tmp_path: Path) -> None:
    blocks = [
        Block("p.md", 3, "bash", "mkdir a && cd a\n", {"session": "s"}),
        Block("p.md", 7, "python", "import os\nassert os.path.basename(os.getcwd()) == 'b'\n", {"session": "s"}),
    ]
    with pytest.raises(AssertionError, match=r"(?s)exit code 1.*--- p\.md:7.*AssertionError"):
        run_session(blocks, tmp_path)
