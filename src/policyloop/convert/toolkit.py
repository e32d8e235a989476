"""The vendor's converter (rknn-toolkit2) in an environment of its own, and how to talk to it.

It pins old versions, prints, litters and crashes, so it never shares an environment or a process
with us: a small worker in its environment takes one job, in a temporary directory, and answers.
"""

from __future__ import annotations

import logging
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from policyloop.core.files import write_file
from policyloop.errors import ConfigError, PolicyloopError, StorageError

__all__ = ["TOOLKIT_VERSION", "Toolkit", "ToolkitFailed", "Worker", "toolkit_directory"]

log = logging.getLogger(__name__)

TOOLKIT_VERSION = "2.5.0"
_NEWEST_PYTHON = (3, 12)
_MARK = "installed.json"
_MAX_FRAME_BYTES = 64 << 20
_LOG_LINES = 12


class ToolkitFailed(PolicyloopError):
    """The vendor's toolkit refused, crashed, hung or ran out of memory; the stage is named."""


class _Installed(msgspec.Struct, frozen=True):
    toolkit: str
    python: str
    machine: str
    pins: str


class _Answer(msgspec.Struct):
    """What the worker says: progress, or the end."""

    stage: str = ""
    ok: bool | None = None
    message: str = ""


def toolkit_directory() -> Path:
    """Return where the toolkit's environment is, or would be: `$POLICYLOOP_TOOLKIT`, or the user's data folder."""
    chosen = os.environ.get("POLICYLOOP_TOOLKIT")
    if chosen:
        return Path(chosen).absolute()
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "policyloop" / f"rknn-toolkit2-{TOOLKIT_VERSION}"


