"""`policyloop bundle`: what a robot drives with, and who vouches for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policyloop.cli import bundle_app
from policyloop.cli.keys import Directory, keys_directory
from policyloop.cli.options import Json, echo_json

Bundle = Annotated[Path, typer.Argument(help="A bundle; or a checkpoint or store, for the bundle in it.")]


def _bundle(path: Path) -> Path:
    from policyloop.runtime.locate import bundle_directory, find_policy

    return bundle_directory(find_policy(path))


@bundle_app.command()
def sign(bundle: Bundle, keys: Directory = None) -> None:
    """Add this machine's signature to a bundle."""
    from policyloop.bundle.signing import load_signer, sign_bundle
    from policyloop.bundle.verify import read_manifest

    directory, signer = _bundle(bundle), load_signer(keys_directory(keys))
    data, manifest = read_manifest(directory)
    sign_bundle(directory, data, signer)
    typer.echo(f"{directory}: version {manifest.version} for {manifest.profile_name}, signed by {signer.name}")


@bundle_app.command()
def pack(
    bundle: Bundle, output: Annotated[Path, typer.Option(help="Archive to write.")], keys: Directory = None
) -> None:
    """Write a signed bundle as one archive, for a robot that no network reaches: policyloop store add."""
    from policyloop.bundle import archive
    from policyloop.core.files import write_file
    from policyloop.deploy.outgoing import find_bundle, signed_contents
    from policyloop.errors import StorageError

    directory, found = find_bundle(bundle)
    data = archive.pack(signed_contents(found, directory, keys_directory(keys)))
    try:
        write_file(output, data)
    except OSError as error:
        raise StorageError.cannot_write(output, error) from error
    typer.echo(f"{output}: version {found.manifest.version} for {found.manifest.profile_name}, {len(data)} bytes")


@bundle_app.command()
def verify(
    bundle: Bundle,
    profile: Annotated[str, typer.Option(help="The robot's profile; default: the one that the bundle names.")] = "",
    keys: Directory = None,
    as_json: Json = False,
) -> None:
    """Check signature, sizes, hashes and profile, as a robot that trusts these keys does; exit code 5 or 7."""
    from policyloop.bundle.signing import KeyRing
    from policyloop.bundle.verify import open_bundle, read_manifest
    from policyloop.core.profile import load_profile

    directory, ring = _bundle(bundle), KeyRing(keys_directory(keys))
    named = profile or read_manifest(directory, ring)[1].profile_name
    opened = open_bundle(directory, load_profile(named), ring)
    if as_json:
        echo_json({"bundle": str(directory), "version": opened.manifest.version, "signer": opened.signer})
        return
    typer.echo(f"{directory}: whole, version {opened.manifest.version}, signed by {opened.signer}")


@bundle_app.command()
def inspect(bundle: Bundle, as_json: Json = False) -> None:
    """Show what a bundle says about itself; nothing is verified."""
    from policyloop.bundle.verify import read_manifest

    data, manifest = read_manifest(_bundle(bundle))
    if as_json:
        typer.echo(data.decode())
        return
    typer.echo(
        f"version {manifest.version} of {manifest.created}, network {manifest.network}, "
        f"profile {manifest.profile_name} ({manifest.profile_digest[:12]})"
    )
    for name, entry in manifest.files.items():
        typer.echo(f"  {name}: {entry.size} bytes, SHA-256 {entry.sha256[:12]}")
    if manifest.conversion is not None:
        conversion = manifest.conversion
        typer.echo(f"  NPU: {conversion.target}, toolkit {conversion.toolkit}; {conversion.reason}")
    for name, value in manifest.training.items():
        typer.echo(f"  {name}: {value}")
