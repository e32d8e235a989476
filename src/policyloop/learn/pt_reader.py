"""Open one file of torch, which may be hostile, in a process that is thrown away afterwards.

    python -m policyloop.learn.pt_reader LIMITS < policy.pt > answer

`LIMITS` is JSON: `memory_bytes`, `cpu_s`, `tensor_bytes`. The answer is a line of JSON, `{"names": [...],
"others": [...]}` or `{"error": ...}`, and behind that line the tensors as safetensors, called `0`, `1`, ... in the
order of the names.

`weights_only` keeps a pickle from calling anything. TorchScript is code by design: its `__setstate__` runs when the
archive is loaded, and may write files. So before it looks at the file, this process gives up for good what
it does not need: to open files and sockets, to start processes, to grow.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import resource
import sys
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors

WRAPPERS = ("state_dict", "model_state_dict", "actor_state_dict")
"""Keys under which trainers keep a state dict beside other things; the last is that of rsl_rl since version 4."""
NORMALIZERS = ("obs_norm_state_dict",)
"""Keys of state dicts that belong to the network although they stand beside its own: rsl_rl up to version 2."""
_ZIPPED = "policy.pth"
"""Where stable-baselines3 keeps the state dict in its `.zip`."""

_HEADER_BYTES = 16 << 20


class Refused(Exception):
    """The file holds something else than the tensors of a network."""


def main() -> None:
    """Read a file from standard input and answer on standard output."""
    limits = json.loads(sys.argv[1])
    data = sys.stdin.buffer.read()
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a script may print
    torch.set_num_threads(1)
    _warm_up()
    _give_up_rights(limits)
    try:
        entries = _state_dict(data)
        found = {name: value for name, value in entries.items() if isinstance(value, torch.Tensor)}
        others = [f"{name} ({type(value).__name__})" for name, value in entries.items() if name not in found]
        body = save_tensors(_portable(found.values(), limits["tensor_bytes"]))
        head: dict[str, Any] = {"names": [str(name) for name in found], "others": others}
    except Exception as error:  # whatever a hostile file can make torch raise
        head, body = {"error": _reason(error)}, b""
    answer.write(json.dumps(head).encode() + b"\n" + body)
    answer.close()


def _warm_up() -> None:
    """Let torch import what it imports late, while files can still be opened."""
    buffer = io.BytesIO()
    torch.save({"x": torch.zeros(1)}, buffer)
    buffer.seek(0)
    torch.load(buffer, map_location="cpu", weights_only=True)
    save_tensors({"x": torch.zeros(1)})
    codecs.lookup("cp437")  # of names in archives


def _give_up_rights(limits: dict[str, int]) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    for kind, value in (
        (resource.RLIMIT_CPU, limits["cpu_s"]),
        (resource.RLIMIT_AS, pages * resource.getpagesize() + limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["tensor_bytes"] + _HEADER_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def _state_dict(data: bytes) -> Mapping[Any, Any]:
    """Return the state dict of a TorchScript archive, or what a file of `torch.save` holds; or one in a `.zip`."""
    if data.startswith(b"PK") and _ZIPPED.encode() in data:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if _ZIPPED in archive.namelist():
                data = archive.read(_ZIPPED)
    if data.startswith(b"PK") and b"/constants.pkl" in data:
        scripted: Mapping[Any, Any] = torch.jit.load(io.BytesIO(data), map_location="cpu").state_dict()
        return scripted
    loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(loaded, Mapping):
        raise Refused(f"it holds a {type(loaded).__name__}, not a state dict")
    wrapped = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
    if wrapped is None:
        return loaded
    beside = {key: loaded[key] for key in NORMALIZERS if isinstance(loaded.get(key), Mapping)}
    return {**wrapped, **{f"{key}.{name}": value for key, table in beside.items() for name, value in table.items()}}


def _portable(found: Collection[torch.Tensor], limit_bytes: int) -> dict[str, torch.Tensor]:
    """Return copies that share no memory, sizes added up before: a few bytes can stand for a tensor of any size."""
    if sum(tensor.numel() * tensor.element_size() for tensor in found) > limit_bytes:
        raise Refused(f"its tensors are larger than {limit_bytes} bytes")
    copies = (tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in found)
    return {str(index): tensor for index, tensor in enumerate(copies)}


def _reason(error: Exception) -> str:
    """Return one line; torch answers with a page that advises to load the file unsafely."""
    if wanted := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it is more than tensors, it wants {wanted[1]}"
    if refused := re.search(r"WeightsUnpickler error:\s*(.+)", str(error)):
        return refused[1]
    said = (str(error).strip().splitlines() or [""])[0]
    return said if isinstance(error, Refused) else f"{type(error).__name__}: {said}"


if __name__ == "__main__":
    main()
