"""`policyloop keys`: who this machine is, and who may connect to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policyloop.cli import keys_app
from policyloop.cli.options import echo_json

Directory = Annotated[
    Path | None, typer.Option("--keys", help="Directory of the keys; default: ~/.config/policyloop/keys.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _directory(given: Path | None) -> Path:
    from policyloop.link.keys import default_directory

    return given or default_directory()


@keys_app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of this robot or trainer.")],
    keys: Directory = None,
) -> None:
    """Make this machine's key pair and print the public key."""
    from policyloop.link.keys import create_identity

    typer.echo(create_identity(_directory(keys), name).public)


@keys_app.command()
def show(keys: Directory = None, as_json: Json = False) -> None:
    """Print this machine's name and public key, and who may connect to it. Never prints a secret."""
    import msgspec

    from policyloop.link.keys import AllowList, load_identity

    class _Shown(msgspec.Struct):
        name: str
        public: str
        allowed: dict[str, str]

    directory = _directory(keys)
    identity = load_identity(directory)
    allowed = AllowList(directory).entries()
    if as_json:
        echo_json(_Shown(identity.name, identity.public, allowed))
        return
    typer.echo(f"{identity.name}  {identity.public}")
    for name, public in allowed.items():
        typer.echo(f"  allows {name}  {public}")


@keys_app.command()
def allow(
    name: Annotated[str, typer.Argument(help="Name of the robot; it may also call itself NAME-1, NAME-2, ...")],
    public: Annotated[str, typer.Argument(help="Its public key, as `policyloop keys show` prints it there.")],
    keys: Directory = None,
) -> None:
    """Let a robot connect here."""
    from policyloop.link.keys import AllowList

    AllowList(_directory(keys)).allow(name, public)
    typer.echo(f"{name} may connect")


@keys_app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Name of the robot.")],
    keys: Directory = None,
) -> None:
    """Let a robot connect no more; a connection that stands is cut within a second."""
    from policyloop.link.keys import AllowList

    AllowList(_directory(keys)).revoke(name)
    typer.echo(f"{name} may not connect any more")
