"""`policyloop sim`: simulated robots that stream like real ones."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policyloop.cli import app
from policyloop.cli.options import (
    GatewayKey,
    Keys,
    Profile,
    Randomize,
    gate_mode,
    identity_at,
    settings_called,
    stop_on_signals,
)
from policyloop.errors import UsageError

if TYPE_CHECKING:
    from policyloop.core.profile import RobotProfile


@app.command()
def sim(
    profile: Profile = "rover",
    driver: Annotated[
        str, typer.Option(help="scripted, random, or the path of a bundle, checkpoint or store.")
    ] = "scripted",
    connect: Annotated[
        str, typer.Option(help="Gateway address, such as tcp://127.0.0.1:5555; none = do not stream.")
    ] = "",
    keys: Keys = None,
    gateway_key: GatewayKey = "",
    robots: Annotated[int, typer.Option(min=1, max=256, help="Robots in this process.")] = 1,
    name: Annotated[str, typer.Option(help="Robots are called NAME-0, NAME-1, ...")] = "sim",
    seed: Annotated[int, typer.Option(min=0, help="Seed of poses, noise and exploration.")] = 0,
    steps: Annotated[int, typer.Option(min=0, help="Stop after this many steps in all; 0 = never.")] = 0,
    spool: Annotated[Path | None, typer.Option(help="Directory of the spools; default: a temporary one.")] = None,
    gate: Annotated[str, typer.Option(help="full, or limits: the robot may bump into things.")] = "full",
    disturb: Annotated[bool, typer.Option(help="Disturb the scripted driver now and then.")] = True,
    explore: Annotated[bool, typer.Option(help="Explore: draw actions at random around the policy's mean.")] = True,
    assisted: Annotated[
        int,
        typer.Option(min=0, help="Robots that drive without exploration; the scripted driver helps when stuck."),
    ] = 0,
    pupil: Annotated[
        str, typer.Option(help="This bundle or store drives; recorded is what the scripted driver would have done.")
    ] = "",
    randomize: Randomize = "",
    curriculum: Annotated[
        str, typer.Option(help="Sparse arenas first, dense ones later: default, or a .toml file of levels.")
    ] = "",
    hardware: Annotated[
        Path | None,
        typer.Option(help="Simulate what a C++ controller drives, over this shared file, in real time."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Of --hardware: seconds to run; 0 = go on.")] = 0.0,
    forward: Annotated[float, typer.Option(help="Of --hardware: m/s that the operator asks for.")] = 0.5,
) -> None:
    """Drive simulated robots and stream what they see and do, as fast as this core allows."""
    from policyloop.core.profile import load_profile

    if hardware is not None:
        _be_hardware(load_profile(profile), hardware, seed, seconds, forward)
        return
    from policyloop.cli.progress import progress_bar
    from policyloop.runtime.locate import find_policy
    from policyloop.sim.curriculum import CurriculumSettings
    from policyloop.sim.fleet import Fleet, FleetSettings
    from policyloop.sim.randomization import Randomization

    loaded = load_profile(profile)
    if driver not in ("scripted", "random"):
        driver = str(find_policy(Path(driver)))
    if pupil and driver != "scripted":
        raise UsageError(f"--pupil needs the scripted driver as its teacher, not '{driver}'", "leave --driver out")
    stop = stop_on_signals()
    settings = FleetSettings(
        driver=driver,
        robots=robots,
        connect=connect,
        name=name,
        seed=seed,
        explore=explore,
        disturb=disturb,
        gate=gate_mode(gate),
        assisted=assisted,
        pupil=pupil and str(find_policy(Path(pupil))),
        randomization=settings_called(randomize, Randomization),
        curriculum=settings_called(curriculum, CurriculumSettings),
    )
    with tempfile.TemporaryDirectory(prefix="policyloop-") as temporary:
        fleet = Fleet(loaded, settings, spool or Path(temporary), identity=identity_at(keys), gateway_key=gateway_key)
        started_s = time.monotonic()
        try:
            with progress_bar("driving") as bar:
                fleet.run(stop, steps=steps or None, report=lambda fleet: bar(fleet.steps, steps or None))
        except BaseException:
            fleet.close(0.0)
            raise
        elapsed_s = time.monotonic() - started_s
        drained = fleet.close()
    episodes = fleet.episodes
    score = sum(episode.score for episode in episodes) / max(len(episodes), 1)
    typer.echo(
        f"{fleet.steps} steps, {len(episodes)} episodes, mean return {score:.1f}, "
        f"{fleet.steps / elapsed_s:.0f} steps/s"
        + (f", levels {' '.join(map(str, fleet.levels))}" if fleet.levels else "")
        + ("" if drained else "; the trainer has not acknowledged all of them")
    )


def _be_hardware(profile: RobotProfile, path: Path, seed: int, seconds: float, forward_mps: float) -> None:
    """Lie there, stand up, walk off when the policy is ready, and say how it went."""
    import numpy as np

    from policyloop.core.clock import MonotonicClock
    from policyloop.sim.lite3_hardware import SimulatedHardware, walks_off

    stop = stop_on_signals()
    operator = walks_off((forward_mps, 0.0, 0.0))
    robot = SimulatedHardware(profile, path, np.random.default_rng(seed), operator, MonotonicClock())
    try:
        report = robot.run(stop, seconds)
    finally:
        robot.close()
    modes = ", ".join(f"{mode} at {at_s:.2f} s" for mode, at_s in report.modes)
    walked = "" if math.isnan(report.forward_mps) else f"; walked at {report.forward_mps:.2f} m/s"
    typer.echo(f"{report.seconds:.1f} s: {modes or 'no controller came'}{walked}" + ("; FELL" if report.fell else ""))
