"""Swap the policy while driving, for simulations: load and warm up beside the running one, then exchange one reference.

The slow part (reading, verifying, opening, warming up) happens in a thread of its own. The tick
takes a finished policy, or goes on with the one it has. A bundle that fails to load leaves the old
one driving and is not tried again. A real robot's slot asks for more: `runtime.guarded`.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Protocol

from policyloop.bundle.signing import KeyRing
from policyloop.bundle.store import Store
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Command, Observation
from policyloop.runtime.locate import bundle_directory
from policyloop.runtime.policy import Exploration, Policy
from policyloop.runtime.trial import load_warm

__all__ = ["PolicySlot", "Slot"]

log = logging.getLogger(__name__)


class Slot(Protocol):
    """Holds the policy that drives now; it is exchanged between two ticks."""

    policy: Policy
    swaps: int

    def act(self, observation: Observation, exploration: Exploration | None = None) -> Action:
        """Ask the policy; raises whatever is wrong with it, and then the robot stands still for this tick."""

    def executed(self, command: Command) -> None:
        """Learn what the gate made of the last proposal."""


class PolicySlot:
    """The policy that drives now, and the one that is being loaded.

    Args:
        source: A bundle directory, or a store whose `current` is followed.
        profile: The robot's.
        backend: Which backend opens the network.
        ring: Whose signatures count; None = unsigned bundles are taken too.

    Attributes:
        policy: Drives now.
        swaps: How many times it was exchanged.
    """

    def __init__(self, source: Path, profile: RobotProfile, backend: str = "auto", ring: KeyRing | None = None) -> None:
        self._profile, self._ring = profile, ring
        self._backend = backend
        self._store = Store(source) if (source / "versions").is_dir() else None
        self._path = bundle_directory(source)
        self.policy = load_warm(self._path, profile, backend, ring)
        self.swaps = 0
        self._refused: set[Path] = set()
        self._thread: threading.Thread | None = None
        self._ready: Policy | None = None

    def act(self, observation: Observation, exploration: Exploration | None = None) -> Action:
        """See `Slot.act`."""
        return self.policy.act(observation, exploration)

    def executed(self, command: Command) -> None:
        """See `Slot.executed`."""

    def follow(self, *, wait: bool = False) -> bool:
        """Call between two ticks: take a policy that is ready, and look for a newer one.

        Args:
            wait: Load in this call instead of in a thread (for simulations on virtual time).

        Returns:
            True if the policy was exchanged.
        """
        if self._thread is not None and not self._thread.is_alive():
            self._thread.join()
            self._thread = None
        swapped = self._take()
        path = self._store.current if self._store else None
        if path is not None and path != self._path and path not in self._refused and self._thread is None:
            self._path = path
            if wait:
                self._load(path)
                swapped |= self._take()
            else:
                self._thread = threading.Thread(target=self._load, args=(path,), name="policy-loader")
                self._thread.start()
        return swapped

    def _take(self) -> bool:
        if self._ready is None:
            return False
        old, self.policy, self._ready = self.policy, self._ready, None
        old.close()
        self.swaps += 1
        log.info("policy %d drives now (%s)", self.policy.version, self.policy.digest[:12])
        return True

    def _load(self, path: Path) -> None:
        try:
            self._ready = load_warm(path, self._profile, self._backend, self._ring)
        except Exception as error:  # whatever is wrong with it, the old one goes on driving
            self._refused.add(path)
            log.error("keeping policy %d: %s", self.policy.version, error)

    def close(self) -> None:
        """Wait for a load under way and release everything."""
        if self._thread is not None:
            self._thread.join()
        for policy in (self.policy, self._ready):
            if policy is not None:
                policy.close()
