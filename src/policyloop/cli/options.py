"""Options that several commands share, and what turns signals into an orderly end."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Annotated

import msgspec
import typer

__all__ = ["Port", "Profile", "address", "echo_json", "stop_on_signals"]

Profile = Annotated[str, typer.Option("--profile", help="Name of a shipped robot profile, or path of a .toml file.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port robots connect to; 0 = any free one.")]


def address(port: int) -> str:
    """Return the loopback address of a port."""
    return f"tcp://127.0.0.1:{port or '*'}"


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
