from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Command, Stamps, Step
from policyloop.dashboard.learning import LearnerView
from policyloop.dashboard.prometheus import _family, exposition
from policyloop.dashboard.robots import Robots
from policyloop.dashboard.tail import JournalTail, Seen
from policyloop.link.journal import Journal, Received

HOSTILE = 'r"0\\\n} 7\n# HELP policyloop_armed 1\nü{'


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Parse with Prometheus' own client; by name and sorted label values."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[(sample.name, *(sample.labels[name] for name in sorted(sample.labels)))] = sample.value
    return found


def test_the_numbers_are_read_back(mini: RobotProfile, make_step: Callable[..., Step]) -> None:
    robots = Robots()
    for i, reasons in enumerate([(), ("slew",), ("slew",)]):
        record = make_step(
            mini,
            i,
            stamps=Stamps(0, 4_000_000, 6_000_000),
            command=Command((0.0, 0.0), reasons),
            reward_terms={"a": 0.5},
        ).record
        robots.take([Seen(i, record, [], time.monotonic(), time.time_ns(), True)])
    found = samples(exposition(None, robots, None))
    assert found["policyloop_steps_total", "r0"] == 3
    assert found["policyloop_gate_reasons_total", "slew", "r0"] == 2
    assert found["policyloop_latency_seconds", "0.99", "r0", "inferred"] == 0.004
    assert found["policyloop_latency_seconds", "0.5", "r0", "acted"] == 0.006
    assert found["policyloop_policy_version", "r0"] == 1
    assert found["policyloop_reward", "r0"] == 0.5
    assert 0 <= found["policyloop_step_age_seconds", "r0"] < 5


def test_a_hostile_name_is_a_label_and_nothing_else(mini: RobotProfile, make_step: Callable[..., Step]) -> None:
    robots = Robots()
    record = make_step(mini, 0, robot=HOSTILE, command=Command((0.0, 0.0), (HOSTILE,))).record
    robots.take([Seen(0, record, [], time.monotonic(), time.time_ns(), True)])
    found = samples(exposition(None, robots, None))
    assert found["policyloop_steps_total", HOSTILE] == 1
    assert found["policyloop_gate_reasons_total", HOSTILE[:40], HOSTILE] == 1
    assert not any(name == "policyloop_armed" for name, *_ in found)


def test_numbers_that_are_none_are_written_as_the_format_says() -> None:
    text = _family(
        "x", "gauge", "X.", [({"k": str(i)}, v) for i, v in enumerate((math.inf, -math.inf, math.nan, 1e-9))]
    )
    found = samples(text)
    assert (found["x", "0"], found["x", "1"], found["x", "3"]) == (math.inf, -math.inf, 1e-9)
    assert math.isnan(found["x", "2"])


def test_journal_and_learner_are_there_too(journal: Journal, tmp_path: Path) -> None:
    journal.save_received(Received(steps={"bad-rgb": 2}, events={"lost": 5}))
    tail = JournalTail(tmp_path / "journal")
    tail.read()
    tail.read_counts()
    (tmp_path / "progress.jsonl").write_text('{"step": 9, "update": 2, "entropy": 0.5, "ledger": {"trained": 9}}\n')
    learner = LearnerView(tmp_path)
    learner.read()
    found = samples(exposition(tail, Robots(), learner))
    tail.close()
    assert found["policyloop_journal_refused_steps", "bad-rgb"] == 2
    assert found["policyloop_journal_events", "lost"] == 5
    assert found["policyloop_journal_steps",] == 0
    assert found["policyloop_learner_update",] == 2
    assert found["policyloop_learner_value", "entropy"] == 0.5
    assert found["policyloop_learner_ledger_steps", "trained"] == 9
