"""`report.json` and `report.html`: the table, the learning curve, an animation. One file, no network."""

from __future__ import annotations

import html
from importlib import resources
from pathlib import Path
from string import Template

import msgspec

from policyloop.core.profile import load_profile
from policyloop.demo.loop import DemoResult, DemoSettings
from policyloop.demo.trail import record_trail, scene
from policyloop.errors import StorageError
from policyloop.evaluate import EVALUATION_ARENAS, EvaluationReport

__all__ = ["table_rows", "write_report"]

_WIDTH, _HEIGHT, _MARGIN = 640, 260, 46


def write_report(result: DemoResult, settings: DemoSettings) -> Path:
    """Write `report.json` and `report.html` into the demo's folder; returns the page's path."""
    try:
        (settings.out / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2))
        path = settings.out / "report.html"
        path.write_text(_page(result, settings), encoding="utf-8")
    except OSError as error:
        raise StorageError.cannot_write(settings.out, error) from error
    return path


def _page(result: DemoResult, settings: DemoSettings) -> str:
    """Return the page: everything that it shows is in it."""
    profile, out = load_profile(settings.profile), settings.out
    first = next(name for name in result.drivers if name in ("clone", "untrained"))
    trails = [
        record_trail(profile, str(out / result.best), "learned", EVALUATION_ARENAS, pictures=True),
        record_trail(profile, str(out / result.clone), first, EVALUATION_ARENAS),
        record_trail(profile, "scripted", "scripted", EVALUATION_ARENAS),
    ]
    template = Template((resources.files("policyloop.demo") / "report.html").read_text(encoding="utf-8"))
    return template.substitute(
        seed=result.seed,
        summary=html.escape(_summary(result, first)),
        rows="".join(_row(report) for report in result.drivers.values()),
        curve=_curve(result),
        scene=msgspec.json.encode(scene(profile, EVALUATION_ARENAS)).decode(),
        trails=msgspec.json.encode(trails).decode(),
        arena_seed=EVALUATION_ARENAS,
        machine=html.escape(result.machine),
        minutes=f"{sum(result.phases_s.values()) / 60:.1f}",
    )


def table_rows(result: DemoResult) -> list[tuple[str, str, str, str, str, str]]:
    """Return the table's cells: driver, return, interval, collisions, metres, gate interventions."""
    return [_cells(report) for report in result.drivers.values()]


def _cells(report: EvaluationReport) -> tuple[str, str, str, str, str, str]:
    low, high = report.return_ci or (float("nan"), float("nan"))
    return (
        report.driver,
        f"{report.return_mean:.1f}",
        f"{low:.0f} .. {high:.0f}",
        f"{report.collision_rate:.0%}",
        f"{report.distance_m:.1f}",
        f"{report.interventions:.1f}" if report.gate == "full" else "-",
    )


def _row(report: EvaluationReport) -> str:
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(report)) + "</tr>"


def _summary(result: DemoResult, first: str) -> str:
    before, after = result.drivers[first], result.drivers["learned"]
    verdict = "better than" if after.return_mean > before.return_mean else "no better than"
    return (
        f"The learned policy drives {after.episodes} unseen arenas with a mean return of {after.return_mean:.0f}, "
        f"{verdict} its {'clone' if first == 'clone' else 'untrained self'} ({before.return_mean:.0f}); "
        f"the scripted driver reaches {result.drivers['scripted'].return_mean:.0f}. "
        f"{result.swaps} policies were shipped and swapped in while the robots were driving."
    )


def _curve(result: DemoResult) -> str:
    """Return the learning curve as SVG: return of the exploring policy against steps learned from."""
    points = [(line["step"], line["episode_score"]) for line in result.progress if "episode_score" in line]
    if len(points) < 2:
        return "<p>Too few updates for a curve.</p>"
    levels = {
        name: report.return_mean for name, report in result.drivers.items() if "gate" not in name and name != "random"
    }
    top = max(*levels.values(), *(y for _, y in points)) + 20
    bottom = max(-200.0, min(*levels.values(), *(y for _, y in points)) - 20)
    last = points[-1][0]

    def at(x: float, y: float) -> tuple[float, float]:
        across = _MARGIN + (_WIDTH - 2 * _MARGIN - 40) * x / last
        return across, _MARGIN / 2 + (_HEIGHT - 1.5 * _MARGIN) * (top - max(y, bottom)) / (top - bottom)

    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="learning curve">']
    for name, level in levels.items():
        x, y = at(last, level)
        parts.append(f'<line class="level" x1="{_MARGIN}" y1="{y:.1f}" x2="{x:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 4:.1f}">{html.escape(name)} {level:.0f}</text>')
    parts.append(f'<polyline class="curve" points="{path}"/>')
    axis = _HEIGHT - _MARGIN / 2
    parts.append(
        f'<text x="{_MARGIN}" y="{axis}">0</text><text x="{at(last, 0)[0] - 60:.0f}" y="{axis}">{last} steps</text>'
    )
    return "".join(parts) + "</svg>"
