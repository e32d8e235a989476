"""The build of torch against the GPU that is there; no GPU is needed to see that they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyloop.doctor import training
from policyloop.doctor.training import Build
from policyloop.errors import ConfigError
from policyloop.learn.device import try_gpu

CPU, CUDA, ROCM = Build("2.13.0+cpu", "CPU"), Build("2.13.0+cu130", "CUDA 13.0"), Build("2.13.0+rocm7.1", "ROCm 7.1")


def test_torch_is_read_without_being_imported() -> None:
    import torch

    assert training.torch_build() == (
        torch.__version__,
        "CPU" if torch.version.cuda is None else f"CUDA {torch.version.cuda}",
    )


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", "CUDA 12.8"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.3.42134'\n", "ROCm 6.3.42134"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\n", "CPU"),
    ],
)
def test_every_build_says_what_it_is(tmp_path: Path, lines: str, kind: str) -> None:
    (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\n{lines}")
    assert training.torch_build(tmp_path) == ("2.13.0", kind)


def test_a_torch_that_runs_code_from_weights_is_wrong() -> None:
    found = training.training(Build("2.9.1", "CPU"))
    assert (found.state, found.exit_code) == ("wrong", 3)
    assert training.training(CPU).state == "fine"


@pytest.mark.parametrize(
    ("maker", "build", "said"),
    [
        ("nvidia", CPU, "CUDA"),
        ("nvidia", ROCM, "CUDA"),
        ("amd", CPU, "ROCm"),
        ("amd", CUDA, "ROCm"),
    ],
)
def test_a_build_for_another_device_is_wrong_and_the_right_one_is_named(
    tmp_path: Path, maker: str, build: Build, said: str
) -> None:
    (tmp_path / maker).touch()
    found = training.gpu(tmp_path / "nvidia", tmp_path / "amd", build)
    assert (found.state, found.exit_code) == ("wrong", 3)
    assert said in found.remedy
    assert build.kind in found.found


def test_without_a_gpu_its_build_is_needless(tmp_path: Path) -> None:
    found = training.gpu(tmp_path / "nvidia", tmp_path / "amd", CUDA)
    assert found.state == "absent"
    assert "CPU build is smaller" in found.found


def test_a_hidden_gpu_is_doubtful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia").touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = training.gpu(tmp_path / "nvidia", tmp_path / "amd", CUDA)
    assert (found.state, found.remedy) == ("doubtful", "unset CUDA_VISIBLE_DEVICES")


def test_a_gpu_that_torch_does_not_see_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="sees no GPU"):
        try_gpu()


def test_another_allocator_is_doubtful(monkeypatch: pytest.MonkeyPatch) -> None:
    assert training.allocator().state == "fine"
    monkeypatch.setenv("LD_PRELOAD", "libjemalloc.so.2")
    assert training.allocator().state == "doubtful"
