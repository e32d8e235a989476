"""One way to set things: a TOML file, overridden by the command line, checked in one pass."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from policyloop.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["load_settings"]

Settings = TypeVar("Settings", bound=msgspec.Struct)


def load_settings(kind: type[Settings], path: Path | None, **overrides: Any) -> Settings:
    """Read settings of `kind`: `overrides` first, then what the file says, then the defaults.

    Raises:
        ConfigError: The file is missing or is not TOML, or a key or value in it is wrong.
    """
    values: dict[str, Any] = {}
    where = "command line"
    if path is not None:
        where = str(path)
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}", "give the path of a TOML file") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not valid TOML: {error}", "mend this line: it takes KEY = VALUE") from error
    try:
        return msgspec.convert({**values, **overrides}, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}", f"it takes: {', '.join(kind.__struct_fields__)}") from error
