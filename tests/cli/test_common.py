"""What holds for every command: help, usage errors, exit codes, and no traceback."""

from __future__ import annotations

import errno
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from policyloop import __version__, errors
from policyloop.cli import app

COMMANDS = [
    (),
    ("calibrate",),
    ("demo",),
    ("doctor",),
    ("evaluate",),
    ("example",),
    ("example", "lite3"),
    ("export",),
    ("gateway",),
    ("import",),
    ("journal",),
    ("journal", "info"),
    ("journal", "verify"),
    ("plan",),
    ("promote",),
    ("run",),
    ("sim",),
    ("train",),
    ("view",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "policyloop")
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output
    assert "--help" in result.output


def test_the_module_runs_and_lists_every_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "policyloop", "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    for command in COMMANDS:
        if command:
            assert command[0] in result.stdout


def test_the_version_is_printed(policyloop: Callable[..., tuple[int, str, str]]) -> None:
    assert policyloop("--version") == (0, f"{__version__}\n", "")


def test_the_command_line_imports_nothing_heavy_before_it_knows_what_to_do() -> None:
    heavy = ["torch", "numpy", "zmq", "mujoco", "onnx", "onnxruntime", "tensorboard", "gymnasium"]
    code = f"import sys, policyloop.cli; print(*set({heavy!r}) & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.split() == []


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["evaluate", "scripted", "--speed", "9"], id="an option that does not exist"),
        pytest.param(["fly"], id="a command that does not exist"),
        pytest.param(["evaluate"], id="without its argument"),
        pytest.param(["gateway"], id="without a required option"),
        pytest.param(["export", "checkpoints/000001"], id="without a required output"),
        pytest.param(["import", "policy.onnx", "--output", "bundle"], id="without a required profile"),
        pytest.param(["evaluate", "scripted", "--episodes", "0"], id="too small a number"),
        pytest.param(["evaluate", "scripted", "--episodes", "many"], id="not a number"),
        pytest.param(["gateway", "--journal", "j", "--port", "70000"], id="no port"),
        pytest.param(["demo", "--minutes", "1"], id="too short a demo"),
        pytest.param(["sim", "--robots", "0"], id="no robots"),
        pytest.param(["promote", "--store", "s"], id="nobody to promote"),
        pytest.param(["promote", "p", "--store", "s", "--episodes", "9"], id="too few episodes"),
        pytest.param(["evaluate", "scripted", "--gate", "open"], id="no gate mode of evaluate"),
        pytest.param(["sim", "--gate", "open"], id="no gate mode of sim"),
        pytest.param(["run", "--policy", "p", "--io", "thought"], id="no io"),
    ],
)
def test_a_usage_error_exits_with_2(
    arguments: list[str],
    policyloop: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = policyloop(*arguments)
    assert code == 2
    assert out == ""
    assert err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "scripted"],
        ["gateway", "--journal", "journal"],
        ["sim", "--steps", "1"],
        ["train", "--offline"],
        ["run", "--policy", "p"],
        ["import", "policy.onnx", "--output", "bundle"],
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize(
    ("profile", "said"),
    [
        pytest.param("submarine", "use one of lite3, rover, rover-mini", id="no such name"),
        pytest.param("missing.toml", "missing.toml does not exist", id="no such file"),
        pytest.param("broken.toml", "not valid TOML", id="not TOML"),
        pytest.param("misspelt.toml", "unknown field `nme`", id="a misspelt key"),
    ],
)
def test_a_wrong_profile_exits_with_3(
    arguments: list[str],
    profile: str,
    said: str,
    policyloop: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.toml").write_text("name = ")
    Path("misspelt.toml").write_text('nme = "rover"\n')
    code, out, err = policyloop(*arguments, "--profile", profile)
    assert code == 3
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert not Path("journal").exists()


def test_a_profile_that_is_not_text_exits_with_3(
    policyloop: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes('name = "Müller"'.encode("latin-1"))
    assert policyloop("evaluate", "scripted", "--profile", path)[0] == 3


def test_errors_are_coloured_on_a_terminal_unless_nobody_wants_it(on_a_terminal: Callable[..., bytes]) -> None:
    environment = {"TERM": "xterm", "NO_COLOR": ""}
    coloured = on_a_terminal("journal", "info", "nowhere", **environment)
    plain = on_a_terminal("journal", "info", "nowhere", **{**environment, "NO_COLOR": "1"})
    assert b"\x1b[31m" in coloured
    assert b"no journal at nowhere" in plain
    assert b"\x1b" not in plain


def test_a_progress_bar_is_drawn_on_a_terminal_only(
    recorded: Path, policyloop: Callable[..., tuple[int, str, str]], on_a_terminal: Callable[..., bytes]
) -> None:
    assert b"reading" in on_a_terminal("journal", "verify", recorded, TERM="xterm")
    assert policyloop("journal", "verify", recorded) == (0, "80 steps, all intact\n", "")


def test_the_reference_of_the_command_line_is_current() -> None:
    root = Path(__file__).parents[2]
    made = subprocess.run(
        [sys.executable, root / "docs" / "make_cli.py"], capture_output=True, text=True, check=True, timeout=60
    )
    assert made.stdout == (root / "docs" / "cli.md").read_text(), "run: python docs/make_cli.py > docs/cli.md"


def test_every_exit_code_of_an_error_is_in_the_reference() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    kinds = [kind for name in errors.__all__ if isinstance(kind := getattr(errors, name), type)]
    assert len(kinds) > 5
    for kind in kinds:
        assert f"| {kind.exit_code} | `{kind.__name__}` |" in text


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "check who owns it, and who you are"),
        (errno.EROFS, "the disk is read-only: choose another path, or mount it to be written"),
        (errno.ENOENT, "choose another path: this one leads nowhere"),
        (errno.EIO, "check the path and the disk"),
    ],
)
def test_the_remedy_for_a_disk_that_refuses_fits_the_reason(number: int, remedy: str) -> None:
    error = errors.StorageError.cannot_write(Path("x"), OSError(number, os.strerror(number)))
    assert (error.message, error.remedy) == (f"cannot write x: {os.strerror(number)}", remedy)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["journal", "info", "{journal}"], "reading .*/80"),
        (["journal", "export", "{journal}", "--output", "{out}/x.csv"], "writing .*/80"),
        (["calibrate", "{journal}", "--output", "{out}/set", "--count", "5"], "choosing .*/80"),
        (["view", "{journal}", "--output", "{out}/x.html"], "reading .*/80"),
        (["sim", "--profile", "rover-mini", "--steps", "60"], "driving .*/60"),
        (["chaos", "black-depth", "nan-policy"], "nan-policy .*1/2"),
        (["plan", "--profile", "lite3"], "measuring how fast this machine learns"),
    ],
    ids=lambda part: " ".join(part[:2]) if isinstance(part, list) else "",
)
def test_what_takes_long_shows_how_far_it_is(
    arguments: list[str], words: str, recorded: Path, tmp_path: Path, on_a_terminal: Callable[..., bytes]
) -> None:
    filled = [argument.format(journal=recorded, out=tmp_path) for argument in arguments]
    shown = on_a_terminal(*filled, TERM="xterm", COLUMNS="120", NO_COLOR="1").decode()
    assert re.search(words, shown), shown


def test_what_goes_into_a_file_does_not_end_on_the_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "policyloop", "chaos", "nan-policy"]
    with (tmp_path / "said").open("wb") as said:
        subprocess.run(command, stdout=said, stderr=theirs, env={**os.environ, "TERM": "xterm"}, check=True, timeout=60)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # the other end is closed
        shown = os.read(ours, 1 << 16)
    os.close(ours)
    assert (tmp_path / "said").read_text().startswith("passed  nan-policy")
    assert b"passed" not in shown
