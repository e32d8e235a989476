from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from policyloop.bundle.build import Bundle
from policyloop.bundle.manifest import NETWORK_NAME
from policyloop.bundle.store import Store
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Observation
from policyloop.errors import IncompatibleError, StorageError, VerificationError
from policyloop.runtime.reload import PolicySlot, bundle_directory, load_warm

Bundles = Callable[..., Bundle]
DEADLINE_S = 30.0


@pytest.fixture
def slot(store: Store, mini: RobotProfile) -> Iterator[PolicySlot]:
    slot = PolicySlot(store.directory, mini)
    yield slot
    slot.close()


def follow_until(slot: PolicySlot, reached: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not reached():
        assert time.monotonic() < deadline_s, "no swap in time"
        slot.follow()
        time.sleep(0.001)


def damage(bundle: Path) -> Path:
    network = bytearray((bundle / NETWORK_NAME).read_bytes())
    network[len(network) // 2] ^= 1
    (bundle / NETWORK_NAME).write_bytes(network)
    return bundle


@contextmanager
def slow_disk(bundle: Path) -> Iterator[Callable[[], object]]:
    """Make the network of a bundle unreadable until the function given back is called."""
    fifo = bundle / NETWORK_NAME
    network = fifo.read_bytes()
    fifo.unlink()
    os.mkfifo(fifo)
    try:
        yield lambda: fifo.write_bytes(network)
    finally:
        os.close(os.open(fifo, os.O_RDWR))  # lets go whoever still waits


def refusals(caplog: pytest.LogCaptureFixture) -> int:
    return sum("keeping policy" in record.message for record in caplog.records)


def test_a_bundle_is_its_own_directory_and_a_store_points_at_its_current_one(store: Store) -> None:
    assert store.current is not None
    assert bundle_directory(store.current) == store.current
    assert bundle_directory(store.directory) == store.current


def test_a_store_without_a_current_bundle_is_a_storage_error(
    tmp_path: Path, mini: RobotProfile, make_bundle: Bundles
) -> None:
    empty = Store(tmp_path / "empty")
    empty.add(make_bundle(1))
    with pytest.raises(StorageError, match="current"):
        PolicySlot(empty.directory, mini)


def test_a_slot_does_not_start_with_a_policy_that_answers_nan(
    tmp_path: Path, mini: RobotProfile, nan_bundle: Bundle
) -> None:
    with pytest.raises(VerificationError, match="finite"):
        PolicySlot(Store(tmp_path).add(nan_bundle), mini)


def test_a_slot_does_not_start_with_a_damaged_bundle_or_another_robots(store: Store, mini: RobotProfile) -> None:
    assert store.current is not None
    with pytest.raises(IncompatibleError):
        PolicySlot(store.current, load_profile("rover"))
    with pytest.raises(VerificationError):
        PolicySlot(damage(store.current), mini)


def test_a_warm_policy_answers(store: Store, mini: RobotProfile, observation: Observation) -> None:
    assert store.current is not None
    policy = load_warm(store.current, mini, "onnx")
    assert policy.act(observation).source == "policy"
    policy.close()


def test_nothing_new_means_no_swap(slot: PolicySlot) -> None:
    policy = slot.policy
    assert [slot.follow() for _ in range(5)] == [False] * 5
    assert slot.policy is policy
    assert slot.swaps == 0


def test_an_added_bundle_is_not_taken_before_it_is_activated(
    slot: PolicySlot, store: Store, make_bundle: Bundles
) -> None:
    store.add(make_bundle(2))
    assert not slot.follow(wait=True)
    assert slot.policy.version == 1


def test_an_activated_bundle_is_swapped_in_once(
    slot: PolicySlot, store: Store, make_bundle: Bundles, observation: Observation
) -> None:
    digest = slot.policy.digest
    store.activate(store.add(make_bundle(2)))
    assert slot.follow(wait=True)
    assert not slot.follow(wait=True)
    assert (slot.policy.version, slot.swaps) == (2, 1)
    behaviour = slot.policy.act(observation).behaviour
    assert behaviour is not None
    assert behaviour.policy_version == 2
    assert behaviour.policy_digest == slot.policy.digest != digest


def test_a_slot_on_a_plain_bundle_never_swaps(store: Store, mini: RobotProfile, make_bundle: Bundles) -> None:
    assert store.current is not None
    slot = PolicySlot(store.current, mini)
    store.activate(store.add(make_bundle(2)))
    assert not slot.follow(wait=True)
    assert slot.policy.version == 1
    slot.close()


def test_a_thread_loads_while_the_old_policy_goes_on_driving(
    slot: PolicySlot, store: Store, make_bundle: Bundles, observation: Observation
) -> None:
    bundle = store.add(make_bundle(2))
    store.activate(bundle)
    with slow_disk(bundle) as let_it_read:
        # The network cannot be read yet: any call that waited for it would never return.
        for _ in range(20):
            assert not slot.follow()
            behaviour = slot.policy.act(observation).behaviour
            assert behaviour is not None
            assert behaviour.policy_version == 1
        let_it_read()
        follow_until(slot, lambda: slot.swaps == 1)
    assert slot.policy.version == 2


def test_a_policy_activated_during_a_load_comes_next(slot: PolicySlot, store: Store, make_bundle: Bundles) -> None:
    bundle = store.add(make_bundle(2))
    store.activate(bundle)
    with slow_disk(bundle) as let_it_read:
        assert not slot.follow()
        store.activate(store.add(make_bundle(3)))
        assert not slot.follow()
        let_it_read()
        follow_until(slot, lambda: slot.policy.version == 3)
    assert slot.swaps == 2


def test_closing_waits_for_the_load_under_way(store: Store, mini: RobotProfile, make_bundle: Bundles) -> None:
    slot = PolicySlot(store.directory, mini)
    store.activate(store.add(make_bundle(2)))
    slot.follow()
    assert slot.policy.version == 1
    slot.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "policy-loader"]


@pytest.mark.parametrize("wait", [True, False])
def test_a_damaged_bundle_leaves_the_old_policy_driving_and_is_not_tried_again(
    slot: PolicySlot, store: Store, make_bundle: Bundles, caplog: pytest.LogCaptureFixture, wait: bool
) -> None:
    store.activate(damage(store.add(make_bundle(2))))
    with caplog.at_level(logging.ERROR, "policyloop.runtime.reload"):
        slot.follow(wait=wait)
        follow_until(slot, lambda: refusals(caplog) == 1)
        for _ in range(10):
            assert not slot.follow(wait=True)
    assert refusals(caplog) == 1
    assert (slot.policy.version, slot.swaps) == (1, 0)


def test_a_policy_that_answers_nan_leaves_the_old_one_driving_and_is_not_tried_again(
    slot: PolicySlot, store: Store, nan_bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    store.activate(store.add(nan_bundle))
    with caplog.at_level(logging.ERROR, "policyloop.runtime.reload"):
        for _ in range(5):
            assert not slot.follow(wait=True)
    assert refusals(caplog) == 1
    assert slot.policy.version == 1


def test_a_bundle_of_another_robot_or_without_files_leaves_the_old_policy_driving(
    slot: PolicySlot, store: Store, make_bundle: Bundles
) -> None:
    store.activate(store.add(make_bundle(2, profile_digest="0" * 64)))
    assert not slot.follow(wait=True)
    hollow = store.directory / "versions" / "000003-aaaaaaaaaaaa"
    hollow.mkdir()
    store.activate(hollow)
    assert not slot.follow(wait=True)
    assert slot.policy.version == 1


def test_the_next_good_policy_is_taken_after_a_broken_one(slot: PolicySlot, store: Store, make_bundle: Bundles) -> None:
    store.activate(damage(store.add(make_bundle(2))))
    assert not slot.follow(wait=True)
    store.activate(store.add(make_bundle(3)))
    assert slot.follow(wait=True)
    assert slot.policy.version == 3


def test_a_roll_back_is_followed_too(slot: PolicySlot, store: Store, make_bundle: Bundles) -> None:
    first = store.current
    assert first is not None
    store.activate(store.add(make_bundle(2)))
    assert slot.follow(wait=True)
    store.activate(first)
    assert slot.follow(wait=True)
    assert (slot.policy.version, slot.swaps) == (1, 2)


def test_whatever_a_load_raises_the_old_policy_goes_on_driving(
    slot: PolicySlot, store: Store, make_bundle: Bundles
) -> None:
    bundle = store.add(make_bundle(2, created="DATE"))
    path = bundle / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"DATE", b"\xff\xfe"))
    store.activate(bundle)
    assert not slot.follow(wait=True)
    assert slot.policy.version == 1
