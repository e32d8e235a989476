"""The simulated Lite3 as a Gymnasium environment.

import policyloop.sim.lite3_env
env = gymnasium.make("PolicyLoop/Lite3-v0")
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Arrays
from policyloop.sim.lite3 import PUSH_EVERY_S, Lite3, Wanted
from policyloop.sim.lite3_model import Lite3Physics
from policyloop.sim.lite3_robot import proprio_of

__all__ = ["Lite3Env", "make_lite3", "register"]

_MOST = 100.0
"""An output beyond this is clipped, as the vendor's training does."""
_FASTEST = (0.8, 0.4, 0.6)


class Lite3Env(gymnasium.Env[Arrays, NDArray[np.float32]]):
    """One Lite3 on a flat floor that is asked for another velocity in each episode.

    Observations are the profile's `proprio`, float32, physical units, with the last action in it. Actions are the
    network's outputs: target = center + scale * action, kept within the joints' ranges. The reward of a tick is
    `Motion.score`; `info` tells what the robot truly did.

    Args:
        profile: A profile, or the name of a shipped one.
        randomise: Draw friction, payload and latency for each episode, and push the robot.
        latency_s: At most; drawn from zero to this.
    """

    metadata = {"render_modes": []}

    def __init__(
        self, profile: RobotProfile | str = "lite3", *, randomise: bool = True, latency_s: float = 0.01
    ) -> None:
        self.profile = load_profile(profile) if isinstance(profile, str) else profile
        self._randomise, self._latency_s = randomise, latency_s
        shape = (self.profile.proprio_size,)
        self.observation_space = gymnasium.spaces.Dict(  # type: ignore[assignment]
            {"proprio": gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)}
        )
        self.action_space = gymnasium.spaces.Box(-_MOST, _MOST, self.profile.action_spec.shape, np.float32)
        self._low = np.array([entry.low for entry in self.profile.action])
        self._high = np.array([entry.high for entry in self.profile.action])
        self._own = self.profile.proprio_slice("last_action")
        self._body = Lite3(self.profile)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Arrays, dict[str, Any]]:
        """Begin an episode; `options["wanted"]` says what is asked for: forward m/s, left m/s, turning rad/s."""
        super().reset(seed=seed)
        rng = self.np_random
        if self._randomise:
            physics = Lite3Physics(friction=float(rng.uniform(0.3, 1.2)), payload_kg=float(rng.uniform(0, 3)))
            self._body = Lite3(self.profile, physics, latency_s=float(rng.uniform(0, self._latency_s)))
        self._body.reset(rng)
        drawn: Wanted = tuple(float(rng.uniform(-most, most)) for most in _FASTEST)  # type: ignore[assignment]
        self._wanted: Wanted = (options or {}).get("wanted", drawn)
        self._steps = 0
        self._last = np.zeros(len(self.profile.action), np.float32)
        return self._observe(), {"wanted": self._wanted}

    def _observe(self) -> Arrays:
        proprio = proprio_of(self.profile, self._body.sense(), self._wanted)
        if self._own is not None:
            proprio[self._own] = self._last
        return {"proprio": proprio}

    def step(self, action: NDArray[np.float32]) -> tuple[Arrays, float, bool, bool, dict[str, Any]]:
        """Walk for one tick."""
        self._last = np.clip(action, -_MOST, _MOST).astype(np.float32)
        self._body.drive(np.clip(self.profile.actions_of(self._last), self._low, self._high))
        self._steps += 1
        hz = self.profile.rates.control_hz
        if self._randomise and self._steps % round(PUSH_EVERY_S * hz) == 0:
            self._body.push(0.4, float(self.np_random.uniform(-math.pi, math.pi)))
        seen, motion = self._observe(), self._body.motion
        fell = self._body.low or self.profile.fallen(seen["proprio"])
        truncated = not fell and self._steps >= self.profile.episode.max_steps
        return seen, motion.score(self._wanted), fell, truncated, {"motion": motion}


def make_lite3() -> Lite3Env:
    """Return the environment, for `policyloop calibrate --env policyloop.sim.lite3_env:make_lite3`."""
    return Lite3Env()


def register() -> None:
    """Register `PolicyLoop/Lite3-v0`."""
    if "PolicyLoop/Lite3-v0" not in gymnasium.registry:
        gymnasium.register("PolicyLoop/Lite3-v0", "policyloop.sim.lite3_env:Lite3Env")


register()
