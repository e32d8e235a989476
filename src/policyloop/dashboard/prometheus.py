"""The same numbers for a monitor: Prometheus' text format, version 0.0.4."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from policyloop.dashboard.learning import CURVES, LearnerView
from policyloop.dashboard.robots import Robots
from policyloop.dashboard.tail import JournalTail

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_Sample = tuple[Mapping[str, str], float]


def _family(name: str, kind: str, about: str, samples: Iterable[_Sample]) -> str:
    lines = [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{label}="{text.translate(_ESCAPES)}"' for label, text in labels.items())
        number = repr(float(value)) if math.isfinite(value) else {math.inf: "+Inf", -math.inf: "-Inf"}.get(value, "NaN")
        lines.append(f"{name}{{{inside}}} {number}" if inside else f"{name} {number}")
    return "\n".join(lines) + "\n"


def exposition(tail: JournalTail | None, robots: Robots, learner: LearnerView | None) -> str:
    """Return what a monitor reads; counters count from when the dashboard began to watch."""
    families = _robots(robots)
    if tail is not None:
        refused = [({"reason": name}, float(count)) for name, count in tail.refused.items()]
        events = [({"event": name}, float(count)) for name, count in tail.events.items()]
        families += [
            _family("policyloop_journal_steps", "gauge", "Steps in the journal.", [({}, tail.steps)]),
            _family("policyloop_journal_bytes", "gauge", "Size of the journal.", [({}, tail.size_bytes)]),
            _family("policyloop_journal_refused_steps", "gauge", "Step messages that were not stored.", refused),
            _family("policyloop_journal_events", "gauge", "What else the gateway saw.", events),
        ]
    return "".join(families + ([] if learner is None else _learner(learner)))


def _robots(robots: Robots) -> list[str]:
    views = [(view, view.newest.record, {"robot": view.name}) for view in robots.views if view.newest is not None]
    latencies = [
        ({**labels, "span": span, "quantile": quantile}, ms / 1e3)
        for view, _, labels in views
        for span, found in view.latency().items()
        for quantile, ms in (("0.5", found.p50), ("0.95", found.p95), ("0.99", found.p99))
    ]
    versions = [
        (labels, float(record.action.behaviour.policy_version))
        for _, record, labels in views
        if record.action.behaviour is not None
    ]
    reasons = [
        ({**labels, "reason": reason}, float(count))
        for view, _, labels in views
        for reason, count in view.reasons.items()
    ]
    return [
        _family("policyloop_steps_total", "counter", "Steps read.", [(names, view.steps) for view, _, names in views]),
        _family("policyloop_step_age_seconds", "gauge", "Since the newest step.", [(n, v.age_s) for v, _, n in views]),
        _family("policyloop_step_rate_hertz", "gauge", "Steps per second.", [(n, v.rate_hz) for v, _, n in views]),
        _family("policyloop_gaps_total", "counter", "Places with steps missing.", [(n, v.gaps) for v, _, n in views]),
        _family("policyloop_missing_steps_total", "counter", "Steps missing.", [(n, v.missing) for v, _, n in views]),
        _family("policyloop_reward", "gauge", "Of the newest step.", [(n, r.reward) for _, r, n in views]),
        _family("policyloop_policy_version", "gauge", "Version of the policy that drives.", versions),
        _family("policyloop_gate_reasons_total", "counter", "Steps that a rule of the gate changed.", reasons),
        _family("policyloop_latency_seconds", "gauge", "From capture, over the last steps.", latencies),
    ]


def _learner(learner: LearnerView) -> list[str]:
    ledger = [({"bin": name}, float(count)) for name, count in learner.ledger.items()]
    numbers = [({"name": name}, value) for name in CURVES if (value := learner.number(name)) is not None]
    plain = {"update": "Updates done.", "step": "Policy steps learned from.", "version": "Newest policy shipped."}
    return [
        *(
            _family(f"policyloop_learner_{name}", "gauge", about, [({}, value)])
            for name, about in plain.items()
            if (value := learner.number(name)) is not None
        ),
        _family("policyloop_learner_ledger_steps", "gauge", "What became of the steps.", ledger),
        _family("policyloop_learner_value", "gauge", "Numbers of the newest update, by name.", numbers),
    ]
