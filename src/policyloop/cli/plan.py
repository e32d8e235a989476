"""`policyloop plan`: what a training will take, before anybody drives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

import typer

from policyloop.cli import app
from policyloop.cli.options import Profile, echo_json

if TYPE_CHECKING:
    from policyloop.core.profile import RobotProfile
    from policyloop.plan import Choice, Plan


@app.command()
def plan(
    profile: Profile = "rover",
    rate: Annotated[
        float, typer.Option(min=0, max=1000, help="Steps a second of each robot; 0 = the profile's.")
    ] = 0.0,
    robots: Annotated[int, typer.Option(min=1, help="Robots that drive at the same time.")] = 1,
    learner: Annotated[str, typer.Option(help="auto, bc, ppo, rlpd or simulated.")] = "auto",
    update_interval: Annotated[int, typer.Option(min=0, help="Policy steps per update; 0 = the learner's own.")] = 0,
    demonstrations: Annotated[int, typer.Option(min=0, help="Steps to clone first; 0 = do not clone.")] = 6000,
    sim_robots: Annotated[int, typer.Option(min=0, help="Simulated robots that could drive instead.")] = 0,
    stop_and_go: Annotated[bool, typer.Option(help="Robots pause while the learner works.")] = False,
    network: Annotated[str, typer.Option(help="Whose speed is measured: spatial, depth, gray, original or mlp.")] = "",
    device: Annotated[str, typer.Option(help="Where: auto, cpu or cuda (ROCm too).")] = "auto",
    device_passes_per_s: Annotated[
        float, typer.Option(min=0, help="Steps a second that another machine learns from; 0 = measure this one.")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate how long until the first clone, update and good policy, and what disk and radio that takes."""
    from policyloop.core.profile import load_profile
    from policyloop.plan import Situation, make_plan

    loaded = load_profile(profile)
    situation = Situation(
        rate_hz=rate,
        robots=robots,
        learner=_choice(learner),
        update_interval=update_interval,
        demonstrations=demonstrations,
        sim_robots=sim_robots,
        passes_per_s=device_passes_per_s or _measured(loaded, network, device),
        passes_source="as given" if device_passes_per_s else "measured on this machine just now",
        stop_and_go=stop_and_go,
    )
    found = make_plan(loaded, situation)
    if as_json:
        echo_json(found)
    else:
        _show(found)


def _choice(name: str) -> Choice:
    from policyloop.errors import UsageError
    from policyloop.plan import Choice

    for choice in get_args(Choice):
        if choice == name:
            return choice
    raise UsageError(f"--learner {name}", f"use {' or '.join(get_args(Choice))}")


def _measured(profile: RobotProfile, network: str, device: str) -> float | None:
    """Return how fast this machine learns; None where torch is not installed."""
    from policyloop.cli.progress import progress_bar

    try:
        from policyloop.learn.speed import measure_passes_per_s
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return None
    with progress_bar("measuring how fast this machine learns"):
        return measure_passes_per_s(profile, network or ("mlp" if profile.camera is None else "spatial"), device)


def _show(plan: Plan) -> None:
    from policyloop.plan import duration

    typer.echo(f"{plan.profile}, {plan.steps_per_s:g} steps a second, learner {plan.learner} ({plan.why})")
    typer.echo("all numbers are estimates; time counts from the first tick and has no pauses")
    for milestone in plan.milestones:
        low, high = map(duration, milestone.after_s)
        when = low if low == high else f"{low} to {high}"
        typer.echo(f"  {when:>24}  {milestone.what} ({milestone.basis})")
    if plan.learner in ("ppo", "rlpd"):
        stale = f"; steps lag by at most {plan.staleness} versions" if plan.learner == "ppo" else ""
        typer.echo(
            f"learner: an update's steps come in {duration(plan.collect_s)}, learning takes {duration(plan.update_s)}; "
            f"it {'keeps up' if plan.keeps_up else 'DOES NOT KEEP UP'}{stale}"
        )
    typer.echo(f"speed: {plan.passes_per_s:.0f} passes a second ({plan.passes_source})")
    if plan.bytes_per_step:
        streams = ", ".join(f"{name} {size:.0f}" for name, size in plan.bytes_per_step.items())
        typer.echo(f"a step: {sum(plan.bytes_per_step.values()) / 1000:.1f} kB ({streams})")
        typer.echo(
            f"radio: {plan.radio_mbps:.1f} Mbit/s from each robot, {plan.gateway_mbps:.1f} at the trainer; "
            f"disk: {plan.disk_gb_per_hour:.2f} GB an hour, {plan.disk_gb:.1f} GB until the policy is good"
        )
    for warning in plan.warnings:
        typer.echo(f"warning: {warning}")
