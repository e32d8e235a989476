"""`policyloop doctor`: what this machine has and lacks."""

from __future__ import annotations

from typing import Annotated

import typer

from policyloop.cli import app

_COLOURS = {"fine": typer.colors.GREEN, "absent": typer.colors.YELLOW, "wrong": typer.colors.RED}


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Look at this machine; exit code 3 if something is wrong. What is merely absent is named with its remedy."""
    import msgspec

    from policyloop.doctor import examine

    findings = examine()
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(findings), indent=2).decode())
    else:
        for finding in findings:
            state = typer.style(f"{finding.state:6}", fg=_COLOURS[finding.state])
            typer.echo(f"{state} {finding.what}: {finding.found}")
            if finding.remedy:
                typer.echo(f"       {finding.remedy}")
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(3)
