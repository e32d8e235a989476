from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from policyloop.bundle.build import Bundle, build_bundle
from policyloop.bundle.manifest import NETWORK_NAME, RKNN_NAME, Conversion
from policyloop.bundle.store import Store
from policyloop.bundle.verify import open_bundle
from policyloop.core.files import write_directory
from policyloop.core.normalizer import Normalizer
from policyloop.core.profile import RobotProfile
from policyloop.errors import SafetyRefusal, StorageError, UsageError


def numbered(exported: Bundle, version: int) -> Bundle:
    return exported.revised(version=version)


def test_a_store_that_nobody_wrote_to_is_empty_and_stays_unwritten(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert store.current is None
    assert store.versions() == []
    assert not store.directory.exists()


def test_an_added_bundle_is_whole_and_not_yet_active(mini: RobotProfile, exported: Bundle, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    path = store.add(exported)
    assert path.name.startswith("000007-")
    assert open_bundle(path, mini).manifest == exported.manifest
    assert store.versions() == [path]
    assert store.current is None


def test_every_version_is_a_whole_archive(exported: Bundle, tmp_path: Path) -> None:
    conversion = Conversion(
        target="rk3588", precision="int8", toolkit="2.5.0", calibration_digest="c" * 64, reason="it passed", errors={}
    )
    about = exported.revised(conversion=conversion).manifest
    store = Store(tmp_path / "models")
    store.activate(store.add(build_bundle(about, {**exported.files, RKNN_NAME: b"RKNN"})))
    version = tmp_path / "models" / "current"
    names = {"policy.onnx", "policy.rknn", "golden.npz", "manifest.json", "model_version.json", "MODEL_CARD.md"}
    assert {path.name for path in version.iterdir()} == names
    described = json.loads((version / "model_version.json").read_bytes())
    for key, name in (("onnx_hash", NETWORK_NAME), ("rknn_hash", RKNN_NAME)):
        assert described[key] == hashlib.sha256((version / name).read_bytes()).hexdigest()
    assert (described["model"], described["quant_dataset"]) == ("spatial", "c" * 64)
    assert described["export_time"] == exported.manifest.created
    assert msgspec.convert(described["obs_stats"], Normalizer) == exported.manifest.normalizer


def test_activation_moves_current_from_one_bundle_to_the_next_and_back(exported: Bundle, tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = (store.add(numbered(exported, version)) for version in (1, 2))
    for bundle in (first, second, first, first):
        store.activate(bundle)
        assert store.current == bundle
    assert store.versions() == [first, second]


def test_versions_come_in_order_of_their_number_whatever_the_order_of_adding(exported: Bundle, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for version in (10, 2, 100_000, 1, 99):
        store.add(numbered(exported, version))
    assert [int(path.name.split("-")[0]) for path in store.versions()] == [1, 2, 10, 99, 100_000]


def test_adding_the_same_again_changes_nothing(exported: Bundle, tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.add(exported)
    store.activate(first)
    before = {path.name: path.stat().st_mtime_ns for path in first.iterdir()}
    assert store.add(exported) == first
    assert {path.name: path.stat().st_mtime_ns for path in first.iterdir()} == before
    assert store.versions() == [first]
    assert store.current == first


def test_two_policies_of_one_version_are_kept_apart(exported: Bundle, tmp_path: Path) -> None:
    store = Store(tmp_path)
    paths = [store.add(exported), store.add(exported.revised(noise_hold_ticks=1))]
    assert paths[0] != paths[1]
    assert sorted(paths) == store.versions()


def test_an_interrupted_add_leaves_no_version_and_does_not_disturb_the_next(
    mini: RobotProfile, exported: Bundle, tmp_path: Path
) -> None:
    name = Store(tmp_path / "elsewhere").add(exported).name
    store = Store(tmp_path / "store")
    half = store.directory / "versions" / f".{name}.new"
    half.mkdir(parents=True)
    (half / NETWORK_NAME).write_bytes(exported.files[NETWORK_NAME][:1000])
    (half / "junk").write_bytes(b"?")
    assert store.versions() == []
    path = store.add(exported)
    assert sorted(file.name for file in path.iterdir()) == sorted(exported.contents)
    assert open_bundle(path, mini).manifest == exported.manifest


def test_a_disk_that_refuses_is_a_storage_error_and_leaves_no_version(exported: Bundle, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.directory.mkdir()
    (store.directory / "versions").write_text("in the way")
    with pytest.raises(StorageError) as caught:
        store.add(exported)
    assert caught.value.remedy
    assert store.versions() == []


def test_an_interrupted_activation_does_not_disturb_the_next(exported: Bundle, tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = (store.add(numbered(exported, version)) for version in (1, 2))
    store.activate(first)
    (tmp_path / "current.new").symlink_to(second.relative_to(tmp_path))  # killed before the rename
    assert store.current == first
    store.activate(second)
    assert store.current == second
    assert not (tmp_path / "current.new").is_symlink()


def test_a_store_can_be_moved(mini: RobotProfile, exported: Bundle, tmp_path: Path) -> None:
    store = Store(tmp_path / "here")
    store.activate(store.add(exported))
    moved = Store(store.directory.rename(tmp_path / "there"))
    assert moved.current is not None
    assert open_bundle(moved.current, mini).manifest == exported.manifest


def test_a_reader_sees_the_old_or_the_new_bundle_and_never_neither(exported: Bundle, tmp_path: Path) -> None:
    store = Store(tmp_path)
    bundles = [store.add(numbered(exported, version)) for version in (1, 2)]
    store.activate(bundles[0])
    seen: set[Path | None] = set()
    reading, done = threading.Event(), threading.Event()

    def read() -> None:
        while not done.is_set():
            current = Store(tmp_path).current
            seen.add(current if current in bundles else None)
            reading.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert reading.wait(10)
    for turn in range(200):
        store.activate(bundles[turn % 2])
    done.set()
    reader.join()
    assert None not in seen
    assert seen


# -- what became of each version --------------------------------------------------------------


@pytest.fixture
def three(exported: Bundle, tmp_path: Path) -> tuple[Store, list[Path]]:
    """A store with versions 1, 2 and 3, none of them active."""
    store = Store(tmp_path / "three")
    return store, [store.add(numbered(exported, version)) for version in (1, 2, 3)]


def test_a_version_is_a_candidate_then_active_then_good(three: tuple[Store, list[Path]]) -> None:
    store, (first, second, _) = three
    assert store.state_of(first) == "candidate"
    store.activate(first)
    assert store.state_of(first) == "active"
    store.mark(first, "good")
    store.activate(second)
    assert [store.state_of(path) for path in (first, second)] == ["good", "active"]
    store.activate(first)
    assert [store.state_of(path) for path in (first, second)] == ["good", "candidate"]


def test_a_bad_version_is_never_activated_again_until_somebody_says_it_is_good(three: tuple[Store, list[Path]]) -> None:
    store, (first, second, _) = three
    store.activate(first)
    store.activate(second)
    store.mark(second, "bad")
    store.activate(first)
    with pytest.raises(SafetyRefusal, match="is marked bad") as caught:
        store.activate(second)
    assert caught.value.exit_code == 6
    assert store.current == first
    store.mark(second, "good")
    store.activate(second)
    assert store.current == second


def test_a_roll_back_goes_to_the_version_before_and_never_to_a_bad_one(three: tuple[Store, list[Path]]) -> None:
    store, (first, second, third) = three
    store.activate(first)
    store.activate(second)
    store.activate(third)
    assert store.previous == second
    assert store.rollback() == second
    assert store.current == second
    assert [store.state_of(path) for path in (first, second, third)] == ["candidate", "good", "bad"]
    with pytest.raises(UsageError, match="no version to go back to"):
        store.rollback()
    assert store.current == second


def test_a_bad_current_version_is_not_what_a_roll_back_goes_to(three: tuple[Store, list[Path]]) -> None:
    store, (first, second, third) = three
    store.activate(first)
    store.activate(second)
    store.mark(second, "bad")
    store.activate(third)
    assert store.rollback() == first


def test_the_states_survive_and_a_damaged_file_says_what_to_do(three: tuple[Store, list[Path]]) -> None:
    store, (first, _, _) = three
    store.activate(first)
    store.mark(first, "good")
    assert Store(store.directory).state_of(first) == "good"
    (store.directory / "state.json").write_bytes(b'{"versions": {"a": "splendid"}}')
    with pytest.raises(StorageError, match=r"state\.json is damaged") as caught:
        store.activate(first)
    assert "delete it" in caught.value.remedy
    assert store.current == first


def test_a_version_is_found_by_its_number(three: tuple[Store, list[Path]]) -> None:
    store, paths = three
    assert store.find(2) == paths[1]
    with pytest.raises(UsageError, match="no version 9") as caught:
        store.find(9)
    assert caught.value.remedy == "the newest are: 1, 2, 3"


def test_pruning_keeps_the_newest_the_current_and_the_previous(exported: Bundle, tmp_path: Path) -> None:
    store = Store(tmp_path)
    paths = [store.add(numbered(exported, version)) for version in range(1, 9)]
    store.activate(paths[0])
    store.activate(paths[2])
    doomed = [paths[1], paths[3], paths[4], paths[5]]
    sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in doomed}
    assert store.prunable(2) == sizes
    assert store.versions() == paths
    assert store.prune(2) == sizes
    assert store.versions() == [paths[0], paths[2], paths[6], paths[7]]
    assert store.current == paths[2]


INSTALL = """
import sys
from pathlib import Path
from policyloop.bundle.build import Bundle
from policyloop.bundle.manifest import decode_manifest
from policyloop.bundle.store import Store
root = Path(sys.argv[1])
files = {path.name: path.read_bytes() for path in (root / "exported").iterdir()}
bundle = Bundle(decode_manifest(files.pop("manifest.json"), "exported"), files)
store = Store(root / "store")
print("go", flush=True)
for version in range(store.newest_version + 1, 10_000):
    store.activate(store.add(bundle.revised(version=version)))
    store.mark(store.current, "good")
"""


def kill_installs(times: int, mini: RobotProfile, exported: Bundle, root: Path) -> int:
    """Kill an endless installer so many times; returns the version that is current at the end."""
    write_directory(root / "exported", exported.contents)
    store, rng, last = Store(root / "store"), np.random.default_rng(0), 0
    for _ in range(times):
        child = subprocess.Popen([sys.executable, "-c", INSTALL, str(root)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.06))
        child.kill()
        child.wait()
        child.stdout.close()
        current = store.current
        if current is not None:
            version = open_bundle(current, mini).manifest.version
            assert version >= last
            last = version
            assert store.state_of(current) in ("active", "good")
        store.prune(3)
    return last


def test_a_power_cut_at_any_moment_of_an_install_leaves_a_whole_version(
    mini: RobotProfile, exported: Bundle, tmp_path: Path
) -> None:
    assert kill_installs(15, mini, exported, tmp_path) > 5


@pytest.mark.long
def test_five_hundred_power_cuts(mini: RobotProfile, exported: Bundle, tmp_path: Path) -> None:
    assert kill_installs(500, mini, exported, tmp_path) > 100
