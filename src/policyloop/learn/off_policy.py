"""RLPD on everything that was ever driven, with the demonstrations in every batch."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from policyloop.core.step import Arrays
from policyloop.errors import ConfigError
from policyloop.learn.algorithm import Lesson
from policyloop.learn.bc import mirrored, shifted
from policyloop.learn.checkpoint import optimizer_tensors, restore_optimizer
from policyloop.learn.feed import FeedState
from policyloop.learn.inputs import input_specs
from policyloop.learn.memory import check_replays_fit, memory_bytes
from policyloop.learn.networks import SCAN_COLUMNS
from policyloop.learn.origin import Origin
from policyloop.learn.replay import ReplayFeed, Transitions, state_bytes
from policyloop.learn.rlpd import Rlpd, joined
from policyloop.learn.teachers import Teachers
from policyloop.link.journal import Journal

__all__ = ["OffPolicy"]

_SHOWN = 16
"""Observations that are kept for the export's check."""


class OffPolicy:
    """Fills replays from a journal and improves a network on them; see `Algorithm`.

    Args:
        journal: Where steps are.
        origin: Its network is improved in place.
        teachers: What they proposed is learned too, while the critics are young.
        state: Where in the journal to go on; the replays are read anew up to there.

    Raises:
        ConfigError: The robot's actions have no bounds, or full replays would not fit into the memory.
    """

    def __init__(self, journal: Journal, origin: Origin, teachers: Teachers, state: FeedState | None) -> None:
        profile = journal.profile
        if profile.action_map != "tanh":
            raise ConfigError(f"rlpd needs actions with bounds, those of '{profile.name}' are linear", "use ppo")
        self._profile, self._network, self._teachers = profile, origin.network, teachers
        self._settings, self._generator, self._device = origin.settings.rlpd, origin.generator, origin.device
        specs = input_specs(profile)
        check_replays_fit(self._settings.capacity, state_bytes(specs, len(profile.action)), memory_bytes())
        self._feed = ReplayFeed(
            journal,
            origin.normalizer,
            capacity=self._settings.capacity,
            online_from=teachers.cloned_until,
            reward=origin.settings.reward,
            takeover_penalty=origin.settings.takeover_penalty,
        )
        if state is not None:
            self._feed.advance(until_fresh=journal.next + 1, stop=state.read)
            self._feed.scores.take()
            self._feed.fresh = 0
        state_size = profile.proprio_size + (SCAN_COLUMNS if profile.camera is not None else 0)
        self._rlpd = Rlpd(self._network, self._settings, (state_size, len(profile.action)), self._device)
        self.optimizer = self._rlpd.actor_optimizer
        self.scores, self.ledger, self.state = self._feed.scores, self._feed.ledger, self._here()

    def _here(self) -> FeedState:
        return FeedState(position=self._feed.read, read=self._feed.read, ledger=dict(self._feed.ledger))

    @property
    def ready(self) -> int:
        """See `Algorithm`."""
        return self._feed.fresh

    def advance(self, version: int, wanted: int, stop: int) -> bool:
        """See `Algorithm`; every version's steps are welcome."""
        self._feed.advance(wanted, stop)
        return self.ready >= wanted

    def learn(self, update: int, done: float) -> Lesson:
        """See `Algorithm`."""
        settings, history = self._settings, defaultdict[str, list[float]](list)
        steps, self._feed.fresh = self._feed.fresh, 0
        self.state = self._here()
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1 - (1 - settings.learning_rate_floor) * done)
        auxiliary_loss = self._teachers.loss(
            self._network,
            demonstration_weight=settings.demonstration_weight * (1 - done),
            intervention_weight=0.0,  # they are in the replays
            generator=self._generator,
            device=self._device,
        )
        warmup = settings.warmup_steps if update == 0 else 0
        for step in range(warmup + max(1, round(settings.critic_steps * steps))):
            batch = self._varied(self._draw(), mirror=step // settings.actor_interval % 2 == 1)
            numbers = self._rlpd.fit_critics(batch, self._generator)
            if step >= warmup and step % settings.actor_interval == 0:
                numbers |= self._rlpd.improve_actor(batch, self._generator, auxiliary_loss)
            for name, number in numbers.items():
                history[name].append(number)
        statistics = {name: float(np.mean(numbers)) for name, numbers in history.items()}
        statistics["std"] = self._network.log_std.detach().exp().mean().item()
        statistics["interventions"] = float(self._feed.interventions)
        return Lesson(statistics, steps, self._some_inputs())

    def _draw(self) -> Transitions:
        """Draw a minibatch, demonstrations and online; all of one kind where the other is missing."""
        size = self._settings.minibatch
        demonstrations, online = self._feed.demonstrations, self._feed.online
        taught = round(size * self._settings.demonstration_share) if len(demonstrations) else 0
        taught = taught if len(online) else size
        drawn = [
            replay.draw(count, self._generator)
            for replay, count in ((demonstrations, taught), (online, size - taught))
            if count
        ]
        return joined(drawn, self._device)

    def _varied(self, batch: Transitions, *, mirror: bool) -> Transitions:
        """Return the same transitions as they might have been seen a little further aside, or in a mirror."""
        settings, profile = self._settings, self._profile
        if settings.shift_px:
            features, following = (
                shifted(seen, settings.shift_px, self._generator) for seen in (batch.features, batch.next_features)
            )
            batch = replace(batch, features=features, next_features=following)
        if mirror and settings.mirror and profile.camera is not None:
            features, shares = mirrored(profile, batch.features, batch.shares)
            following, _ = mirrored(profile, batch.next_features, batch.shares)
            batch = replace(batch, features=features, next_features=following, shares=shares)
        return batch

    def _some_inputs(self) -> list[Arrays]:
        features = self._draw().features
        rows = range(min(_SHOWN, self._settings.minibatch))
        return [{name: tensor[row].cpu().numpy() for name, tensor in features.items()} for row in rows]

    def tensors(self) -> dict[str, Tensor]:
        """See `Algorithm`."""
        rlpd = self._rlpd
        tensors = {f"critics.{name}": tensor for name, tensor in rlpd.critics.state_dict().items()}
        tensors |= {f"targets.{name}": tensor for name, tensor in rlpd.targets.state_dict().items()}
        tensors |= optimizer_tensors("critic_optimizer", rlpd.critic_optimizer)
        tensors |= optimizer_tensors("temperature_optimizer", rlpd.temperature_optimizer)
        return {**tensors, "log_temperature": rlpd.log_temperature.detach()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See `Algorithm`; the checkpoint was written by this learner."""
        rlpd = self._rlpd
        rlpd.critics.load_state_dict({name: tensors[f"critics.{name}"] for name in rlpd.critics.state_dict()})
        rlpd.targets.load_state_dict({name: tensors[f"targets.{name}"] for name in rlpd.targets.state_dict()})
        restore_optimizer("critic_optimizer", rlpd.critic_optimizer, tensors)
        restore_optimizer("temperature_optimizer", rlpd.temperature_optimizer, tensors)
        with torch.no_grad():
            rlpd.log_temperature.copy_(tensors["log_temperature"])
