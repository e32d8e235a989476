"""`policyloop chaos`: break a simulated robot on purpose, and see what it does."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from policyloop.cli import app
from policyloop.cli.options import Json, Profile, echo_json

if TYPE_CHECKING:
    from policyloop.chaos.trial import Outcome


@app.command()
def chaos(
    faults: Annotated[list[str] | None, typer.Argument(help="Names of faults; --all for all of them.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Try every fault, one after the other.")] = False,
    profile: Profile = "rover-mini",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the arena.")] = 3,
    as_json: Json = False,
) -> None:
    """Break a driving robot in every way we know; exit code 6 if it does not do what it must."""
    from policyloop.chaos.faults import FAULTS
    from policyloop.chaos.process import PROCESS_FAULTS, try_process_fault
    from policyloop.chaos.trial import try_fault
    from policyloop.cli.progress import progress_bar
    from policyloop.core.profile import load_profile
    from policyloop.errors import SafetyRefusal, UsageError

    known = {fault.name: partial(try_fault, fault=fault) for fault in FAULTS}
    known |= {fault.name: partial(try_process_fault, fault=fault) for fault in PROCESS_FAULTS}
    wanted = list(known) if everything else faults or []
    if not wanted or (unknown := [name for name in wanted if name not in known]):
        culprit = f"no fault '{unknown[0]}'" if wanted else "no fault is named"
        raise UsageError(culprit, f"use --all, or some of: {', '.join(known)}")
    loaded = load_profile(profile)
    outcomes = []
    with progress_bar("breaking") as bar:
        for number, name in enumerate(wanted):
            bar(number, len(wanted), name)
            outcomes.append(known[name](loaded, seed=seed))
            if not as_json:
                _tell(outcomes[-1])
    if as_json:
        echo_json(outcomes)
    failed = [outcome.name for outcome in outcomes if not outcome.passed]
    if failed:
        raise SafetyRefusal(f"the robot did not do what it must: {', '.join(failed)}", "see the lines above")


def _tell(outcome: Outcome) -> None:
    stopped = "drove on" if outcome.stopped_after_s is None else f"stood after {outcome.stopped_after_s:.2f} s"
    said = ", ".join(outcome.said) or "nothing"
    reason = f" ({outcome.reason})" if outcome.reason else ""
    again = "armed again by hand" if outcome.armed_again else "could not be armed again"
    typer.echo(f"{'passed' if outcome.passed else 'FAILED'}  {outcome.name}: {outcome.what}")
    typer.echo(
        f"        {stopped}, {outcome.travelled_m:.2f} m; the gate said: {said}; {outcome.state}{reason}; {again}"
        + ("; IT TOUCHED SOMETHING" if outcome.contact else "")
        + ("; IT MOVED BY ITSELF" if outcome.moved_by_itself else "")
    )
