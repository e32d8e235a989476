"""The tensors of a `.pt` file from anywhere, read in a process that is thrown away: see `learn.pt_reader`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from typing import Annotated

import msgspec
from msgspec import Meta
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from policyloop.errors import StorageError, VerificationError

__all__ = ["MAX_PT_BYTES", "PtFile", "PtLimits", "read_pt"]

MAX_PT_BYTES = 256 << 20
"""Largest file that is worth reading: policies have a megabyte, a trainer's checkpoint some."""

_REMEDY = "save the state dict alone: torch.save(network.state_dict(), 'policy.pt')"
_SHOWN = 200


class PtLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What reading one file may cost.

    Attributes:
        tensor_bytes: All tensors together.
        memory_bytes: On top of what torch itself takes.
        cpu_s: Processor time, s, importing torch included.
        wall_s: Time, s.
    """

    tensor_bytes: int = 256 << 20
    memory_bytes: int = 2 << 30
    cpu_s: int = 60
    wall_s: float = 180.0


class PtFile(msgspec.Struct, frozen=True):
    """What a file holds.

    Attributes:
        tensors: By name, in the order of the file.
        others: Names of entries that are no tensors, with their types.
    """

    tensors: dict[str, Tensor]
    others: tuple[str, ...] = ()


_Name = Annotated[str, Meta(max_length=256)]
_Names = Annotated[tuple[_Name, ...], Meta(max_length=4096)]


class _Answer(msgspec.Struct):
    names: _Names = ()
    others: _Names = ()
    error: str = ""


def read_pt(data: bytes, source: str, limits: PtLimits | None = None) -> PtFile:
    """Read a state dict, bare or in a trainer's checkpoint, or a TorchScript archive; no pickle is opened here.

    Args:
        data: Bytes of the file.
        source: Where they come from, for errors.
        limits: Default: generous ones for a policy.

    Raises:
        VerificationError: It is no file of torch, holds code, or exceeds the limits.
        StorageError: No process can be started, or there is no room for its answer.
    """
    limits = limits or PtLimits()
    asked = msgspec.json.encode({name: getattr(limits, name) for name in ("memory_bytes", "cpu_s", "tensor_bytes")})
    command = [sys.executable, "-m", "policyloop.learn.pt_reader", asked.decode()]
    try:
        with tempfile.TemporaryFile() as file:
            ended = subprocess.run(
                command,
                input=data,
                stdout=file,  # RLIMIT_FSIZE bounds it, which no pipe can do
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=_environment(),
                timeout=limits.wall_s,
            )
            file.seek(0)
            answer = file.read()
    except subprocess.TimeoutExpired as error:
        raise VerificationError(f"{source}: reading it took longer than {limits.wall_s:g} s", _REMEDY) from error
    except OSError as error:
        raise StorageError(f"cannot read {source} in a process of its own: {error.strerror}") from error
    if ended.returncode:
        raise VerificationError(f"{source}: reading it was ended by {_cause(ended.returncode)}", _REMEDY)
    return _decode(answer, source)


def _environment() -> dict[str, str]:
    """Return an environment that finds the same packages and holds no secrets, for the file may be hostile."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def _cause(code: int) -> str:
    return f"code {code}" if code > 0 else f"{signal.Signals(-code).name}: too much time or memory"


def _decode(answer: bytes, source: str) -> PtFile:
    """Return what the reader found; it has seen the file, so it is not trusted either."""
    head, _, body = answer.partition(b"\n")
    try:
        about = msgspec.json.decode(head, type=_Answer)
        if about.error:
            said = _printable(about.error[:_SHOWN])
            raise VerificationError(f"{source} cannot be read as a file of torch: {said}", _REMEDY)
        tensors = load_tensors(body)
        named = {_printable(name): tensors[str(index)] for index, name in enumerate(about.names)}
        return PtFile(named, tuple(map(_printable, about.others)))
    except (msgspec.DecodeError, SafetensorError, KeyError) as error:
        raise VerificationError(f"{source}: its reader answered nonsense: {error}", _REMEDY) from error


def _printable(text: str) -> str:
    """Return `text` as one can show it: nothing in it moves the cursor."""
    return "".join(character if character.isprintable() else "?" for character in text)
