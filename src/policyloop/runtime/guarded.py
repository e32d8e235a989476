"""A real robot's slot: a new version proves itself before it drives and while it drives, or the old one is back.

    trial in a process of its own -> load -> golden vectors -> shadow -> swap -> probation -> good
                                                          anything wrong -> bad, and the version before drives on

What is on the disk is written by other threads than the one that ticks; it says at any moment which version a
robot that starts now must drive.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from policyloop.bundle.signing import KeyRing
from policyloop.bundle.store import Store
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Command, Observation
from policyloop.errors import IncompatibleError, SafetyRefusal, StorageError, VerificationError
from policyloop.runtime.candidate import Candidate, Loader
from policyloop.runtime.health import Outcome, Probation, SwapSettings
from policyloop.runtime.inference import InferenceLate, InferenceThread
from policyloop.runtime.policy import Exploration, Policy
from policyloop.runtime.reload import PolicySlot

__all__ = ["GuardedSlot", "open_slot"]

log = logging.getLogger(__name__)

_DEADLINE_SHARE = 0.8
_BASELINE_TICKS, _BASELINE_LEAST = 300, 50
_TRIPS = {"distance", "surroundings", "contact"}
"""What the gate says where a policy wanted to drive into something; that a sensor is silent is not its fault."""


def open_slot(
    source: Path, profile: RobotProfile, backend: str, ring: KeyRing | None, settings: SwapSettings
) -> GuardedSlot | PolicySlot:
    """Return the slot of a real robot: guarded on a store, which has a version to go back to; plain on one bundle."""
    if (source / "versions").is_dir():
        return GuardedSlot(Store(source), profile, backend, ring, settings)
    return PolicySlot(source, profile, backend, ring)


class GuardedSlot:
    """Follows a store's `current`.

    Args:
        store: The robot's.
        profile: The robot's.
        backend: Which backend opens the networks.
        ring: Whose signatures count; None = unsigned bundles are taken too.
        settings: Numbers.

    Attributes:
        policy: Drives now.
        swaps: How many times it was exchanged, roll-backs included.

    Raises:
        SafetyRefusal: No version is fit to drive, or another program drives from this store.
        StorageError: The store is empty, or the disk refuses.
    """

    def __init__(
        self,
        store: Store,
        profile: RobotProfile,
        backend: str = "auto",
        ring: KeyRing | None = None,
        settings: SwapSettings | None = None,
    ) -> None:
        self._settings = settings or SwapSettings()
        self._store, self._profile = store, profile
        self._loader = Loader(store, profile, backend, ring, self._settings)
        self._inference = self._new_inference()
        self._trips: deque[bool] = deque(maxlen=_BASELINE_TICKS)
        self._candidate: Candidate | None = None
        self._probation: Probation | None = None
        self._previous: tuple[Path, Policy] | None = None
        self._unfit = ""
        self._refused: Path | None = None
        self._clerks: list[threading.Thread] = []
        self._summary = ""
        self.swaps = 0
        self._claim = ExitStack()
        try:
            self._claim.enter_context(store.driven())
            self._path, self.policy = self._first()
        except BaseException:
            self._claim.close()
            self._inference.close()
            raise

    def _new_inference(self) -> InferenceThread:
        return InferenceThread(_DEADLINE_SHARE / self._profile.rates.control_hz)

    def _first(self) -> tuple[Path, Policy]:
        """Load what the store says is current, or what it goes back to."""
        if done := self._store.recover():
            log.warning("%s", done)
        path = self._store.current
        if path is None:
            raise StorageError(f"store {self._store.directory} has no current bundle", "activate one, or deploy one")
        about = self._store.about(path)
        if about.state == "bad":
            raise SafetyRefusal(
                f"version {path.name} is marked bad: {about.note}", "deploy another, or activate one that is good"
            )
        try:
            policy = self._loader.load(path)
        except (IncompatibleError, VerificationError) as error:
            if self._store.previous is None:
                raise
            log.error("version %s is not fit to drive: %s", path.name, error)
            self._store.rollback(str(error))
            return self._first()
        if not self._loader.is_proven(path):
            self._store.begin_attempt(path)
            self._probation = self._new_probation()
        return path, policy

    def _new_probation(self) -> Probation:
        baseline = float(np.mean(self._trips)) if len(self._trips) >= _BASELINE_LEAST else None
        return Probation(self._settings, self._profile.rates.control_hz, baseline)

    # -- the tick -----------------------------------------------------------------------------

    def act(self, observation: Observation, exploration: Exploration | None = None) -> Action:
        """Ask the policy, and watch it.

        Raises:
            InferenceLate: It does not answer in time.
            SafetyRefusal: No version is fit to drive.
            Exception: Whatever the backend raised.
        """
        if self._unfit:
            raise SafetyRefusal(self._unfit, "deploy another version")
        try:
            action = self._inference.act(self.policy, observation, exploration)
        except InferenceLate as error:
            self._watch("late", str(error))
            raise
        except Exception as error:
            self._watch("error", f"{type(error).__name__}: {error}")
            raise
        finite = bool(np.isfinite(action.values).all())
        self._watch("fine" if finite else "not-finite", str(action.values))
        if self._candidate is not None and finite:
            self._candidate.observe(observation, action)
        return action

    def executed(self, command: Command) -> None:
        """See `Slot.executed`."""
        tripped = not _TRIPS.isdisjoint(command.reasons)
        if self._probation is None:
            self._trips.append(tripped)
        else:
            self._probation.commanded(tripped=tripped)

    def _watch(self, outcome: Outcome, detail: str) -> None:
        if self._probation is not None:
            self._probation.inferred(outcome, detail)

    # -- between two ticks --------------------------------------------------------------------

    def follow(self) -> bool:
        """Call between two ticks; never waits. True if the policy was exchanged."""
        self._clerks = [clerk for clerk in self._clerks if clerk.is_alive()]
        if self._probation is not None and (self._probation.problem or self._probation.passed):
            return self._conclude(self._probation)
        if self._candidate is not None:
            return self._candidate.ready and not self._inference.busy and self._settle(self._candidate)
        current = self._store.current
        if current == self._path:
            self._refused = None
        if current is None or current in (self._path, self._refused) or self._clerks:
            return False
        if self._previous is not None and current == self._previous[0]:  # somebody rolled back by hand
            return self._return_to(self._previous)
        self._candidate = Candidate(current, self._loader, shadowed=not self._unfit)
        return False

    def _settle(self, candidate: Candidate) -> bool:
        """Exchange the policy for a candidate that is ready, or refuse it."""
        self._candidate = None
        if candidate.problem:
            self._refuse(candidate.path, candidate.problem)
        if candidate.problem or candidate.path != self._store.current:
            self._clerk(candidate.close)
            return False
        if candidate.proven:
            self._forget_previous()
            self._retire(self.policy)
        elif self._unfit or (self._probation is not None and self._previous is not None):
            self._retire(self.policy)  # it has not proved itself: no place to go back to
        else:
            self._forget_previous()
            self._previous = self._path, self.policy
        self._exchange(candidate.path, candidate.take())
        self._summary = candidate.summary
        self._probation = None if candidate.proven else self._new_probation()
        return True

    def _conclude(self, probation: Probation) -> bool:
        """Mark the policy good, or go back to the one before it."""
        self._probation = None
        path = self._path
        if not probation.problem:
            summary = "; ".join(filter(None, [self._summary, probation.summary]))
            self._clerk(lambda: self._store.mark(path, "good", summary))
            self._forget_previous()
            return False
        self._refuse(path, probation.problem)
        if self._previous is None:
            self._unfit = f"version {path.name} is bad: {probation.problem}; there is none before it"
            if self._candidate is not None:
                self._candidate.end_shadow()  # there is nothing left to compare it with
            return False
        return self._return_to(self._previous)

    def _return_to(self, previous: tuple[Path, Policy]) -> bool:
        self._probation = self._previous = None
        self._retire(self.policy)
        self._exchange(*previous)
        return True

    def _exchange(self, path: Path, policy: Policy) -> None:
        """One assignment: network, normaliser and digest are one object."""
        self._path, self.policy, self._unfit = path, policy, ""
        self.swaps += 1
        log.info("policy %d drives now (%s)", policy.version, policy.digest[:12])

    def _retire(self, policy: Policy) -> None:
        """Release the policy that drove until now; one that hangs is left behind, with its thread."""
        if self._inference.busy:
            self._inference.close()
            self._inference = self._new_inference()
        else:
            self._clerk(policy.close)

    def _forget_previous(self) -> None:
        if self._previous is not None:
            self._clerk(self._previous[1].close)
            self._previous = None

    def _refuse(self, path: Path, problem: str) -> None:
        driven = path == self._path
        driving = self.policy if not driven else self._previous[1] if self._previous is not None else None
        then = "none before it" if driving is None else f"policy {driving.version} drives on"
        log.error("version %s is bad, %s: %s", path.name, then, problem)
        self._refused = path
        self._clerk(lambda: self._go_back(path, problem))

    def _go_back(self, path: Path, problem: str) -> None:
        if self._store.current == path and self._store.previous is not None:
            self._store.rollback(problem)
        else:
            self._store.mark(path, "bad", problem)

    def _clerk(self, work: Callable[[], object]) -> None:
        """Do something slow in a thread: a tick waits neither for a disk nor for memory to be released."""

        def do() -> None:
            try:
                work()
            except StorageError as error:
                log.error("%s", error)

        self._clerks.append(threading.Thread(target=do, name="policy-clerk"))
        self._clerks[-1].start()

    def close(self) -> None:
        """Release everything; a probation that is not over yet is not held against the policy."""
        if self._candidate is not None:
            self._candidate.close()
        if self._probation is not None and not self._probation.problem:
            self._store.withdraw_attempt(self._path)
        self._forget_previous()
        self._retire(self.policy)
        self._inference.close()
        for clerk in self._clerks:
            clerk.join()
        self._claim.close()
