"""Checkpoints: nothing is lost, nothing wrong is taken, nothing half is left."""

from __future__ import annotations

import hashlib
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from policyloop.bundle.verify import open_bundle
from policyloop.convert.export import export_bundle, probe_features
from policyloop.core.profile import RobotProfile
from policyloop.errors import IncompatibleError, PolicyloopError, StorageError, VerificationError
from policyloop.learn.checkpoint import (
    Checkpoint,
    CheckpointState,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from policyloop.learn.feed import FeedState
from policyloop.learn.networks import ActorCritic, NetworkSettings, make_network
from policyloop.learn.ppo import PpoSettings, make_optimizer
from policyloop.learn.tuning import Execution

Begin = Callable[..., tuple[BaseProcess, Connection]]


class Training:
    """A network, its optimizer and its random state, with a few steps behind them."""

    def __init__(
        self, profile: RobotProfile, seed: int = 0, steps: int = 3, settings: NetworkSettings | None = None
    ) -> None:
        torch.manual_seed(seed)
        self.profile = profile
        self.network = make_network("mlp", profile, settings=settings)
        self.optimizer = make_optimizer(self.network, PpoSettings())
        self.generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        """Fit random numbers: one step of everything that a checkpoint must bring back."""
        state = torch.randn((8, self.profile.proprio_size), generator=self.generator)
        mean, value = self.network.mean_and_value({"proprio": state})
        loss = (mean - 1).square().mean() + value.square().mean() + self.network.log_std.square().sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def save(self, directory: Path, update: int) -> Path:
        profile = self.profile
        bundle = export_bundle(
            self.network,
            profile,
            profile.nominal_normalizer,
            network_name="mlp",
            version=update + 1,
            noise_hold_ticks=2,
            observations=probe_features(profile, 2),
            training={},
        )
        state = CheckpointState(
            profile=profile,
            profile_digest=profile.digest,
            network="mlp",
            normalizer=profile.nominal_normalizer,
            version=update + 1,
            update=update,
            seed=7,
            cloned=True,
            demonstrations_until=42,
            feed=FeedState(position=17, consumed={"r0/b0": 16}, ledger={"trained": 17}),
            elapsed_s=12.5,
            settings={"network": "mlp"},
        )
        return save_checkpoint(directory, state, self.network, self.optimizer, self.generator, bundle)

    def tensors(self) -> list[Tensor]:
        return [tensor.clone() for tensor in self.network.state_dict().values()]


@pytest.fixture
def training(blind: RobotProfile) -> Training:
    return Training(blind)


def contents(directory: Path) -> dict[str, str]:
    """Return the hash of every file under a directory."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_a_checkpoint_has_its_documented_files(training: Training, tmp_path: Path) -> None:
    path = training.save(tmp_path, 120)
    assert path == tmp_path / "000120"
    assert sorted(contents(path)) == [
        "bundle/MODEL_CARD.md",
        "bundle/golden.npz",
        "bundle/manifest.json",
        "bundle/model_version.json",
        "bundle/policy.onnx",
        "state.json",
        "state.safetensors",
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["000120"]


WALKER = NetworkSettings(hidden_sizes=(24, 12), activation="elu", privileged_size=5)


def saved_walker(profile: RobotProfile, directory: Path) -> tuple[ActorCritic, Path]:
    """Save a network of other widths and activation, whose critic sees more than a robot does."""
    training = Training(profile, steps=0, settings=WALKER)
    return training.network, training.save(directory, 3)


def test_a_checkpoint_builds_its_network_again(blind: RobotProfile, tmp_path: Path) -> None:
    network, path = saved_walker(blind, tmp_path)
    built = load_checkpoint(path).network()
    assert built.settings == WALKER
    features = {"proprio": torch.randn(3, 4), "privileged": torch.randn(3, 5)}
    for found, expected in zip(built.mean_and_value(features), network.mean_and_value(features), strict=True):
        assert torch.equal(found, expected)


def test_equal_shapes_of_another_activation_are_refused(blind: RobotProfile, tmp_path: Path) -> None:
    _, path = saved_walker(blind, tmp_path)
    other = make_network("mlp", blind, settings=msgspec.structs.replace(WALKER, activation="tanh"))
    before = [tensor.clone() for tensor in other.state_dict().values()]
    with pytest.raises(IncompatibleError, match="activation elu, not tanh"):
        load_checkpoint(path).restore(other, None, None)
    assert all(torch.equal(*pair) for pair in zip(before, other.state_dict().values(), strict=True))


def test_the_actor_alone_can_be_taken_over(blind: RobotProfile, tmp_path: Path) -> None:
    network, path = saved_walker(blind, tmp_path)
    torch.manual_seed(9)
    other = make_network("mlp", blind, settings=msgspec.structs.replace(WALKER, privileged_size=0))
    critic = [parameter.detach().clone() for parameter in other.critic_parameters()]
    load_checkpoint(path).restore_actor(other)
    proprio = torch.randn(3, 4)
    assert torch.equal(other.mean({"proprio": proprio}), network.mean({"proprio": proprio}))
    assert torch.equal(other.log_std, network.log_std)
    assert all(torch.equal(*pair) for pair in zip(critic, other.critic_parameters(), strict=True))


def test_a_checkpoint_from_before_networks_had_settings_still_loads(training: Training, tmp_path: Path) -> None:
    about = training.save(tmp_path, 3) / "state.json"
    state = msgspec.json.decode(about.read_bytes())
    del state["network_settings"]
    about.write_bytes(msgspec.json.encode(state))
    built = load_checkpoint(tmp_path / "000003").network()
    assert all(torch.equal(*pair) for pair in zip(training.tensors(), built.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("field", "value"), [("hidden_sizes", [1 << 40]), ("hidden_sizes", [0]), ("hidden_sizes", [8] * 99), ("depth", 3)]
)
def test_settings_that_no_network_has_are_refused(field: str, value: Any, training: Training, tmp_path: Path) -> None:
    about = training.save(tmp_path, 3) / "state.json"
    state = msgspec.json.decode(about.read_bytes())
    state["network_settings"][field] = value
    about.write_bytes(msgspec.json.encode(state))
    with pytest.raises(VerificationError, match="is damaged"):
        load_checkpoint(tmp_path / "000003")


def test_the_bundle_in_a_checkpoint_can_be_driven_with(training: Training, tmp_path: Path) -> None:
    bundle = open_bundle(training.save(tmp_path, 4) / "bundle", training.profile)
    assert bundle.manifest.version == 5


def test_everything_comes_back(training: Training, tmp_path: Path) -> None:
    path = training.save(tmp_path, 3)
    saved = training.tensors()
    other = Training(training.profile, seed=1, steps=0)
    checkpoint = load_checkpoint(path)
    checkpoint.restore(other.network, other.optimizer, other.generator)
    assert all(torch.equal(a, b) for a, b in zip(saved, other.tensors(), strict=True))
    for group, restored in zip(training.optimizer.param_groups, other.optimizer.param_groups, strict=True):
        assert group["lr"] == restored["lr"]
    state = checkpoint.state
    assert (state.update, state.version, state.seed, state.cloned, state.demonstrations_until) == (3, 4, 7, True, 42)
    assert state.feed == FeedState(position=17, consumed={"r0/b0": 16}, ledger={"trained": 17})
    assert state.elapsed_s == 12.5
    assert state.profile == training.profile
    assert state.normalizer == training.profile.nominal_normalizer


def test_training_goes_on_bit_for_bit(training: Training, tmp_path: Path) -> None:
    training.optimizer.param_groups[0]["lr"] = 0.0123456789012345
    path = training.save(tmp_path, 3)
    other = Training(training.profile, seed=1, steps=0)
    load_checkpoint(path).restore(other.network, other.optimizer, other.generator)
    for _ in range(5):
        training.step()
        other.step()
    assert all(torch.equal(a, b) for a, b in zip(training.tensors(), other.tensors(), strict=True))


def test_a_checkpoint_before_the_first_step_of_the_optimizer_can_be_resumed(
    blind: RobotProfile, tmp_path: Path
) -> None:
    fresh, other = Training(blind, steps=0), Training(blind, seed=1, steps=2)
    load_checkpoint(fresh.save(tmp_path, 0)).restore(other.network, other.optimizer, other.generator)
    fresh.step()
    other.step()
    assert all(torch.equal(a, b) for a, b in zip(fresh.tensors(), other.tensors(), strict=True))


def test_saving_an_update_again_replaces_it(training: Training, tmp_path: Path) -> None:
    training.save(tmp_path, 3)
    training.step()
    path = training.save(tmp_path, 3)
    assert [entry.name for entry in tmp_path.iterdir()] == ["000003"]
    other = Training(training.profile, seed=1)
    load_checkpoint(path).restore(other.network, None, None)
    assert all(torch.equal(a, b) for a, b in zip(training.tensors(), other.tensors(), strict=True))


# -- what does not fit ------------------------------------------------------------------------


def wider(profile: RobotProfile) -> ActorCritic:
    action = msgspec.structs.replace(profile.action[0], name="lateral")
    return make_network("mlp", msgspec.structs.replace(profile, action=(*profile.action, action)))


@pytest.mark.parametrize(
    ("other", "named"),
    [
        pytest.param(wider, r"log_std has shape \(2,\), expected \(3,\)", id="another size"),
        pytest.param(
            lambda profile: torch.nn.ModuleDict({"extra": torch.nn.Linear(3, 4)}),
            r"extra.weight is missing, expected \(4, 3\)",
            id="another kind",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_refused_by_its_first_wrong_tensor(
    training: Training, tmp_path: Path, other: Callable[[RobotProfile], ActorCritic], named: str
) -> None:
    checkpoint = load_checkpoint(training.save(tmp_path, 1))
    network = other(training.profile)
    before = [tensor.clone() for tensor in network.state_dict().values()]
    with pytest.raises(IncompatibleError, match=named) as caught:
        checkpoint.restore(network, None, None)
    assert caught.value.exit_code == 7
    assert "'mlp'" in caught.value.message
    assert "--network" in caught.value.remedy
    assert all(torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True))


def test_a_network_for_pictures_is_refused_by_a_checkpoint_of_an_mlp(mini: RobotProfile, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(Training(mini, steps=1).save(tmp_path, 1))
    with pytest.raises(IncompatibleError, match=r"actor\.trunk\.0\.weight is missing") as caught:
        checkpoint.restore(make_network("spatial", mini), None, None)
    assert caught.value.exit_code == 7


# -- damage -----------------------------------------------------------------------------------


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("position", [0, 20, -1])
def test_damaged_tensors_are_refused(training: Training, tmp_path: Path, position: int) -> None:
    path = training.save(tmp_path, 1)
    flip(path / "state.safetensors", position)
    with pytest.raises(VerificationError, match="damaged") as caught:
        load_checkpoint(path)
    assert caught.value.exit_code == 5


def test_truncated_tensors_are_refused(training: Training, tmp_path: Path) -> None:
    path = training.save(tmp_path, 1)
    tensors = path / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    with pytest.raises(VerificationError, match="damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("text", [b"", b"{", b"{}", b'{"format": "one"}'])
def test_a_damaged_description_is_refused(training: Training, tmp_path: Path, text: bytes) -> None:
    path = training.save(tmp_path, 1)
    (path / "state.json").write_bytes(text)
    with pytest.raises(VerificationError, match="damaged") as caught:
        load_checkpoint(path)
    assert caught.value.exit_code == 5


def test_a_newer_format_is_refused(training: Training, tmp_path: Path) -> None:
    path = training.save(tmp_path, 1)
    about = path / "state.json"
    about.write_text(about.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(IncompatibleError, match="format 2") as caught:
        load_checkpoint(path)
    assert caught.value.exit_code == 7
    assert caught.value.remedy == "upgrade policyloop"


def test_no_checkpoint_is_said_with_an_example(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no checkpoint at") as caught:
        load_checkpoint(tmp_path / "000001")
    assert caught.value.exit_code == 1
    assert "checkpoints/000010" in caught.value.remedy


def update_of(checkpoint: Checkpoint | None) -> int | None:
    return None if checkpoint is None else checkpoint.state.update


def test_the_newest_checkpoint_that_is_whole_is_taken(training: Training, tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for update in (0, 5, 10):
        training.save(tmp_path, update)
    assert update_of(latest_checkpoint(tmp_path)) == 10
    flip(tmp_path / "000010" / "state.safetensors", -1)
    assert update_of(latest_checkpoint(tmp_path)) == 5
    (tmp_path / "000005" / "state.json").unlink()
    assert update_of(latest_checkpoint(tmp_path)) == 0
    flip(tmp_path / "000000" / "state.safetensors", 8)
    with pytest.raises(VerificationError, match="are damaged") as caught:
        latest_checkpoint(tmp_path)  # to begin again is not what `--resume` asked for
    assert "move them away" in caught.value.remedy


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    training: Training, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training.save(tmp_path, 5)
    flip(training.save(tmp_path, 10) / "state.safetensors", -1)
    assert update_of(latest_checkpoint(tmp_path)) == 5
    (warning,) = caplog.records
    assert warning.levelname == "WARNING"
    assert f"checkpoint {tmp_path / '000010'} is damaged" in warning.getMessage()


def test_a_write_that_was_interrupted_is_no_checkpoint(training: Training, tmp_path: Path) -> None:
    training.save(tmp_path, 5)
    training.save(tmp_path / "elsewhere", 10).rename(tmp_path / ".000010.new")
    assert update_of(latest_checkpoint(tmp_path)) == 5
    training.save(tmp_path, 10)
    assert update_of(latest_checkpoint(tmp_path)) == 10
    assert not (tmp_path / ".000010.new").exists()


# -- no space ---------------------------------------------------------------------------------


@pytest.fixture
def refused(training: Training, full_disk: Callable[[int], Any]) -> Callable[[Path, int], PolicyloopError]:
    """Return `refused(directory, update)`: save where no file can grow beyond 64 KiB; gives the error."""

    def save(directory: Path, update: int) -> PolicyloopError:
        with full_disk(1 << 16), pytest.raises(StorageError) as caught:
            training.save(directory, update)
        return caught.value

    return save


Refused = Callable[[Path, int], PolicyloopError]


def test_a_full_disk_leaves_older_checkpoints_and_nothing_half(
    training: Training, refused: Refused, tmp_path: Path
) -> None:
    training.save(tmp_path, 5)
    before = contents(tmp_path)
    training.step()
    error = refused(tmp_path, 10)
    assert "000010" in error.message
    assert "older checkpoints are untouched" in error.remedy
    assert contents(tmp_path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["000005"]
    assert update_of(latest_checkpoint(tmp_path)) == 5


def test_a_full_disk_does_not_spoil_the_checkpoint_that_was_to_be_replaced(
    training: Training, refused: Refused, tmp_path: Path
) -> None:
    training.save(tmp_path, 5)
    before = contents(tmp_path)
    training.step()
    refused(tmp_path, 5)
    assert contents(tmp_path) == before


def test_saving_succeeds_once_there_is_space_again(training: Training, refused: Refused, tmp_path: Path) -> None:
    refused(tmp_path, 5)
    training.save(tmp_path, 5)
    assert update_of(latest_checkpoint(tmp_path)) == 5


# -- killed -----------------------------------------------------------------------------------


SAVE = """
from itertools import count
import torch
from policyloop.bundle.build import Bundle
from policyloop.bundle.manifest import decode_manifest
from policyloop.learn.checkpoint import load_checkpoint, save_checkpoint
from policyloop.learn.networks import make_network
from policyloop.learn.ppo import PpoSettings, make_optimizer
from policyloop.learn.tuning import Execution
torch.set_num_threads(1)
checkpoint = load_checkpoint(first)
state = checkpoint.state
network = make_network("mlp", state.profile)
optimizer, generator = make_optimizer(network, PpoSettings()), torch.Generator()
checkpoint.restore(network, optimizer, generator)
files = {path.name: path.read_bytes() for path in (first / "bundle").iterdir()}
bundle = Bundle(decode_manifest(files.pop("manifest.json"), "bundle"), files)
for serial in count(start):
    state.elapsed_s = serial
    state.update = 1 if again else serial
    save_checkpoint(directory, state, network, optimizer, generator, bundle)
    report(serial)
"""


def kill_saves(times: int, *, again: bool, begin: Begin, training: Training, root: Path) -> int:
    """Kill an endless saver so many times; returns how many saves were cut short by it.

    Args:
        times: Kills.
        again: Every checkpoint replaces the one before: all are of the same update.
        begin: Begins a process.
        training: What is saved.
        root: Directory to use.
    """
    first, directory = training.save(root / "first", 0), root / "checkpoints"
    rng = np.random.default_rng(0)
    last = cut = 0
    for _ in range(times):
        child, reports = begin(SAVE, first=first, directory=directory, start=last + 1, again=again)
        last = reports.recv()
        time.sleep(rng.uniform(0.0, 0.03))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        child.close()
        newest, path = latest_checkpoint(directory), max(directory.glob("[0-9]*"))
        assert newest is not None
        assert newest.state.update == int(path.name)  # nothing under a checkpoint's name had to be passed over
        assert newest.state.elapsed_s >= max([last, *reported(reports)])
        open_bundle(path / "bundle", training.profile)
        cut += any(directory.glob(".*"))
        last = int(newest.state.elapsed_s)
        for older in sorted(directory.glob("[0-9]*"))[:-2]:
            shutil.rmtree(older)
    return cut


def reported(reports: Connection) -> Iterator[Any]:
    """Yield what a process that has ended reported, and nobody has read yet."""
    with reports, suppress(EOFError):
        while True:
            yield reports.recv()


AGAIN = pytest.mark.parametrize("again", [False, True], ids=["of the next update", "of the same update"])


@AGAIN
def test_a_kill_at_any_moment_of_a_save_leaves_a_whole_checkpoint(
    again: bool, begin: Begin, training: Training, tmp_path: Path
) -> None:
    assert kill_saves(25, again=again, begin=begin, training=training, root=tmp_path) > 0


@pytest.mark.long
@AGAIN
def test_five_hundred_kills(again: bool, begin: Begin, training: Training, tmp_path: Path) -> None:
    assert kill_saves(500, again=again, begin=begin, training=training, root=tmp_path) > 50


def test_a_network_whose_weights_lie_otherwise_goes_on_bit_for_bit(tmp_path: Path, mini: RobotProfile) -> None:
    def training(seed: int) -> tuple[ActorCritic, torch.optim.Adam]:
        torch.manual_seed(seed)
        network = make_network("spatial", mini)
        Execution(channels_last=True).lay_out(network)
        return network, make_optimizer(network, PpoSettings())

    def step(network: ActorCritic, optimizer: torch.optim.Adam) -> None:
        optimizer.zero_grad()
        network.mean(features).square().sum().backward()
        optimizer.step()

    generator = torch.Generator().manual_seed(0)
    height, width = mini.camera.height, mini.camera.width  # type: ignore[union-attr]
    features = {
        "rgb": torch.randint(0, 256, (4, 3, height, width), generator=generator, dtype=torch.uint8),
        "depth": torch.randint(0, 256, (4, 1, height, width), generator=generator, dtype=torch.uint8),
        "proprio": torch.randn((4, mini.proprio_size), generator=generator),
    }
    network, optimizer = training(0)
    step(network, optimizer)
    state = CheckpointState(
        profile=mini,
        profile_digest=mini.digest,
        network="spatial",
        normalizer=mini.nominal_normalizer,
        version=1,
        update=1,
        seed=0,
        cloned=False,
        demonstrations_until=0,
        feed=FeedState(),
        elapsed_s=0.0,
        settings={},
    )
    bundle = export_bundle(
        network,
        mini,
        mini.nominal_normalizer,
        network_name="spatial",
        version=1,
        noise_hold_ticks=1,
        observations=probe_features(mini, 2),
        training={},
    )
    save_checkpoint(tmp_path, state, network, optimizer, generator, bundle)
    saved = load_checkpoint(tmp_path / "000001")
    other, other_optimizer = training(1)
    saved.restore(other, other_optimizer, None)
    step(network, optimizer)
    step(other, other_optimizer)
    for ours, theirs in zip(other.parameters(), network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
