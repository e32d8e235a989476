"""ONNX -> RKNN with the vendor's toolkit, at one precision; the simulated NPU that comes of it stays open."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.convert.graph import NetworkInput, PreparedNetwork
from policyloop.convert.samples import Samples
from policyloop.convert.toolkit import Toolkit, ToolkitFailed, Worker, workspace
from policyloop.core.step import Arrays
from policyloop.errors import UsageError

__all__ = [
    "Algorithm",
    "Converted",
    "ConverterOptions",
    "LayerCost",
    "Precision",
    "SimulatedNpu",
    "convert",
    "converter_options",
]

Precision = Literal["float16", "int8", "hybrid"]
Algorithm = Literal["normal", "kl_divergence", "mmse"]
Target = Literal["rk3588", "rk3576", "rk3568", "rk3566", "rk3562"]

_LAYER = re.compile(
    r"\]\s+\d+\s+(?P<operator>\S+)\s+(?P<dtype>\S+)\s+(?P<place>NPU|CPU)\s+.*?"
    r"(?P<ddr>\d+)/(?P<npu>\d+)/(?P<total>\d+)\s+(?P<kilobytes>\d+)\s+(?P<name>\S+)\s*$"
)
_ANALYSED = re.compile(r"^\[(?P<kind>\w+)\]\s+(?P<name>\S+)\s+(?P<numbers>[\d.\s|]+)$")


class ConverterOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to convert (row S19).

    Attributes:
        algorithm: How INT8 ranges are found; `mmse` takes minutes.
        per_channel: A scale for each channel of a weight, instead of one for the layer.
        time_limit_s: For one conversion.
        memory_bytes: Address space of the converter's process.
    """

    target: Target = "rk3588"
    algorithm: Algorithm = "normal"
    per_channel: bool = True
    optimization_level: Annotated[int, msgspec.Meta(ge=0, le=3)] = 3
    time_limit_s: float = 1800.0
    memory_bytes: int = 16 << 30


def converter_options(**values: Any) -> ConverterOptions:
    """Check options that a person gave; UsageError names what does not exist."""
    try:
        return msgspec.convert(values, ConverterOptions)
    except msgspec.ValidationError as error:
        known = f"targets: {', '.join(get_args(Target))}; algorithms: {', '.join(get_args(Algorithm))}"
        raise UsageError(f"the converter's options: {error}", known) from error


class LayerCost(msgspec.Struct, frozen=True, kw_only=True):
    """One layer, as the vendor's compiler placed it, and how well it keeps its numbers.

    Attributes:
        place: NPU or CPU.
        cycles: The compiler's own count of NPU cycles; not a measurement.
        cosine: Cosine between this layer's output and the float network's, on one sample; None = not analysed.
    """

    operator: str
    name: str
    dtype: str
    place: str
    cycles: int
    kilobytes: int
    cosine: float | None = None


@dataclass(frozen=True)
class Converted:
    """What came of one conversion.

    Attributes:
        rknn: The file for the board.
        outputs: The simulated NPU's answers to the held-out samples, before tanh, (n, actions).
    """

    precision: Precision
    rknn: bytes
    outputs: NDArray[np.float32]
    layers: list[LayerCost]
    seconds: dict[str, float]
    toolkit: str


class SimulatedNpu:
    """The vendor's simulator as a backend: slow, but its arithmetic is the NPU's."""

    name = "rknn-simulator"

    def __init__(self, worker: Worker, inputs: tuple[NetworkInput, ...]) -> None:
        self._worker, self._inputs = worker, inputs

    def infer(self, inputs: Arrays) -> NDArray[np.float32]:
        """See `Backend.infer`."""
        data = b"".join(as_fed(entry, inputs[entry.name][None]).tobytes() for entry in self._inputs)
        return np.frombuffer(self._worker.infer(data), np.float32)

    def close(self) -> None:
        """The worker is closed by whoever opened it."""


