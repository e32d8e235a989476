"""Runs the blocks of one session, in order, in one folder, with the real programs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.docs.blocks import Block
from tests.docs.command_line import without_prompts

__all__ = ["run_session"]

_PATIENCE_S = 600
_PORT = "5555"
_END = "END_OF_BLOCK"


def run_session(blocks: list[Block], folder: Path) -> str:
    """Run blocks as one shell script; return what they said.

    They find this policyloop, no network, a home of their own, and a free port where they say 5555. Programs that they
    leave running are ended with the script.

    Raises:
        AssertionError: One of them failed; the message says which.
    """
    home, programs = folder / ".home", folder / ".home" / "bin"
    programs.mkdir(parents=True)
    for name, command in (("policyloop", "-m policyloop"), ("python", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
        program.chmod(0o755)
    script = home / "session.sh"
    script.write_text(re.sub(rf"\b{_PORT}\b", _free_port(), "\n".join(["set -euo pipefail", *map(_shell, blocks)])))
    with tempfile.TemporaryDirectory(prefix="pl-") as runtime, (home / "said").open("w+") as said:
        session = subprocess.Popen(
            ["bash", str(script)],
            cwd=folder,
            env=_environment(home, Path(runtime)),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = session.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end_group(session)
        said.seek(0)
        text = said.read()
    __tracebackhide__ = True
    assert code == 0, f"exit code {code}\n{text}"
    return text


def _shell(block: Block) -> str:
    """Return a block as a piece of a script that says where it comes from."""
    announced = f"echo '--- {block.where}' >&2\n"
    if name := block.declared.get("file"):
        return f"{announced}cat > '{name}' <<'{_END}'\n{block.text}{_END}"
    if block.language == "python":
        return f"{announced}python - <<'{_END}'\n{block.text}{_END}"
    return announced + without_prompts(block.text)


def _environment(home: Path, runtime: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SOURCE_DATE", "PYTEST"))}
    nowhere = {f"{name}_proxy": "http://127.0.0.1:9" for name in ("http", "https", "all")}
    return {
        **kept,
        **nowhere,
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(runtime),
        "OMP_NUM_THREADS": "1",
    }


def _free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def _end_group(session: subprocess.Popen[bytes]) -> None:
    """End what a session left running; its processes are a group of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session.pid, signal.SIGKILL)
    session.wait()
