"""What a newcomer does wrong: each is refused with its culprit, its remedy and its exit code, and nothing is harmed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a file and an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "file").write_text("precious\n")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "culprit", "remedy"),
    [
        ("calibrate {journal} --output file", 2, "file is no folder", "choose another --output"),
        ("calibrate {journal} --output set --seed -1", 2, "--seed", ""),
        ("calibrate --env os:getcwd --output set", 3, "str is no Gymnasium environment", "docs/"),
        ("calibrate --env json:dumps --output set", 3, "--env json:dumps failed: TypeError", "called with nothing"),
        ("chaos nan-policy --profile submarine", 3, "no profile 'submarine'", "use one of"),
        ("convert {store} --journal {journal} --output folder", 2, "folder is a folder", "give --output a file"),
        ("deploy {store} robot --expires 1e12", 2, "--expires", ""),
        ("doctor --profile submarine", 3, "", ""),
        ("evaluate scripted --randomize folder", 3, "cannot read folder", "TOML"),
        ("evaluate scripted --randomize file", 3, "file: not valid TOML", "KEY = VALUE"),
        ("gateway --journal new --host 0.0.0.0", 6, "0.0.0.0", "keys new"),
        ("train --journal new --host 0.0.0.0", 6, "0.0.0.0", "keys new"),
        ("gateway --journal new --keys nowhere --port 0", 3, "no key at nowhere", "keys new"),
        ("gateway --journal new --v1-port -5", 2, "--v1-port", ""),
        ("gateway --journal new --v1-port 99999", 2, "--v1-port", ""),
        ("journal export {journal} --output file/x.mcap", 1, "cannot write file/x.mcap", "another path"),
        ("journal export {journal} --output file/x.csv", 1, "cannot write file/x.csv", "another path"),
        ("keys new ada --keys file", 1, "cannot write file/identity.json", "check"),
        ("run --policy {store} --profile rover-mini --io os:getcwd", 3, "--io os:getcwd failed: TypeError", "called"),
        ("run --policy {store} --profile rover-mini --seed -1", 2, "--seed", ""),
        ("sim --seed -1", 2, "--seed", ""),
        ("sim --curriculum nowhere.toml --profile rover-mini", 3, "cannot read nowhere.toml", "TOML"),
        ("store rollback nowhere", 2, "store nowhere has no version", "by its number"),
        ("store verify nowhere", 1, "no versions in nowhere", "directory of a store"),
        ("store verify file", 1, "no versions in file", "directory of a store"),
        ("toolkit install --directory file", 1, "file is no folder", "--directory"),
        ("toolkit install --directory new --python /bin/true", 3, "/bin/true is no Python", "--python"),
        ("train --seed -1", 2, "--seed", ""),
        ("view {journal} --output folder", 1, "cannot write folder: Is a directory", "something else is there"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_left_behind(
    policyloop: Call, recorded: Path, cloned: Path, there: Path, arguments: str, code: int, culprit: str, remedy: str
) -> None:
    found, out, err = policyloop(*arguments.format(journal=recorded, store=cloned / "store").split())
    assert found == code, err
    assert culprit in err
    assert remedy in err
    assert "Traceback" not in err
    assert out == "" or arguments.startswith("doctor")
    assert sorted(path.name for path in there.rglob("*")) == ["file", "folder"]
    assert (there / "file").read_text() == "precious\n"


def test_a_control_socket_never_takes_the_place_of_a_file(policyloop: Call, cloned: Path, there: Path) -> None:
    arguments = ["run", "--policy", cloned / "store", "--profile", "rover-mini", "--seconds", 0.2]
    code, _, err = policyloop(*arguments, "--control", there / "file")
    assert (code, "no socket" in err) == (1, True)
    assert (there / "file").read_text() == "precious\n"


def test_pruning_a_store_that_is_not_there_makes_none(policyloop: Call, there: Path) -> None:
    assert policyloop("store", "prune", "nowhere") == (0, "0 versions deleted, 0 bytes freed\n", "")
    assert not Path("nowhere").exists()


def test_an_output_that_takes_nothing_more_is_said_without_a_traceback(recorded: Path) -> None:
    command = [sys.executable, "-m", "policyloop", "journal", "info", str(recorded)]
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr == "policyloop: cannot write standard output: No space left on device\n  free some space\n"


def test_a_reader_that_has_seen_enough_is_no_error_worth_a_word(recorded: Path) -> None:
    command = [sys.executable, "-m", "policyloop", "journal", "info", str(recorded), "--json"]
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


def test_ctrl_c_ends_what_takes_long(spawn: Callable[..., subprocess.Popen[str]]) -> None:
    process = spawn("chaos", "--all")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("passed")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in err) == (130, False)
