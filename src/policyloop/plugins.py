"""Environments, policies and robots of the user's own, named on the command line and nowhere else (row S30).

Code is loaded from what a person typed, never from a file, a bundle or the network.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from policyloop.errors import ConfigError, PolicyloopError

__all__ = ["load_driver", "load_factory", "make"]


log = logging.getLogger(__name__)


def load_factory(reference: str, option: str) -> Callable[..., Any]:
    """Return the function behind `module:name`; the working directory is searched too.

    Args:
        reference: Such as `my_robot.env:make`.
        option: Where it was given; for the error.

    Raises:
        ConfigError: It is none, cannot be imported, or cannot be called.
    """
    module_name, colon, name = reference.partition(":")
    if not (colon and module_name and name):
        raise ConfigError(f"{option} {reference} is not module:factory", f"write it as {option} my_module:make")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises when it is imported
        raise ConfigError(
            f"{option}: cannot import {module_name}: {type(error).__name__}: {error}", "try it: python -c 'import ...'"
        ) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise ConfigError(f"{option}: {module_name} has nothing to call named {name}", "name a function or a class")
    result: Callable[..., Any] = factory
    return result


def make(reference: str, option: str, *arguments: Any) -> Any:
    """Return what the function or class behind `module:name` makes of `arguments`.

    Raises:
        ConfigError: See `load_factory`; or it raises something.
    """
    factory = load_factory(reference, option)
    try:
        return factory(*arguments)
    except PolicyloopError:
        raise
    except Exception as error:  # whatever the user's code raises
        log.info("%s %s", option, reference, exc_info=error)
        takes = "nothing" if not arguments else f"a {type(arguments[0]).__name__}"
        raise ConfigError(
            f"{option} {reference} failed: {type(error).__name__}: {error}",
            f"it is called with {takes}; policyloop -v shows where it failed",
        ) from error


def load_driver(reference: str, option: str) -> Callable[[Any], Any]:
    """Return what the function or class behind `module:name` makes: something that answers observations with actions.

    Raises:
        ConfigError: See `load_factory`; or what it makes cannot be called.
    """
    driver = make(reference, option)
    if not callable(driver):
        raise ConfigError(
            f"{option} {reference} made a {type(driver).__name__}, which cannot be called with an observation",
            "let it return a function, or give its class a __call__",
        )
    return driver
