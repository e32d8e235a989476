"""`policyloop journal`: look into recordings."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from policyloop.cli import journal_app
from policyloop.cli.options import Json, Profile, echo_json


@journal_app.command()
def info(
    journal: Annotated[Path, typer.Argument(help="Directory of the journal.")],
    checkpoint_dir: Annotated[
        Path | None, typer.Option(help="Checkpoints of the learner: also say what it made of each step.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a journal holds, and what became of every step that was received."""
    from policyloop.cli.progress import progress_bar
    from policyloop.link.journal import Journal
    from policyloop.link.summary import summarise

    with closing(Journal(journal)) as opened, progress_bar("reading") as opened.progress:
        summary = summarise(opened, checkpoint_dir)
    if as_json:
        echo_json(summary)
        return
    for name, value in msgspec.structs.asdict(summary).items():
        if name in ("robots", "ledger", "events"):
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{key}: {count}" for key, count in value.items()) or "-"
        elif isinstance(value, float):
            value = f"{value:.3f}"
        typer.echo(f"{name:16} {value}")
    for name, robot in summary.robots.items():
        streams = ", ".join(f"{stream} {size:.0f}" for stream, size in robot.bytes_per_step.items())
        typer.echo(
            f"robot {name:10} {robot.steps} steps, {robot.episodes} episodes, {robot.starts} starts, "
            f"{robot.rate_hz:.1f} Hz, {robot.gaps} gaps ({robot.missing} steps missing); bytes per step: {streams}"
        )
    received = sum(summary.ledger.values())
    typer.echo(f"of {received} steps received:")
    for name, count in summary.ledger.items():
        typer.echo(f"  {100 * count / received:6.2f} %  {count:8}  {name}")
    for name, count in summary.events.items():
        typer.echo(f"  besides: {count} {name}")


@journal_app.command()
def export(
    journal: Annotated[Path, typer.Argument(help="Directory of the journal.")],
    output: Annotated[Path, typer.Option(help="A new .mcap or .csv file, or a new folder for a LeRobotDataset.")],
    kind: Annotated[str, typer.Option("--format", help="mcap, csv or lerobot; default: by --output.")] = "",
    as_json: Json = False,
) -> None:
    """Write a journal as MCAP with ROS 2 messages (Foxglove opens it), as CSV, or as a LeRobotDataset v3."""
    from policyloop.cli.progress import progress_bar
    from policyloop.data.csv import export_csv
    from policyloop.data.lerobot import export_lerobot
    from policyloop.data.mcap import export_mcap
    from policyloop.errors import UsageError
    from policyloop.link.journal import Journal

    writers = {"mcap": export_mcap, "csv": export_csv, "lerobot": export_lerobot}
    kind = kind or (output.suffix[1:] if output.suffix in (".mcap", ".csv") else "lerobot")
    if kind not in writers:
        raise UsageError(f"--format {kind}", "use mcap, csv or lerobot")
    with closing(Journal(journal)) as opened, progress_bar("writing") as opened.progress:
        written = writers[kind](opened, output)
    if as_json:
        echo_json({"steps": written, "output": str(output), "format": kind})
        return
    typer.echo(f"{written} steps in {output}")


@journal_app.command("import")
def import_(
    bag: Annotated[Path, typer.Argument(help="A .mcap file or a rosbag2 folder.")],
    journal: Annotated[Path, typer.Option(help="Directory of the journal to append to.")],
    profile: Profile = "rover",
    name: Annotated[str, typer.Option(help="Name of the robot in the journal.")] = "imported",
    topic: Annotated[
        list[str] | None,
        typer.Option(help="SENSOR=TOPIC, such as rgb=/front/image; sensors: rgb depth odom imu cmd_vel proprio."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Append a ROS 2 recording to a journal, as demonstrations of a human."""
    from policyloop.cli.progress import progress_bar
    from policyloop.core.profile import load_profile
    from policyloop.data.bag import import_bag
    from policyloop.errors import PolicyloopError, StorageError, UsageError
    from policyloop.link.journal import appending

    topics = {}
    for entry in topic or []:
        sensor, separator, where = entry.partition("=")
        if not separator or sensor not in ("rgb", "depth", "odom", "imu", "cmd_vel", "proprio"):
            raise UsageError(f"--topic {entry}", "write SENSOR=TOPIC, such as --topic rgb=/front/image")
        topics[sensor] = where
    if not bag.exists():
        raise StorageError(f"cannot read {bag}: it is not there", "give a .mcap file or a rosbag2 folder")
    reached = (0, 0)
    with appending(journal, load_profile(profile)) as opened, progress_bar("reading") as bar:
        before = opened.next

        def progress(read: int, messages: int) -> None:
            nonlocal reached
            reached = (read, messages)
            bar(read, messages)

        try:
            result = import_bag(bag, opened, robot=name, topics=topics, progress=progress)
        except (PolicyloopError, KeyboardInterrupt):
            if steps := opened.next - before:
                typer.echo(
                    f"stopped behind message {reached[0]} of {reached[1]}: {steps} steps are in {journal} already; "
                    "whoever imports the bag again needs another --journal, or has them twice",
                    err=True,
                )
            raise
    if as_json:
        echo_json(result)
        return
    typer.echo(
        f"{result.steps} steps in {result.episodes} episodes; {result.unmatched} pictures without a partner, "
        f"{result.undriven} ticks without a command"
    )


@journal_app.command()
def verify(journal: Annotated[Path, typer.Argument(help="Directory of the journal.")], as_json: Json = False) -> None:
    """Decode every step of a journal; exit code 5 if one is damaged."""
    from policyloop.cli.progress import progress_bar
    from policyloop.errors import StorageError, VerificationError, WireError
    from policyloop.link.journal import Journal

    opened = Journal(journal)
    damaged = []
    with progress_bar("reading") as bar:
        for position in range(opened.first, opened.next):
            bar(position - opened.first, opened.next - opened.first)
            try:
                opened.read(position)
            except (WireError, StorageError) as error:
                damaged.append(f"step {position}: {error}")
    count, unreadable = opened.next - opened.first, opened.unreadable_bytes
    opened.close()
    if as_json:
        echo_json({"steps": count, "damaged": damaged, "unreadable_bytes": unreadable})
    if damaged:
        raise VerificationError(
            f"{len(damaged)} of {count} steps are damaged; the first: {damaged[0]}", "training leaves them out"
        )
    if unreadable:
        raise VerificationError(
            f"{count} steps are intact, but {unreadable} bytes cannot be read: a record is damaged or torn",
            "training leaves them out; a torn tail is cut off when the gateway opens the journal",
        )
    if not as_json:
        typer.echo(f"{count} steps, all intact")
