"""Print the reference of the command line, made from the command line itself.

Usage: python docs/make_cli.py > docs/cli.md
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from policyloop import errors
from policyloop.cli import INTERRUPTED, app

_HEAD = """\
# The command line

Made by `python docs/make_cli.py > docs/cli.md`; do not edit.

Standard output is data, standard error is talk. `--json` prints a report as JSON, and nothing else. Progress bars are
drawn on a terminal only. `NO_COLOR=1` turns colours off. `policyloop --version` prints the version.

Completion of commands and options: `policyloop --install-completion` for the shell that you are in (bash, zsh, fish),
or `policyloop --show-completion`, to put it where you like.
"""


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes\n"
    yield "| code | error | what it means |"
    yield "|---|---|---|"
    yield "| 0 | | It went as it should. |"
    kinds = [getattr(errors, name) for name in errors.__all__ if name[0].isupper()]
    for kind in sorted(kinds, key=lambda kind: kind.exit_code):
        about = (inspect.getdoc(kind) or "").splitlines()[0]
        yield f"| {kind.exit_code} | `{kind.__name__}` | {about} |"
    yield f"| {INTERRUPTED} | | Interrupted by Ctrl-C. |\n"


def _command(path: str, command: Any) -> Iterator[str]:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    usage = [path, *(f"[{one.name.upper()}]" if not one.required else one.name.upper() for one in arguments)]
    yield f"### {path}\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    yield f"    {' '.join([*usage, '[OPTIONS]'])}\n"
    rows = [f"| `{one.name.upper()}` | | {one.help} |" for one in arguments]
    rows += [f"| {_names(one)} | {_default(one)} | {one.help} |" for one in options]
    if rows:
        yield "\n".join(["| argument or option | default | |", "|---|---|---|", *rows]) + "\n"


def _names(option: Any) -> str:
    return ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])


def _default(option: Any) -> str:
    if option.required:
        return "needed"
    value = option.default
    if value is None or value == "" or option.is_flag:
        return "on" if value is True else ""
    return f"`{value}`"


def _group(path: str, group: Any) -> Iterator[str]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield f"## {path} {name}\n"
            yield (command.help or "") + "\n"
            yield from _group(f"{path} {name}", command)
        else:
            yield from _command(f"{path} {name}", command)


def main() -> None:
    """Print everything."""
    root: Any = typer.main.get_command(app)
    groups = {name: command for name, command in sorted(root.commands.items()) if hasattr(command, "commands")}
    parts = [_HEAD, *_exit_codes(), "## Commands\n"]
    for name, command in sorted(root.commands.items()):
        if name not in groups:
            parts += _command(f"policyloop {name}", command)
    for name, group in groups.items():
        parts += [f"## policyloop {name}\n", f"{group.help}\n", *_group(f"policyloop {name}", group)]
    text = "\n".join(parts).replace(str(Path.home()), "~")
    sys.stdout.write(text.rstrip() + "\n")


if __name__ == "__main__":
    main()
