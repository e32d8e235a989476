"""How many faults in the safety code the tests of it notice: every mutant of policyloop.safety, one at a time.

pip install cosmic-ray    (8.7; it makes the mutants; they run here, each in a fork that has all but the mutant loaded)
python bench/mutants.py [--only gate] [--every 3] [--tests tests/safety]

A mutant is killed if a test fails, or does not end within 20 s of CPU. Left out, lest they flatter the number: mutants
of annotations of functions, which are never evaluated, and bitwise operators in place of arithmetic ones, which fail on
the first float. A survivor is printed as the line that it changes.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import resource
import sys
import types
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

SOURCE = Path(__file__).resolve().parent.parent / "src" / "policyloop" / "safety"
PRELOADED = (
    "hypothesis.strategies",
    "onnx",
    "simplejpeg",
    "policyloop.convert.toolkit",
    "policyloop.core.floor",
    "policyloop.core.surroundings",
)
BITWISE = ("_RShift", "_LShift", "_BitOr", "_BitAnd", "_BitXor")
CPU_S = 20


class Quickly:
    """Lets the quick tests fail first, and nobody look for a smaller example."""

    def pytest_collection(self) -> None:
        """Change what tests that are about to be collected take as a default."""
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile("mutants", hypothesis.settings(), phases=phases)
        hypothesis.settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Sort."""
        items.sort(key=lambda item: hasattr(item.function, "hypothesis"))


def meaning(source: str) -> str:
    """Return what of a module is ever evaluated, as text."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign) and not isinstance(node.target, ast.Name):
            node.annotation = ast.Constant(0)
    return ast.dump(tree)


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Yield the operator and the source of every mutant."""
    tree, seen = get_ast(source), {meaning(source)}
    for name in operator_names():
        operator_class = get_operator(name)
        if operator_class.arguments() or name.endswith(BITWISE):
            continue
        operator = operator_class()
        places = sum(len(list(operator.mutation_positions(node))) for node in ast_nodes(tree))
        for place in range(places):
            mutant = mutate_code(source, operator, place)
            if mutant is None:
                continue
            try:
                text = meaning(mutant)
            except SyntaxError:
                continue
            if text not in seen:
                seen.add(text)
                yield name.removeprefix("core/"), mutant


def survives(module: str, path: Path, source: str, tests: list[str]) -> bool:
    """Run the tests on a mutant in a fork."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        code = 1
        try:
            loaded = types.ModuleType(module)
            loaded.__file__ = str(path)
            sys.modules[module] = loaded
            setattr(sys.modules[module.rpartition(".")[0]], path.stem, loaded)
            exec(compile(source, str(path), "exec"), loaded.__dict__)
            options = "-x -q -p no:cacheprovider --import-mode=importlib --strict-markers"
            known = ["-o", "addopts=", "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
            code = pytest.main([*known, *options.split(), "-m", "not long", *tests], plugins=[Quickly()])
        finally:
            os._exit(int(code != 0))
    return os.waitpid(child, 0)[1] == 0


def changed(source: str, mutant: str) -> str:
    """Return the lines that differ."""
    pairs = zip(source.splitlines(), mutant.splitlines(), strict=False)
    return "; ".join(
        f"{number}: {before.strip()}  ->  {after.strip()}"
        for number, (before, after) in enumerate(pairs, 1)
        if before != after
    )


def main() -> None:
    """Mutate, test, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="one module")
    parser.add_argument("--lines", type=int, nargs=2, default=(1, 10**6), help="only mutants of these lines")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="one of N mutants, evenly spread")
    parser.add_argument("--tests", nargs="+", default=["tests/safety"])
    arguments = parser.parse_args()
    tests = [*arguments.tests, "--ignore=tests/safety/test_adversary.py"]
    importlib.import_module("policyloop.safety")
    for name in PRELOADED:
        importlib.import_module(name)
    killed = total = 0
    for path in sorted(SOURCE.glob("*.py")):
        source, module = path.read_text(encoding="utf-8"), f"policyloop.safety.{path.stem}"
        if path.stem == "__init__" or arguments.only not in ("", path.stem):
            continue
        assert module not in sys.modules, module
        assert survives(module, path, source, tests), "the tests fail without a mutant"
        for operator, mutant in islice(mutants(source), 0, None, arguments.every):
            difference = changed(source, mutant)
            if not arguments.lines[0] <= int(difference.split(":")[0]) <= arguments.lines[1]:
                continue
            total += 1
            if survives(module, path, mutant, tests):
                print(f"survived  {path.name}:{difference}  [{operator}]", flush=True)
            else:
                killed += 1
            if total % 50 == 0:
                print(f"... {killed} of {total} killed", file=sys.stderr, flush=True)
    print(f"{killed} of {total} mutants killed, {killed / max(total, 1):.1%}")


if __name__ == "__main__":
    main()
