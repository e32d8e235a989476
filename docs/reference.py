"""A Sphinx extension: the reference pages are made of the code itself.

{settings} module:Struct ...    a table of the fields of msgspec structs
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

__all__ = ["setup"]


class Settings(SphinxDirective):
    """Puts tables of structs where the directive stands."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(self._lines()), allow_section_headings=True)

    def _lines(self) -> Iterator[str]:
        for reference in self.content:
            module, _, name = reference.strip().partition(":")
            yield from _struct_lines(getattr(importlib.import_module(module), name))


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
    application.add_directive("settings", Settings)
    return {"parallel_read_safe": True}
