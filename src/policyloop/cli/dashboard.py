"""`policyloop dashboard`: a live web page for phone and desktop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policyloop.cli import app
from policyloop.cli.keys import Directory, keys_directory
from policyloop.cli.options import stop_on_signals


@app.command()
def dashboard(
    journal: Annotated[Path | None, typer.Option(help="Journal that a gateway writes: shows robots live.")] = None,
    store: Annotated[Path | None, typer.Option(help="Store: shows versions, and activates them.")] = None,
    runs: Annotated[Path | None, typer.Option(help="The learner's --tensorboard-dir: shows curves.")] = None,
    robot: Annotated[
        list[str] | None, typer.Option(help="Name of a robot's program on this machine: shows it, and stops it.")
    ] = None,
    control: Annotated[list[Path] | None, typer.Option(help="The same, by its control socket.")] = None,
    host: Annotated[str, typer.Option(help="Address to serve at; any but loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 = any free one.")] = 8080,
    token_file: Annotated[
        Path | None, typer.Option(help="File of the token; made, and shown once, if it is not there.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="TLS certificate, PEM.")] = None,
    private_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    plotjuggler: Annotated[str, typer.Option(help="HOST:PORT of PlotJuggler's UDP server, in JSON.")] = "",
    keys: Directory = None,
) -> None:
    """Show robots, learner and store on a web page until Ctrl-C; `/metrics` there is for Prometheus."""
    import asyncio

    from policyloop.bundle.signing import KeyRing
    from policyloop.dashboard.access import Access, is_loopback, token_at
    from policyloop.dashboard.controls import Controls
    from policyloop.dashboard.learning import LearnerView
    from policyloop.dashboard.live import Live
    from policyloop.dashboard.plotjuggler import PlotStream
    from policyloop.dashboard.server import DashboardServer
    from policyloop.dashboard.tail import JournalTail
    from policyloop.dashboard.versions import StoreView
    from policyloop.errors import UsageError
    from policyloop.robot.control import find_socket

    sockets = {name: find_socket(name) for name in robot or ()} | {path.stem: path for path in control or ()}
    if not (journal or store or runs or sockets):
        raise UsageError("there is nothing to show", "give --journal, --runs, --store or --robot")
    if (certificate is None) != (private_key is None):
        raise UsageError("a certificate needs its key", "give --certificate and --private-key")
    token, secure = "", certificate is not None
    # A robot's own socket opens to one user only; a port of this machine opens to all of them.
    if token_file is not None or sockets or not is_loopback(host):
        path = token_file or keys_directory(keys).parent / "dashboard-token"
        token, made = token_at(path)
        typer.echo(f"token: {token}  (shown once; it is in {path})" if made else f"token: in {path}", err=True)
    stop_on_signals()  # what uvicorn gives signals back to: the end is in order
    tail = JournalTail(journal) if journal else None
    stream = PlotStream(plotjuggler) if plotjuggler else None
    live = Live(
        tail,
        LearnerView(runs) if runs else None,
        StoreView(store, KeyRing(keys_directory(keys))) if store else None,
        Controls(sockets),
        stream,
    )
    try:
        server = DashboardServer(live, Access(host, token, secure=secure), host, port, certificate, private_key)
        typer.echo(f"the dashboard is at {server.url}", err=True)
        if not is_loopback(host) and not secure:
            typer.echo(
                "  without TLS, who can listen on this network can log in as you: see docs/dashboard.md", err=True
            )
        try:
            asyncio.run(server.run())
        finally:
            server.close()
    finally:
        if tail is not None:
            tail.close()
        if stream is not None:
            stream.close()
