"""PPO on what the policy itself drove, with the teachers' proposals beside it."""

from __future__ import annotations

from zlib import crc32

import msgspec
import numpy as np
import torch
from torch import Tensor

from policyloop.learn.algorithm import Lesson
from policyloop.learn.feed import Feed, FeedState
from policyloop.learn.inputs import example_inputs
from policyloop.learn.origin import Origin
from policyloop.learn.ppo import PpoSettings, make_optimizer, ppo_update
from policyloop.learn.ranks import ALONE, Ranks
from policyloop.learn.rollout import Rollout
from policyloop.learn.share import Share
from policyloop.learn.teachers import Teachers
from policyloop.learn.tuning import Execution
from policyloop.link.journal import Journal

__all__ = ["OnPolicy"]


class OnPolicy:
    """Collects rollouts from a journal and improves a network on each of them; see `Algorithm`.

    Args:
        journal: Where steps are.
        origin: Its network is improved in place.
        teachers: What they proposed is learned too.
        state: Where in the journal to go on.
        ranks: Who makes every update together.
    """

    def __init__(
        self, journal: Journal, origin: Origin, teachers: Teachers, state: FeedState | None, ranks: Ranks = ALONE
    ) -> None:
        self._network, self._settings, self._teachers = origin.network, origin.settings, teachers
        self._generator, self._device, self._ranks = origin.generator, origin.device, ranks
        self._feed = Feed(
            journal,
            origin.normalizer,
            max_staleness=self._settings.max_staleness,
            reward=self._settings.reward,
            takeover_penalty=self._settings.takeover_penalty,
            state=state,
            ranks=ranks,
        )
        self.optimizer = make_optimizer(self._network, self._settings.ppo)
        self.scores, self.ledger, self.state = self._feed.scores, self._feed.ledger, self._feed.state

    @property
    def ready(self) -> int:
        """See `Algorithm`."""
        return self._feed.ready

    def advance(self, version: int, wanted: int, stop: int) -> bool:
        """See `Algorithm`."""
        return self._feed.advance(version, wanted, stop)

    def learn(self, update: int, done: float) -> Lesson:
        """See `Algorithm`; PolicyloopError if the ranks have come apart."""
        if self._ranks.count > 1:
            self._ranks.require_equal(self._standing(), "what they have read or learned")
        traces = self._feed.take()
        share = Share(self._ranks, torch.from_numpy(self._feed.rows), self._feed.taken)
        self.state = self._feed.state  # what is read from here on belongs to the next update
        positions, self._feed.demonstrations = self._feed.demonstrations, []
        self._teachers.intervened(positions)
        settings, rows_at_once = self._scheduled(done), (self._settings.execution or Execution()).rows_at_once
        longest = max(traces, key=len, default=None)
        shown = [] if longest is None else example_inputs(longest.features, len(longest))
        rollout = Rollout.build(
            traces,
            self._network,
            gamma=settings.gamma,
            lam=settings.lam,
            reward_scale=settings.reward_scale,
            device=self._device,
            correct_lag=settings.correct_lag,
            rows_at_once=rows_at_once,
        )
        del traces, longest  # their pictures are in the rollout
        statistics = ppo_update(
            self._network,
            self.optimizer,
            rollout,
            settings,
            generator=self._generator,
            learn_policy=update >= settings.critic_warmup_updates,
            auxiliary_loss=self._teachers.loss(
                self._network,
                demonstration_weight=settings.demonstration_weight * (1 - done),
                intervention_weight=settings.intervention_weight,
                generator=self._generator,
                device=self._device,
                ranks=self._ranks,
            ),
            rows_at_once=rows_at_once,
            share=share,
        )
        lags, self._feed.staleness = self._feed.staleness, []
        statistics["staleness"] = float(np.median(lags))
        return Lesson(statistics, share.total, shown)

    def _standing(self) -> list[int]:
        """Return numbers that are the same on every rank: a checksum of the weights, and how all steps were counted."""
        weights = b"".join(parameter.detach().cpu().numpy().tobytes() for parameter in self._network.parameters())
        return [crc32(weights), crc32(msgspec.json.encode(self._feed.state, order="sorted")), self._feed.ready]

    def _scheduled(self, done: float) -> PpoSettings:
        """Return PPO's settings with the learning rate and the exploration of this moment."""
        settings = self._settings.ppo
        rate = settings.learning_rate * (1 - (1 - settings.learning_rate_floor) * done)
        group = self.optimizer.param_groups[0]
        group["lr"] = min(group["lr"], rate)
        widest = settings.max_log_std
        if settings.final_log_std < settings.initial_log_std:
            widest = settings.initial_log_std + done * (settings.final_log_std - settings.initial_log_std)
        return msgspec.structs.replace(settings, learning_rate=rate, max_log_std=widest)

    def tensors(self) -> dict[str, Tensor]:
        """See `Algorithm`."""
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See `Algorithm`."""
