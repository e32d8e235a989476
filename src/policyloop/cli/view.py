"""`policyloop view`: look at one recorded episode."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policyloop.cli import app
from policyloop.cli.options import Json, echo_json

if TYPE_CHECKING:
    from policyloop.view.episodes import Episode
    from policyloop.view.reel import Reel


@app.command()
def view(
    journal: Annotated[Path, typer.Argument(help="Directory of the journal.")],
    robot: Annotated[str, typer.Option(help="Only its episodes; default: everybody's.")] = "",
    episode: Annotated[int | None, typer.Option(help="Its number in --list; default: the newest.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Page to write, or .rrd with --rerun; default: episode.html, or a window.")
    ] = None,
    rerun: Annotated[bool, typer.Option("--rerun", help="Show it in rerun instead of on a page.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="List the episodes, and write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Write one episode as a page with a scrubber that needs no network; or show it in rerun."""
    from policyloop.cli.progress import progress_bar
    from policyloop.link.journal import Journal
    from policyloop.view.episodes import find_episode, list_episodes
    from policyloop.view.reel import load_reel

    with closing(Journal(journal)) as opened, progress_bar("reading") as opened.progress:
        episodes = list_episodes(opened, robot) if list_only else []
        if not list_only:
            number, found = find_episode(opened, robot, episode)
            reel = load_reel(opened, found)
    if list_only:
        _list(episodes, as_json)
        return
    path = output or Path("episode.html")
    if rerun:
        from policyloop.view.rerun_log import log_to_rerun

        log_to_rerun(reel, output)
    else:
        _write(path, reel)
    where = str(path) if output or not rerun else "rerun"
    if as_json:
        echo_json({"output": where, "episode": number, "robot": reel.robot, "steps": reel.steps})
        return
    typer.echo(f"{where}: episode {number}, {reel.steps} steps of {reel.robot}")


def _list(episodes: list[Episode], as_json: bool) -> None:
    rows = [
        {"episode": number, "robot": one.robot, "start": one.boot, "steps": len(one.positions)}
        for number, one in enumerate(episodes)
    ]
    if as_json:
        echo_json({"episodes": rows})
        return
    for row in rows:
        typer.echo(f"{row['episode']:6}  {row['steps']:6} steps  {row['robot']}  start {row['start']}")


def _write(path: Path, reel: Reel) -> None:
    from policyloop.core.files import write_file
    from policyloop.errors import StorageError
    from policyloop.view.page import episode_page

    try:
        write_file(path, episode_page(reel).encode())
    except OSError as error:
        raise StorageError.cannot_write(path, error) from error
