"""`policyloop plan`: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

Call = Callable[..., tuple[int, str, str]]


def test_the_default_is_one_rover(policyloop: Call) -> None:
    code, out, err = policyloop("plan", "--device-passes-per-s", 100)
    assert (code, err) == (0, "")
    assert out.startswith("rover, 10 steps a second, learner rlpd (one real robot")
    assert "all numbers are estimates" in out
    assert "10.0 min  demonstrations are recorded" in out
    assert "speed: 100 passes a second (as given)" in out


def test_json_has_what_people_read(policyloop: Call) -> None:
    code, out, _ = policyloop("plan", "--learner", "ppo", "--device-passes-per-s", 10, "--json")
    assert code == 0
    plan = json.loads(out)
    assert (plan["learner"], plan["keeps_up"], plan["staleness"]) == ("ppo", False, 4)
    assert plan["collect_s"] == 819.2
    assert {"what", "after_s", "basis"} == set(plan["milestones"][0])


def test_this_machine_is_measured(policyloop: Call) -> None:
    code, out, _ = policyloop("plan", "--profile", "lite3", "--device", "cpu", "--json")
    assert code == 0
    plan = json.loads(out)
    assert plan["passes_source"] == "measured on this machine just now"
    assert plan["passes_per_s"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--learner", "magic"], 2, "use auto or bc or ppo or rlpd or simulated"),
        (["--learner", "simulated", "--device-passes-per-s", "1"], 2, "not simulated in the trainer's own process"),
        (["--network", "huge"], 3, "no network 'huge'"),
        (["--profile", "submarine"], 3, "use one of lite3, rover, rover-mini"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], code: int, said: str, policyloop: Call) -> None:
    ended, out, err = policyloop("plan", *arguments)
    assert (ended, out) == (code, "")
    assert said in err
