"""Options that several commands share, and what turns signals into an orderly end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, TypeVar, get_args

import msgspec
import typer

from policyloop.errors import UsageError

if TYPE_CHECKING:
    from policyloop.core.profile import RobotProfile
    from policyloop.link.gateway import Gateway
    from policyloop.link.journal import Journal
    from policyloop.link.keys import Identity
    from policyloop.safety.gate import GateMode

Settings = TypeVar("Settings", bound=msgspec.Struct)

__all__ = [
    "GatewayKey",
    "Host",
    "Json",
    "Keys",
    "Port",
    "Profile",
    "Randomize",
    "V1Port",
    "address",
    "echo_json",
    "gate_mode",
    "identity_at",
    "open_gateway",
    "settings_called",
    "stop_on_signals",
]

Profile = Annotated[str, typer.Option("--profile", help="Name of a shipped robot profile, or path of a .toml file.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port robots connect to; 0 = any free one.")]
V1Port = Annotated[
    int,
    typer.Option("--v1-port", min=0, max=65535, help="Also take v1 packets at this port; anybody there may send them."),
]
Host = Annotated[str, typer.Option("--host", help="Address to listen at; any but loopback needs --keys.")]
Keys = Annotated[
    Path | None, typer.Option("--keys", help="Directory of this machine's keys; encrypts, and checks the peer.")
]
Randomize = Annotated[
    str,
    typer.Option(
        "--randomize", help="Each episode in another world: default, or a .toml file of ranges; none = nominal."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
GatewayKey = Annotated[str, typer.Option("--gateway-key", help="Public key of the gateway; needed with --keys.")]


def address(port: int, host: str = "127.0.0.1") -> str:
    """Return the ZeroMQ address of a port; 0 = any free one."""
    return f"tcp://{host}:{port or '*'}"


def identity_at(keys: Path | None) -> Identity | None:
    """Return this machine's identity, or None if keys are not asked for."""
    from policyloop.link.keys import load_identity

    return None if keys is None else load_identity(keys)


def open_gateway(
    journal: Journal,
    profile: RobotProfile,
    host: str,
    port: int,
    v1_port: int,
    keys: Path | None,
    offered: Path | None = None,
) -> Gateway:
    """Start to listen, and say where; robots may pull from the store `offered`."""
    from policyloop.bundle.store import Store
    from policyloop.link.gateway import Gateway
    from policyloop.link.keys import AllowList
    from policyloop.link.offer import Offer

    gateway = Gateway(
        journal,
        profile,
        address(port, host),
        address(v1_port) if v1_port else None,
        identity=identity_at(keys),
        allowed=None if keys is None else AllowList(keys),
        offer=None if offered is None else Offer(Store(offered)),
    )
    gateway.start()
    typer.echo(f"listening at {gateway.address}" + (f", v1 at {gateway.v1_address}" if v1_port else ""), err=True)
    if v1_port:
        typer.echo("  v1 packets are neither encrypted nor signed: whoever reaches the port can send them", err=True)
    return gateway


def gate_mode(name: str) -> GateMode:
    """Return the gate mode called `name`; UsageError if there is none."""
    from policyloop.safety.gate import GateMode

    for mode in get_args(GateMode):
        if mode == name:
            return mode
    raise UsageError(f"--gate {name}", f"use {' or '.join(get_args(GateMode))}")


def settings_called(name: str, kind: type[Settings]) -> Settings | None:
    """Return the settings called `default`, or those of a TOML file; None without a name."""
    from policyloop.config import load_settings

    if not name:
        return None
    return load_settings(kind, None if name == "default" else Path(name))


def echo_json(report: msgspec.Struct | Sequence[msgspec.Struct] | Mapping[str, object]) -> None:
    """Print a report, or several, as indented JSON."""
    typer.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())


def stop_on_signals() -> threading.Event:
    """Return an event that Ctrl-C and SIGTERM set; a second one ends the process at once."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return stop
