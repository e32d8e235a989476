"""`policyloop demo`: the whole loop in simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policyloop.cli import app
from policyloop.cli.options import stop_on_signals


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(min=2.5, help="How long it may take on two cores.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, robots and noise.")] = 0,
    demonstrations: Annotated[int, typer.Option(min=0, help="Steps to record and clone; 0 = PPO from nothing.")] = 4000,
    episodes: Annotated[int, typer.Option(min=2, help="Unseen arenas at the end.")] = 50,
    resume: Annotated[bool, typer.Option(help="Go on with a demo that was interrupted.")] = False,
) -> None:
    """Drive, clone, improve, ship, drive better: the whole loop in simulation, with a report."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Table

    from policyloop.demo.loop import DemoSettings, run_loop
    from policyloop.demo.report import table_rows, write_report

    stop = stop_on_signals()
    settings = DemoSettings(
        out=out.resolve(),
        minutes=minutes,
        seed=seed,
        demonstrations=demonstrations,
        episodes=episodes,
        resume=resume,
    )
    talk = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=talk, disable=not talk.is_terminal) as bar:
        task, phase = bar.add_task("", total=None, note=""), ""

        def report(name: str, done: float, total: float, note: str) -> None:
            nonlocal task, phase
            if name != phase:
                bar.update(task, total=1, completed=1, visible=bool(phase))
                task, phase = bar.add_task(name, total=total, note=note), name
                if not talk.is_terminal:
                    talk.print(name)
            bar.update(task, completed=done, total=total, note=note)

        try:
            result = run_loop(settings, stop, report)
        except KeyboardInterrupt:
            typer.echo(f"stopped; go on with: policyloop demo --resume --out {out} --seed {seed}", err=True)
            raise
        page = write_report(result, settings)
    table = Table(title=f"{episodes} unseen arenas, seed {seed}")
    for heading in ("driver", "return", "95 % interval", "collisions", "metres", "gate acted"):
        table.add_column(heading, justify="left" if heading == "driver" else "right")
    for row in table_rows(result):
        table.add_row(*row)
    Console().print(table)
    typer.echo(f"report: {page}")
