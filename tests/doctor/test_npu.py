"""Toolkit, librknnrt, RKNNLite and driver must fit; a board's files are imitated, the toolkit is the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyloop.convert.toolkit import TOOLKIT_VERSION, Toolkit
from policyloop.doctor import npu


@pytest.fixture
def board(tmp_path: Path) -> tuple[tuple[Path], tuple[Path, Path]]:
    """Return a board's device and where its runtime may be."""
    (tmp_path / "renderD129").touch()
    return (tmp_path / "renderD129",), (tmp_path / "librknnrt.so", tmp_path / "other" / "librknnrt.so")


def library(path: Path, version: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(
        b"\x7fELF" + b"\0" * 5000 + f"librknnrt version: {version} (abc@2025-01-01)".encode() + b"\0" * 5000
    )


def test_a_board_without_its_runtime_or_without_rknnlite_is_told_what_is_missing(
    board: tuple[tuple[Path], tuple[Path, Path]],
) -> None:
    device, libraries = board
    assert "no librknnrt.so" in npu.runtime(device, libraries, "").found
    library(libraries[0], TOOLKIT_VERSION)
    found = npu.runtime(device, libraries, "")
    assert (found.state, found.remedy) == ("wrong", f"pip install rknn-toolkit-lite2=={TOOLKIT_VERSION}")


def test_the_versions_must_be_the_same(board: tuple[tuple[Path], tuple[Path, Path]]) -> None:
    device, libraries = board
    library(libraries[0], TOOLKIT_VERSION)
    assert npu.runtime(device, libraries, TOOLKIT_VERSION).state == "fine"
    assert npu.runtime(device, libraries, "2.3.2").exit_code == 7
    library(libraries[0], "1.6.0")
    found = npu.runtime(device, libraries, TOOLKIT_VERSION)
    assert (found.state, found.exit_code) == ("wrong", 7)
    assert "1.6.0" in found.found


def test_two_runtimes_are_one_too_many(board: tuple[tuple[Path], tuple[Path, Path]]) -> None:
    device, libraries = board
    library(libraries[0], TOOLKIT_VERSION)
    library(libraries[1], "2.3.2")
    assert "delete" in npu.runtime(device, libraries, TOOLKIT_VERSION).remedy


def test_without_an_npu_nothing_of_it_is_needed(tmp_path: Path) -> None:
    none = (tmp_path / "none",)
    assert npu.device(none).state == "absent"
    assert npu.runtime(none).state == "absent"
    assert npu.driver(tmp_path / "version").state == "absent"
    assert npu.frequency(tmp_path).state == "absent"


@pytest.mark.parametrize(("version", "state"), [("0.9.8", "fine"), ("v0.8.8", "fine"), ("0.8.2", "wrong")])
def test_a_driver_that_is_too_old_is_wrong(tmp_path: Path, version: str, state: str) -> None:
    (tmp_path / "version").write_text(f"{version}\n")
    assert npu.driver(tmp_path / "version").state == state


@pytest.mark.parametrize(("governor", "state"), [("rknpu_ondemand", "doubtful"), ("performance", "fine")])
def test_an_npu_that_clocks_down_is_doubtful(tmp_path: Path, governor: str, state: str) -> None:
    (tmp_path / "fdab0000.npu").mkdir()
    (tmp_path / "fdab0000.npu" / "governor").write_text(f"{governor}\n")
    assert npu.frequency(tmp_path).state == state


def test_the_toolkit_is_fine_damaged_or_absent(
    toolkit: Toolkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert npu.converter().state == "fine"
    monkeypatch.setenv("POLICYLOOP_TOOLKIT", str(tmp_path))
    assert (npu.converter().state, npu.converter().remedy) == ("absent", "policyloop toolkit install")
    (tmp_path / "installed.json").write_bytes(b"{")
    assert (npu.converter().state, npu.converter().exit_code) == ("wrong", 3)
