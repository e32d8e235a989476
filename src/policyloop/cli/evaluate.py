"""`policyloop evaluate`: drive unseen simulated arenas, or walk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policyloop.cli import app
from policyloop.cli.options import Randomize, echo_json, gate_mode, settings_called, stop_on_signals


@app.command()
def evaluate(
    policy: Annotated[
        str, typer.Argument(help="A bundle, checkpoint, store, demo folder or .onnx file; or scripted or random.")
    ],
    profile: Annotated[str, typer.Option(help="Robot profile; default: the policy's, or rover-mini.")] = "",
    episodes: Annotated[int, typer.Option(min=1, help="Arenas to drive, or walks of a quadruped.")] = 50,
    arena_seed: Annotated[int, typer.Option(min=0, help="Seed of the first arena.")] = 1_000_000,
    gate: Annotated[str, typer.Option(help="full; or limits: judge the driver without the distance rule.")] = "limits",
    randomize: Randomize = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Drive unseen arenas, or walk as ten commands ask, without exploration; report returns with intervals."""
    from policyloop import evaluate as evaluation
    from policyloop.cli.progress import progress_bar
    from policyloop.core.profile import load_profile
    from policyloop.sim.randomization import Randomization

    loaded = load_profile(profile or _profile_of(policy))
    stop = stop_on_signals()
    with progress_bar("driving") as bar:

        def progress(done: int, total: int) -> None:
            bar(done, total)
            if stop.is_set():
                raise KeyboardInterrupt

        report = evaluation.evaluate(
            loaded,
            policy,
            episodes=episodes,
            arena_seed=arena_seed,
            gate=gate_mode(gate),
            randomization=settings_called(randomize, Randomization),
            progress=progress,
        )
    if as_json:
        echo_json(report)
        return
    low, high = report.return_ci or (float("nan"), float("nan"))
    places, mishaps = ("arenas", "collisions") if loaded.joints is None else ("walks", "falls")
    world = ", randomized" if report.randomized else ""
    typer.echo(
        f"{report.episodes} {places} from seed {arena_seed}, gate {gate}{world}: return {report.return_mean:.1f} "
        f"[{low:.1f}, {high:.1f}], median {report.return_median:.1f}, {mishaps} {report.collision_rate:.0%}, "
        f"{report.distance_m:.1f} m"
    )


def _profile_of(policy: str) -> str:
    """Return the name of the profile that a policy was trained for."""
    from policyloop.runtime.locate import bundle_directory, find_policy, profile_name

    if policy in ("scripted", "random"):
        return "rover-mini"
    return profile_name(bundle_directory(find_policy(Path(policy)))) or "rover"