def as_fed(entry: NetworkInput, batch: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return a batch of network inputs as a board is fed: pictures channels last, each input in its type."""
    laid_out = batch.transpose(0, 2, 3, 1) if entry.is_picture else batch
    return np.ascontiguousarray(laid_out, np.dtype(entry.dtype))


@contextmanager
def convert(
    toolkit: Toolkit,
    network: PreparedNetwork,
    precision: Precision,
    calibration: Samples | None,
    held_out: Samples,
    options: ConverterOptions,
    progress: Callable[[str], None] | None = None,
) -> Iterator[tuple[Converted, SimulatedNpu]]:
    """Convert `network` and keep the simulated NPU open for the length of the context.

    Raises:
        UsageError: INT8 without samples to calibrate on.
        ToolkitFailed: The toolkit refused, crashed, hung, or left no file.
    """
    if precision != "float16" and calibration is None:
        raise UsageError(f"{precision} needs samples to calibrate on", "give --journal or --calibration")
    with workspace() as temporary:
        files = Path(temporary)
        job = _write_job(files, network, precision, calibration, held_out, options)
        with toolkit.worker(job, files, time_limit_s=options.time_limit_s) as worker:
            report = worker.convert(progress)
            rknn = _read(files / "network.rknn")
            if not rknn:
                raise ToolkitFailed("the vendor's converter says that it succeeded, but left no file", "try again")
            converted = Converted(
                precision=precision,
                rknn=rknn,
                outputs=np.load(files / "outputs.npy", allow_pickle=False),
                layers=read_layers(_read(files / "toolkit.log"), _read(files / "analysis" / "error_analysis.txt")),
                seconds=report["seconds"],
                toolkit=report["toolkit"],
            )
            yield converted, SimulatedNpu(worker, network.inputs)


def _write_job(
    files: Path,
    network: PreparedNetwork,
    precision: Precision,
    calibration: Samples | None,
    held_out: Samples,
    options: ConverterOptions,
) -> dict[str, Any]:
    (files / "network.onnx").write_bytes(network.folded)
    for index, entry in enumerate(network.inputs):
        np.save(files / f"held_out_{index}.npy", as_fed(entry, held_out.inputs[entry.name]))
    if calibration is not None and precision != "float16":
        _write_dataset(files, network, calibration)
    return {
        "inputs": [
            {
                "shape": as_fed(entry, np.zeros(entry.shape)).shape,
                "dtype": entry.dtype,
                "mean": entry.mean,
                "std": entry.std,
            }
            for entry in network.inputs
        ],
        "precision": precision,
        "float16": network.head,
        "target": options.target,
        "algorithm": options.algorithm,
        "method": "channel" if options.per_channel else "layer",
        "optimization_level": options.optimization_level,
        "memory_bytes": options.memory_bytes,
        "held_out": True,
        "analyse": True,
    }


def _write_dataset(files: Path, network: PreparedNetwork, calibration: Samples) -> None:
    """Write each sample as the ONNX file takes it, before the scaling that was folded: planes of 0..255."""
    (files / "calibration").mkdir()
    lines = []
    for row in range(len(calibration)):
        names = []
        for index, entry in enumerate(network.inputs):
            names.append(f"calibration/{row}_{index}.npy")
            np.save(files / names[-1], calibration.inputs[entry.name][row][None].astype(np.float32))
        lines.append(" ".join(names))
    (files / "dataset.txt").write_text("\n".join(lines) + "\n")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def read_layers(log: bytes, analysis: bytes) -> list[LayerCost]:
    """Read the compiler's last layer table, and the accuracy analysis beside it."""
    text = log.decode(errors="replace")
    table = text.rpartition("Network Layer Information Table")[2]
    cosines = dict(_cosines(analysis.decode(errors="replace")))
    layers = []
    for line in table.splitlines():
        found = _LAYER.search(line)
        if found is None or found["operator"] in ("InputOperator", "OutputOperator"):
            continue
        name = found["name"].partition(":")[2].partition("#")[0]
        layers.append(
            LayerCost(
                operator=found["operator"],
                name=name,
                dtype=found["dtype"],
                place=found["place"],
                cycles=int(found["total"]),
                kilobytes=int(found["kilobytes"]),
                cosine=next((value for key, value in cosines.items() if _same_layer(key, name)), None),
            )
        )
    return layers


def _same_layer(analysed: str, compiled: str) -> bool:
    """The analysis says `gemm_17_mm` where the compiler says `gemm_17`."""
    return analysed == compiled or analysed.startswith((compiled + "_", compiled + "-"))


def _cosines(analysis: str) -> Iterator[tuple[str, float]]:
    for line in analysis.splitlines():
        found = _ANALYSED.match(line.strip())
        if found is not None:
            yield found["name"], float(found["numbers"].split()[0])
