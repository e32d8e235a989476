"""The scripted driver on the unseen arenas of record, and the floors that anything must beat."""

from __future__ import annotations

from machine import machine

from policyloop.core.profile import load_profile
from policyloop.evaluate import evaluate


def main() -> None:
    """Print returns and collisions of scripted and random drivers."""
    print(machine())
    profile = load_profile("rover-mini")
    for driver in ("scripted", "random"):
        report = evaluate(profile, driver)
        low, high = report.return_ci
        print(
            f"{driver:9} return {report.return_mean:6.1f} [{low:.1f}, {high:.1f}]  median {report.return_median:6.1f}  "
            f"collisions {report.collision_rate:.0%}  {report.distance_m:.1f} m"
        )


if __name__ == "__main__":
    main()
