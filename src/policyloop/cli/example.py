"""`policyloop example`: a folder to try things on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policyloop.cli import example_app


@example_app.command()
def lite3(
    output: Annotated[Path, typer.Option(help="New folder for the example.")] = Path("lite3-example"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random weights.")] = 0,
) -> None:
    """Write a random policy for a quadruped, with all that it takes to import, calibrate, convert and sign it."""
    from policyloop.example.lite3 import write_lite3_example

    write_lite3_example(output, seed)
    typer.echo(f"{output}: a RANDOM policy that does not walk; {output / 'README.md'} says what to do with it")
