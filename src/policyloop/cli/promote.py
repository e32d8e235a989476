"""`policyloop promote`: let episodes decide who drives from now on."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policyloop.cli import app

if TYPE_CHECKING:
    from policyloop.deploy.promote import Contest, PromotionReport
    from policyloop.promotion import PromotionRule, Standing

_HEADINGS = ("IQM", "mean", "hits", "human", "metres", "gated", "nearest", "difference", "wins")
_PLAIN_WIDTH = 110
"""Columns where nobody says how wide the page is."""


@app.command()
def promote(
    candidates: Annotated[list[str], typer.Argument(help="Checkpoints or bundles; with --dry-run .onnx files too.")],
    store: Annotated[Path, typer.Option(help="Its current version is the incumbent, and is replaced.")],
    incumbent: Annotated[str, typer.Option(help="Compare with this policy instead, or with scripted or random.")] = "",
    profile: Annotated[str, typer.Option(help="Robot profile; default: the first candidate's.")] = "",
    episodes: Annotated[int, typer.Option(min=10, help="Arenas that everybody drives.")] = 50,
    arena_seed: Annotated[int, typer.Option(min=0, help="Seed of the first arena.")] = 4_000_000,
    gate: Annotated[str, typer.Option(help="full, as on a robot; or limits: without the distance rule.")] = "full",
    journal: Annotated[
        Path | None, typer.Option(help="Judge by episodes that robots recorded without exploration.")
    ] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="That a promoted policy is better.")] = 0.95,
    sign: Annotated[Path | None, typer.Option(help="Directory of a signing key: sign what is promoted.")] = None,
    processes: Annotated[int, typer.Option(min=0, help="Share the driving among so many; 0 = one per core.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge, and change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make the clearly best candidate a store's current version; exit code 1 if none is better, 6 if none is safe."""
    import msgspec

    from policyloop.bundle.signing import load_signer
    from policyloop.bundle.store import Store
    from policyloop.cli.options import echo_json
    from policyloop.cli.progress import progress_bar
    from policyloop.deploy.promote import enter, judge_recorded, put_in_charge
    from policyloop.errors import PolicyloopError, SafetyRefusal, UsageError
    from policyloop.link.journal import Journal
    from policyloop.promotion import PromotionRule

    opened, signer = Store(store), None if sign is None else load_signer(sign)
    contest = enter(candidates, opened, incumbent, profile)
    bare = [proposal.name for proposal in contest.candidates if proposal.bundle is None]
    if bare and not dry_run:
        raise UsageError(f"{bare[0]} is no bundle, no store takes it", "policyloop import makes one; or use --dry-run")
    rule = PromotionRule(confidence=confidence)
    if journal is not None:
        with closing(Journal(journal, contest.profile)) as recorded, progress_bar("reading") as recorded.progress:
            report = judge_recorded(contest, rule, recorded)
    else:
        report = _driven(contest, rule, episodes, arena_seed, gate, processes or os.cpu_count() or 1)
    chosen = next((proposal for proposal in contest.candidates if proposal.name == report.chosen), None)
    if chosen is not None and not dry_run:
        report = msgspec.structs.replace(report, promoted=put_in_charge(chosen, opened, signer).name)
    if as_json:
        echo_json(report)
    else:
        _show(report)
    if report.refused_for_safety:
        raise SafetyRefusal("nobody is promoted: who scores better is less safe", "see the reasons above")
    if chosen is None:
        raise PolicyloopError("nobody is promoted: no candidate is clearly better", "see the reasons above")


def _driven(
    contest: Contest, rule: PromotionRule, episodes: int, arena_seed: int, gate: str, processes: int
) -> PromotionReport:
    from policyloop.cli.options import gate_mode, stop_on_signals
    from policyloop.cli.progress import progress_bar
    from policyloop.deploy.promote import judge_simulated

    mode, stop = gate_mode(gate), stop_on_signals()
    with progress_bar("driving") as bar:

        def progress(done: int, total: int) -> None:
            bar(done, total)
            if stop.is_set():
                raise KeyboardInterrupt

        return judge_simulated(
            contest,
            rule,
            episodes=episodes,
            arena_seed=arena_seed,
            gate=mode,
            processes=processes,
            progress=progress,
        )


def _show(report: PromotionReport) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    where = "recorded episodes" if report.arena_seed is None else f"the same arenas from seed {report.arena_seed}"
    typer.echo(f"{report.profile}, {where}, gate {report.gate}, intervals at {report.confidence:.0%}")
    table = Table(box=SIMPLE)
    table.add_column("policy", overflow="fold")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for standing in report.policies:
        table.add_row(*_cells(standing))
    console = Console()
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    console.print(table)
    for standing in report.policies:
        reason = f": {standing.reason}" if standing.reason else ""
        typer.echo(f"{standing.policy}, {standing.episodes} episodes: {standing.verdict}{reason}")
    if report.promoted is not None:
        typer.echo(f"{report.promoted} is current")
    elif report.chosen is not None:
        typer.echo(f"{report.chosen} would be promoted")


def _cells(standing: Standing) -> tuple[str, ...]:
    return (
        standing.policy,
        _number(standing.return_iqm, standing.return_iqm_ci),
        _number(standing.return_mean),
        _share(standing.collision_rate),
        _share(standing.taken_over_rate),
        _number(standing.distance_m),
        _number(standing.interventions),
        "-" if standing.clearance_m is None else f"{standing.clearance_m:.2f} m",
        _number(standing.difference, standing.difference_ci),
        _share(standing.probability_of_improvement),
    )


def _number(value: float | None, interval: tuple[float, float] | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" + (f" [{interval[0]:.0f}, {interval[1]:.0f}]" if interval else "")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
