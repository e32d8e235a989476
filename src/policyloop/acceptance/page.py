"""The page of a conversion: verdict, errors in the action's units, plots, layers. One file, no network."""

from __future__ import annotations

import html
from importlib import resources
from string import Template

import numpy as np
from numpy.typing import NDArray

from policyloop.acceptance.report import Attempt, ConversionReport, Outcome
from policyloop.convert.judge import ActionError, near_obstacles
from policyloop.core.profile import RobotProfile

__all__ = ["conversion_page"]

_SIZE, _MARGIN = 300, 34
_MOST_DOTS, _MOST_ACTIONS = 1500, 12


def conversion_page(outcome: Outcome, profile: RobotProfile | None, distances_m: NDArray[np.float32] | None) -> str:
    """Return the page as HTML."""
    report = outcome.report
    shown = next((entry for entry in report.attempts if entry.precision == report.chosen), report.attempts[-1])
    template = Template((resources.files("policyloop.acceptance") / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        source=html.escape(report.source),
        verdict=f"{report.chosen} passes the gate" if report.chosen else "Nothing passes the gate: nothing was written",
        verdict_class="passed" if report.chosen else "failed",
        reason=html.escape(report.reason),
        about=html.escape(_about(report)),
        attempts="".join(_attempt(entry) for entry in report.attempts),
        errors="".join(
            _error(entry.precision, error) for entry in report.attempts for error in entry.judgement.actions
        ),
        mean_limit=f"{report.thresholds.mean:.0%}",
        p99_limit=f"{report.thresholds.p99:.0%}",
        held_out=report.held_out["count"],
        shown=shown.precision,
        plots="".join(_plots(outcome, shown, profile, distances_m)),
        layers="".join(_layers(shown)),
    )


def _about(report: ConversionReport) -> str:
    robot = f"profile {report.profile_name} ({report.profile_digest[:12]})" if report.profile_name else "no profile"
    samples = report.calibration
    calibration = f", calibrated on {samples['count']} samples ({samples['source']})" if samples else ""
    return (
        f"{robot}; {report.target}, rknn-toolkit2 {report.toolkit}{calibration}; {report.weights:,} weights, "
        f"{report.macs / 1e6:.2f} M multiplications; {report.seconds:.0f} s"
    )


def _attempt(attempt: Attempt) -> str:
    loop = attempt.closed_loop
    driven = (
        f"{loop.converted_return:.0f} for {loop.float_return:.0f} ({-loop.return_loss:+.1%})"
        if loop
        else f"not driven: {html.escape(attempt.not_driven)}"
    )
    verdict = '<span class="passed">passed</span>' if attempt.passed else '<span class="failed">refused</span>'
    paper = attempt.estimate
    return (
        f"<tr><td>{attempt.precision}</td><td>{verdict}</td><td>{attempt.size_bytes / 1024:.0f} kB</td>"
        f"<td>{driven}</td>"
        f"<td>{paper.milliseconds:.2f} ms ({paper.compiler_ms:.3f})</td></tr>"
    )


def _error(precision: str, entry: ActionError) -> str:
    numbers = (entry.mean, entry.p99, entry.worst, entry.worst_near)
    cells = "".join("<td></td>" if n is None else f"<td>{n:.2g} ({n / entry.range:.1%})</td>" for n in numbers)
    name, unit = html.escape(entry.name), html.escape(entry.unit)
    return f"<tr><td>{precision}, {name}</td>{cells}<td>{entry.range:.3g} {unit}</td></tr>"


def _plots(
    outcome: Outcome, shown: Attempt, profile: RobotProfile | None, distances_m: NDArray[np.float32] | None
) -> list[str]:
    expected, found = outcome.expected, outcome.outputs[shown.precision]
    if profile is not None:
        expected, found = profile.actions_of(expected), profile.actions_of(found)
    rows = np.arange(len(expected))[:_MOST_DOTS]
    near = near_obstacles(distances_m, len(expected))
    plots = []
    for index, entry in enumerate(shown.judgement.actions[:_MOST_ACTIONS]):
        label = f"{entry.name}, {entry.unit}"
        plots.append(_scatter(label, expected[rows, index], found[rows, index], near[rows]))
        limits = {"p99 allowed": outcome.report.thresholds.p99 * entry.range}
        plots.append(_distribution(label, np.abs(found - expected)[:, index], limits))
    return plots


def _figure(label: str, caption: str, inside: str) -> str:
    frame = f"M{_MARGIN} 8V{_SIZE - _MARGIN}H{_SIZE - 8}"
    return (
        f'<figure><svg viewBox="0 0 {_SIZE} {_SIZE}" role="img" aria-label="{html.escape(label)}: {caption}">'
        f'<path class="axis" d="{frame}"/>{inside}</svg>'
        f"<figcaption>{html.escape(label)}: {caption}</figcaption></figure>"
    )


def _place(share: NDArray[np.floating] | float, *, upwards: bool) -> NDArray[np.floating] | float:
    room = _SIZE - _MARGIN - 8
    return 8 + room * (1 - share) if upwards else _MARGIN + room * share


def _scatter(label: str, expected: NDArray[np.floating], found: NDArray[np.floating], near: NDArray[np.bool_]) -> str:
    low = float(min(expected.min(), found.min()))
    span = max(float(max(expected.max(), found.max())) - low, 1e-9)
    across = _place((expected - low) / span, upwards=False)
    up = _place((found - low) / span, upwards=True)
    dots = "".join(
        f'<circle class="{"near" if close else "dot"}" cx="{x:.1f}" cy="{y:.1f}" r="2"/>'
        for x, y, close in zip(np.atleast_1d(across), np.atleast_1d(up), near, strict=True)
    )
    ends = (
        f'<text x="{_MARGIN}" y="{_SIZE - 18}">{low:.2f}</text>'
        f'<text x="{_SIZE - 8}" y="{_SIZE - 18}" text-anchor="end">{low + span:.2f}</text>'
    )
    return _figure(label, "converted over float; orange = near an obstacle, or unknown", dots + ends)


def _distribution(label: str, error: NDArray[np.floating], limits: dict[str, float]) -> str:
    ordered = np.sort(error)
    widest = max(float(ordered[-1]), *limits.values(), 1e-9)
    across = np.atleast_1d(_place(ordered / widest, upwards=False))
    up = np.atleast_1d(_place(np.arange(1, len(ordered) + 1) / len(ordered), upwards=True))
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, up, strict=True))
    marks = [f'<polyline class="curve" points="{points}"/>']
    for name, limit in limits.items():
        x = _place(limit / widest, upwards=False)
        marks.append(f'<path class="limit" d="M{x:.1f} 8V{_SIZE - _MARGIN}"/>')
        marks.append(f'<text x="{x - 4:.1f}" y="20" text-anchor="end">{name}</text>')
    marks.append(f'<text x="{_SIZE - 8}" y="{_SIZE - 18}" text-anchor="end">{widest:.2g}</text>')
    marks.append(f'<text x="{_MARGIN}" y="{_SIZE - 18}">0</text><text x="4" y="16">100 %</text>')
    return _figure(label, "share of samples with at most this error", "".join(marks))


def _layers(shown: Attempt) -> list[str]:
    return [
        f"<tr><td>{html.escape(layer.name)}</td><td>{html.escape(layer.operator)}</td><td>{layer.dtype.lower()}</td>"
        f"<td>{layer.place}</td><td>{layer.cycles:,}</td><td>{layer.kilobytes:,}</td>"
        f"<td>{'' if layer.cosine is None else f'{layer.cosine:.5f}'}</td></tr>"
        for layer in shown.layers
    ]
