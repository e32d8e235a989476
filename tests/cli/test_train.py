"""`policyloop train`: from the command line to a policy in the store."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from policyloop.core.profile import RobotProfile
from policyloop.learn.checkpoint import load_checkpoint
from policyloop.link.journal import Journal

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens at."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def offline(journal: Path, *more: object) -> tuple[object, ...]:
    return ("train", "--profile", "rover-mini", "--offline", "--journal", journal, "--threads", 1, *more)


def test_a_recording_becomes_a_policy_that_can_be_driven_with(here: Path, recorded: Path, policyloop: Call) -> None:
    code, out, err = policyloop(*offline(recorded, "--learner", "bc", "--demonstrations", 80))
    assert code == 0, err
    assert out == "policy 1 in store\n"
    assert "cloning" in err
    assert (here / "checkpoints" / "000000" / "state.safetensors").is_file()
    assert (here / "store" / "current" / "policy.onnx").is_file()
    assert list((here / "runs").glob("events.*"))
    code, out, _ = policyloop("evaluate", "store", "--episodes", 1, "--json")
    assert code == 0
    assert json.loads(out)["episodes"] == 1


def test_the_original_documents_name_of_the_network_option_works(here: Path, recorded: Path, policyloop: Call) -> None:
    code, _, err = policyloop(*offline(recorded, "--encoder", "mlp", "--learner", "bc", "--demonstrations", 80))
    assert code == 0, err
    assert load_checkpoint(here / "checkpoints" / "000000").state.network == "mlp"


def test_a_settings_file_reaches_the_learner(here: Path, recorded: Path, policyloop: Call) -> None:
    Path("learner.toml").write_text('learner = "bc"\nnetwork = "mlp"\nseed = 5\n[bc]\nepochs = 1\n')
    code, _, err = policyloop(*offline(recorded, "--settings", "learner.toml"))
    assert code == 0, err
    settings = load_checkpoint(here / "checkpoints" / "000000").state.settings
    assert (settings["network"], settings["seed"], settings["bc"]["epochs"]) == ("mlp", 5, 1)


def test_what_is_typed_wins_over_the_settings_file(here: Path, recorded: Path, policyloop: Call) -> None:
    Path("learner.toml").write_text('learner = "bc"\nnetwork = "mlp"\nseed = 5\n[bc]\nepochs = 1\n')
    code, _, err = policyloop(*offline(recorded, "--settings", "learner.toml", "--seed", 6))
    assert code == 0, err
    assert load_checkpoint(here / "checkpoints" / "000000").state.settings["seed"] == 6


def test_existing_checkpoints_need_resume(here: Path, recorded: Path, policyloop: Call) -> None:
    arguments = offline(recorded, "--learner", "bc", "--network", "mlp")
    assert policyloop(*arguments)[0] == 0
    code, _, err = policyloop(*arguments)
    assert code == 3
    assert "checkpoints already holds checkpoints" in err
    assert "--resume" in err
    assert policyloop(*arguments, "--resume")[0] == 0


def test_resuming_with_another_network_exits_with_7(here: Path, recorded: Path, policyloop: Call) -> None:
    policyloop(*offline(recorded, "--learner", "bc", "--network", "mlp"))
    code, _, err = policyloop(*offline(recorded, "--learner", "bc", "--resume"))
    assert code == 7
    assert "--network mlp" in err


def test_a_journal_of_another_profile_exits_with_7(here: Path, recorded: Path, policyloop: Call) -> None:
    code, _, err = policyloop("train", "--profile", "rover", "--offline", "--journal", recorded)
    assert code == 7
    assert "belongs to profile 'rover-mini'" in err
    assert "not to 'rover'" in err
    assert "another --journal" in err
    assert list(here.iterdir()) == []


def test_a_missing_journal_exits_with_1(here: Path, policyloop: Call) -> None:
    code, _, err = policyloop(*offline(here / "nowhere"))
    assert code == 1
    assert "no journal at" in err
    assert list(here.iterdir()) == []


def test_a_journal_without_demonstrations_exits_with_3(here: Path, policyloop: Call, mini: RobotProfile) -> None:
    Journal(here / "empty", mini, writable=True).close()
    code, _, err = policyloop(*offline(here / "empty"))
    assert code == 3
    assert "no demonstrations" in err
    assert "--demonstrations 0" in err


def test_a_port_in_use_exits_with_4_and_releases_the_journal(here: Path, policyloop: Call, taken: int) -> None:
    for _ in range(2):
        code, out, err = policyloop("train", "--profile", "rover-mini", "--port", taken)
        assert (code, out) == (4, "")
        assert f"cannot listen at tcp://127.0.0.1:{taken}" in err
        assert "choose another --port" in err
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--learner", "genius"), "genius"),
        (("--network", "resnet"), "resnet"),
        (("--device", "warp"), "warp"),
        (("--settings", "missing.toml"), "missing.toml"),
        (("--settings", "misspelt.toml"), "lerning_rate"),
        (("--settings", "mistyped.toml"), "$.ppo.epochs"),
        (("--settings", "broken.toml"), "not valid TOML"),
    ],
)
def test_a_wrong_setting_exits_with_3_and_is_named(
    arguments: tuple[str, ...], said: str, here: Path, recorded: Path, policyloop: Call
) -> None:
    Path("misspelt.toml").write_text("[ppo]\nlerning_rate = 1e-3\n")
    Path("mistyped.toml").write_text('[ppo]\nepochs = "four"\n')
    Path("broken.toml").write_text("[ppo\n")
    code, _, err = policyloop(*offline(recorded, *arguments))
    assert code == 3
    assert said in err
    assert "Traceback" not in err
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize(
    "setting",
    ["update_interval = -1", "checkpoint_interval = 0", "[ppo]\nminibatch = 0", "[ppo]\nlearning_rate = -1.0"],
)
def test_a_number_that_makes_no_sense_exits_with_3(setting: str, here: Path, recorded: Path, policyloop: Call) -> None:
    Path("learner.toml").write_text(f'learner = "bc"\nnetwork = "mlp"\n{setting}\n')
    assert policyloop(*offline(recorded, "--settings", "learner.toml"))[0] == 3


def test_a_learner_that_does_not_exist_exits_with_3_and_the_others_are_named(
    here: Path, recorded: Path, policyloop: Call
) -> None:
    code, _, err = policyloop(*offline(recorded, "--learner", "sarsa"))
    assert code == 3
    assert "no learner 'sarsa'" in err
    assert "bc, dagger, ppo, rlpd" in err
