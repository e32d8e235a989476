"""`policyloop calibrate`: choose what an INT8 converter will see."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policyloop.cli import app
from policyloop.cli.options import echo_json


@app.command()
def calibrate(
    journal: Annotated[Path, typer.Argument(help="Directory of the journal to choose from.")],
    output: Annotated[Path, typer.Option(help="New folder for calibration_0000.npz and so on.")],
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many samples.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the draw within each kind of situation.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the coverage as JSON.")] = False,
) -> None:
    """Choose observations of every speed, distance and brightness that occur."""
    from policyloop.data.calibration import choose_calibration
    from policyloop.link.journal import Journal

    opened = Journal(journal)
    try:
        coverage = choose_calibration(opened, output, count, seed=seed)
    finally:
        opened.close()
    if as_json:
        echo_json(coverage)
        return
    typer.echo(
        f"{coverage.chosen} of {coverage.candidates} observations in {output}; "
        f"{coverage.covered} of the {coverage.strata} kinds of situation that occur are covered"
    )
    for name, (low, high) in coverage.edges.items():
        typer.echo(f"  {name}: low up to {low:.2f}, middle up to {high:.2f}, high above")
