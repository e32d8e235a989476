"""`policyloop deploy` and `policyloop receive`: from an operator's machine to a robot."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from policyloop.cli import app
from policyloop.cli.keys import Directory, keys_directory
from policyloop.cli.options import Profile
from policyloop.cli.progress import progress_bar

if TYPE_CHECKING:
    from policyloop.bundle.build import Bundle
    from policyloop.deploy.push import Destination, Tell
    from policyloop.deploy.session import Done


@app.command()
def deploy(
    policy: Annotated[Path, typer.Argument(help="A checkpoint, bundle, store, or demo folder.")],
    host: Annotated[str, typer.Argument(help="user@host, or a name from your ssh configuration.")],
    store: Annotated[str, typer.Option(help="Directory of the robot's store.")] = "/opt/models",
    journal: Annotated[Path | None, typer.Option(help="Convert for the NPU, with samples of this recording.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="Convert for the NPU, with this folder of samples.")] = None,
    precision: Annotated[str, typer.Option(help="auto, float16, int8 or hybrid.")] = "auto",
    target: Annotated[str, typer.Option(help="rk3588, or another Rockchip NPU.")] = "rk3588",
    episodes: Annotated[int, typer.Option(min=0, help="Simulated arenas that the conversion must drive.")] = 50,
    convert_on_robot: Annotated[
        bool, typer.Option("--convert-on-robot", help="With the converter there; no arenas are driven.")
    ] = False,
    keys: Directory = None,
    expires: Annotated[
        float, typer.Option(min=0, max=36_500, help="Days until no robot takes it any more; 0 = never.")
    ] = 0.0,
    activate: Annotated[bool, typer.Option(help="Make it the robot's current version.")] = True,
    wait: Annotated[float, typer.Option(min=0, max=3600, help="Seconds to watch whether it proves itself.")] = 90.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Let the robot check it, and change nothing.")] = False,
    remote: Annotated[str, typer.Option(help="How policyloop is called on the robot.")] = "policyloop",
    ssh_config: Annotated[Path | None, typer.Option(help="Another ssh configuration than your own.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Convert, sign, send and activate a policy, and watch it prove itself. If it fails, the old one drives on."""
    from policyloop.deploy.outgoing import expiring, find_bundle, signed_contents
    from policyloop.deploy.push import Destination, push
    from policyloop.deploy.session import Request
    from policyloop.errors import UsageError

    directory, bundle = find_bundle(policy)
    destination = Destination(
        host=host, store=store, profile=bundle.manifest.profile_name, program=remote, ssh_config=ssh_config
    )
    if journal is not None or calibration is not None:
        there = destination if convert_on_robot else None
        bundle = _converted(policy, precision, journal, calibration, target, episodes, there)
    elif convert_on_robot:
        raise UsageError("--convert-on-robot needs samples", "give --journal or --calibration")
    elif bundle.manifest.conversion is None:
        typer.echo("for the CPU only: give --journal or --calibration to convert it for the NPU", err=True)
    if expires:
        bundle = expiring(bundle, expires)
    contents = signed_contents(bundle, directory, keys_directory(keys))
    request = Request(verb="check" if dry_run else "install", activate=activate, wait_s=wait)
    with progress_bar("deploying") as bar:
        done = push(contents, destination, request, _teller(bar))
    if as_json:
        typer.echo(msgspec.json.encode(done).decode())
    else:
        typer.echo(f"{host}: version {done.version}: {done.state}" + (f"; {done.note}" if done.note else ""))
    _judge(host, done, watched=activate and not dry_run and wait > 0)


def _teller(bar: Callable[..., None]) -> Tell:
    """Return what draws a bar of everything that it is told, and says each thing once."""
    said = ""

    def tell(what: str, share: float | None) -> None:
        nonlocal said
        bar(round(1000 * (share or 0)), None if share is None else 1000, what)
        if what != said:
            typer.echo(what, err=True)
        said = what

    return tell


def _converted(
    policy: Path,
    precision: str,
    journal: Path | None,
    calibration: Path | None,
    target: str,
    episodes: int,
    robot: Destination | None,
) -> Bundle:
    from policyloop.acceptance.trial import precision_of
    from policyloop.convert.rknn import converter_options
    from policyloop.deploy.conversion import Conversion, convert, convert_there

    conversion = Conversion(
        precision=precision_of(precision),
        journal=journal,
        calibration=calibration,
        options=converter_options(target=target),
        episodes=episodes,
    )
    with progress_bar("converting") as bar:
        if robot is not None:
            return convert_there(policy, conversion, robot, _teller(bar))
        return convert(policy, conversion, lambda what, share: bar(round(1000 * (share or 0)), 1000, what))


def _judge(host: str, done: Done, *, watched: bool) -> None:
    from policyloop.errors import PolicyloopError, SafetyRefusal

    if done.state == "bad":
        raise SafetyRefusal(
            f"{host} has rolled back: version {done.version} is bad: {done.note}", "it drives what it drove before"
        )
    if watched and done.state == "active":
        raise PolicyloopError(
            f"version {done.version} is current on {host}, but has not proved itself in time",
            "is `policyloop run` driving there? `policyloop store list` tells how it ends",
        )


@app.command()
def receive(
    store: Annotated[Path, typer.Argument(help="Directory of this robot's store.")],
    profile: Profile = "rover",
    keys: Directory = None,
    board: Annotated[str, typer.Option(help="This robot's NPU, such as rk3588; default: what the kernel says.")] = "",
    keep: Annotated[int, typer.Option(min=2, help="How many of the newest versions stay in the store.")] = 5,
    convert: Annotated[
        bool, typer.Option("--convert", help="Also convert networks for whoever may call this.")
    ] = False,
) -> None:
    """On a robot: take in one bundle from standard input, as `policyloop deploy` calls it through ssh."""
    from policyloop.bundle.receive import Recipient
    from policyloop.bundle.signing import KeyRing
    from policyloop.bundle.store import Store
    from policyloop.core.profile import load_profile
    from policyloop.deploy.receiver import serve
    from policyloop.runtime.rknn_backend import board_npu

    recipient = Recipient(Store(store), load_profile(profile), KeyRing(keys_directory(keys)), board or board_npu())
    raise typer.Exit(serve(recipient, sys.stdin.buffer, sys.stdout.buffer, keep=keep, converts=convert))
