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
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch

from policyloop.bundle.build import Bundle
from policyloop.bundle.manifest import NETWORK_NAME
from policyloop.bundle.signing import Signer
from policyloop.bundle.store import Store
from policyloop.bundle.verify import read_manifest
from policyloop.convert.export import export_bundle, probe_features
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Arrays
from policyloop.errors import ConfigError, IncompatibleError, PolicyloopError, StorageError
from policyloop.learn.aggregation import Aggregation
from policyloop.learn.algorithm import Algorithm, Lesson
from policyloop.learn.bc import clone
from policyloop.learn.checkpoint import (
    Checkpoint,
    CheckpointState,
    encode_checkpoint,
    latest_checkpoint,
    load_checkpoint,
    restore_optimizer,
    save_checkpoint,
)
from policyloop.learn.delivery import deliver
from policyloop.learn.demonstrations import is_demonstration
from policyloop.learn.device import accelerator_errors, choose_device, keep_freed_memory
from policyloop.learn.inputs import example_inputs
from policyloop.learn.metrics import Metrics
from policyloop.learn.networks import NetworkSettings, make_network
from policyloop.learn.off_policy import OffPolicy
from policyloop.learn.on_policy import OnPolicy
from policyloop.learn.orders import Begin, Finish, Learn, Read, Wait, tell_order
from policyloop.learn.ranks import ALONE, Ranks
from policyloop.learn.restore_point import RestorePoint
from policyloop.learn.settings import LearnerSettings
from policyloop.learn.teachers import Teachers
from policyloop.learn.tuning import Execution, choose_execution
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal

__all__ = ["Learner", "Progress"]

log = logging.getLogger(__name__)

_IDLE_S = 0.02
_PARITY_OBSERVATIONS = 16
_PATIENCE = 3
"""So many updates in a row may fail before the learner gives up."""