class Toolkit:
    """The environment of the vendor's converter.

    Args:
        directory: Default: `toolkit_directory()`.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or toolkit_directory()
        self._resources = resources.files("policyloop.convert")

    @property
    def python(self) -> Path:
        """The interpreter of that environment."""
        return self.directory / "bin" / "python"

    def missing(self) -> str:
        """Return what keeps it from working, in one line; empty if nothing does."""
        try:
            mark = msgspec.json.decode((self.directory / _MARK).read_bytes(), type=_Installed)
        except FileNotFoundError:
            return f"the vendor's converter is not installed in {self.directory}"
        except (OSError, msgspec.DecodeError) as error:
            return f"the installation in {self.directory} is damaged: {error}"
        if mark.pins != self._pins():
            return f"the installation in {self.directory} has other versions than this policyloop wants"
        if not self.python.exists():
            return f"the interpreter that {self.directory} was made with is gone"
        return ""

    def require(self) -> None:
        """Raise ConfigError with the remedy if the toolkit cannot be used."""
        problem = self.missing()
        if problem:
            raise ConfigError(problem, "run `policyloop toolkit install`")

    def install(self, python: str = sys.executable, report: Callable[[str, int, int], None] | None = None) -> None:
        """Make the environment anew; an older one is replaced once the new one works.

        Args:
            python: Interpreter to make it with; the toolkit's wheels end at Python 3.12.
            report: Called with (what happens, steps done, steps in all).

        Raises:
            ConfigError: The interpreter is too new, or missing.
            ToolkitFailed: pip failed; its last words are in the message.
        """
        say = report or (lambda what, done, total: None)
        version = _python_version(python)
        if version > _NEWEST_PYTHON:
            raise ConfigError(
                f"the vendor's converter has no wheels for Python {version[0]}.{version[1]}",
                "give an older one: --python python3.12",
            )
        if self.directory.exists() and not self.directory.is_dir():
            raise StorageError(f"{self.directory} is no folder", "choose another --directory")
        fresh = self.directory.with_name(self.directory.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fresh.parent.mkdir(parents=True, exist_ok=True)
            self._install_into(fresh, python, say)
            shutil.rmtree(self.directory, ignore_errors=True)
            fresh.rename(self.directory)
        except OSError as error:
            raise StorageError.cannot_write(self.directory, error) from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _install_into(self, fresh: Path, python: str, say: Callable[[str, int, int], None]) -> None:
        pip = [str(fresh / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        with resources.as_file(self._resources / "toolkit.txt") as pins:
            # The toolkit itself without its own requirements: one pip run over those pulls gigabytes.
            steps = [
                ("making an environment", [python, "-m", "venv", str(fresh)]),
                ("installing what it needs (1.5 GB, some minutes)", [*pip, "--requirement", str(pins)]),
                ("installing rknn-toolkit2", [*pip, "--no-deps", f"rknn-toolkit2=={TOOLKIT_VERSION}"]),
                ("trying it", [str(fresh / "bin" / "python"), "-c", "from rknn.api import RKNN; RKNN()"]),
            ]
            for done, (what, command) in enumerate(steps):
                say(what, done, len(steps))
                _run(what, command)
        say("done", len(steps), len(steps))
        mark = _Installed(TOOLKIT_VERSION, python, os.uname().machine, self._pins())
        write_file(fresh / _MARK, msgspec.json.encode(mark))

    def _pins(self) -> str:
        return (self._resources / "toolkit.txt").read_text()

    def worker(self, job: dict[str, Any], files: Path, *, time_limit_s: float) -> Worker:
        """Start a conversion; `files` is the directory that holds what the job names.

        Raises:
            ConfigError: The toolkit is not installed.
        """
        self.require()
        return Worker(self.python, job, files, time_limit_s=time_limit_s)


class Worker:
    """One process of the toolkit's environment: it converts once, then answers for the simulated NPU.

    Use it as a context manager; at the end the process is gone, whatever it was doing.

    Args:
        python: Interpreter of the toolkit's environment.
        job: See `rknn_worker.py`.
        files: Where it runs; it may write what it likes there.
        time_limit_s: For the conversion.
    """

    def __init__(self, python: Path, job: dict[str, Any], files: Path, *, time_limit_s: float) -> None:
        self._files = files
        self._limit_s = time_limit_s
        (files / "job.json").write_bytes(msgspec.json.encode(job))
        script = resources.files("policyloop.convert") / "rknn_worker.py"
        # Its libraries choose their threads by themselves, and a leftover PYTHONPATH would mix environments.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self._process = subprocess.Popen(
            [str(python), "-I", str(script), "job.json"],
            cwd=files,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )

    @property
    def process_id(self) -> int:
        """Of the worker's process."""
        return self._process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def convert(self, progress: Callable[[str], None] | None = None) -> dict[str, Any]:
        """Wait for the conversion and return the worker's report.

        Raises:
            ToolkitFailed: It refused, crashed, or took longer than its limit.
        """
        deadline_s = time.monotonic() + self._limit_s
        stage = "start"
        while True:
            data = self._read(deadline_s, stage)
            answer = msgspec.json.decode(data, type=_Answer)
            if answer.ok is None:
                stage = answer.stage
                if progress is not None:
                    progress(stage)
            elif answer.ok:
                report: dict[str, Any] = msgspec.json.decode(data)
                return report
            else:
                raise self._failure(answer.stage, answer.message.strip().rpartition("\n")[2])

    def infer(self, inputs: bytes, *, time_limit_s: float = 30.0) -> bytes:
        """Run the simulated NPU once; inputs one after the other, output as float32."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(struct.pack("<I", len(inputs)) + inputs)
        except BrokenPipeError as error:
            raise self._failure("simulate", "the process is gone") from error
        return self._read(time.monotonic() + time_limit_s, "simulate")

    def _read(self, deadline_s: float, stage: str) -> bytes:
        size = struct.unpack("<I", self._read_exactly(4, deadline_s, stage))[0]
        if size > _MAX_FRAME_BYTES:
            raise self._failure(stage, f"it answered with {size} bytes")
        return self._read_exactly(size, deadline_s, stage)

    def _read_exactly(self, count: int, deadline_s: float, stage: str) -> bytes:
        assert self._process.stdout is not None
        parts = bytearray()
        while len(parts) < count:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([self._process.stdout], [], [], left_s)[0]:
                raise self._failure(stage, f"it took longer than {self._limit_s:g} s")
            data = self._process.stdout.read(count - len(parts))
            if not data:
                code = self._process.wait()
                ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"it ended with code {code}"
                raise self._failure(stage, ended)
            parts += data
        return bytes(parts)

    def _failure(self, stage: str, message: str) -> ToolkitFailed:
        lines = list(self._complaints())[-_LOG_LINES:]
        for line in lines:
            log.warning("toolkit: %s", line)
        said = f"; the toolkit said: {lines[-1]}" if lines else ""
        return ToolkitFailed(
            f"the vendor's converter failed at '{stage}': {message}{said}",
            "see the log with --verbose; `policyloop toolkit info` tells whether the installation is whole",
        )

    def _complaints(self) -> Iterable[str]:
        try:
            text = (self._files / "toolkit.log").read_text(errors="replace")
        except OSError:
            return
        for line in text.splitlines():
            if line.startswith(("E ", "\x1b[1;31mE")):
                yield line.replace("\x1b[1;31m", "").replace("\x1b[0m", "").strip()

    def close(self) -> None:
        """End the process and everything that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()


def workspace() -> tempfile.TemporaryDirectory[str]:
    """Return a temporary directory for one conversion."""
    return tempfile.TemporaryDirectory(prefix="policyloop-convert-")


def _python_version(python: str) -> tuple[int, int]:
    code = "import sys; print(*sys.version_info[:2])"
    try:
        result = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, timeout=30)
        major, minor = map(int, result.stdout.split())
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ConfigError(f"{python} is no Python that runs: {error}", "give another one: --python") from error
    return major, minor


def _run(what: str, command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        last = (result.stderr or result.stdout).strip().splitlines()[-3:]
        raise ToolkitFailed(f"{what} failed: {' / '.join(last)}", "check the network and the free space, and try again")
