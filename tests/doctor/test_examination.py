"""Whatever hangs, crashes or fails while it is asked is named, and the rest of the table is there all the same."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from policyloop.doctor.examination import examine
from policyloop.doctor.finding import Finding, exit_code_of, wrong
from policyloop.doctor.scope import Scope
from policyloop.errors import IncompatibleError, SafetyRefusal

Group = Callable[[str], None]

_GROUP = """
import os, signal, time
from policyloop.doctor.finding import Check, Finding
from policyloop.errors import SafetyRefusal

def good():
    return Finding(what="good", state="fine", found="it is")

def bad():
    {body}

def checks(scope):
    return [Check("good", good), Check("bad", bad), Check("behind", good)]
"""


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], list[Finding]]:
    """Return `ask(body, limit_s)`: examine a group whose second question does `body`."""
    package = Path(sys.modules["policyloop.doctor.examination"].__file__ or "").parent
    (tmp_path / "sitecustomize.py").write_text(
        f"import policyloop.doctor\npolicyloop.doctor.__path__ = [{str(package)!r}, {str(tmp_path)!r}]\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{package.parents[1]}")

    def run(body: str, limit_s: float = 60.0) -> list[Finding]:
        (tmp_path / "trap.py").write_text(_GROUP.format(body=body))
        return examine(Scope(), ("trap",), limit_s)

    return run


def test_a_question_that_hangs_is_given_up_and_named(ask: Callable[..., list[Finding]], tmp_path: Path) -> None:
    began_s = time.monotonic()
    found = ask("time.sleep(600)", 5.0)
    assert time.monotonic() - began_s < 60
    assert [(one.what, one.state) for one in found] == [("good", "fine"), ("bad", "wrong")]
    assert "no answer within 5 s" in found[1].found
    assert exit_code_of(found) == 1


def test_a_question_that_ends_the_process_is_named(ask: Callable[..., list[Finding]]) -> None:
    found = ask("os.kill(os.getpid(), signal.SIGILL)")
    assert [one.what for one in found] == ["good", "bad"]
    assert "SIGILL" in found[1].found


def test_an_unknown_error_costs_one_line_only(ask: Callable[..., list[Finding]]) -> None:
    found = ask("return 1 / 0")
    assert [one.state for one in found] == ["fine", "wrong", "fine"]
    assert found[1].found == "ZeroDivisionError: division by zero"


def test_an_error_of_ours_keeps_its_remedy_and_its_exit_code(ask: Callable[..., list[Finding]]) -> None:
    found = ask("raise SafetyRefusal('others can read it', 'chmod 600')")
    assert (found[1].found, found[1].remedy, found[1].exit_code) == ("others can read it", "chmod 600", 6)


def test_what_a_library_prints_is_no_answer(ask: Callable[..., list[Finding]]) -> None:
    found = ask("print('I rknnlite: hello'); os.write(1, b'from C\\n'); return good()")
    assert [one.state for one in found] == ["fine", "fine", "fine"]


def test_a_group_that_does_not_even_start_is_named() -> None:
    found = examine(Scope(), ("nothing",), 60.0)
    assert [(one.what, one.state) for one in found] == [("nothing", "wrong")]
    assert "ModuleNotFoundError" in found[0].found


def test_the_first_that_is_wrong_decides_the_exit_code() -> None:
    fine = Finding(what="a", state="fine", found="")
    doubtful = Finding(what="b", state="doubtful", found="", exit_code=4)
    assert exit_code_of([fine, doubtful]) == 0
    assert exit_code_of([fine, wrong("c", IncompatibleError("old")), wrong("d", SafetyRefusal("no"))]) == 7
    assert exit_code_of([Finding(what="e", state="wrong", found="")]) == 3
