"""The learner: clone the demonstrations, then improve on what the policy itself drove.

    demonstrations -> clone -> ship -> [ rollout -> PPO update -> ship ] ... checkpoint every N updates

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
from typing import Literal

import msgspec
import numpy as np
import torch
from torch import Tensor

from policyloop.bundle.build import Bundle
from policyloop.bundle.manifest import NETWORK_NAME
from policyloop.bundle.signing import Signer
from policyloop.bundle.store import Store
from policyloop.bundle.verify import read_manifest
from policyloop.convert.export import export_bundle, probe_features
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Arrays
from policyloop.errors import ConfigError, IncompatibleError, PolicyloopError, StorageError
from policyloop.learn.bc import Demonstrations, clone, cloning_loss, draw_batch
from policyloop.learn.checkpoint import Checkpoint, CheckpointState, latest_checkpoint, save_checkpoint
from policyloop.learn.delivery import deliver
from policyloop.learn.device import choose_device, keep_freed_memory
from policyloop.learn.feed import Feed, FeedState, is_demonstration, load_demonstrations, newest_demonstrations
from policyloop.learn.metrics import Metrics
from policyloop.learn.networks import make_network
from policyloop.learn.ppo import PpoSettings, make_optimizer, ppo_update
from policyloop.learn.rollout import Rollout, Trace
from policyloop.learn.settings import LearnerSettings
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal

__all__ = ["Learner", "Progress"]

log = logging.getLogger(__name__)

_IDLE_S = 0.02
_PARITY_OBSERVATIONS = 16
_AUXILIARY_BATCH = 64
_MAX_INTERVENTIONS = 5000


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
        report: Called with the progress, often.
        stop: Set from outside to finish early, with a checkpoint.
        signer: Signs every policy that is shipped; None = they carry no signature.
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
        report: Callable[[Progress], None] = lambda progress: None,
        stop: threading.Event | None = None,
        signer: Signer | None = None,
    ) -> None:
        self._journal = journal
        self._profile: RobotProfile = journal.profile
        self._settings = settings
        self._checkpoints, self._store = checkpoints, store
        self._gateway = gateway
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
        torch.manual_seed(settings.seed)
        self._network = make_network(settings.network, self._profile, initial_log_std=settings.ppo.initial_log_std).to(
            self._device
        )
        self._optimizer = make_optimizer(self._network, settings.ppo)
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._normalizer = self._profile.nominal_normalizer
        self._version = self._update = self._demonstrations_until = 0
        self._cloned = False
        self._elapsed_before_s = 0.0
        feed_state: FeedState | None = None
        if saved is not None:
            feed_state = self._restore(saved)
        self._checkpointed = -1 if saved is None else saved.state.update
        self._overdue = False
        self._shipped = True
        self._feed = Feed(
            journal,
            self._normalizer,
            max_staleness=settings.max_staleness,
            reward=settings.reward,
            state=feed_state,
        )
        self._feed_state = self._feed.state
        self._demonstrations: Demonstrations | None = None
        self._interventions = self._load_interventions(
            newest_demonstrations(
                journal, start=self._demonstrations_until, stop=self._feed_state.read if self._cloned else 0
            )
        )
        self._recent_inputs: list[Arrays] = []
        self._scores: list[float] = []
        self._started_s = time.monotonic()
        self._metrics = Metrics(runs)

    def _restore(self, saved: Checkpoint) -> FeedState:
        state = saved.state
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
        saved.restore(self._network, self._optimizer, self._generator)
        self._normalizer = state.normalizer
        self._version, self._update = state.version, state.update
        self._cloned, self._demonstrations_until = state.cloned, state.demonstrations_until
        self._elapsed_before_s = state.elapsed_s
        log.info("resumed at update %d, policy %d", self._update, self._version)
        return state.feed

    @property
    def version(self) -> int:
        """Version of the newest policy shipped."""
        return self._version

    @property
    def ledger(self) -> dict[str, int]:
        """Steps read so far, by what became of them."""
        return dict(self._feed.ledger)

    def run(self) -> None:
        """Learn until the settings say enough, the journal ends (without a gateway), or `stop` is set.

        Raises:
            StorageError: The disk refuses the first policy, or at the end still refuses the last one or its checkpoint.
        """
        try:
            if not self._cloned and self._settings.demonstrations:
                self._clone()
            elif self._version == 0:
                self._ship()
            if self._settings.learner == "ppo":
                while not self._finished and self._improve():
                    pass
            if self._version and self._update > self._checkpointed:
                self._save()
            if not self._shipped:
                self._deliver()
            self._tell("finished", 1, 1)
        finally:
            self._metrics.close()

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

    # -- cloning ------------------------------------------------------------------------------

    def _clone(self) -> None:
        if not self._wait_for_demonstrations():
            return
        self._hold(True)
        self._demonstrations_until = self._journal.next
        demonstrations = self._load_demonstrations()
        statistics = clone(
            self._network,
            demonstrations,
            self._profile,
            self._settings.bc,
            generator=self._generator,
            device=self._device,
            progress=lambda step, total, loss: self._tell("cloning", step, total),
        )
        self._cloned = True
        self._ship()
        self._metrics.write(0, {"bc_loss": statistics["loss"]}, version=self._version, frames=len(demonstrations))
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

    def _load_demonstrations(self) -> Demonstrations:
        if self._demonstrations is None:
            positions = newest_demonstrations(self._journal, stop=self._demonstrations_until)
            self._demonstrations = load_demonstrations(self._journal, self._normalizer, positions)
            rows = np.linspace(0, len(self._demonstrations) - 1, _PARITY_OBSERVATIONS).astype(int)
            features = self._demonstrations.features
            self._recent_inputs = [{name: array[row] for name, array in features.items()} for row in rows]
        return self._demonstrations

    def _load_interventions(self, positions: list[int]) -> Demonstrations:
        """Read the newest of the demonstrations that came after the clone."""
        return load_demonstrations(self._journal, self._normalizer, positions[-_MAX_INTERVENTIONS:])

    # -- reinforcement ------------------------------------------------------------------------

    def _improve(self) -> bool:
        """Collect one rollout and learn from it; False if no more data will come."""
        if not self._collect():
            return False
        self._hold(True)
        started_s = time.monotonic()
        traces = self._feed.take()
        self._feed_state = self._feed.state  # what is read from here on belongs to the next update
        self._take_interventions()
        settings = self._scheduled()
        self._tell("updating", 0, 1)
        rollout = Rollout.build(
            traces,
            self._network,
            gamma=settings.gamma,
            lam=settings.lam,
            reward_scale=settings.reward_scale,
            device=self._device,
            correct_lag=settings.correct_lag,
        )
        statistics = ppo_update(
            self._network,
            self._optimizer,
            rollout,
            settings,
            generator=self._generator,
            learn_policy=self._update >= settings.critic_warmup_updates,
            auxiliary_loss=self._cloning_terms(settings),
        )
        self._update += 1
        self._remember(traces)
        self._ship()
        self._write(statistics, len(rollout), time.monotonic() - started_s)
        if self._update % self._settings.checkpoint_interval == 0 or self._overdue or self._finished:
            self._checkpoint()
        self._hold(False)
        return True

    def _collect(self) -> bool:
        wanted = self._settings.update_interval
        while not self._feed.advance(self._version, wanted):
            self._tell("collecting", self._feed.ready, wanted)
            if self._gateway is None or self._pause() or self._finished:
                return False
        return True

    def _scheduled(self) -> PpoSettings:
        """Return PPO's settings with the learning rate and the exploration of this moment."""
        settings, share = self._settings.ppo, self._share_done
        rate = settings.learning_rate * (1 - (1 - settings.learning_rate_floor) * share)
        group = self._optimizer.param_groups[0]
        group["lr"] = min(group["lr"], rate)
        widest = settings.max_log_std
        if settings.final_log_std < settings.initial_log_std:
            widest = settings.initial_log_std + share * (settings.final_log_std - settings.initial_log_std)
        return msgspec.structs.replace(settings, learning_rate=rate, max_log_std=widest)

    def _take_interventions(self) -> None:
        """Add the demonstrations among the steps that were read for this update."""
        positions, self._feed.demonstrations = self._feed.demonstrations, []
        late = [position for position in positions if position >= self._demonstrations_until]
        if self._cloned and late:
            joined = self._interventions + self._load_interventions(late)
            self._interventions = joined.newest(_MAX_INTERVENTIONS)

    def _cloning_terms(self, settings: PpoSettings) -> Callable[[], Tensor] | None:
        """Return the loss of not proposing what teachers proposed, before the clone and since."""
        if not self._cloned:
            return None
        weighted = [(settings.intervention_weight, self._interventions)]
        fading = settings.demonstration_weight * (1 - self._share_done)
        if fading > 0:
            weighted.append((fading, self._load_demonstrations()))
        weighted = [(weight, steps) for weight, steps in weighted if weight > 0 and len(steps)]
        return (lambda: sum((self._cloning_term(*entry) for entry in weighted), torch.zeros(()))) if weighted else None

    def _cloning_term(self, weight: float, demonstrations: Demonstrations) -> Tensor:
        features, shares = draw_batch(
            demonstrations,
            self._profile,
            _AUXILIARY_BATCH,
            mirror=self._settings.bc.mirror,
            generator=self._generator,
            device=self._device,
        )
        return weight * cloning_loss(self._network, features, shares, self._settings.bc.huber_beta, self._profile)

    def _remember(self, traces: list[Trace]) -> None:
        """Keep a few observations of this rollout for the next parity check."""
        longest = max(traces, key=len)
        rows = np.linspace(0, len(longest) - 1, _PARITY_OBSERVATIONS).astype(int)
        self._recent_inputs = [{name: array[row] for name, array in longest.features.items()} for row in rows]

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
            noise_hold_ticks=self._settings.ppo.noise_hold_ticks,
            observations=self._recent_inputs or probe_features(self._profile, _PARITY_OBSERVATIONS),
            training={
                "learner": self._settings.learner,
                "update": self._update,
                "steps": self._feed.ledger["trained"],
                "demonstrations": len(self._demonstrations) if self._demonstrations else 0,
                "seed": self._settings.seed,
            },
        )

    def _write(self, statistics: dict[str, float], steps: int, update_s: float) -> None:
        episodes, self._feed.episodes = self._feed.episodes, []
        self._scores = [*self._scores, *(episode.score for episode in episodes)][-40:]
        numbers = {**statistics, "update_s": update_s, "steps_per_s": self._feed.ledger["trained"] / self._elapsed_s}
        if episodes:
            numbers["episode_score"] = float(np.mean([episode.score for episode in episodes]))
            numbers["episode_steps"] = float(np.mean([episode.steps for episode in episodes]))
            numbers["collision_rate"] = float(np.mean([episode.collided for episode in episodes]))
            for name in episodes[0].terms:
                numbers[f"reward/{name}"] = float(np.mean([episode.terms.get(name, 0.0) for episode in episodes]))
        self._metrics.write(
            self._feed.ledger["trained"],
            numbers,
            update=self._update,
            version=self._version,
            rollout=steps,
            elapsed_s=self._elapsed_s,
            ledger=dict(self._feed.ledger),
        )

    def _checkpoint(self) -> None:
        """Save a checkpoint; if the disk refuses, the older ones stay and the next update tries again."""
        try:
            self._save()
        except StorageError as error:
            self._overdue = True
            log.error("update %d is in no checkpoint, the next one tries again: %s", self._update, error)

    def _save(self) -> None:
        state = CheckpointState(
            profile=self._profile,
            profile_digest=self._profile.digest,
            network=self._settings.network,
            normalizer=self._normalizer,
            version=self._version,
            update=self._update,
            seed=self._settings.seed,
            cloned=self._cloned,
            demonstrations_until=self._demonstrations_until,
            feed=self._feed_state,
            elapsed_s=self._elapsed_s,
            settings=msgspec.to_builtins(self._settings),
        )
        save_checkpoint(self._checkpoints, state, self._network, self._optimizer, self._generator, self._bundle)
        self._checkpointed, self._overdue = self._update, False

    # -- talking to others --------------------------------------------------------------------

    def _hold(self, hold: bool) -> None:
        if self._gateway is not None and self._settings.stop_and_go:
            self._gateway.announce(hold=hold)

    def _pause(self) -> bool:
        """Wait a moment for data; True if the learner was asked to stop."""
        assert self._gateway is not None
        self._gateway.check()
        return self._stop.wait(_IDLE_S)

    def _tell(
        self, phase: Literal["waiting", "cloning", "collecting", "updating", "finished"], done: int, total: int
    ) -> None:
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
