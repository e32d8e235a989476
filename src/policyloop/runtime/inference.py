"""Inference with a deadline: a network that hangs may take a tick away, not the control loop."""

from __future__ import annotations

import logging
import os
import queue
import threading

from policyloop.core.step import Action, Observation
from policyloop.errors import PolicyloopError
from policyloop.runtime.policy import Exploration, Policy

__all__ = ["InferenceLate", "InferenceThread"]

log = logging.getLogger(__name__)

_Job = tuple[int, Policy, Observation, Exploration | None]
_Answer = tuple[int, Action | Exception]


class InferenceLate(PolicyloopError):
    """There is no answer within the deadline."""


class InferenceThread:
    """Asks policies in a thread of its own and waits for the answer until the deadline, not longer.

    Args:
        deadline_s: From question to answer.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
        self._asked = self._answered = 0
        self._owner = threading.get_native_id()
        # The only daemon thread: what hangs in native code can be neither ended nor waited for.
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """An earlier question is not answered yet."""
        self._drain()
        return self._answered < self._asked

    def act(self, policy: Policy, observation: Observation, exploration: Exploration | None = None) -> Action:
        """Return the policy's proposal.

        Raises:
            InferenceLate: There is none in time, or the last question is not answered yet.
            Exception: Whatever the policy raised.
        """
        if self.busy:
            raise InferenceLate("the policy is still busy with an earlier observation")
        self._asked += 1
        self._jobs.put((self._asked, policy, observation, exploration))
        try:
            number, answer = self._answers.get(timeout=self._deadline_s)
        except queue.Empty:
            raise InferenceLate(f"the policy took longer than {1e3 * self._deadline_s:.0f} ms") from None
        self._answered = number
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _drain(self) -> None:
        """Throw late answers away: they are about a world that was."""
        while True:
            try:
                self._answered = self._answers.get_nowait()[0]
            except queue.Empty:
                return

    def _run(self) -> None:
        _follow_in_real_time(self._owner)
        while (job := self._jobs.get()) is not None:
            number, policy, observation, exploration = job
            try:
                answer: Action | Exception = policy.act(observation, exploration)
            except Exception as error:  # whatever a policy raises belongs to whoever asked
                answer = error
            self._answers.put((number, answer))

    def close(self) -> None:
        """End the thread; one that hangs is left behind."""
        self._jobs.put(None)
        if not self.busy:
            self._thread.join()


def _follow_in_real_time(owner: int) -> None:
    """Run one below the real-time thread that waits for the answer: if both want one core, its deadline comes first."""
    try:
        if os.sched_getscheduler(owner) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO:
            priority = max(1, os.sched_getparam(owner).sched_priority - 1)
            os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError as error:
        log.warning("inference has no real-time priority: %s", error.strerror)
