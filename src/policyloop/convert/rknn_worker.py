"""Runs inside the vendor toolkit's own environment; knows nothing of policyloop. One process, one conversion.

    python rknn_worker.py job.json        (current directory: a temporary one, with everything the job names)

The toolkit prints what it likes, leaves files where it stands, keeps global state and answers with
-1 or None: all of that stays in this process. Standard output carries frames, each a length
(u32, little-endian) and that many bytes: JSON progress `{"stage": ...}`, at last JSON `{"ok": true, ...}`
or `{"ok": false, "stage": ..., "message": ...}`. Then, until standard input ends, each frame that
comes in holds the network's inputs one after the other, and the simulator's output goes back.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

PR_SET_PDEATHSIG = 1
LAYOUTS = {4: "nhwc"}


class Failed(Exception):
    """The toolkit said no, in one of its ways."""


def main() -> None:
    """Convert what the job says, then simulate until nobody asks any more."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "wb")
    log = os.open("toolkit.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    job = json.loads(Path(sys.argv[1]).read_bytes())
    resource.setrlimit(resource.RLIMIT_AS, (job["memory_bytes"], job["memory_bytes"]))
    conversion = Conversion(job, answers)
    try:
        report = conversion.run()
    except BaseException as error:
        message = str(error) if isinstance(error, Failed) else traceback.format_exc(limit=-3)
        send(answers, json.dumps({"ok": False, "stage": conversion.stage, "message": message}).encode())
        sys.exit(1)
    send(answers, json.dumps(report).encode())
    serve(conversion, answers)


def send(stream: BinaryIO, data: bytes) -> None:
    """Write one frame."""
    stream.write(struct.pack("<I", len(data)) + data)
    stream.flush()


class Conversion:
    """One network on its way through the toolkit."""

    def __init__(self, job: dict[str, Any], answers: BinaryIO) -> None:
        self.job, self.answers = job, answers
        self.stage = "start"
        self.seconds: dict[str, float] = {}

    def step(self, stage: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Run one call of the toolkit under a name; its return codes become exceptions."""
        self.stage = stage
        send(self.answers, json.dumps({"stage": stage}).encode())
        started = time.monotonic()
        code = call(*arguments, **options)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - started
        if isinstance(code, int) and code != 0:
            raise Failed(f"the toolkit answered {code}")
        return code

    def run(self) -> dict[str, Any]:
        """Convert, judge, analyse; returns the report."""
        from importlib.metadata import version

        self.stage = "import the toolkit"
        send(self.answers, json.dumps({"stage": self.stage}).encode())
        from rknn.api import RKNN

        self.new = RKNN
        if self.job["precision"] == "hybrid":
            self.build_hybrid()
        else:
            self.build()
        self.step("write", self.rknn.export_rknn, "network.rknn")
        self.step("start the simulator", self.rknn.init_runtime)
        report: dict[str, Any] = {"ok": True, "toolkit": version("rknn-toolkit2")}
        if self.job["held_out"]:
            np.save("outputs.npy", self.step("judge", self.judge))
        if self.job["analyse"]:
            self.step("analyse layers", self.analyse)
        report["seconds"] = self.seconds
        return report

    def open(self) -> None:
        """Begin anew, with the job's configuration."""
        self.rknn = self.new(verbose=True)
        inputs = self.job["inputs"]
        self.step(
            "configure",
            self.rknn.config,
            target_platform=self.job["target"],
            mean_values=[entry["mean"] for entry in inputs],
            std_values=[entry["std"] for entry in inputs],
            quantized_dtype="w8a8",
            quantized_algorithm=self.job["algorithm"],
            quantized_method=self.job["method"],
            optimization_level=self.job["optimization_level"],
            single_core_mode=True,
        )

    def build(self) -> None:
        """Convert at one precision."""
        self.open()
        self.step("load", self.rknn.load_onnx, model="network.onnx")
        quantise = self.job["precision"] != "float16"
        self.step("build", self.rknn.build, do_quantization=quantise, dataset="dataset.txt" if quantise else None)

    def build_hybrid(self) -> None:
        """Convert to INT8 with some layers in float16, in the toolkit's two steps."""
        self.open()
        self.step("load", self.rknn.load_onnx, model="network.onnx")
        self.step("measure ranges", self.rknn.hybrid_quantization_step1, dataset="dataset.txt", proposal=False)
        self.rknn.release()
        settings = Path("network.quantization.cfg")
        text = settings.read_text()
        names = [
            line[4:].rstrip(":\n") for line in text.splitlines() if line.startswith("    ") and line[4] not in " -"
        ]
        chosen = [name for name in names if any(belongs(name, tensor) for tensor in self.job["float16"])]
        if not chosen or "custom_quantize_layers: {}" not in text:
            raise Failed(f"none of the layers {self.job['float16']} is in the toolkit's list")
        lines = "".join(f"\n    {name}: float16" for name in chosen)
        settings.write_text(text.replace("custom_quantize_layers: {}", "custom_quantize_layers:" + lines, 1))
        self.open()
        self.step(
            "build",
            self.rknn.hybrid_quantization_step2,
            model_input="network.model",
            data_input="network.data",
            model_quantization_cfg="network.quantization.cfg",
        )

    def infer(self, arrays: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """Run the simulator once; arrays have a batch axis, pictures are NHWC as the NPU takes them."""
        outputs = self.rknn.inference(inputs=arrays, data_format=[LAYOUTS.get(a.ndim, "nchw") for a in arrays])
        if outputs is None:
            raise Failed("the simulator gave no output")
        return np.asarray(outputs[0], np.float32).reshape(-1)

    def judge(self) -> np.ndarray[Any, Any]:
        """Run the simulator on every sample that is held out."""
        arrays = [np.load(f"held_out_{index}.npy") for index in range(len(self.job["inputs"]))]
        return np.stack([self.infer([array[i : i + 1] for array in arrays]) for i in range(len(arrays[0]))])

    def analyse(self) -> Any:
        """Let the toolkit compare layer by layer, on one sample."""
        paths = []
        for index in range(len(self.job["inputs"])):
            array = np.load(f"held_out_{index}.npy")[:1]
            # Here, alone among its calls, the toolkit wants pictures as the ONNX file has them.
            array = array.transpose(0, 3, 1, 2) if array.ndim == 4 else array
            paths.append(f"analysed_{index}.npy")
            np.save(paths[-1], np.ascontiguousarray(array))
        return self.rknn.accuracy_analysis(inputs=paths, output_dir="analysis")


def belongs(name: str, tensor: str) -> bool:
    """Tell whether a name of the toolkit's is that tensor: it makes `gemm_17_mm` and `relu_18-rs` of them."""
    return name == tensor or name.startswith((tensor + "_", tensor + "-"))


def serve(conversion: Conversion, answers: BinaryIO) -> None:
    """Answer for the simulated NPU until standard input ends."""
    shapes = [(np.dtype(entry["dtype"]), tuple(entry["shape"])) for entry in conversion.job["inputs"]]
    source = sys.stdin.buffer
    while True:
        head = source.read(4)
        if len(head) < 4:
            return
        data = source.read(struct.unpack("<I", head)[0])
        arrays, start = [], 0
        for dtype, shape in shapes:
            count = int(np.prod(shape))
            arrays.append(np.frombuffer(data, dtype, count, start).reshape(shape))
            start += count * dtype.itemsize
        send(answers, conversion.infer(arrays).tobytes())


if __name__ == "__main__":
    main()
