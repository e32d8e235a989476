"""Training in simulation with everything around it: checkpoints, numbers, and a store that gets every policy."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from policyloop.bundle.signing import Signer
from policyloop.bundle.store import Store
from policyloop.errors import StorageError
from policyloop.learn.checkpoint import CheckpointState, latest_checkpoint
from policyloop.learn.feed import FeedState
from policyloop.learn.metrics import Metrics
from policyloop.learn.shipping import deliver
from policyloop.learn.simulated import SimulatedLearner, SimulatedRobots, SimulationProgress, SimulationSettings

__all__ = ["train_in_simulation"]

log = logging.getLogger(__name__)


def train_in_simulation(
    robots: SimulatedRobots,
    settings: SimulationSettings,
    *,
    checkpoints: Path,
    checkpoint_interval: int,
    store: Store,
    runs: Path,
    stop: threading.Event,
    resume: bool = False,
    signer: Signer | None = None,
    report: Callable[[SimulationProgress], None] = lambda progress: None,
) -> int:
    """Learn until the steps are done or `stop` is set; returns the number of the last policy in the store.

    A checkpoint holds weights, moments and random state; the robots themselves begin anew when it is resumed.

    Args:
        robots: See `SimulatedLearner`.
        settings: See `SimulatedLearner`.
        checkpoints: Directory of the checkpoints.
        checkpoint_interval: Updates between two of them, and between two policies.
        store: Gets every policy; the newest is activated.
        runs: Directory of the TensorBoard run.
        stop: Ends training early, with a last checkpoint.
        resume: Go on from the newest checkpoint.
        signer: Signs every policy.
        report: Called after every update.

    Raises:
        StorageError: The last policy cannot be written.
    """
    learner = SimulatedLearner(robots, settings)
    version = store.newest_version
    if resume and (saved := latest_checkpoint(checkpoints)) is not None:
        learner.restore(saved)
    metrics = Metrics(runs)

    def ship(progress: SimulationProgress) -> None:
        nonlocal version
        bundle = learner.export(version + 1)
        deliver(bundle, store, signer)
        version += 1
        state = CheckpointState(
            profile=robots.profile,
            profile_digest=robots.profile.digest,
            network="mlp",
            normalizer=bundle.manifest.normalizer,
            version=version,
            update=progress.update,
            seed=settings.seed,
            cloned=False,
            demonstrations_until=0,
            feed=FeedState(ledger={"trained": progress.steps}),
            elapsed_s=progress.elapsed_s,
            settings=msgspec.to_builtins(settings),
        )
        learner.save(checkpoints, state, bundle)

    last: SimulationProgress | None = None
    shipped = -1
    try:
        for last in learner.updates(stop):
            numbers = {**last.statistics, "reward": last.reward, "fall_rate": last.falls, "cpu_s": last.cpu_s}
            metrics.write(last.steps, numbers, update=last.update, elapsed_s=last.elapsed_s)
            report(last)
            if last.update % checkpoint_interval == 0:
                shipped = last.update if _tried(ship, last) else shipped
        if last is not None and shipped != last.update:
            ship(last)
    finally:
        metrics.close()
    return version


def _tried(ship: Callable[[SimulationProgress], None], progress: SimulationProgress) -> bool:
    """Ship a policy; a disk that refuses is an alarm, training goes on and the next interval tries again."""
    try:
        ship(progress)
    except StorageError as error:
        log.error("update %d is in no checkpoint, the next interval tries again: %s", progress.update, error)
        return False
    return True
