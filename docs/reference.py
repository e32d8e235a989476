"""A Sphinx extension: the reference pages are made of the code itself.

{commands}                      every command of `policyloop`, with its arguments and options
{settings} module:Struct ...    a table of the fields of msgspec structs
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from typer.core import TyperGroup

from policyloop.cli import app

if TYPE_CHECKING:
    from typer.core import TyperCommand

__all__ = ["setup"]


class _Generated(SphinxDirective):
    """Puts Markdown lines where the directive stands."""

    has_content = True

    def lines(self) -> Iterator[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(self.lines()), allow_section_headings=True)


class Commands(_Generated):
    """Every command."""

    def lines(self) -> Iterator[str]:
        yield from _command_lines("policyloop", typer.main.get_command(app))


class Settings(_Generated):
    """Tables of structs."""

    def lines(self) -> Iterator[str]:
        for reference in self.content:
            module, _, name = reference.strip().partition(":")
            yield from _struct_lines(getattr(importlib.import_module(module), name))


def _command_lines(path: str, command: TyperGroup | TyperCommand) -> Iterator[str]:
    if isinstance(command, TyperGroup):
        for name, entry in sorted(command.commands.items()):
            yield from _command_lines(f"{path} {name}", entry)
        return
    shown = [entry for entry in command.params if not entry.hidden]
    arguments = " ".join(entry.name.upper() for entry in shown if entry.param_type_name == "argument")
    yield from (f"## `{path}`", "", _plain(command.help), "", f"`{path} [OPTIONS] {arguments}`".replace(" `", "`"), "")
    yield from ("| | default | |", "|---|---|---|")
    for entry in shown:
        if entry.param_type_name == "argument":
            names, default = f"`{entry.name.upper()}`", ""
        else:
            names = ", ".join(f"`{option}`" for option in (*entry.opts, *entry.secondary_opts))
            default = "needed" if entry.required else "" if entry.default is False else _default(entry.default)
        yield f"| {names} | {default} | {_plain(entry.help)} |"
    yield ""


def _struct_lines(struct: type[msgspec.Struct]) -> Iterator[str]:
    analyzer = ModuleAnalyzer.for_module(struct.__module__)
    documented = {
        name: " ".join(lines) for (owner, name), lines in analyzer.find_attr_docs().items() if owner == struct.__name__
    }
    documented = _attributes_section(struct) | documented
    typed = {name: text for (owner, name), text in analyzer.annotations.items() if owner == struct.__name__}
    first = (inspect.getdoc(struct) or "").partition("\n")[0]
    yield from (f"### {struct.__name__}", "", f"{first} (`{struct.__module__}`)", "")
    yield from ("| key | type | default | |", "|---|---|---|---|")
    for field in msgspec.structs.fields(struct):
        default = "needed" if field.required else _default(field.default)
        if field.default_factory is not msgspec.NODEFAULT:
            made = field.default_factory()
            default = "a table" if isinstance(made, msgspec.Struct) else _default(made)
        if isinstance(field.default, msgspec.Struct):
            default = "a table"
        kind = re.sub(r"Annotated\[(.*), msgspec\.Meta\((.*)\)\]", r"\1, \2", typed.get(field.name, ""))
        yield f"| `{field.name}` | {_code(kind)} | {default} | {_plain(documented.get(field.name))} |"
    yield ""


def _attributes_section(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return what the docstring says below `Attributes:`."""
    section = (inspect.getdoc(struct) or "").partition("Attributes:\n")[2]
    found = re.findall(r"^ {4}([\w, ]+): (.*(?:\n {6,}.*)*)", section, re.MULTILINE)
    return {name: text for names, text in found for name in names.split(", ")}


def _default(value: Any) -> str:
    return "" if value is None or value == "" else _code(f"{value:g}" if isinstance(value, float) else str(value))


def _code(text: str) -> str:
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def _plain(text: str | None) -> str:
    """Return a text on one line, safe in a cell."""
    return re.sub(r"\s+", " ", (text or "").replace("|", "\\|").replace("<", "&lt;")).strip()


def setup(application: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    application.add_directive("commands", Commands)
    application.add_directive("settings", Settings)
    return {"parallel_read_safe": True}
