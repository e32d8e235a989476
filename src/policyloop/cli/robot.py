"""`policyloop robot`: arm, disarm, stop and look at the robot's program on this machine."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policyloop.cli import robot_app
from policyloop.cli.options import Json, echo_json

if TYPE_CHECKING:
    from policyloop.robot.control import Verb

Name = Annotated[str, typer.Option(help="The robot's name, as given to `policyloop run`; default: this machine's.")]
Control = Annotated[Path | None, typer.Option(help="Its socket, if it was given one.")]


def _ask(verb: Verb, name: str, control: Path | None, *, as_json: bool = False) -> None:
    from policyloop.robot.control import ask_robot, find_socket

    status = ask_robot(control or find_socket(name or socket.gethostname()), verb)
    if as_json:
        echo_json(status)
        return
    reason = f": {status.reason}" if status.reason else ""
    held = "; the emergency stop is pressed" if status.stop_held else ""
    typer.echo(f"{status.state}{reason}{held}; policy {status.policy_version}")


@robot_app.command()
def arm(name: Name = "", control: Control = None) -> None:
    """Let the policy drive. Look around first."""
    _ask("arm", name, control)


@robot_app.command()
def disarm(name: Name = "", control: Control = None) -> None:
    """Disarm the robot, or clear a trip; nothing may move it."""
    _ask("disarm", name, control)


@robot_app.command()
def stop(name: Name = "", control: Control = None) -> None:
    """Press the emergency stop: within a tick nothing moves, and nobody can arm until it is released."""
    _ask("stop", name, control)


@robot_app.command()
def release(name: Name = "", control: Control = None) -> None:
    """Release the emergency stop. The robot stays still until somebody arms it."""
    _ask("release", name, control)


@robot_app.command()
def status(name: Name = "", control: Control = None, as_json: Json = False) -> None:
    """Say who may move the robot, why not, and which policy it has."""
    _ask("status", name, control, as_json=as_json)
