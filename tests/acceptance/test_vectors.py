"""A network of vectors, foreign to us, as a legged robot's team brings it: float16, untouched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from policyloop.acceptance.source import Source, open_source
from policyloop.acceptance.trial import convert_policy
from policyloop.convert.judge import Thresholds
from policyloop.convert.rknn import ConverterOptions
from policyloop.convert.toolkit import Toolkit

SIZES = (45, 128, 64, 12)


def walker(path: Path) -> None:
    """Write an MLP of 45 observations and 12 joints with ELU, as exporters of legged policies do."""
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [], "obs"
    for layer in range(3):
        size = (SIZES[layer], SIZES[layer + 1])
        for name, values in (
            (f"w{layer}", rng.normal(0, (1.5 / size[0]) ** 0.5, size)),
            (f"b{layer}", rng.normal(0, 0.1, size[1])),
        ):
            weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        last = layer == 2
        output = "actions" if last else f"gemm{layer}"
        nodes.append(helper.make_node("Gemm", [x, f"w{layer}", f"b{layer}"], [output]))
        x = output
        if not last:
            nodes.append(helper.make_node("Elu", [x], [f"elu{layer}"]))
            x = f"elu{layer}"
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, size))
        for name, size in (("obs", 45), ("actions", 12))
    ]
    graph = helper.make_graph(nodes, "walker", tensors[:1], tensors[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    walker(tmp_path / "walker.onnx")
    rng = np.random.default_rng(1)
    for number in range(40):
        np.savez(tmp_path / f"calibration_{number:04d}.npz", obs=rng.normal(size=45).astype(np.float32))
    return open_source(tmp_path / "walker.onnx", "", None, tmp_path)


def convert(source: Source, toolkit: Toolkit, precision: str = "auto"):  # type: ignore[no-untyped-def]
    return convert_policy(
        source.network,
        source="walker",
        precision=precision,  # type: ignore[arg-type]
        calibration=source.calibration,
        held_out=source.held_out,
        bundle=None,
        profile=None,
        toolkit=toolkit,
        options=ConverterOptions(),
        thresholds=Thresholds(),
    )


def test_it_stays_in_float16_and_the_report_says_why(source: Source, toolkit: Toolkit) -> None:
    outcome = convert(source, toolkit)
    assert outcome.report.chosen == "float16"
    assert "one scale for a whole vector" in outcome.report.reason
    (attempt,) = outcome.report.attempts
    assert attempt.judgement.output_mean_abs < 1e-3
    assert attempt.not_driven == "the network does not say which robot it drives"
    assert [entry.name for entry in attempt.judgement.actions[:2]] == ["output 0", "output 1"]
    assert source.bundle is None


@pytest.mark.parametrize("precision", ["float16", "int8", "hybrid"])
def test_it_converts_in_every_precision(precision: str, source: Source, toolkit: Toolkit) -> None:
    outcome = convert(source, toolkit, precision)
    (attempt,) = outcome.report.attempts
    assert attempt.size_bytes > 1000
    types = {layer.dtype for layer in attempt.layers}
    assert {"float16": {"FLOAT16"}, "int8": {"INT8"}, "hybrid": {"FLOAT16", "INT8"}}[precision] == types
    assert attempt.judgement.output_mean_abs < {"float16": 1e-3, "int8": 0.1, "hybrid": 0.1}[precision]


def test_one_int8_scale_for_a_vector_with_a_large_feature_ruins_it_and_is_refused(
    toolkit: Toolkit, tmp_path: Path
) -> None:
    """The trap that normalisation before the graph avoids: the same network with one feature times 100."""
    walker(tmp_path / "walker.onnx")
    model = onnx.load(tmp_path / "walker.onnx")
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0] /= 100
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w0"))
    onnx.save(model, tmp_path / "walker.onnx")
    rng = np.random.default_rng(1)
    for number in range(40):
        observation = rng.normal(size=45).astype(np.float32)
        observation[0] *= 100
        np.savez(tmp_path / f"calibration_{number:04d}.npz", obs=observation)
    source = open_source(tmp_path / "walker.onnx", "", None, tmp_path)
    refused = convert(source, toolkit, "int8")
    assert refused.rknn is None
    assert len(refused.report.attempts[0].failures) > 6
    assert convert(source, toolkit, "float16").report.chosen == "float16"
