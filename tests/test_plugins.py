"""The user's own code, named on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from policyloop.errors import ConfigError
from policyloop.plugins import load_driver, load_factory


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_robot", "broken_robot"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "my_robot.py").write_text("answer = 42\ndef make():\n    return answer\n")
    (tmp_path / "broken_robot.py").write_text("raise RuntimeError('no licence')\n")


def test_a_factory_in_the_working_directory_is_found() -> None:
    assert load_factory("my_robot:make", "--env")() == 42


def test_what_drives_is_a_function_that_a_function_returns_or_an_object_that_can_be_called(tmp_path: Path) -> None:
    (tmp_path / "my_robot.py").write_text(
        "def make():\n    return abs\nclass Sign:\n    def __call__(self, x):\n        return -x\nclass Mute: pass\n"
    )
    assert load_driver("my_robot:make", "--policy")(-3) == 3
    assert load_driver("my_robot:Sign", "--policy")(3) == -3
    with pytest.raises(ConfigError, match="my_robot:Mute made a Mute, which cannot be called"):
        load_driver("my_robot:Mute", "--policy")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("my_robot", "is not module:factory"),
        (":make", "is not module:factory"),
        ("no_robot:make", "cannot import no_robot: ModuleNotFoundError"),
        ("broken_robot:make", "RuntimeError: no licence"),
        ("my_robot:build", "nothing to call named build"),
        ("my_robot:answer", "nothing to call named answer"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_option(reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match="--env") as caught:
        load_factory(reference, "--env")
    assert message in caught.value.message
    assert caught.value.exit_code == 3
