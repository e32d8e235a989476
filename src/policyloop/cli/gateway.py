"""`policyloop gateway`: receive and store, no learning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policyloop.cli import app
from policyloop.cli.options import Port, Profile, address, stop_on_signals


@app.command()
def gateway(
    journal: Annotated[Path, typer.Option(help="Directory of the journal.")],
    profile: Profile = "rover",
    port: Port = 5555,
    v1_port: Annotated[int, typer.Option(help="Also take v1 packets at this port; anybody there may send them.")] = 0,
) -> None:
    """Receive robots' steps into a journal until Ctrl-C."""
    from policyloop.core.profile import load_profile
    from policyloop.link.gateway import Gateway
    from policyloop.link.journal import Journal

    loaded = load_profile(profile)
    stop = stop_on_signals()
    store = Journal(journal, loaded, writable=True)
    try:
        receiver = Gateway(store, loaded, address(port), address(v1_port) if v1_port else None)
        receiver.start()
        typer.echo(f"listening at {receiver.address}" + (f", v1 at {receiver.v1_address}" if v1_port else ""), err=True)
        try:
            while not stop.wait(0.2):
                receiver.check()
        finally:
            receiver.close()
            typer.echo(", ".join(f"{count} {name}" for name, count in receiver.counts.items()) or "nothing received")
    finally:
        store.close()
