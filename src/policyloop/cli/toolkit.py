"""`policyloop toolkit`: the vendor converter's own environment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from policyloop.cli import toolkit_app
from policyloop.cli.options import Json, echo_json
from policyloop.cli.progress import progress_bar

Directory = Annotated[Path | None, typer.Option(help="Where; default: $POLICYLOOP_TOOLKIT, or the user's data folder.")]


@toolkit_app.command()
def install(
    directory: Directory = None,
    python: Annotated[
        str, typer.Option(help="Interpreter to make it with, 3.10 to 3.12; default: the one that runs this.")
    ] = "",
    again: Annotated[bool, typer.Option("--again", help="Make it anew even if it is whole.")] = False,
) -> None:
    """Install rknn-toolkit2 into an environment of its own; its pinned versions fit no other."""
    from policyloop.convert.toolkit import TOOLKIT_VERSION, Toolkit

    toolkit = Toolkit(directory)
    if not again and not toolkit.missing():
        typer.echo(f"rknn-toolkit2 {TOOLKIT_VERSION} is installed in {toolkit.directory}")
        return
    with progress_bar("installing") as bar:
        toolkit.install(python or sys.executable, lambda what, done, total: bar(done, total, what))
    typer.echo(f"rknn-toolkit2 {TOOLKIT_VERSION} is installed in {toolkit.directory}")


@toolkit_app.command()
def info(directory: Directory = None, as_json: Json = False) -> None:
    """Say where it is and whether it is whole; exit code 3 if not."""
    from policyloop.convert.toolkit import TOOLKIT_VERSION, Toolkit

    toolkit = Toolkit(directory)
    toolkit.require()
    if as_json:
        echo_json({"toolkit": TOOLKIT_VERSION, "directory": str(toolkit.directory)})
        return
    typer.echo(f"rknn-toolkit2 {TOOLKIT_VERSION} in {toolkit.directory} is whole")
