"""The simulated rover as a Gymnasium environment.

import policyloop.sim.env
env = gymnasium.make("PolicyLoop/Rover-v0")
"""

from __future__ import annotations

from typing import Any

import gymnasium
import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.reward import reward_terms
from policyloop.core.step import Action, Arrays, Command, Observation, TimedCommand
from policyloop.robot.age import Age
from policyloop.robot.last_output import LastOutput
from policyloop.sim.camera import CasterName
from policyloop.sim.late_rover import LateRover
from policyloop.sim.randomization import Randomization
from policyloop.sim.rover import arena

__all__ = ["RoverEnv", "register"]


class RoverEnv(gymnasium.Env[Arrays, NDArray[np.float32]]):
    """One rover, one arena per seed.

    Observations follow the profile's specs: `rgb` uint8, `depth` uint16 mm (0 = unknown), `proprio`
    float32. Actions are shares of the action range, -1..1. The reward is the profile's; its terms
    are in `info["reward_terms"]`.

    Args:
        profile: A profile, or the name of a shipped one.
        arenas: Seeds to draw arenas from.
        caster: Which ray caster draws.
        render_mode: `rgb_array` gives the camera's picture.
        randomization: Each episode takes place under other conditions; None = under the nominal ones. Motors obey a
            command only while it is valid, as on a robot.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        profile: RobotProfile | str = "rover",
        *,
        arenas: range = range(48),
        caster: CasterName = "auto",
        render_mode: str | None = None,
        randomization: Randomization | None = None,
    ) -> None:
        self.profile = load_profile(profile) if isinstance(profile, str) else profile
        self.render_mode = render_mode
        self._clock = VirtualClock()
        self._rover = LateRover(self.profile, self._clock, randomization, caster=caster)
        self._last_output, self._age = LastOutput(self.profile), Age(self.profile)
        self._arenas = arenas
        bounds = {"rgb": (0, 255), "depth": (0, 65535), "proprio": (-np.inf, np.inf)}
        self.observation_space = gymnasium.spaces.Dict(  # type: ignore[assignment]
            {
                name: gymnasium.spaces.Box(*bounds[name], spec.shape, np.dtype(spec.dtype).type)
                for name, spec in self.profile.observation_specs.items()
            }
        )
        self.action_space = gymnasium.spaces.Box(-1, 1, self.profile.action_spec.shape, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Arrays, dict[str, Any]]:
        """Begin an episode; `options["arena"]` chooses the arena's seed."""
        super().reset(seed=seed)
        chosen = (options or {}).get("arena")
        if chosen is None:
            chosen = self._arenas[int(self.np_random.integers(len(self._arenas)))]
        self._rover.begin(arena(int(chosen), self.profile.simulation), self.np_random)
        self._last_output.clear()
        self._steps = 0
        self._seen = self._look().arrays
        return self._seen, {"arena": int(chosen)}

    def _look(self) -> Observation:
        return self._age.told(self._last_output.told(self._rover.read()), self._clock.now_ns())

    def step(self, action: NDArray[np.float32]) -> tuple[Arrays, float, bool, bool, dict[str, Any]]:
        """Drive for one tick."""
        shares = np.clip(action, -1, 1)
        values = tuple((self.profile.action_center + self.profile.action_half_range * shares).tolist())
        self._steps += 1
        valid_until_ns = self._clock.now_ns() + self.profile.rates.command_valid_ns
        self._rover.write(TimedCommand(Command(values), self._steps, valid_until_ns))
        self._last_output.learn(Action(values, "policy"))
        observation = self._look()
        self._seen = observation.arrays
        outcome = self.profile.outcome(self._seen["proprio"])
        collided = observation.contact or 0 < outcome.distance_m < self.profile.episode.collision_distance_m
        terms = reward_terms(self.profile.reward, msgspec.structs.replace(outcome, collided=collided))
        truncated = not collided and self._steps >= self.profile.episode.max_steps
        return self._seen, float(sum(terms.values())), collided, truncated, {"reward_terms": terms}

    def render(self) -> NDArray[np.uint8]:
        """Return the camera's newest picture, (H, W, 3) uint8."""
        return self._seen["rgb"]


def register() -> None:
    """Register `PolicyLoop/Rover-v0` (full camera) and `PolicyLoop/RoverMini-v0`."""
    for name, profile in (("PolicyLoop/Rover-v0", "rover"), ("PolicyLoop/RoverMini-v0", "rover-mini")):
        if name not in gymnasium.registry:
            gymnasium.register(name, "policyloop.sim.env:RoverEnv", kwargs={"profile": profile})


register()
