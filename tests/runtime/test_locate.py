"""What a path stands for: a bundle, a checkpoint, a folder of them, a store, a demo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from policyloop.bundle.build import Bundle
from policyloop.bundle.store import Store
from policyloop.convert.export import export_onnx
from policyloop.core.profile import RobotProfile
from policyloop.errors import PolicyloopError, StorageError
from policyloop.learn.networks import ActorCritic
from policyloop.runtime.locate import find_policy

BundleAt = Callable[[Path], Path]


@pytest.fixture
def exported(make_bundle: Callable[..., Bundle]) -> Bundle:
    return make_bundle()


@pytest.fixture
def bundle_at(exported: Bundle, tmp_path_factory: pytest.TempPathFactory) -> BundleAt:
    """Return `bundle_at(path)`: a real bundle there."""

    def make(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Store(tmp_path_factory.mktemp("store")).add(exported).rename(path)

    return make


def test_a_bundle_is_found_as_it_is(bundle_at: BundleAt, tmp_path: Path) -> None:
    bundle = bundle_at(tmp_path / "bundle")
    assert find_policy(bundle) == bundle


def test_a_bare_onnx_file_is_found_as_it_is(tmp_path: Path, mini: RobotProfile, network: ActorCritic) -> None:
    file = tmp_path / "policy.onnx"
    file.write_bytes(export_onnx(network, mini))
    assert find_policy(file) == file


def test_a_checkpoints_policy_is_its_bundle(bundle_at: BundleAt, tmp_path: Path) -> None:
    bundle = bundle_at(tmp_path / "000120" / "bundle")
    assert find_policy(tmp_path / "000120") == bundle


def test_a_folder_of_checkpoints_stands_for_the_newest(bundle_at: BundleAt, tmp_path: Path) -> None:
    for number in ("000005", "000120", "000020"):
        bundle_at(tmp_path / number / "bundle")
    assert find_policy(tmp_path) == tmp_path / "000120" / "bundle"


def test_a_store_is_found_as_a_whole(exported: Bundle, tmp_path: Path) -> None:
    store = Store(tmp_path / "anything")
    store.add(exported)
    assert find_policy(store.directory) == store.directory


def test_a_demos_folder_stands_for_its_best_then_its_store_then_its_newest_checkpoint(
    exported: Bundle, bundle_at: BundleAt, tmp_path: Path
) -> None:
    for number in ("000005", "000010"):
        bundle_at(tmp_path / "checkpoints" / number / "bundle")
    assert find_policy(tmp_path) == tmp_path / "checkpoints" / "000010" / "bundle"
    Store(tmp_path / "store").add(exported)
    assert find_policy(tmp_path) == tmp_path / "store"
    bundle_at(tmp_path / "best")
    assert find_policy(tmp_path) == tmp_path / "best"


@pytest.mark.parametrize("what", ["nothing", "file", "empty folder", "unfinished checkpoint"])
def test_where_there_is_no_policy_the_error_says_what_to_give(tmp_path: Path, what: str) -> None:
    path = tmp_path / "here"
    if what == "file":
        path.write_text("?")
    elif what == "empty folder":
        path.mkdir()
    elif what == "unfinished checkpoint":
        (path / ".000010.new" / "bundle").mkdir(parents=True)
    with pytest.raises(StorageError, match="here") as caught:
        find_policy(path)
    assert "bundle" in caught.value.remedy


def test_a_demo_without_a_checkpoint_has_no_policy(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(PolicyloopError):
        find_policy(tmp_path)
