"""`policyloop run`: the robot's program."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from policyloop.cli import app
from policyloop.cli.options import GatewayKey, Keys, Profile, echo_json, identity_at, stop_on_signals


@app.command()
def run(
    policy: Annotated[Path, typer.Option(help="A bundle or checkpoint; or a store, whose current version it follows.")],
    profile: Profile = "rover",
    backend: Annotated[
        str, typer.Option(help="auto, onnx, numpy, rknn, or rknn:CORE: 0, 1, 2, 0_1, 0_1_2, auto.")
    ] = "auto",
    trusted: Annotated[
        Path | None, typer.Option(help="Directory of keys: drive only what somebody trusted there has signed.")
    ] = None,
    shadow_ticks: Annotated[
        int, typer.Option(min=0, help="Ticks that a new version of a store answers beside the one that drives.")
    ] = 100,
    probation: Annotated[float, typer.Option(min=0, help="Seconds that a new version must drive to be good.")] = 30.0,
    io: Annotated[
        str,
        typer.Option(
            help="sim: a simulated robot; bridge[:FILE], unix:PATH, tcp:[HOST:]PORT, zmq:ADDRESS: a controller in C++; "
            "module:factory: your own robot in Python."
        ),
    ] = "sim",
    connect: Annotated[str, typer.Option(help="Gateway address; none = do not stream.")] = "",
    pull: Annotated[
        str, typer.Option(help="From the gateway: off; stage: take signed versions in; activate: drive them too.")
    ] = "off",
    keys: Keys = None,
    gateway_key: GatewayKey = "",
    name: Annotated[str, typer.Option(help="Name of this robot; default: its key's, or the machine's.")] = "",
    seconds: Annotated[float, typer.Option(min=0, help="Stop after this many seconds; 0 = never.")] = 0.0,
    arm: Annotated[
        bool, typer.Option("--arm", help="Arm the robot once its input has been healthy for a second.")
    ] = False,
    control: Annotated[
        Path | None, typer.Option(help="Socket for `policyloop robot`; default: after the robot's name.")
    ] = None,
    explore: Annotated[bool, typer.Option(help="Explore: draw actions at random around the policy's mean.")] = False,
    spool: Annotated[Path | None, typer.Option(help="Directory of the spool; default: a temporary one.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="Take calibration samples into this folder.")] = None,
    calibration_interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two of them.")] = 10.0,
    calibration_count: Annotated[int, typer.Option(min=1, help="Stop after this many samples.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the exploration and the simulated world.")] = 0,
    big_cores: Annotated[bool, typer.Option("--big-cores", help="Keep to the fast ones of unequal cores.")] = False,
    real_time: Annotated[
        int, typer.Option(min=0, max=80, help="Real-time priority of the control loop (SCHED_FIFO); 0 = none.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tick report as JSON.")] = False,
) -> None:
    """Drive a robot in real time with a policy, behind the safety gate; Ctrl-C stops it.

    It starts disarmed: `policyloop robot arm`, or --arm.
    """
    from policyloop.robot.scheduling import schedule

    schedule(on_big_cores=big_cores, priority=real_time)  # before numpy and others start threads

    import numpy as np

    from policyloop.cli.machine import check_io, open_machine
    from policyloop.core.clock import MonotonicClock
    from policyloop.core.profile import load_profile
    from policyloop.robot.calibration import CalibrationSettings
    from policyloop.robot.program import Program, ProgramSettings
    from policyloop.robot.service import LinkSettings
    from policyloop.runtime.health import SwapSettings

    check_io(io)
    loaded = load_profile(profile)
    identity = identity_at(keys)
    robot_name = name or (identity.name if identity else socket.gethostname())
    settings = ProgramSettings(
        policy=policy,
        robot=robot_name,
        backend=backend,
        trusted=trusted,
        proof=SwapSettings(shadow_ticks=shadow_ticks, probation_s=probation),
        link=LinkSettings(address=connect, keys=keys, gateway_key=gateway_key, spool=spool),
        pull=pull,
        arm=arm,
        control=control,
        explore=explore,
        calibration=calibration,
        samples=CalibrationSettings(interval_s=calibration_interval, count=calibration_count),
        seed=seed,
    )
    clock, stop = MonotonicClock(), stop_on_signals()
    with Program(loaded, settings, clock) as program:
        robot, await_input = open_machine(io, loaded, robot_name, np.random.default_rng(seed), clock)
        with closing(robot):
            actor = program.actor(robot, robot, await_input=await_input)
            program.drive(actor, stop, seconds=seconds)
    report = actor.report()
    if as_json:
        echo_json(report)
    else:
        typer.echo(
            f"{report.ticks} ticks at {loaded.rates.control_hz:g} Hz, {report.missed} missed; late by "
            f"{report.lateness_p50_ms:.2f} ms (p99 {report.lateness_p99_ms:.2f}, worst {report.lateness_max_ms:.2f}); "
            f"work {report.work_p50_ms:.2f} ms (p99 {report.work_p99_ms:.2f}); {program.slot.swaps} policy swaps, "
            f"{actor.errors} errors; {program.arming.now.state}"
        )
    if program.link is not None and program.link.failure is not None:
        raise program.link.failure
