"""The command line. One file per command; heavy imports happen inside the commands."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from policyloop import __version__
from policyloop.errors import MissingExtra, PolicyloopError, StorageError

__all__ = ["app", "main"]

app = typer.Typer(
    name="policyloop",
    help="Close the loop: drive, learn, ship, drive better.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode=None,  # drawing help with rich takes longer than all the rest
    context_settings={"max_content_width": 120},
)
journal_app = typer.Typer(help="Look into recordings.", no_args_is_help=True)
app.add_typer(journal_app, name="journal")
keys_app = typer.Typer(help="Who this machine is, and who may connect to it.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

bundle_app = typer.Typer(help="The policies that robots drive with: look at them, sign them.", no_args_is_help=True)
app.add_typer(bundle_app, name="bundle")
store_app = typer.Typer(help="The versions that a robot has, and which one drives.", no_args_is_help=True)
app.add_typer(store_app, name="store")
robot_app = typer.Typer(help="Arm, disarm and stop the robot's program on this machine.", no_args_is_help=True)
app.add_typer(robot_app, name="robot")
toolkit_app = typer.Typer(help="The vendor's converter, in an environment of its own.", no_args_is_help=True)
app.add_typer(toolkit_app, name="toolkit")
example_app = typer.Typer(help="Folders with everything for a walk-through.", no_args_is_help=True)
app.add_typer(example_app, name="example")


@example_app.callback()
def _example() -> None:
    """Keep the name of the one example a command of its own."""


INTERRUPTED = 130
_EXTRAS = {
    **dict.fromkeys(("torch", "safetensors", "tensorboard", "yaml"), "train"),
    **dict.fromkeys(("onnx", "onnxslim"), "convert"),
    **dict.fromkeys(("mujoco", "gymnasium"), "sim"),
    **dict.fromkeys(("anyio", "starlette", "uvicorn", "websockets"), "dashboard"),
}
"""Which extra brings a package that a robot does without."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _colour() -> bool | None:
    """Return False where NO_COLOR asks for none (no-color.org); else the terminal decides."""
    return False if os.environ.get("NO_COLOR") else None


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    follow_parent: Annotated[int, typer.Option(hidden=True)] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what happens inside.")] = False,
) -> None:
    context.color = _colour()
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if follow_parent:
        from policyloop.demo.processes import end_with_parent

        end_with_parent(follow_parent)


_COMMANDS = (
    "bundle calibrate chaos convert dashboard demo deploy doctor evaluate example export gateway import_ journal keys "
    "plan promote robot run sim store toolkit train view"
)
for _command in _COMMANDS.split():
    import_module(f"policyloop.cli.{_command}")


def main() -> None:
    """Run the command line; errors become one message and an exit code."""
    try:
        app()
    except PolicyloopError as error:
        _end(error)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        _end(MissingExtra(package, _EXTRAS[package]))
    except OSError as error:  # what no command expects: the terminal or file that it writes to, say
        logging.getLogger(__name__).info("unexpected", exc_info=error)
        _end(StorageError.cannot_write(Path(error.filename or "standard output"), error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _end(error: PolicyloopError) -> NoReturn:
    typer.secho(f"policyloop: {error.message}", err=True, fg=typer.colors.RED, color=_colour())
    if error.remedy:
        typer.echo(f"  {error.remedy}", err=True)
    sys.exit(error.exit_code)
