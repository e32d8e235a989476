"""What conversion for the NPU costs: errors, closed loop, and the CPU's alternatives.

python bench/convert.py policy CHECKPOINT --journal JOURNAL    every precision, 50 arenas of record
python bench/convert.py vectors FILE.onnx --samples DIR        an MLP: float16, and the cost of a call
python bench/convert.py cpu CHECKPOINT --journal JOURNAL       uint8 and INT8 graphs in onnxruntime, side by side
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from machine import machine

from policyloop.acceptance.source import open_source
from policyloop.acceptance.trial import convert_policy
from policyloop.convert.graph import NetworkInput
from policyloop.convert.judge import Thresholds
from policyloop.convert.rknn import ConverterOptions
from policyloop.convert.toolkit import Toolkit
from policyloop.convert.twin import int8_twin, uint8_graph
from policyloop.core.spec import ArraySpec
from policyloop.evaluate import EVALUATION_ARENAS
from policyloop.runtime.onnx_backend import OnnxBackend


def policy(arguments: argparse.Namespace) -> None:
    """Convert at every precision and print errors and returns."""
    source = open_source(arguments.policy, "", arguments.journal, None, held_out=500)
    for precision in arguments.precisions:
        started = time.monotonic()
        report = convert_policy(
            source.network,
            source=str(arguments.policy),
            precision=precision,
            calibration=source.calibration,
            held_out=source.held_out,
            bundle=source.bundle,
            profile=source.profile,
            toolkit=Toolkit(),
            options=ConverterOptions(),
            thresholds=Thresholds(),
            episodes=arguments.episodes,
            arena_seed=EVALUATION_ARENAS,
        ).report
        (attempt,) = report.attempts
        verdict = attempt.judgement
        print(f"{precision}: {'passed' if attempt.passed else attempt.failures}, {attempt.size_bytes} bytes")
        print(f"  output: worst {verdict.output_max_abs:.2e}, mean {verdict.output_mean_abs:.2e}")
        for entry in verdict.actions:
            near = "" if entry.worst_near is None else f", worst near {entry.worst_near / entry.range:.2%}"
            print(
                f"  {entry.name}: mean {entry.mean / entry.range:.2%}, p99 {entry.p99 / entry.range:.2%}, "
                f"worst {entry.worst / entry.range:.2%}{near}"
            )
        if attempt.closed_loop:
            loop = attempt.closed_loop
            print(
                f"  {loop.backend}: return {loop.converted_return:.1f}, float32 {loop.float_return:.1f} "
                f"({-loop.return_loss:+.1%}), collisions {loop.converted_collisions:.0%} / {loop.float_collisions:.0%}"
            )
        else:
            print(f"  not driven: {attempt.not_driven}")
        converting = sum(attempt.seconds.values())
        print(f"  converting {converting:.1f} s, all {time.monotonic() - started:.1f} s", flush=True)


def vectors(arguments: argparse.Namespace) -> None:
    """Convert a network of vectors; then time our call against onnxruntime's own."""
    source = open_source(arguments.policy, "", None, arguments.samples)
    outcome = convert_policy(
        source.network,
        source=str(arguments.policy),
        precision="auto",
        calibration=source.calibration,
        held_out=source.held_out,
        bundle=None,
        profile=None,
        toolkit=Toolkit(),
        options=ConverterOptions(),
        thresholds=Thresholds(),
        episodes=0,
    )
    verdict = outcome.report.attempts[0].judgement
    print(f"{outcome.report.chosen}: worst {verdict.output_max_abs:.2e}, mean {verdict.output_mean_abs:.2e}")
    (entry,) = source.network.inputs
    spec = ArraySpec(name=entry.name, shape=entry.shape[1:], dtype="float32")
    backend = OnnxBackend(source.network.original, {entry.name: spec}, source.network.actions)
    session = _session(source.network.original)
    row = source.held_out.inputs[entry.name][0].astype(np.float32)
    batch = row[None]
    ours, own = _side_by_side(lambda: backend.infer({entry.name: row}), lambda: session.run(None, {entry.name: batch}))
    print(f"call: {ours:.1f} us, onnxruntime's own run {own:.1f} us: {ours / own - 1:+.1%}")


def cpu(arguments: argparse.Namespace) -> None:
    """Time the float, the uint8 and the INT8 graph on one core."""
    source = open_source(arguments.policy, "", arguments.journal, None, held_out=100)
    network = source.network
    assert source.calibration is not None
    pictures = tuple(entry.name for entry in network.inputs if entry.dtype == "uint8")
    graphs = {
        "float": network.original,
        "uint8": uint8_graph(network.original, pictures),
        "INT8": int8_twin(network, source.calibration),
    }
    backends = {name: OnnxBackend(data, _specs(network.inputs), network.actions) for name, data in graphs.items()}
    rows = [{name: array[i] for name, array in source.held_out.inputs.items()} for i in range(len(source.held_out))]
    expected = np.stack([backends["float"].infer(row) for row in rows])
    for name in ("uint8", "INT8"):
        error = np.abs(np.stack([backends[name].infer(row) for row in rows]) - expected)
        ours, own = _side_by_side(
            lambda name=name: backends[name].infer(rows[0]), lambda: backends["float"].infer(rows[0])
        )
        print(
            f"{name}: {ours:.0f} us against {own:.0f} us in float: {own / ours:.2f}x; "
            f"outputs differ by {error.max():.1e} at most, {error.mean():.1e} in the mean"
        )


def _specs(inputs: tuple[NetworkInput, ...]) -> dict[str, ArraySpec]:
    return {entry.name: ArraySpec(name=entry.name, shape=entry.shape[1:], dtype=entry.dtype) for entry in inputs}


def _session(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options)


def _side_by_side(first: Callable[[], object], second: Callable[[], object], rounds: int = 40) -> tuple[float, float]:
    """Return the median microseconds of both, taken in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    calls = 1
    while _timed(first, calls) < 0.01:
        calls *= 2
    for _ in range(rounds):
        for call, kept in zip((first, second), times, strict=True):
            kept.append(1e6 * _timed(call, calls) / calls)
    return float(np.median(times[0])), float(np.median(times[1]))


def _timed(call: Callable[[], object], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - started


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["policy", "vectors", "cpu"])
    parser.add_argument("policy", type=Path)
    parser.add_argument("--journal", type=Path)
    parser.add_argument("--samples", type=Path)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--precisions", nargs="+", default=["float16", "int8", "hybrid"])
    arguments = parser.parse_args()
    print(machine())
    {"policy": policy, "vectors": vectors, "cpu": cpu}[arguments.what](arguments)


if __name__ == "__main__":
    main()
