"""A profile with narrower limits, for the gate alone: the policy's own profile, and its digest, stay as they are."""

from __future__ import annotations

from msgspec.structs import replace

from policyloop.core.profile import RobotProfile

__all__ = ["tightened"]


def tightened(
    profile: RobotProfile, *, max_linear_mps: float, max_angular_radps: float, safety_distance_m: float
) -> RobotProfile:
    """Return `profile` with what is narrower of its own limits and these.

    Raises:
        ConfigError: No robot could drive within them.
    """
    limits = profile.limits
    limits = replace(
        limits,
        max_forward_mps=min(limits.max_forward_mps, max_linear_mps),
        max_reverse_mps=min(limits.max_reverse_mps, max_linear_mps),
        max_angular_radps=min(limits.max_angular_radps, max_angular_radps),
        safety_distance_m=max(limits.safety_distance_m, safety_distance_m),
    )
    action = tuple(
        replace(entry, low=max(entry.low, low), high=min(entry.high, high))
        for entry in profile.action
        for low, high in [limits.action_range(entry.name)]
    )
    return replace(profile, limits=limits, action=action)
