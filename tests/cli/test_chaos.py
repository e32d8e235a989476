from __future__ import annotations

import json
from collections.abc import Callable

import pytest

Call = Callable[..., tuple[int, str, str]]


def test_a_fault_is_told_in_words_and_as_json(policyloop: Call) -> None:
    code, out, err = policyloop("chaos", "nan-policy", "unplugged")
    assert code == 0, err
    assert out.startswith("passed  nan-policy: the policy answers with NaN\n")
    assert "the gate said: tripped, not-finite; tripped (no healthy input); armed again by hand" in out
    code, out, err = policyloop("chaos", "unplugged", "--json")
    assert code == 0, err
    assert [entry["passed"] for entry in json.loads(out)] == [True]


@pytest.mark.parametrize("arguments", [[], ["gremlins"], ["unplugged", "gremlins"]])
def test_what_is_no_fault_is_refused_with_a_list(policyloop: Call, arguments: list[str]) -> None:
    code, _, err = policyloop("chaos", *arguments)
    assert (code, "frozen-picture" in err) == (2, True)


def test_a_robot_that_does_not_do_what_it_must_ends_with_6(policyloop: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyloop.chaos.trial._AT_ONCE_S", -1.0)
    code, out, err = policyloop("chaos", "unplugged")
    assert (code, out.startswith("FAILED"), "unplugged" in err) == (6, True, True)
