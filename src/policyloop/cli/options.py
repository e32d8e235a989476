"""Options that several commands share, and what turns signals into an orderly end."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Annotated, get_args

import msgspec
import typer

from policyloop.errors import UsageError

if TYPE_CHECKING:
    from policyloop.safety.gate import GateMode

__all__ = ["Port", "Profile", "address", "echo_json", "gate_mode", "stop_on_signals"]

Profile = Annotated[str, typer.Option("--profile", help="Name of a shipped robot profile, or path of a .toml file.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port robots connect to; 0 = any free one.")]


def address(port: int) -> str:
    """Return the loopback address of a port."""
    return f"tcp://127.0.0.1:{port or '*'}"


def gate_mode(name: str) -> GateMode:
    """Return the gate mode called `name`; UsageError if there is none."""
    from policyloop.safety.gate import GateMode

    for mode in get_args(GateMode):
        if mode == name:
            return mode
    raise UsageError(f"--gate {name}", f"use {' or '.join(get_args(GateMode))}")


def echo_json(report: msgspec.Struct) -> None:
    """Print a report as indented JSON."""
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
