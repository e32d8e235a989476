"""The whole trial, with the vendor's converter and simulator: what passes, what is refused, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from policyloop.acceptance.output import write_outcome
from policyloop.acceptance.report import Outcome
from policyloop.acceptance.source import Source, open_source
from policyloop.acceptance.trial import convert_policy, precision_of
from policyloop.bundle.verify import open_bundle
from policyloop.convert.export import export_onnx
from policyloop.convert.judge import Thresholds
from policyloop.convert.rknn import ConverterOptions, converter_options
from policyloop.convert.toolkit import Toolkit
from policyloop.errors import IncompatibleError, UsageError
from policyloop.learn.networks import make_network
from policyloop.runtime.policy import Policy

Drive = Any
"""See conftest.py: `profile`, `journal`, `checkpoint`, `store`."""


@pytest.fixture(scope="module")
def source(drive: Drive) -> Source:
    return open_source(drive.checkpoint, "", drive.journal, None, held_out=60)


def run(source: Source, toolkit: Toolkit, precision: str = "auto", **more: Any) -> Outcome:
    episodes = more.pop("episodes", 0)
    return convert_policy(
        source.network,
        source="a test",
        precision=precision_of(precision),
        calibration=more.pop("calibration", source.calibration),
        held_out=source.held_out,
        bundle=source.bundle,
        profile=source.profile,
        toolkit=toolkit,
        options=more.pop("options", ConverterOptions()),
        thresholds=Thresholds(**more),
        episodes=episodes,
    )


@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 5e-3), ("int8", 0.1)])
@pytest.mark.parametrize("name", ["depth", "gray"])
def test_networks_that_look_at_less_convert_too(
    name: str, precision: str, tolerance: float, drive: Drive, toolkit: Toolkit, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network, file = make_network(name, drive.profile), tmp_path / "policy.onnx"
    with torch.no_grad():
        network.actor["head"].get_parameter("2.weight").mul_(100)  # answers of the size that training gives them
    file.write_bytes(export_onnx(network, drive.profile))
    outcome = run(open_source(file, "", drive.journal, None, held_out=60), toolkit, precision)
    assert outcome.rknn is not None, outcome.report.reason
    assert np.ptp(outcome.expected) > 0.1
    assert np.abs(outcome.outputs[precision] - outcome.expected).max() < tolerance * np.ptp(outcome.expected)


@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 5e-3), ("int8", 0.5), ("hybrid", 0.5)])
def test_the_simulated_npu_proposes_what_the_float_network_does(
    precision: str, tolerance: float, source: Source, toolkit: Toolkit
) -> None:
    outcome = run(source, toolkit, precision)
    (attempt,) = outcome.report.attempts
    assert attempt.passed, attempt.failures
    assert outcome.rknn is not None
    assert outcome.rknn[:4] == b"RKNN"
    error = np.abs(outcome.outputs[precision] - outcome.expected).max()
    assert 0 < error == pytest.approx(attempt.judgement.output_max_abs)
    assert error < tolerance
    types = {layer.dtype for layer in attempt.layers}
    assert types == {"float16": {"FLOAT16"}, "int8": {"INT8"}, "hybrid": {"FLOAT16", "INT8"}}[precision]
    assert any(layer.cosine is not None and layer.cosine > 0.99 for layer in attempt.layers)
    assert attempt.estimate.label == "estimated, not measured"
    assert outcome.report.measured_on_board == "not measured"


def test_hybrid_keeps_the_head_in_float16_and_the_pictures_in_int8(source: Source, toolkit: Toolkit) -> None:
    layers = run(source, toolkit, "hybrid").report.attempts[0].layers
    convolutions = [layer.dtype for layer in layers if "conv_" in layer.name or layer.name.startswith("conv")]
    assert set(convolutions) == {"INT8"}
    last = [layer for layer in layers if layer.operator.startswith("Conv")][-2:]
    assert {layer.dtype for layer in last} == {"FLOAT16"}


def test_int8_is_smaller_than_hybrid_and_that_than_float16(source: Source, toolkit: Toolkit) -> None:
    sizes = {name: run(source, toolkit, name).report.attempts[0].size_bytes for name in ("int8", "hybrid", "float16")}
    assert sizes["int8"] < sizes["hybrid"] < sizes["float16"]


def test_auto_takes_the_fastest_that_passes(source: Source, toolkit: Toolkit) -> None:
    report = run(source, toolkit).report
    assert (report.chosen, len(report.attempts)) == ("int8", 1)
    assert report.reason == "int8: the fastest that passes the gate"
    assert source.calibration is not None
    assert report.calibration["digest"] == source.calibration.digest != report.held_out["digest"]


def test_auto_falls_back_and_says_why(source: Source, toolkit: Toolkit) -> None:
    report = run(source, toolkit, mean=4e-5).report  # float16 is within 1.5e-5, hybrid at 9e-5
    assert [attempt.precision for attempt in report.attempts] == ["int8", "hybrid", "float16"]
    assert [attempt.passed for attempt in report.attempts] == [False, False, True]
    assert report.chosen == "float16"
    assert report.reason.startswith("float16: the fastest that passes the gate; int8 is refused: ")
    assert "m/s" in report.reason


def test_int8_without_samples_to_calibrate_on_is_not_tried(source: Source, toolkit: Toolkit) -> None:
    report = run(source, toolkit, calibration=None).report
    assert report.chosen == "float16"
    assert "no samples to calibrate" in report.reason
    with pytest.raises(UsageError, match="needs samples to calibrate on"):
        run(source, toolkit, "int8", calibration=None)


def test_both_networks_really_drive(source: Source, toolkit: Toolkit) -> None:
    (attempt,) = run(source, toolkit, "int8", episodes=2, return_loss=1e9).report.attempts
    loop = attempt.closed_loop
    assert loop is not None
    assert (loop.backend, loop.episodes) == ("rknn-simulator", 2)
    assert loop.float_return != loop.converted_return
    expected = (loop.float_return - loop.converted_return) / abs(loop.float_return)
    assert loop.return_loss == pytest.approx(expected)


def test_a_loss_in_closed_loop_fails_the_gate(source: Source, toolkit: Toolkit) -> None:
    (attempt,) = run(source, toolkit, "float16", episodes=1, return_loss=-10.0).report.attempts
    assert not attempt.passed
    assert attempt.failures[0].startswith("closed loop: return ")


def test_what_fails_is_not_driven_and_not_written(source: Source, toolkit: Toolkit, tmp_path: Path) -> None:
    outcome = run(source, toolkit, "int8", mean=1e-6, episodes=1)
    assert outcome.rknn is None
    assert outcome.report.chosen == ""
    assert outcome.report.attempts[0].not_driven == "its actions fail"
    old = tmp_path / "policy.rknn"
    old.write_bytes(b"the old one")
    write_outcome(outcome, source, old, tmp_path / "bundle")
    assert old.read_bytes() == b"the old one"
    assert not (tmp_path / "bundle").exists()
    assert "Nothing passes the gate" in (tmp_path / "policy.html").read_text()


def test_the_report_and_the_page_hold_what_a_person_asks(source: Source, toolkit: Toolkit, tmp_path: Path) -> None:
    outcome = run(source, toolkit, "hybrid")
    write_outcome(outcome, source, tmp_path / "policy.rknn", None)
    assert (tmp_path / "policy.rknn").read_bytes() == outcome.rknn
    report = msgspec.json.decode((tmp_path / "policy.json").read_bytes())
    assert report["attempts"][0]["judgement"]["actions"][0]["unit"] == "m/s"
    page = (tmp_path / "policy.html").read_text()
    assert page.count("<svg") == 4
    for text in ("hybrid passes the gate", "rad/s", "estimated", "cosine to float", "gemm"):
        assert text in page
    assert "http" not in page


def test_the_bundle_carries_both_networks_and_what_was_found(
    source: Source, toolkit: Toolkit, drive: Drive, tmp_path: Path
) -> None:
    outcome = run(source, toolkit, "int8")
    write_outcome(outcome, source, tmp_path / "policy.rknn", tmp_path / "bundle")
    opened = open_bundle(tmp_path / "bundle", drive.profile)
    assert opened.rknn == outcome.rknn
    conversion = opened.manifest.conversion
    assert conversion is not None
    assert (conversion.precision, conversion.toolkit) == ("int8", "2.5.0")
    assert source.calibration is not None
    assert conversion.calibration_digest == source.calibration.digest
    assert set(conversion.errors) == {"linear", "angular"}
    Policy.load(tmp_path / "bundle", drive.profile).close()  # on the CPU, where there is no NPU


def test_calibration_from_a_folder_and_training_agree_bit_for_bit(drive: Drive, tmp_path: Path) -> None:
    """One preprocessing code: a sample that went to disk and back is what the learner sees."""
    from policyloop.core.calibration import save_sample
    from policyloop.learn.inputs import learner_inputs
    from policyloop.link.journal import Journal

    journal = Journal(drive.journal)
    observations = [journal.read(position).observation for position in range(8)]
    journal.close()
    for number, observation in enumerate(observations):
        save_sample(tmp_path, number, observation)
    source = open_source(drive.checkpoint, "", None, tmp_path)
    normalizer = drive.profile.nominal_normalizer
    for row, number in enumerate((0, 4)):
        expected = learner_inputs(drive.profile, normalizer, observations[number])
        for name, array in source.held_out.inputs.items():
            np.testing.assert_array_equal(array[row], expected[name])


@pytest.mark.parametrize(
    "option",
    [
        {"algorithm": "kl_divergence"},
        {"per_channel": False},
        {"optimization_level": 0},
        {"target": "rk3576"},
    ],
)
def test_the_converters_options_reach_it(option: dict[str, Any], source: Source, toolkit: Toolkit) -> None:
    plain = run(source, toolkit, "int8")
    changed = run(source, toolkit, "int8", options=converter_options(**option))
    assert changed.report.attempts[0].size_bytes > 1000
    if "optimization_level" not in option:  # which changes nothing for so small a network
        assert changed.rknn != plain.rknn
    assert changed.report.target == option.get("target", "rk3588")


# -- where it comes from ----------------------------------------------------------------------


def test_samples_come_from_one_place(drive: Drive, tmp_path: Path) -> None:
    for journal, folder in ((None, None), (drive.journal, tmp_path)):
        with pytest.raises(UsageError, match="one of them"):
            open_source(drive.checkpoint, "", journal, folder)


@pytest.mark.parametrize("kind", ["checkpoint", "bundle", "store"])
def test_every_form_of_a_policy_is_the_same_network(kind: str, drive: Drive, source: Source) -> None:
    path = {"checkpoint": drive.checkpoint, "bundle": drive.checkpoint / "bundle", "store": drive.store}[kind]
    opened = open_source(path, "", drive.journal, None, held_out=8)
    assert opened.network.original == source.network.original


def test_another_robots_journal_is_refused(drive: Drive) -> None:
    with pytest.raises(IncompatibleError, match="profile"):
        open_source(drive.checkpoint, "rover", drive.journal, None)


def test_a_precision_or_an_option_that_does_not_exist_names_those_that_do() -> None:
    with pytest.raises(UsageError, match="--precision int4") as caught:
        precision_of("int4")
    assert "auto, float16, int8, hybrid" in caught.value.remedy
    with pytest.raises(UsageError, match="target") as caught:
        converter_options(target="rk1808")
    assert "rk3588" in caught.value.remedy
    with pytest.raises(UsageError, match="algorithm"):
        converter_options(algorithm="asymmetric_affine-u8")
