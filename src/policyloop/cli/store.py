"""`policyloop store`: the versions that a robot has, and which one drives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from policyloop.cli import store_app
from policyloop.cli.keys import Directory, keys_directory
from policyloop.cli.options import Json, Profile, echo_json

Where = Annotated[Path, typer.Argument(help="Directory of the store.")]
Version = Annotated[int, typer.Argument(min=1, help="Its number.")]


class _Listed(msgspec.Struct):
    version: str
    state: str
    note: str
    current: bool


@store_app.command("list")
def list_versions(store: Where, as_json: Json = False) -> None:
    """List every version, oldest first, and what became of it."""
    from policyloop.bundle.store import Store

    opened = Store(store)
    rows = [(path.name, opened.about(path), path == opened.current) for path in opened.versions()]
    if as_json:
        echo_json([_Listed(name, about.state, about.note, current) for name, about, current in rows])
        return
    if not rows:
        typer.echo(f"no versions in {store}", err=True)
    for name, about, current in rows:
        typer.echo(f"{'->' if current else '  '} {name}  {about.state:9}  {about.note}".rstrip())


@store_app.command()
def add(
    store: Where,
    archive: Annotated[Path, typer.Argument(help="From `policyloop bundle pack`, on a stick for instance.")],
    profile: Profile = "rover",
    keys: Directory = None,
) -> None:
    """Take in a signed archive as `policyloop receive` does, without a network; it is a candidate then."""
    from policyloop.bundle.receive import Recipient, receive_bundle
    from policyloop.bundle.signing import KeyRing
    from policyloop.bundle.store import Store
    from policyloop.core.profile import load_profile
    from policyloop.errors import StorageError
    from policyloop.runtime.rknn_backend import board_npu

    recipient = Recipient(Store(store), load_profile(profile), KeyRing(keys_directory(keys)), board_npu())
    try:
        with archive.open("rb") as stream:
            path = receive_bundle(stream, recipient)
    except OSError as error:
        raise StorageError(f"cannot read {archive}: {error.strerror}", "give the path of an archive") from error
    typer.echo(f"{path.name} is in the store, verified")


@store_app.command()
def activate(store: Where, version: Version) -> None:
    """Make a version the current one; robots that follow the store load it beside the one that drives."""
    from policyloop.bundle.store import Store

    opened = Store(store)
    bundle = opened.find(version)
    opened.activate(bundle)
    typer.echo(f"{bundle.name} is current")


@store_app.command("mark-good")
def mark_good(store: Where, version: Version) -> None:
    """Mark a version good by hand; overrules a bad mark."""
    from policyloop.bundle.store import Store

    opened = Store(store)
    bundle = opened.find(version)
    opened.mark(bundle, "good")
    typer.echo(f"{bundle.name} is good")


@store_app.command()
def rollback(store: Where) -> None:
    """Mark the current version bad and go back to the previous one. Needs no trainer and no network."""
    from policyloop.bundle.store import Store

    typer.echo(f"{Store(store).rollback().name} is current")


@store_app.command()
def prune(
    store: Where,
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest versions stay.")] = 5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Delete old versions, never the current or the previous one."""
    from policyloop.bundle.store import Store

    opened = Store(store)
    gone = opened.prunable(keep) if dry_run else opened.prune(keep)
    if as_json:
        echo_json({"deleted": not dry_run, "versions": {path.name: size for path, size in gone.items()}})
        return
    for path, size in gone.items():
        typer.echo(f"{path.name}  {size} bytes")
    typer.echo(f"{len(gone)} versions {'would be ' if dry_run else ''}deleted, {sum(gone.values())} bytes freed")


@store_app.command()
def verify(
    store: Where,
    profile: Annotated[str, typer.Option(help="The robot's profile; default: the one that the bundle names.")] = "",
    trusted: Annotated[bool, typer.Option("--trusted", help="Signatures must be by somebody on the key ring.")] = False,
    keys: Directory = None,
    as_json: Json = False,
) -> None:
    """Check every version by size, hash and profile; exit code of the first that does not hold."""
    from policyloop.bundle.signing import KeyRing
    from policyloop.bundle.store import Store
    from policyloop.bundle.verify import open_bundle, read_manifest
    from policyloop.core.profile import load_profile
    from policyloop.errors import PolicyloopError, StorageError

    versions = Store(store).versions()
    if not versions:
        raise StorageError(f"no versions in {store}", "give the directory of a store")
    ring = KeyRing(keys_directory(keys)) if trusted else None
    failure: PolicyloopError | None = None
    said: dict[str, object] = {}
    for path in versions:
        try:
            named = profile or read_manifest(path, ring)[1].profile_name
            open_bundle(path, load_profile(named), ring)
            said[path.name] = "whole"
        except PolicyloopError as error:
            failure = failure or error
            said[path.name] = error.message
    if as_json:
        echo_json(said)
    else:
        for name, about in said.items():
            typer.echo(f"{name}: {about}")
    if failure is not None:
        raise failure
