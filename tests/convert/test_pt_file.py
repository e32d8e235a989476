"""Files of torch from anywhere: what is in them is read, what hides in them stays harmless."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from policyloop.convert.pt_file import PtLimits, read_pt
from policyloop.errors import VerificationError

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def saved(found: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(found, buffer, **options)
    return buffer.getvalue()


def scripted(module: nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module), buffer)
    return buffer.getvalue()


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 5), nn.ELU(), nn.Linear(5, 3))


class Touches:
    """Pickled, a command to create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.path}'",)


class Writes(nn.Module):
    """TorchScript that writes a file when it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.weight = nn.Parameter(torch.ones(3, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, str, bool]:
        return self.weight, self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, str, bool]) -> None:
        self.weight, self.path, self.training = state[0], state[1], state[2]
        torch.save(state[0], state[1])


class NeverEnds(nn.Module):
    """TorchScript that is never loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        self.weight, self.training = state[0], state[1]
        while bool(state[0].sum() > 0):
            pass


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda state: saved(state), id="a state dict"),
        pytest.param(lambda state: saved(state, _use_new_zipfile_serialization=False), id="in the format before 1.6"),
        pytest.param(lambda state: saved({"state_dict": state, "epoch": 3}), id="of Lightning"),
        pytest.param(lambda state: saved({"model_state_dict": state, "iter": 3, "infos": None}), id="of rsl_rl"),
        pytest.param(lambda state: saved({"actor_state_dict": state, "critic_state_dict": {}}), id="of a newer rsl_rl"),
        pytest.param(lambda state: scripted(perceptron()), id="TorchScript"),
    ],
)
def test_tensors_come_out_as_they_went_in(wrap: Any) -> None:
    state = perceptron().state_dict()
    file = read_pt(wrap(state), "policy.pt")
    assert list(file.tensors) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert all(torch.equal(file.tensors[name], tensor) for name, tensor in state.items())
    assert file.others == ()


def test_order_names_types_and_sharing_survive() -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    state = OrderedDict(z=shared.half(), a=shared, b=shared.T, **{"ö\x1b[2J": torch.ones(1, dtype=torch.int64)}, step=7)
    file = read_pt(saved(state), "policy.pt")
    assert list(file.tensors) == ["z", "a", "b", "ö?[2J"]  # nothing in it moves the cursor
    assert file.tensors["z"].dtype == torch.float16
    assert torch.equal(file.tensors["b"], shared.T)
    assert file.others == ("step (int)",)


def test_a_pickle_that_runs_a_command_does_not_run_it(tmp_path: Path) -> None:
    path = tmp_path / "touched"
    for data in (pickle.dumps(Touches(path), protocol=2), saved({"state_dict": {"0.weight": Touches(path)}})):
        with pytest.raises(VerificationError, match=r"more than tensors, it wants posix\.system") as caught:
            read_pt(data, "policy.pt")
        assert caught.value.exit_code == 5
        assert not path.exists()
    pickle.loads(pickle.dumps(Touches(path)))
    assert path.exists()  # the attack is a real one


def test_a_script_that_writes_a_file_when_it_is_loaded_does_not_write_it(tmp_path: Path) -> None:
    path = tmp_path / "written"
    data = scripted(Writes(str(path)))
    file = read_pt(data, "policy.pt")
    assert list(file.tensors) == ["weight"]
    assert not path.exists()
    torch.jit.load(io.BytesIO(data))
    assert path.exists()  # the attack is a real one


def test_a_script_that_never_ends_is_ended() -> None:
    with pytest.raises(VerificationError, match="ended by SIG") as caught:
        read_pt(scripted(NeverEnds()), "policy.pt", PtLimits(cpu_s=4))
    assert caught.value.exit_code == 5


def test_a_reader_that_takes_too_long_is_ended() -> None:
    with pytest.raises(VerificationError, match=r"took longer than 0\.05 s"):
        read_pt(saved({}), "policy.pt", PtLimits(wall_s=0.05))


def test_a_few_bytes_do_not_become_gigabytes() -> None:
    data = saved({"0.weight": torch.ones(1).expand(1 << 40)})
    assert len(data) < 2000
    with pytest.raises(VerificationError, match="its tensors are larger than 268435456 bytes"):
        read_pt(data, "policy.pt")


def test_memory_is_limited() -> None:
    data = saved({"0.weight": torch.ones(1).expand(50 << 20)})
    with pytest.raises(VerificationError, match=r"memory|Memory|SIG"):
        read_pt(data, "policy.pt", PtLimits(memory_bytes=64 << 20))


def test_an_archive_that_unpacks_to_more_than_the_memory_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("policy.pth", bytes(200 << 20))
    assert len(buffer.getvalue()) < 1 << 20
    with pytest.raises(VerificationError, match=r"Memory|SIG"):
        read_pt(buffer.getvalue(), "policy.zip", PtLimits(memory_bytes=64 << 20))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(b"", "cannot be read as a file of torch", id="empty"),
        pytest.param(b"version https://git-lfs", "cannot be read as a file of torch", id="a pointer of Git LFS"),
        pytest.param(b"PK\x03\x04 archive/constants.pkl", "cannot be read as a file of torch", id="a broken archive"),
        pytest.param(saved(perceptron()), r"wants torch\.nn\.modules", id="a pickled module"),
        pytest.param(saved(torch.ones(3)), "holds a Tensor, not a state dict", id="a tensor"),
    ],
)
def test_what_is_no_state_dict_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(VerificationError, match=said) as caught:
        read_pt(data, "policy.pt")
    assert "policy.pt" in caught.value.message
    assert "torch.save(network.state_dict()" in caught.value.remedy
    assert "weights_only" not in str(caught.value)  # torch advises to switch the protection off
