"""What `/reload_remote_model` answers: only after the swap, or with the reason why there is none (row S21)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from policyloop.bundle.store import Store
from policyloop.runtime.reload import Slot

__all__ = ["Answer", "await_swap"]

Answer = tuple[bool, str]
"""Success and a sentence, as std_srvs/Trigger has them."""

_LOOK_S = 0.05


def await_swap(slot: Slot, store: Store, armed: Callable[[], bool], ends: threading.Event, patience_s: float) -> Answer:
    """Wait until the store's current version drives; the control loop swaps by itself.

    Args:
        slot: Follows the store.
        store: Where versions are.
        armed: Whether the policy drives; a version that must show itself beside it cannot while nothing drives.
        ends: Set when the program ends.
        patience_s: How long it may take.
    """
    target = store.current
    if target is None:
        return False, f"store {store.directory} has no current version"
    first, until_s = slot.policy.version, time.monotonic() + patience_s
    while time.monotonic() < until_s:
        if Store.name_of(slot.policy.version, slot.policy.digest) == target.name:
            same = slot.policy.version == first
            return True, f"version {first} drives already" if same else f"version {slot.policy.version} drives"
        about = store.about(target)
        if about.state == "bad":
            return False, f"version {target.name} is bad: {about.note}; version {slot.policy.version} drives on"
        if store.current != target:
            return False, f"version {target.name} was taken back; version {slot.policy.version} drives on"
        if about.state != "good" and not armed():
            return False, (
                f"version {target.name} is being tried; it drives when it has answered for a while beside version "
                f"{slot.policy.version}, and the robot is not armed: arm it and ask again"
            )
        if ends.wait(_LOOK_S):
            return False, "the node ends"
    return False, f"version {target.name} does not drive after {patience_s:g} s; see the log"
