"""`policyloop keys`: who this machine is, and who may connect to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policyloop.cli import keys_app
from policyloop.cli.options import Json, echo_json

Directory = Annotated[
    Path | None, typer.Option("--keys", help="Directory of the keys; default: ~/.config/policyloop/keys.")
]
Signing = Annotated[bool, typer.Option("--signing", help="The keys that sign bundles, not those of the link.")]


def keys_directory(given: Path | None) -> Path:
    """Return where the keys are: where a person says, or in their configuration folder."""
    from policyloop.link.keys import default_directory

    return given or default_directory()


@keys_app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of this robot or trainer.")],
    signing: Signing = False,
    keys: Directory = None,
) -> None:
    """Make this machine's key pair and print the public key."""
    from policyloop.bundle.signing import create_signer
    from policyloop.link.keys import create_identity

    make = create_signer if signing else create_identity
    typer.echo(make(keys_directory(keys), name).public)


@keys_app.command()
def show(signing: Signing = False, keys: Directory = None, as_json: Json = False) -> None:
    """Print name and public key, and who may connect or whose bundles may drive. Never prints a secret."""
    import msgspec

    from policyloop.bundle.signing import KeyRing, load_signer
    from policyloop.link.keys import AllowList, load_identity

    class _Shown(msgspec.Struct):
        name: str
        public: str
        allowed: dict[str, str]

    directory = keys_directory(keys)
    identity = load_signer(directory) if signing else load_identity(directory)
    allowed = (KeyRing(directory) if signing else AllowList(directory)).entries()
    if as_json:
        echo_json(_Shown(identity.name, identity.public, allowed))
        return
    typer.echo(f"{identity.name}  {identity.public}")
    for name, public in allowed.items():
        typer.echo(f"  {'trusts' if signing else 'allows'} {name}  {public}")


@keys_app.command()
def allow(
    name: Annotated[str, typer.Argument(help="Name of the robot; it may also call itself NAME-1, NAME-2, ...")],
    public: Annotated[str, typer.Argument(help="Its public key, as `policyloop keys show` prints it there.")],
    signing: Signing = False,
    keys: Directory = None,
) -> None:
    """Let a robot connect here; or, with --signing, let bundles drive here that NAME has signed."""
    from policyloop.bundle.signing import KeyRing
    from policyloop.link.keys import AllowList

    directory = keys_directory(keys)
    (KeyRing(directory) if signing else AllowList(directory)).allow(name, public)
    typer.echo(f"what {name} signs may drive" if signing else f"{name} may connect")


@keys_app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Name of the robot.")],
    signing: Signing = False,
    keys: Directory = None,
) -> None:
    """Stop a robot from connecting (an open connection is cut within a second), or stop trusting a signer."""
    from policyloop.bundle.signing import KeyRing
    from policyloop.link.keys import AllowList

    directory = keys_directory(keys)
    (KeyRing(directory) if signing else AllowList(directory)).revoke(name)
    typer.echo(f"what {name} signs may not drive any more" if signing else f"{name} may not connect any more")
