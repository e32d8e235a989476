"""Descriptions of perceptrons: read strictly, wrong ones named."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyloop.convert.mlp_description import MlpDescription, load_description
from policyloop.errors import ConfigError, StorageError

GOOD = "obs_dim: 108\nact_dim: 12\nhidden_sizes: [512, 256]\nactivation: tanh\n"


def described(text: str, tmp_path: Path) -> MlpDescription:
    path = tmp_path / "net.yaml"
    path.write_text(text)
    return load_description(path)


def test_a_description_is_read(tmp_path: Path) -> None:
    found = described(GOOD, tmp_path)
    assert found == MlpDescription(obs_dim=108, act_dim=12, hidden_sizes=(512, 256), activation="tanh")
    assert found.output is None  # what the profile takes
    assert found.weight_shapes == [(512, 108), (256, 512), (12, 256)]


def test_the_originals_words_about_a_critic_are_accepted(tmp_path: Path) -> None:
    found = described(GOOD + "separate_actor_critic: true\ncritic_output_dim: 1\n", tmp_path)
    assert found.act_dim == 12


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(GOOD.replace("tanh", "swish"), "no activation 'swish'.*leaky_relu", id="an unknown activation"),
        pytest.param(GOOD.replace("tanh", "on"), "Expected `str`", id="YAML's own idea of a word"),
        pytest.param(GOOD.replace("act_dim", "action_dim"), "unknown field `action_dim`|act_dim", id="a misspelt key"),
        pytest.param(GOOD.replace("act_dim: 12\n", ""), "missing required field `act_dim`", id="a missing key"),
        pytest.param(GOOD.replace("108", "0"), "obs_dim", id="no observation"),
        pytest.param(GOOD.replace("512", "100000000"), "hidden_sizes", id="a layer of silly width"),
        pytest.param(GOOD.replace("[512, 256]", str([9] * 33)), "hidden_sizes", id="too many layers"),
        pytest.param(GOOD + "output: softmax\n", "output", id="an unknown output"),
        pytest.param("obs_dim: [", "net.yaml", id="no YAML"),
        pytest.param("[" * 9000, "net.yaml", id="too deep"),
        pytest.param("", "net.yaml", id="empty"),
        pytest.param("!!python/object/apply:os.system ['true']", "python/object/apply", id="YAML that runs a command"),
    ],
)
def test_a_wrong_description_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        described(text, tmp_path)
    assert caught.value.exit_code == 3
    assert "net.yaml" in caught.value.message


def test_a_missing_description_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*net\.yaml"):
        load_description(tmp_path / "net.yaml")
