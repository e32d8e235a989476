"""`policyloop gateway`: receive and store, no learning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policyloop.cli import app
from policyloop.cli.options import Host, Keys, Port, Profile, V1Port, open_gateway, stop_on_signals


@app.command()
def gateway(
    journal: Annotated[Path, typer.Option(help="Directory of the journal.")],
    profile: Profile = "rover",
    host: Host = "127.0.0.1",
    port: Port = 5555,
    v1_port: V1Port = 0,
    keys: Keys = None,
    offer: Annotated[
        Path | None, typer.Option(help="Let robots pull the signed, current bundle of this store; default: nothing.")
    ] = None,
) -> None:
    """Receive robots' steps into a journal until Ctrl-C."""
    from policyloop.core.profile import load_profile
    from policyloop.link.journal import appending

    loaded = load_profile(profile)
    stop = stop_on_signals()
    with appending(journal, loaded) as store:
        receiver = open_gateway(store, loaded, host, port, v1_port, keys, offer)
        try:
            while not stop.wait(0.2):
                receiver.check()
        finally:
            receiver.close()
            typer.echo(", ".join(f"{count} {name}" for name, count in receiver.counts.items()) or "nothing received")
