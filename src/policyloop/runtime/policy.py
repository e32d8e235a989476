"""A policy as one object: normalise, infer, squash, scale, and know who you are."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policyloop.bundle.signing import KeyRing
from policyloop.bundle.verify import VerifiedBundle, open_bundle
from policyloop.core.features import feature_specs, features
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Arrays, Behaviour, Observation
from policyloop.errors import VerificationError
from policyloop.runtime.backend import Backend, open_backend
from policyloop.runtime.onnx_file import open_onnx

__all__ = ["Exploration", "Policy"]


class Exploration:
    """Standard normal noise that lasts a few ticks, so that a body with inertia follows it.

    Args:
        rng: Where it comes from.
        actions: Length of the action vector.
    """

    def __init__(self, rng: np.random.Generator, actions: int) -> None:
        self._rng = rng
        self._actions = actions
        self.reset()

    def reset(self) -> None:
        """Draw anew at the next tick."""
        self._left = 0

    def draw(self, hold_ticks: int) -> NDArray[np.float64]:
        """Return this tick's noise, (actions,)."""
        if self._left == 0:
            self._noise = self._rng.standard_normal(self._actions)
            self._left = max(1, hold_ticks)
        self._left -= 1
        return self._noise


class Policy:
    """A verified bundle, opened with a backend for a profile.

    Attributes:
        version: The manifest's counter.
        digest: Names this policy in every step it drives.
        inputs: Specs of what its network takes, in order: some of the profile's features.
        golden: What its network answered where it was made; None for a bare `.onnx` file.
    """

    def __init__(self, bundle: VerifiedBundle, profile: RobotProfile, backend: str | Backend = "auto") -> None:
        manifest = bundle.manifest
        self.version = manifest.version
        self.digest = bundle.digest
        self._manifest = manifest
        self._profile = profile
        self._log_std = np.asarray(manifest.log_std)
        self.golden = bundle.golden
        self.inputs = feature_specs(profile, manifest.inputs)
        self._backend = (
            open_backend(backend, bundle, self.inputs, len(profile.action)) if isinstance(backend, str) else backend
        )

    @classmethod
    def load(cls, path: Path, profile: RobotProfile, backend: str = "auto", ring: KeyRing | None = None) -> Policy:
        """Verify and open the bundle directory at `path`, or a bare `.onnx` file that we exported.

        Raises:
            PolicyloopError: See `open_bundle` and `open_onnx`.
        """
        if path.suffix == ".onnx":
            if ring is not None:
                raise VerificationError(f"{path} carries no signature", "give a signed bundle")
            return cls(open_onnx(path, profile), profile, backend)
        opened = open_bundle(path, profile, ring)
        return cls(opened, profile, backend)

    @property
    def backend_name(self) -> str:
        """What runs the network."""
        return self._backend.name

    def infer(self, inputs: Arrays) -> NDArray[np.float32]:
        """Return the network's output for its own inputs, before tanh, (actions,)."""
        return self._backend.infer(inputs)

    def mean(self, observation: Observation) -> NDArray[np.float32]:
        """Return the network's output for one observation, before tanh, (actions,)."""
        return self.infer(features(self._profile, self._manifest.normalizer, observation.arrays, self.inputs))

    def act(self, observation: Observation, exploration: Exploration | None = None) -> Action:
        """Propose an action; with `exploration`, drawn from the policy's Gaussian.

        The density is that of this tick's Gaussian, also while a draw is held: the noise is
        correlated in time, its marginal is not changed by that (Hollenstein et al., 2312.11091).
        """
        mean = self.mean(observation).astype(np.float64)
        noise = np.zeros(len(mean)) if exploration is None else exploration.draw(self._manifest.noise_hold_ticks)
        sample = mean + np.exp(self._log_std) * noise
        log_prob = float((-0.5 * noise**2 - self._log_std - 0.5 * math.log(2 * math.pi)).sum())
        values = self._profile.actions_of(sample)
        behaviour = Behaviour(
            mean=tuple(mean.tolist()),
            log_std=self._manifest.log_std,
            sample=tuple(sample.tolist()),
            log_prob=log_prob,
            policy_version=self.version,
            policy_digest=self.digest,
            backend=self._backend.name,
            drawn=exploration is not None,
        )
        return Action(tuple(values.tolist()), "policy", behaviour)

    def close(self) -> None:
        """Release the backend."""
        self._backend.close()
