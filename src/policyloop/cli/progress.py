"""Progress with time left, on standard error and only where a person watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from policyloop.learn.reporter import Progress as Standing

__all__ = ["LearnerConsole", "progress_bar"]

_SAY_EVERY_S = 5.0


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[..., None]]:
    """Yield a function of (done, total, what happens now) that draws a bar.

    The last may be left out. A total of None: nobody knows how much there is, and the bar runs to and fro. Less done
    than before: something else has begun, and the time that is left is estimated anew.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # what goes into a file must not end on the terminal
        disable=not console.is_terminal,
    ) as bar:
        task, before = bar.add_task(what, total=None), 0.0

        def update(done: float, total: float | None, now: str = "") -> None:
            nonlocal before
            if done < before:
                bar.reset(task)
            before = done
            bar.update(task, completed=done, total=total, description=now or what)

        yield update


class LearnerConsole:
    """Says how a learner does: a bar for each phase, and a line when one begins and now and then."""

    def __init__(self) -> None:
        self._opened = ExitStack()
        self._bar = self._opened.enter_context(progress_bar("learning"))
        self._last = ("", -1)
        self._last_s = -1e9

    def __call__(self, standing: Standing) -> None:
        """Take in where the learner stands."""
        self._bar(standing.done, standing.total, standing.phase)
        key = (standing.phase, standing.update)
        if key == self._last and standing.elapsed_s - self._last_s < _SAY_EVERY_S:
            return
        self._last, self._last_s = key, standing.elapsed_s
        typer.echo(
            f"[{standing.elapsed_s:6.0f} s] {standing.phase} {standing.done}/{standing.total}"
            f"  update {standing.update}  policy {standing.version}  return {standing.score:.1f}",
            err=True,
        )

    def close(self) -> None:
        """Take the bar away."""
        self._opened.close()
