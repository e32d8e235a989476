"""`policyloop doctor`: what this machine has and lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policyloop.cli import app
from policyloop.cli.options import GatewayKey, Json, Keys, Profile, echo_json

_COLOURS = {
    "fine": typer.colors.GREEN,
    "absent": typer.colors.BRIGHT_BLACK,
    "doubtful": typer.colors.YELLOW,
    "wrong": typer.colors.RED,
}


@app.command()
def doctor(
    profile: Profile = "rover",
    journal: Annotated[Path | None, typer.Option(help="Look at a journal: disk, damage, gaps.")] = None,
    store: Annotated[Path | None, typer.Option(help="Look at a store: disk, and what would drive.")] = None,
    spool: Annotated[Path | None, typer.Option(help="Look at the disk of a robot's spool.")] = None,
    gateway: Annotated[
        str, typer.Option(help="Say hello to a gateway, such as tcp://trainer:5555, and compare clocks.")
    ] = "",
    gateway_key: GatewayKey = "",
    keys: Keys = None,
    ros: Annotated[bool, typer.Option("--ros", help="Listen to the ROS 2 graph for two seconds.")] = False,
    limit: Annotated[float, typer.Option(min=0.5, help="Seconds; what has not answered then is given up.")] = 4.5,
    as_json: Json = False,
) -> None:
    """Look for every trap we know; exit code of the first that is wrong. Changes nothing, needs no rights."""
    from policyloop.doctor.examination import examine
    from policyloop.doctor.finding import exit_code_of
    from policyloop.doctor.scope import Scope

    scope = Scope(
        profile=profile,
        journal=_named(journal),
        store=_named(store),
        spool=_named(spool),
        gateway=gateway,
        gateway_key=gateway_key,
        keys=_named(keys),
        ros=ros,
    )
    findings = examine(scope, limit_s=limit)
    if as_json:
        echo_json(findings)
    else:
        for finding in findings:
            state = typer.style(f"{finding.state:8}", fg=_COLOURS[finding.state])
            typer.echo(f"{state} {finding.what:24} {finding.found}")
            if finding.remedy:
                typer.echo(f"{'':8} {'':24} -> {finding.remedy}")
        counts = {state: sum(finding.state == state for finding in findings) for state in _COLOURS}
        typer.echo(", ".join(f"{count} {state}" for state, count in counts.items()))
    if code := exit_code_of(findings):
        raise typer.Exit(code)


def _named(path: Path | None) -> str:
    return "" if path is None else str(path.absolute())
