"""How the interface table is written in YAML and in the README."""

from __future__ import annotations

import json
from typing import Any

NAMES = {bool: "bool", int: "int", float: "double", str: "string"}
LIVE = {"fixed": "no", "free": "yes", "down": "only lower", "up": "only higher"}


def value(default: Any) -> str:
    return json.dumps(default)


def bounds(parameter: Any) -> str:
    if not parameter.unit:
        return ""
    unit = "" if parameter.unit == "1" else f" {parameter.unit}"
    return f"{parameter.low:g} to {parameter.high:g}{unit}"


def parameter_row(parameter: Any) -> str:
    kind = NAMES[type(parameter.default)]
    cells = (f"`{parameter.name}`", kind, f"`{value(parameter.default)}`", bounds(parameter), LIVE[parameter.live])
    return f"| {' | '.join((*cells, parameter.about))} |"


def topic_row(topic: Any) -> str:
    kinds = " or ".join(f"`{kind}`" for kind in topic.kinds)
    return f"| `{topic.name}` | {topic.direction} | {kinds} | {topic.quality} | {topic.about} |"


def service_row(service: Any) -> str:
    return f"| `{service.name}` | `{service.kind}` | {service.about} |"


def yaml_of(node: Any) -> str:
    lines = [f"# {node.about}", "/**:", "  ros__parameters:"]
    for parameter in node.parameters:
        said = ", ".join(filter(None, (bounds(parameter), "" if parameter.live == "fixed" else LIVE[parameter.live])))
        lines.append(f"    # {parameter.about}{f' ({said})' if said else ''}")
        lines.append(f"    {parameter.name}: {value(parameter.default)}")
    return "\n".join(lines) + "\n"
