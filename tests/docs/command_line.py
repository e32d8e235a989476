"""Checks commands without running them: each program, subcommand, option and file that we know must exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator

import typer
from tests.docs.blocks import REPOSITORY
from typer.core import TyperGroup

from policyloop.cli import app

__all__ = ["check_commands", "check_names", "commands", "without_prompts"]

_PROMPT = re.compile(r"^ *[a-z0-9-]+[$#] +", re.MULTILINE)
_ENDS = set("();<>|&\n")
_PLACEHOLDER = "..."
_Refused = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""What the parser raises: click's, or the one of the click that typer brings along."""


def without_prompts(text: str) -> str:
    """Return the commands of a block without what stands before them: `robot$ `."""
    return _PROMPT.sub("", text)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each simple command."""
    joined = re.sub(r"\\\n *", " ", without_prompts(text))
    lexer = shlex.shlex(
        re.sub(r"(^|\s)#.*$", r"\1", joined, flags=re.MULTILINE), posix=True, punctuation_chars="();<>|&\n"
    )
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words: list[str] = []
    for word in [*lexer, "\n"]:
        if word and set(word) <= _ENDS:
            if words:
                yield words
            words = []
        elif words or not re.fullmatch(r"\w+=.*", word):
            words.append(word)


def check_commands(text: str) -> None:
    """Raise ValueError if a block is no shell, or names a command, option, target or extra that there is not."""
    shell = subprocess.run(["bash", "-n"], input=without_prompts(text), text=True, capture_output=True, check=False)
    if shell.returncode:
        raise ValueError(shell.stderr.strip())
    for words in commands(text):
        program, *arguments = words
        if program.rpartition("/")[2] == "policyloop":
            check_names(arguments) if _PLACEHOLDER in arguments else _check_arguments(arguments)
        elif program == "make":
            _check_targets(arguments)
        elif program in ("pip", "pip3"):
            _check_extras(arguments)
        elif words[:3] == ["ros2", "launch", "policyloop_ros"]:
            _check_launch(arguments[2])


def check_names(arguments: list[str]) -> None:
    """Raise ValueError if a command or an option is not there; what is missing beside them does not matter."""
    command = typer.main.get_command(app)
    words = list(arguments)
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name not in command.commands:
            raise ValueError(f"there is no `{name}` in `policyloop {' '.join(arguments)}`")
        command = command.commands[name]
    known = {"--help", *(option for entry in command.params for option in (*entry.opts, *entry.secondary_opts))}
    for word in words:
        if word.startswith("-") and word.partition("=")[0] not in known:
            raise ValueError(f"there is no option {word} in `policyloop {' '.join(arguments)}`")


def _check_arguments(arguments: list[str]) -> None:
    """Let the real parser take the arguments, and run nothing."""
    command = typer.main.get_command(app)
    words, parent = list(arguments), None
    try:
        while True:
            context = command.make_context(command.name, words, parent=parent)
            if not isinstance(command, TyperGroup):
                return
            words = [*context._protected_args, *context.args]
            _, found, words = command.resolve_command(context, words)
            command, parent = found or command, context
    except _Refused as error:
        raise ValueError(f"`policyloop {' '.join(arguments)}`: {error.format_message()}") from error


def _check_targets(arguments: list[str]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in arguments:
        if not target.startswith("-") and "=" not in target and not re.search(rf"^{target}:", makefile, re.MULTILINE):
            raise ValueError(f"the Makefile has no target {target}")


def _check_extras(arguments: list[str]) -> None:
    project = (REPOSITORY / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    extras = re.findall(r"^(\w+) = \[", project.partition("\n[")[0], re.MULTILINE)
    for listed in re.findall(r"(?:^|\s)(?:policyloop|\.)\[(.*?)\]", " ".join(arguments)):
        if unknown := set(listed.split(",")) - set(extras):
            raise ValueError(f"there is no extra {', '.join(sorted(unknown))}")


def _check_launch(name: str) -> None:
    if not (REPOSITORY / "ros" / "policyloop_ros" / "launch" / name).is_file():
        raise ValueError(f"policyloop_ros has no {name}")
