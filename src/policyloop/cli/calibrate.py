"""`policyloop calibrate`: choose what an INT8 converter will see."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from policyloop.cli import app
from policyloop.cli.options import echo_json


@app.command()
def calibrate(
    output: Annotated[Path, typer.Option(help="New folder for calibration_0000.npz and so on.")],
    journal: Annotated[Path | None, typer.Argument(help="Directory of the journal to choose from.")] = None,
    count: Annotated[
        int, typer.Option("--count", "--samples", min=1, max=10_000, help="Number of samples; each becomes a file.")
    ] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw within each kind of situation.")] = 0,
    env: Annotated[
        str, typer.Option(help="Instead of a journal: module:factory of a Gymnasium environment of yours.")
    ] = "",
    policy: Annotated[str, typer.Option(help="module:factory of a policy: observation -> action.")] = "",
    interval: Annotated[int, typer.Option(min=1, help="Steps of the environment between two samples.")] = 10,
    input_name: Annotated[str, typer.Option(help="Name of the network's input, if observations are arrays.")] = "obs",
    as_json: Annotated[bool, typer.Option("--json", help="Print the coverage as JSON.")] = False,
) -> None:
    """Choose observations of every speed, distance and brightness that occur; or record some in your simulation."""
    from policyloop.cli.progress import progress_bar
    from policyloop.data.calibration import choose_calibration, record_calibration
    from policyloop.errors import UsageError
    from policyloop.link.journal import Journal
    from policyloop.plugins import load_driver, make

    if (journal is None) == (env == ""):
        raise UsageError("calibrate takes a journal or --env, one of them", "see `policyloop calibrate --help`")
    if journal is None:
        driver = load_driver(policy, "--policy") if policy else None
        world = make(env, "--env")
        with progress_bar("driving") as bar:
            record_calibration(
                world, driver, output, count, interval=interval, seed=seed, name=input_name, progress=bar
            )
        typer.echo(f"{count} observations in {output}")
        return
    with closing(Journal(journal)) as opened, progress_bar("choosing") as opened.progress:
        coverage = choose_calibration(opened, output, count, seed=seed)
    if as_json:
        echo_json(coverage)
        return
    typer.echo(
        f"{coverage.chosen} of {coverage.candidates} observations in {output}; "
        f"{coverage.covered} of the {coverage.strata} kinds of situation that occur are covered"
    )
    for name, (low, high) in coverage.edges.items():
        typer.echo(f"  {name}: low up to {low:.2f}, middle up to {high:.2f}, high above")