_ALGORITHMS: dict[str, Callable[..., Algorithm]] = {
    "bc": OnPolicy,
    "dagger": Aggregation,
    "ppo": OnPolicy,
    "rlpd": OffPolicy,
}


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where the learner stands; for people."""

    phase: Literal["waiting", "cloning", "collecting", "updating", "finished"]
    done: int
    total: int
    update: int
    version: int
    score: float
    elapsed_s: float


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
        self._journal = journal
        self._profile: RobotProfile = journal.profile
        self._settings = settings
        self._checkpoints, self._store = checkpoints, store
        self._gateway = gateway
        self._ranks = ranks
        self._signer = signer
        self._report = report
        self._stop = stop or threading.Event()
        self._device = choose_device(settings.device)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        keep_freed_memory()
        saved = latest_checkpoint(checkpoints) if resume else None
        if saved is None and not resume and any(checkpoints.glob("[0-9]*")):
            raise ConfigError(f"{checkpoints} already holds checkpoints", "add --resume, or choose another directory")
        kin = load_checkpoint(parent) if saved is None and parent is not None else saved
        if kin is not None:
            self._check_kinship(kin.state)
        torch.manual_seed(settings.seed)
        self._network = make_network(
            settings.network, self._profile, initial_log_std=settings.initial_log_std, settings=_network_settings(kin)
        ).to(self._device)
        self._execution = self._chosen_execution(saved)
        self._execution.lay_out(self._network)
        self._settings = msgspec.structs.replace(settings, execution=self._execution)
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._normalizer = self._profile.nominal_normalizer
        self._version = self._update = self._failures = 0
        self._lineage: list[str] = []
        self._elapsed_before_s = 0.0
        if saved is not None:
            self._restore(saved)
        elif kin is not None:
            self._descend_from(kin)
        self._teachers = Teachers(
            journal,
            self._normalizer,
            settings.bc,
            cloned_until=0 if saved is None else saved.state.demonstrations_until,
            read=saved.state.feed.read if saved is not None and saved.state.cloned else 0,
        )
        only_cloned = saved is not None and saved.state.settings.get("learner") == "bc"
        if only_cloned:
            with torch.no_grad():
                self._network.log_std.fill_(settings.initial_log_std)
        self._algorithm = self._begin(None if only_cloned else saved)
        self._checkpointed = -1 if saved is None else saved.state.update
        self._overdue = False
        self._shipped = True
        self._stop_and_go = settings.stop_and_go
        self._recent_inputs: list[Arrays] = []
        self._scores: list[float] = []
        self._started_s = time.monotonic()
        self._metrics = Metrics(runs)

    def _chosen_execution(self, saved: Checkpoint | None) -> Execution:
        """Return how updates run: as the settings say, as they ran before, or as is fastest here."""
        if self._settings.execution is not None:
            return self._settings.execution
        before = None if saved is None else saved.state.settings.get("execution")
        if before is not None:
            execution = msgspec.convert(before, Execution)
            if execution.device == self._device.type:
                return execution  # another way rounds differently
        with accelerator_errors():
            return choose_execution(self._network, self._profile, self._settings.ppo.minibatch, self._device)

    def _begin(self, saved: Checkpoint | None) -> Algorithm:
        """Return the algorithm that improves the network, as it was in a checkpoint or new."""
        make = _ALGORITHMS[self._settings.learner]
        if self._ranks.count > 1:
            make = partial(OnPolicy, ranks=self._ranks)  # the others share nothing
        algorithm: Algorithm = make(
            self._network,
            self._journal,
            self._normalizer,
            self._settings,
            self._teachers,
            generator=self._generator,
            device=self._device,
            state=None if saved is None else saved.state.feed,
        )
        if saved is not None:
            restore_optimizer("optimizer", algorithm.optimizer, saved.tensors)
            algorithm.restore(saved.tensors)
        return algorithm

    def _check_kinship(self, state: CheckpointState) -> None:
        """Refuse a checkpoint of another robot or network."""
        if state.profile_digest != self._profile.digest:
            raise IncompatibleError(
                f"checkpoint {self._checkpoints} is of profile '{state.profile.name}', not '{self._profile.name}'",
                "use the profile it was trained with, or another --checkpoint-dir",
            )
        if state.network != self._settings.network:
            raise IncompatibleError(
                f"checkpoint {self._checkpoints} is of network '{state.network}', not '{self._settings.network}'",
                f"add --network {state.network}, or choose another --checkpoint-dir",
            )

    def _restore(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint of this very training."""
        state = saved.state
        if state.network_settings is not None and state.network_settings.privileged_size:
            raise IncompatibleError(
                f"checkpoint {self._checkpoints} learned in simulation, from what no robot senses",
                "go on there: --simulated; or begin from its weights: --from, with another --checkpoint-dir",
            )
        before = str(state.settings.get("learner", "ppo"))
        if before not in ("bc", self._settings.learner):
            raise IncompatibleError(
                f"checkpoint {self._checkpoints} is of learner '{before}', not '{self._settings.learner}'",
                f"add --learner {before}, or begin from its weights: --from, with another --checkpoint-dir",
            )
        saved.restore(self._network, None, self._generator)
        self._normalizer, self._lineage = state.normalizer, state.lineage
        self._version, self._update = state.version, state.update
        self._elapsed_before_s = state.elapsed_s
        log.info("resumed at update %d, policy %d", self._update, self._version)

    def _descend_from(self, saved: Checkpoint) -> None:
        """Take over the weights of a checkpoint of another training; of a critic only if robots can feed it."""
        settings = saved.state.network_settings
        if settings is not None and settings.privileged_size:
            saved.restore_actor(self._network)
            log.warning("the parent's critic saw what no robot senses: only its actor is taken over, the critic is new")
        else:
            saved.restore(self._network, None, None)
        self._normalizer = saved.state.normalizer
        self._lineage = [*saved.state.lineage, saved.state.tensors_sha256]

    @property
    def version(self) -> int:
        """Version of the newest policy shipped."""
        return self._version

    @property
    def ledger(self) -> dict[str, int]:
        """Steps read so far, by what became of them."""
        return dict(self._algorithm.ledger)

    def run(self) -> None:
        """Learn until the settings say enough, the journal ends (without a gateway), or `stop` is set.

        Raises:
            StorageError: The disk refuses the first policy, or at the end still refuses the last one or its checkpoint.
        """
        try:
            if not self._teachers.cloned_until and self._settings.demonstrations:
                self._clone()
            elif self._version == 0:
                self._ship()
            if self._settings.learner != "bc":
                self._set_out()
                while not self._finished and self._improve():
                    pass
            if self._version and self._update > self._checkpointed:
                self._save()
            if not self._shipped:
                self._deliver()
            self._tell("finished", 1, 1)
            tell_order(self._ranks, Finish())
            self._say_if_nothing_was_learned()
        finally:
            self._metrics.close()

    def _say_if_nothing_was_learned(self) -> None:
        """Raise ConfigError if a recording had nothing to improve on."""
        if self._settings.learner == "bc" or self._gateway is not None or self._update or self._stop.is_set():
            return
        raise ConfigError(
            f"no update: the journal holds {self._algorithm.ready} steps to learn from, the first update takes "
            f"{self._settings.steps_per_update}; policy {self._version} is what there is",
            "let that policy drive and record, lower --update-interval, or use --learner bc",
        )

    @property
    def _elapsed_s(self) -> float:
        return self._elapsed_before_s + time.monotonic() - self._started_s

    @property
    def _share_done(self) -> float:
        """Share of the planned training that lies behind, 0..1."""
        settings = self._settings
        updates = self._update / settings.total_updates if settings.total_updates else 0.0
        budget = self._elapsed_s / settings.time_budget_s if settings.time_budget_s else 0.0
        return min(1.0, max(updates, budget))

    @property
    def _finished(self) -> bool:
        return self._share_done >= 1 or self._stop.is_set()

    def _set_out(self) -> None:
        """Let the other ranks stand where this one does."""
        if self._ranks.count > 1:
            place = encode_checkpoint(self._state(), self._network, self._algorithm.optimizer, self._generator)
            tell_order(self._ranks, Begin(*place))

    # -- cloning ------------------------------------------------------------------------------

    def _clone(self) -> None:
        if not self._wait_for_demonstrations():
            return
        self._hold(True)
        self._teachers.cloned_until = self._journal.next
        demonstrations = self._teachers.demonstrations
        self._recent_inputs = example_inputs(demonstrations.features, len(demonstrations))
        with accelerator_errors(), self._execution.applied_to(self._network):
            statistics = clone(
                self._network,
                demonstrations,
                self._profile,
                self._settings.bc,
                generator=self._generator,
                device=self._device,
                progress=lambda step, total, loss: self._tell("cloning", step, total),
            )
        self._algorithm = self._begin(None)
        self._ship()
        losses = {f"bc_{name}": number for name, number in statistics.items() if name.endswith("loss")}
        self._metrics.write(0, losses, version=self._version, frames=len(demonstrations))
        self._checkpoint()
        self._hold(False)

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
            self._update += 1
            self._recent_inputs = lesson.inputs or self._recent_inputs
            self._ship()
            self._write(lesson, time.monotonic() - started_s)
            if self._update % self._settings.checkpoint_interval == 0 or self._overdue or self._finished:
                self._checkpoint()
        self._hold(False)
        return True

    def _learn(self) -> Lesson | None:
        """Update the network; an update that leaves numbers that are not finite is undone, and None is returned.

        Raises:
            PolicyloopError: It was one too many in a row.
        """
        before = RestorePoint(self._network, self._algorithm, self._generator)
        state = self._state()
        order = Learn(self._update, self._share_done)
        tell_order(self._ranks, order)
        with accelerator_errors(), self._execution.applied_to(self._network):
            lesson = self._algorithm.learn(order.update, order.done)
        if before.is_sound:
            self._failures = 0
            return lesson
        before.restore()
        self._failures += 1
        place = save_checkpoint(
            self._checkpoints / "quarantine",
            state,
            self._network,
            self._algorithm.optimizer,
            before.generator,
            self._bundle,
            self._algorithm.tensors(),
        )
        log.error("update %d gave numbers that are not finite and was undone; see %s", self._update + 1, place)
        if self._failures >= _PATIENCE:
            if self._update > self._checkpointed:
                self._save()
            raise PolicyloopError(
                f"{_PATIENCE} updates in a row gave numbers that are not finite; robots keep policy {self._version}",
                f"{place} repeats it: copy it to an empty --checkpoint-dir and --resume; then lower the learning rate",
            )
        return None

    def _collect(self) -> bool:
        wanted = self._settings.steps_per_update
        aged = self._algorithm.ledger["too-old"]
        while not self._read_on(wanted):
            self._tell("collecting", self._algorithm.ready, wanted)
            if self._gateway is None or self._pause() or self._finished:
                return False
        aged = self._algorithm.ledger["too-old"] - aged
        if aged > wanted and self._gateway is not None and not self._stop_and_go:
            self._stop_and_go = True
            log.warning("%d steps were too old to learn from: robots pause from now on while the learner works", aged)
        return True

    def _read_on(self, wanted: int) -> bool:
        """Read, as all ranks do, to the end that the journal has now; True once the steps of an update are ready."""
        order = Read(self._version, wanted, self._journal.next)
        tell_order(self._ranks, order)
        return self._algorithm.advance(order.version, order.wanted, order.stop)

    # -- results ------------------------------------------------------------------------------

    def _ship(self) -> None:
        """Export the policy, check it against torch, and deliver it; if the disk refuses, robots keep what they have.

        Raises:
            StorageError: They have none.
        """
        self._bundle = self._export(self._version + 1)
        if self._was_shipped(self._bundle):
            self._version, self._shipped = self._bundle.manifest.version, True
            return
        if self._store.newest_version > self._version:  # of updates that went another way
            self._bundle = self._export(self._store.newest_version + 1)
        try:
            self._deliver()
        except StorageError as error:
            if self._version == 0:
                raise
            self._shipped = False
            log.error("robots keep policy %d, the next update ships again: %s", self._version, error)

    def _was_shipped(self, bundle: Bundle) -> bool:
        """Tell whether robots got this very policy under this number before the learner was killed.

        They have it, or one that was made from it; and steps that it drove are as fresh as they were.
        """
        manifest = bundle.manifest
        if manifest.version > self._store.newest_version:
            return False
        try:
            shipped = read_manifest(self._store.find(manifest.version))[1]
        except PolicyloopError:
            return False
        return shipped.files[NETWORK_NAME] == manifest.files[NETWORK_NAME]

    def _deliver(self) -> None:
        """Make the exported policy the store's current one."""
        deliver(self._bundle, self._store, self._signer)
        self._version, self._shipped = self._bundle.manifest.version, True
        if self._gateway is not None:
            self._gateway.announce(policy_version=self._version)

    def _export(self, version: int) -> Bundle:
        return export_bundle(
            self._network,
            self._profile,
            self._normalizer,
            network_name=self._settings.network,
            version=version,
            noise_hold_ticks=self._settings.noise_hold_ticks,
            observations=self._recent_inputs or probe_features(self._profile, _PARITY_OBSERVATIONS),
            training={
                "learner": self._settings.learner,
                "update": self._update,
                "steps": self._algorithm.ledger["trained"],
                "demonstrations": len(self._teachers.demonstrations) if self._teachers.cloned_until else 0,
                "seed": self._settings.seed,
                **({"parent": self._lineage[-1]} if self._lineage else {}),
            },
        )

    def _write(self, lesson: Lesson, update_s: float) -> None:
        episodes = self._algorithm.scores.take()
        self._scores = [*self._scores, *(episode.score for episode in episodes)][-40:]
        trained = self._algorithm.ledger["trained"]
        numbers = {**lesson.statistics, "update_s": update_s, "steps_per_s": trained / self._elapsed_s}
        if episodes:
            numbers["episode_score"] = float(np.mean([episode.score for episode in episodes]))
            numbers["episode_steps"] = float(np.mean([episode.steps for episode in episodes]))
            numbers["collision_rate"] = float(np.mean([episode.collided for episode in episodes]))
            for name in episodes[0].terms:
                numbers[f"reward/{name}"] = float(np.mean([episode.terms.get(name, 0.0) for episode in episodes]))
        self._metrics.write(
            trained,
            numbers,
            update=self._update,
            version=self._version,
            rollout=lesson.steps,
            elapsed_s=self._elapsed_s,
            ledger=dict(self._algorithm.ledger),
        )

    def _checkpoint(self) -> None:
        """Save a checkpoint; if the disk refuses, the older ones stay and the next update tries again."""
        try:
            self._save()
        except StorageError as error:
            self._overdue = True
            log.error("update %d is in no checkpoint, the next one tries again: %s", self._update, error)

    def _state(self) -> CheckpointState:
        return CheckpointState(
            profile=self._profile,
            profile_digest=self._profile.digest,
            network=self._settings.network,
            normalizer=self._normalizer,
            version=self._version,
            update=self._update,
            seed=self._settings.seed,
            cloned=bool(self._teachers.cloned_until),
            demonstrations_until=self._teachers.cloned_until,
            feed=self._algorithm.state,
            elapsed_s=self._elapsed_s,
            settings=msgspec.to_builtins(self._settings),
            lineage=self._lineage,
        )

    def _save(self) -> None:
        save_checkpoint(
            self._checkpoints,
            self._state(),
            self._network,
            self._algorithm.optimizer,
            self._generator,
            self._bundle,
            self._algorithm.tensors(),
        )
        self._checkpointed, self._overdue = self._update, False

    # -- talking to others --------------------------------------------------------------------

    def _hold(self, hold: bool) -> None:
        if self._gateway is not None and self._stop_and_go:
            self._gateway.announce(hold=hold)

    def _pause(self) -> bool:
        """Wait a moment for data; True if the learner was asked to stop."""
        assert self._gateway is not None
        self._gateway.check()
        return self._stop.wait(_IDLE_S)

    def _tell(
        self, phase: Literal["waiting", "cloning", "collecting", "updating", "finished"], done: int, total: int
    ) -> None:
        if phase in ("waiting", "cloning"):
            tell_order(self._ranks, Wait())  # ranks that hear nothing for long give this one up
        score = float(np.mean(self._scores)) if self._scores else 0.0
        self._report(
            Progress(
                phase=phase,
                done=done,
                total=total,
                update=self._update,
                version=self._version,
                score=score,
                elapsed_s=self._elapsed_s,
            )
        )


def _network_settings(kin: Checkpoint | None) -> NetworkSettings | None:
    """Return what the network of a checkpoint is built with, less what only a simulator can tell its critic."""
    settings = None if kin is None else kin.state.network_settings
    return None if settings is None else msgspec.structs.replace(settings, privileged_size=0)
