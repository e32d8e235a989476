"""The learner: clone the demonstrations, then improve on what the policy itself drove.

    demonstrations -> clone -> ship -> [ new steps -> update -> ship ] ... checkpoint every N updates

Data comes from the journal and nowhere else, whether a gateway is filling it at this moment or it
was recorded last week. Every checkpoint holds the place in the journal up to which it has learned,
so that a learner that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from policyloop.bundle.signing import Signer
from policyloop.bundle.store import Store
from policyloop.errors import ConfigError, PolicyloopError, StorageError
from policyloop.learn.algorithm import Lesson
from policyloop.learn.checkpoint import CheckpointState
from policyloop.learn.demonstrations import is_demonstration
from policyloop.learn.orders import Finish, Learn, Read, Wait, tell_order
from policyloop.learn.origin import find_origin
from policyloop.learn.ranks import ALONE, Ranks
from policyloop.learn.reporter import Phase, Progress, Reporter
from policyloop.learn.settings import LearnerSettings
from policyloop.learn.shipping import Shipping
from policyloop.learn.student import Student
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal

__all__ = ["Learner"]

log = logging.getLogger(__name__)

_IDLE_S = 0.02
_PATIENCE = 3
"""So many updates in a row may fail before the learner gives up."""


class Learner:
    """Learns from one journal.

    Args:
        journal: Where steps are.
        settings: What to learn.
        checkpoints: Directory of checkpoints.
        store: Policies are shipped into this store.
        runs: Directory of TensorBoard runs.
        gateway: Fills the journal now; None = learn from what is there and finish.
        resume: Go on from the newest checkpoint.
        parent: Begin with the weights of this checkpoint, of the same profile and network.
        report: Called with the progress, often.
        stop: Set from outside to finish early, with a checkpoint.
        signer: Signs every policy that is shipped; None = they carry no signature.
        ranks: Who makes every update together; this is the one that leads, the others `follow`.
    """

    def __init__(
        self,
        journal: Journal,
        settings: LearnerSettings,
        *,
        checkpoints: Path,
        store: Store,
        runs: Path,
        gateway: Gateway | None = None,
        resume: bool = False,
        parent: Path | None = None,
        report: Callable[[Progress], None] = lambda progress: None,
        stop: threading.Event | None = None,
        signer: Signer | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._journal, self._settings, self._checkpoints = journal, settings, checkpoints
        self._gateway, self._ranks = gateway, ranks
        self._stop = stop or threading.Event()
        self._stop_and_go = settings.stop_and_go
        origin = find_origin(journal.profile, settings, checkpoints, resume=resume, parent=parent)
        left = None if origin.checkpoint is None else origin.checkpoint.state
        self._student = Student(journal, origin, ranks)
        self._shipping = Shipping(store, 0 if left is None else left.version, signer, gateway)
        self._checkpointed = -1 if left is None else left.update
        self._overdue = False
        self._failures = 0
        self._began_s = time.monotonic() - (0.0 if left is None else left.elapsed_s)
        self._reporter = Reporter(runs, report)

    @property
    def version(self) -> int:
        """Version of the newest policy shipped."""
        return self._shipping.version

    @property
    def ledger(self) -> dict[str, int]:
        """Steps read so far, by what became of them."""
        return dict(self._student.algorithm.ledger)

    def run(self) -> None:
        """Learn until the settings say enough, the journal ends (without a gateway), or `stop` is set.

        Raises:
            StorageError: The disk refuses the first policy, or at the end still refuses the last one or its checkpoint.
            KeyboardInterrupt: `stop` was set while it cloned.
        """
        try:
            if not self._student.teachers.cloned_until and self._settings.demonstrations:
                self._clone()
            elif self.version == 0:
                self._shipping.ship(self._student.export)
            if self._settings.learner != "bc":
                if self._ranks.count > 1:
                    tell_order(self._ranks, self._student.begin_order(self._state()))
                while not self._finished and self._improve():
                    pass
            if self.version and self._student.updates > self._checkpointed:
                self._save()
            self._shipping.finish()
            self._tell("finished", 1, 1)
            tell_order(self._ranks, Finish())
            self._say_if_nothing_was_learned()
        finally:
            self._reporter.close()

    def _say_if_nothing_was_learned(self) -> None:
        """Raise ConfigError if a recording had nothing to improve on."""
        if self._settings.learner == "bc" or self._gateway is not None:
            return
        if self._student.updates or self._stop.is_set():
            return
        raise ConfigError(
            f"no update: the journal holds {self._student.algorithm.ready} steps to learn from, the first update takes "
            f"{self._settings.steps_per_update}; policy {self.version} is what there is",
            "let that policy drive and record, lower --update-interval, or use --learner bc",
        )

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    @property
    def _share_done(self) -> float:
        return self._settings.share_done(self._student.updates, self._elapsed_s)

    @property
    def _finished(self) -> bool:
        return self._share_done >= 1 or self._stop.is_set()

    # -- cloning ------------------------------------------------------------------------------

    def _clone(self) -> None:
        if not self._wait_for_demonstrations():
            return
        self._hold(True)
        statistics = self._student.clone(self._tell_of_cloning)
        self._shipping.ship(self._student.export)
        frames = len(self._student.teachers.demonstrations)
        self._reporter.write_clone(statistics, version=self.version, frames=frames)
        self._checkpoint()
        self._hold(False)

    def _tell_of_cloning(self, step: int, total: int, loss: float) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt  # half a clone is nothing to keep, and the journal has all of it
        self._tell("cloning", step, total)

    def _wait_for_demonstrations(self) -> bool:
        """Return True once there are enough; False if the journal will never hold them."""
        found, position = 0, 0
        while True:
            while position < self._journal.next:
                found += is_demonstration(self._journal, position)
                position += 1
            wanted = self._settings.demonstrations
            self._tell("waiting", min(found, wanted), wanted)
            if found >= wanted:
                return True
            if self._gateway is None:
                if found == 0:
                    raise ConfigError(
                        f"the journal holds no demonstrations, {wanted} are wanted",
                        "record some, or use --demonstrations 0 to learn without",
                    )
                log.warning("cloning from the %d demonstrations that there are", found)
                return True
            if self._pause():
                return False

    # -- reinforcement ------------------------------------------------------------------------

    def _improve(self) -> bool:
        """Collect the steps of one update and learn from them; False if no more data will come."""
        if not self._collect():
            return False
        self._hold(True)
        started_s = time.monotonic()
        self._tell("updating", 0, 1)
        lesson = self._learn()
        if lesson is not None:
            self._shipping.ship(self._student.export)
            self._reporter.write_update(
                lesson,
                self._student.algorithm,
                update=self._student.updates,
                version=self.version,
                update_s=time.monotonic() - started_s,
                elapsed_s=self._elapsed_s,
            )
            if self._student.updates % self._settings.checkpoint_interval == 0 or self._overdue or self._finished:
                self._checkpoint()
        self._hold(False)
        return True

    def _collect(self) -> bool:
        """Read until there are the steps of an update; False if the learner should end before."""
        algorithm, wanted = self._student.algorithm, self._settings.steps_per_update
        aged = algorithm.ledger["too-old"]
        while not self._read_on(wanted):
            self._tell("collecting", algorithm.ready, wanted)
            if self._gateway is None or self._pause() or self._finished:
                return False
        aged = algorithm.ledger["too-old"] - aged
        if aged > wanted and self._gateway is not None and not self._stop_and_go:
            self._stop_and_go = True
            log.warning("%d steps were too old to learn from: robots pause from now on while the learner works", aged)
        return True

    def _read_on(self, wanted: int) -> bool:
        """Read, as all ranks do, to the end that the journal has now; True once the steps of an update are ready."""
        order = Read(self.version, wanted, self._journal.next)
        tell_order(self._ranks, order)
        return self._student.algorithm.advance(order.version, order.wanted, order.stop)

    def _learn(self) -> Lesson | None:
        """Update the network; None if that left numbers that are not finite, and was undone."""
        before = self._state()
        order = Learn(self._student.updates, self._share_done)
        tell_order(self._ranks, order)
        lesson = self._student.learn(order)
        if isinstance(lesson, Lesson):
            self._failures = 0
            return lesson
        self._quarantine(before, lesson.generator)
        return None

    def _quarantine(self, before: CheckpointState, generator: torch.Generator) -> None:
        """Keep a checkpoint from which the update that failed can be repeated.

        Raises:
            PolicyloopError: It was one too many in a row.
        """
        self._failures += 1
        bundle = self._shipping.bundle or self._student.export(self.version)
        place = self._student.save(self._checkpoints / "quarantine", before, bundle, generator)
        log.error("update %d gave numbers that are not finite and was undone; see %s", before.update + 1, place)
        if self._failures < _PATIENCE:
            return
        if self._student.updates > self._checkpointed:
            self._save()
        raise PolicyloopError(
            f"{_PATIENCE} updates in a row gave numbers that are not finite; robots keep policy {self.version}",
            f"{place} repeats it: copy it to an empty --checkpoint-dir and --resume; then lower the learning rate",
        )

    # -- checkpoints --------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        """Save a checkpoint; if the disk refuses, the older ones stay and the next update tries again."""
        try:
            self._save()
        except StorageError as error:
            self._overdue = True
            log.error("update %d is in no checkpoint, the next one tries again: %s", self._student.updates, error)

    def _save(self) -> None:
        assert self._shipping.bundle is not None  # every clone and every update is exported before it is saved
        self._student.save(self._checkpoints, self._state(), self._shipping.bundle)
        self._checkpointed, self._overdue = self._student.updates, False

    def _state(self) -> CheckpointState:
        return self._student.state(self.version, self._elapsed_s)

    # -- talking to others --------------------------------------------------------------------

    def _hold(self, hold: bool) -> None:
        if self._gateway is not None and self._stop_and_go:
            self._gateway.announce(hold=hold)

    def _pause(self) -> bool:
        """Wait a moment for data; True if the learner was asked to stop."""
        assert self._gateway is not None
        self._gateway.check()
        return self._stop.wait(_IDLE_S)

    def _tell(self, phase: Phase, done: int, total: int) -> None:
        if phase in ("waiting", "cloning"):
            tell_order(self._ranks, Wait())  # ranks that hear nothing for long give this one up
        self._reporter.tell(
            phase, done, total, update=self._student.updates, version=self.version, elapsed_s=self._elapsed_s
        )
