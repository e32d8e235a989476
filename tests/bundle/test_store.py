from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from policyloop.bundle.manifest import MANIFEST_NAME, NETWORK_NAME, Manifest, open_bundle
from policyloop.bundle.store import Store
from policyloop.core.profile import RobotProfile
from policyloop.errors import StorageError

Exported = tuple[Manifest, bytes]


def numbered(exported: Exported, version: int) -> Manifest:
    return msgspec.structs.replace(exported[0], version=version)


def test_a_store_that_nobody_wrote_to_is_empty_and_stays_unwritten(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert store.current is None
    assert store.versions() == []
    assert not store.directory.exists()


def test_an_added_bundle_is_whole_and_not_yet_active(mini: RobotProfile, exported: Exported, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    path = store.add(*exported)
    assert path.name.startswith("000007-")
    assert open_bundle(path, mini).manifest == exported[0]
    assert store.versions() == [path]
    assert store.current is None


def test_activation_moves_current_from_one_bundle_to_the_next_and_back(exported: Exported, tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = (store.add(numbered(exported, version), exported[1]) for version in (1, 2))
    for bundle in (first, second, first, first):
        store.activate(bundle)
        assert store.current == bundle
    assert store.versions() == [first, second]


def test_versions_come_in_order_of_their_number_whatever_the_order_of_adding(
    exported: Exported, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    for version in (10, 2, 100_000, 1, 99):
        store.add(numbered(exported, version), exported[1])
    assert [int(path.name.split("-")[0]) for path in store.versions()] == [1, 2, 10, 99, 100_000]


def test_adding_the_same_again_changes_nothing(exported: Exported, tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.add(*exported)
    store.activate(first)
    before = {path.name: path.stat().st_mtime_ns for path in first.iterdir()}
    assert store.add(*exported) == first
    assert {path.name: path.stat().st_mtime_ns for path in first.iterdir()} == before
    assert store.versions() == [first]
    assert store.current == first


def test_two_policies_of_one_version_are_kept_apart(exported: Exported, tmp_path: Path) -> None:
    store = Store(tmp_path)
    other = msgspec.structs.replace(exported[0], noise_hold_ticks=1)
    paths = [store.add(exported[0], exported[1]), store.add(other, exported[1])]
    assert paths[0] != paths[1]
    assert sorted(paths) == store.versions()


def test_an_interrupted_add_leaves_no_version_and_does_not_disturb_the_next(
    mini: RobotProfile, exported: Exported, tmp_path: Path
) -> None:
    name = Store(tmp_path / "elsewhere").add(*exported).name
    store = Store(tmp_path / "store")
    half = store.directory / "versions" / f".{name}.new"
    half.mkdir(parents=True)
    (half / NETWORK_NAME).write_bytes(exported[1][:1000])
    (half / "junk").write_bytes(b"?")
    assert store.versions() == []
    path = store.add(*exported)
    assert sorted(file.name for file in path.iterdir()) == [MANIFEST_NAME, NETWORK_NAME]
    assert open_bundle(path, mini).manifest == exported[0]


def test_a_disk_that_refuses_is_a_storage_error_and_leaves_no_version(exported: Exported, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.directory.mkdir()
    (store.directory / "versions").write_text("in the way")
    with pytest.raises(StorageError) as caught:
        store.add(*exported)
    assert caught.value.remedy
    assert store.versions() == []


def test_an_interrupted_activation_does_not_disturb_the_next(exported: Exported, tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = (store.add(numbered(exported, version), exported[1]) for version in (1, 2))
    store.activate(first)
    (tmp_path / "current.new").symlink_to(second.relative_to(tmp_path))  # killed before the rename
    assert store.current == first
    store.activate(second)
    assert store.current == second
    assert not (tmp_path / "current.new").is_symlink()


def test_a_store_can_be_moved(mini: RobotProfile, exported: Exported, tmp_path: Path) -> None:
    store = Store(tmp_path / "here")
    store.activate(store.add(*exported))
    moved = Store(store.directory.rename(tmp_path / "there"))
    assert moved.current is not None
    assert open_bundle(moved.current, mini).manifest == exported[0]


def test_a_reader_sees_the_old_or_the_new_bundle_and_never_neither(exported: Exported, tmp_path: Path) -> None:
    store = Store(tmp_path)
    bundles = [store.add(numbered(exported, version), exported[1]) for version in (1, 2)]
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
