"""`policyloop train --simulated N`: learn to walk from many simulated robots."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from policyloop.cli.options import stop_on_signals

if TYPE_CHECKING:
    from policyloop.learn.simulated import SimulationProgress

_SAY_EVERY_S = 5.0


def train_simulated(
    profile: str,
    robots: int,
    settings_file: Path | None,
    typed: dict[str, Any],
    folders: tuple[Path, Path, Path],
    checkpoint_interval: int,
    minutes: float,
    sign: Path | None,
    threads: int,
    *,
    resume: bool,
) -> None:
    """Train, and say every few seconds how it goes."""
    import torch

    from policyloop.bundle.signing import load_signer
    from policyloop.bundle.store import Store
    from policyloop.cli.progress import progress_bar
    from policyloop.config import load_settings
    from policyloop.core.profile import load_profile
    from policyloop.learn.ranks import Ranks
    from policyloop.learn.simulated import SimulationSettings
    from policyloop.learn.simulated_training import train_in_simulation
    from policyloop.sim.lite3_walking import WalkingLite3s

    Ranks.join("simulated robots", device="cpu")
    stop = stop_on_signals()
    settings = load_settings(SimulationSettings, settings_file, **typed)
    torch.set_num_threads(threads or 1)  # its matrices are too small to share out
    checkpoints, store, runs = folders
    learners = WalkingLite3s(load_profile(profile), robots, settings.seed)
    said_s, began_s = -_SAY_EVERY_S, time.monotonic()

    def report(progress: SimulationProgress) -> None:
        nonlocal said_s
        if minutes and time.monotonic() - began_s > 60 * minutes:
            stop.set()
        bar(progress.steps, settings.steps)
        if progress.elapsed_s - said_s < _SAY_EVERY_S:
            return
        said_s = progress.elapsed_s
        typer.echo(
            f"[{progress.elapsed_s:5.0f} s] update {progress.update}  {progress.steps} of {settings.steps} steps  "
            f"reward {progress.reward:.4f}  falls {progress.falls:.2%}  std {progress.statistics['std']:.2f}",
            err=True,
        )

    try:
        with progress_bar("learning") as bar:
            version = train_in_simulation(
                learners,
                settings,
                checkpoints=checkpoints,
                checkpoint_interval=checkpoint_interval,
                store=Store(store),
                runs=runs,
                stop=stop,
                resume=resume,
                signer=None if sign is None else load_signer(sign),
                report=report,
            )
    finally:
        learners.close()
    typer.echo(f"policy {version} in {store}")
