"""`policyloop journal`: look into recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from policyloop.cli import journal_app
from policyloop.cli.options import echo_json


@journal_app.command()
def info(
    journal: Annotated[Path, typer.Argument(help="Directory of the journal.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a journal holds."""
    from policyloop.link.journal import Journal

    opened = Journal(journal)
    summary = opened.summary()
    opened.close()
    if as_json:
        echo_json(summary)
        return
    for name, value in msgspec.structs.asdict(summary).items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}: {count}" for key, count in value.items()) or "-"
        elif isinstance(value, float):
            value = f"{value:.3f}"
        typer.echo(f"{name:16} {value}")


@journal_app.command()
def verify(journal: Annotated[Path, typer.Argument(help="Directory of the journal.")]) -> None:
    """Decode every step of a journal; exit code 5 if one is damaged."""
    from policyloop.errors import StorageError, VerificationError, WireError
    from policyloop.link.journal import Journal

    opened = Journal(journal)
    damaged = []
    for position in range(opened.next):
        try:
            opened.read(position)
        except (WireError, StorageError) as error:
            damaged.append(f"step {position}: {error}")
    count, unreadable = opened.next, opened.unreadable_bytes
    opened.close()
    if damaged:
        raise VerificationError(f"{len(damaged)} of {count} steps are damaged; the first: {damaged[0]}")
    if unreadable:
        raise VerificationError(
            f"{count} steps are intact, but {unreadable} bytes cannot be read: a record is damaged or torn"
        )
    typer.echo(f"{count} steps, all intact")
