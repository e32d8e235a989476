"""A policy on its way to driving: tried, loaded, and compared beside the one that drives (row N5)."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from pathlib import Path

from policyloop.bundle.signing import KeyRing
from policyloop.bundle.store import Store
from policyloop.bundle.verify import read_manifest
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Observation
from policyloop.errors import VerificationError
from policyloop.runtime.health import Shadow, SwapSettings
from policyloop.runtime.inference import InferenceLate, InferenceThread
from policyloop.runtime.policy import Policy
from policyloop.runtime.trial import load_warm, try_bundle

__all__ = ["Candidate", "Loader"]

_LOOK_S = 0.2
_HANGS_S = 2.0
"""A network that takes so long for one answer is not slow, it hangs."""


class Loader:
    """Opens bundles of a store for one robot.

    Args:
        store: Knows what became of each version.
        profile: The robot's.
        backend: Which backend opens the network.
        ring: Whose signatures count; None = unsigned bundles are taken too.
        settings: Numbers.
    """

    def __init__(
        self, store: Store, profile: RobotProfile, backend: str, ring: KeyRing | None, settings: SwapSettings
    ) -> None:
        self.store, self.profile, self.settings = store, profile, settings
        self._backend, self._ring = backend, ring

    def is_proven(self, path: Path) -> bool:
        """The version has driven well before."""
        return self.store.state_of(path) == "good"

    def load(self, path: Path) -> Policy:
        """Load a version; one that is not proven is tried in a process of its own first.

        Raises:
            PolicyloopError: It is not fit to be loaded.
        """
        if not self.is_proven(path):
            digest = hashlib.sha256(read_manifest(path, self._ring)[0]).hexdigest()
            try_bundle(path, digest, self.profile, self._backend, self._ring, self.settings)
        return load_warm(path, self.profile, self._backend, self._ring)


class Candidate:
    """One version, in a thread that prepares it while another one drives.

    Args:
        path: The version.
        loader: Opens it.
        shadowed: Compare it with the policy that drives before it is ready, if it is not proven.

    Attributes:
        path: The version.
        proven: It has driven well before.
        problem: Why it must not drive; empty as long as nothing is known against it.
        summary: What was seen of it; for people.
    """

    def __init__(self, path: Path, loader: Loader, *, shadowed: bool) -> None:
        self.path = path
        self.problem = ""
        self.summary = ""
        self.proven = False
        self._attempted = False
        self._loader = loader
        self._policy: Policy | None = None
        self._ticks: queue.Queue[tuple[Observation, Action]] = queue.Queue(maxsize=1)
        self._stop = threading.Event()
        self._shadowing = threading.Event()
        if shadowed:
            self._shadowing.set()
        self._thread = threading.Thread(target=self._prepare, name="policy-candidate")
        self._thread.start()

    @property
    def ready(self) -> bool:
        """It is settled whether it may drive."""
        return not self._thread.is_alive()

    def observe(self, observation: Observation, driven: Action) -> None:
        """Hand over a tick of the policy that drives; skipped while the candidate is busy."""
        try:
            self._ticks.put_nowait((observation, driven))
        except queue.Full:
            return

    def end_shadow(self) -> None:
        """Compare no longer: what drove it was compared with is gone."""
        self._shadowing.clear()

    def take(self) -> Policy:
        """Give the policy away, to drive; call once, when it is ready and there is no problem."""
        assert self._policy is not None
        policy, self._policy = self._policy, None
        return policy

    def _prepare(self) -> None:
        try:
            self.proven = self._loader.is_proven(self.path)
            self._policy = self._loader.load(self.path)
            if self.proven:
                return
            self._shadow(self._policy)
            if not self.problem and not self._stop.is_set():
                self._loader.store.begin_attempt(self.path)  # written down before it drives
                self._attempted = True
        except Exception as error:  # whatever is wrong with it, the old one goes on driving
            self.problem = str(error)

    def _shadow(self, policy: Policy) -> None:
        shadow = Shadow(self._loader.profile, self._loader.settings)
        inference = InferenceThread(_HANGS_S)
        try:
            while self._shadowing.is_set() and not shadow.done:
                try:
                    observation, driven = self._ticks.get(timeout=_LOOK_S)
                except queue.Empty:
                    continue
                started_s = time.perf_counter()
                proposed = inference.act(policy, observation)
                shadow.compare(driven, proposed, time.perf_counter() - started_s)
        except InferenceLate as error:
            self._policy = None  # it still runs, and cannot be closed
            raise VerificationError(f"it hangs: {error}") from error
        finally:
            inference.close()
        self.problem, self.summary = shadow.problem, shadow.summary

    def close(self) -> None:
        """Give it up."""
        self._stop.set()
        self._shadowing.clear()
        self._thread.join()
        if self._attempted:
            self._loader.store.withdraw_attempt(self.path)
        if self._policy is not None:
            self._policy.close()
