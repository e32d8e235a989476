"""`policyloop train`: gateway and learner, or a learner on an existing journal."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, get_args

import typer

from policyloop.cli import app
from policyloop.cli.options import Host, Keys, Port, Profile, V1Port, open_gateway, stop_on_signals
from policyloop.cli.progress import LearnerConsole
from policyloop.errors import ConfigError, UsageError


@app.command()
def train(
    context: typer.Context,
    profile: Profile = "rover",
    learner: Annotated[
        str,
        typer.Option(
            help="bc: clone demonstrations; dagger: again with each correction; ppo: improve on many robots; "
            "rlpd: on one, with a teacher."
        ),
    ] = "ppo",
    network: Annotated[
        str, typer.Option("--network", "--encoder", help="spatial, depth, gray, original or mlp.")
    ] = "spatial",
    host: Host = "127.0.0.1",
    port: Port = 5555,
    v1_port: V1Port = 0,
    keys: Keys = None,
    journal: Annotated[Path, typer.Option(help="Directory of the journal.")] = Path("./journal"),
    offline: Annotated[bool, typer.Option(help="Learn from the journal as it is; open no port.")] = False,
    demonstrations: Annotated[int, typer.Option(min=0, help="Clone once so many are there; 0 = do not clone.")] = 3000,
    update_interval: Annotated[
        int, typer.Option(min=0, help="Steps per update; 0 = ppo 8192, dagger 2000, rlpd 200.")
    ] = 0,
    checkpoint_interval: Annotated[int, typer.Option(min=1, help="Updates per checkpoint.")] = 10,
    checkpoint_dir: Annotated[Path, typer.Option(help="Directory of the checkpoints.")] = Path("./checkpoints"),
    tensorboard_dir: Annotated[Path, typer.Option(help="Directory of the TensorBoard run.")] = Path("./runs"),
    store: Annotated[Path, typer.Option(help="Policies are shipped into this store.")] = Path("./store"),
    offer: Annotated[
        bool, typer.Option("--offer", help="Let robots pull the newest policy, once it is signed.")
    ] = False,
    sign: Annotated[
        Path | None,
        typer.Option(help="Directory of a signing key, kept on this machine: sign every policy."),
    ] = None,
    updates: Annotated[int, typer.Option(min=0, help="Stop after this many updates; 0 = never.")] = 0,
    minutes: Annotated[float, typer.Option(min=0, help="Stop after this many minutes; 0 = never.")] = 0.0,
    stop_and_go: Annotated[bool, typer.Option(help="Robots pause while the learner works.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda (ROCm too).")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 = torch's choice.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights and minibatches.")] = 0,
    simulated: Annotated[
        int, typer.Option(min=0, help="Learn from so many simulated robots in this process; open no port.")
    ] = 0,
    resume: Annotated[bool, typer.Option(help="Go on from the newest checkpoint.")] = False,
    parent: Annotated[
        Path | None,
        typer.Option("--from", help="Begin with this checkpoint's weights, learned elsewhere: in simulation, say."),
    ] = None,
    settings_file: Annotated[Path | None, typer.Option("--settings", help="TOML file of learner settings.")] = None,
) -> None:
    """Receive robots' steps, clone, improve, and ship every new policy into the store."""
    if simulated:
        from policyloop.cli.simulated import train_simulated

        if parent is not None:
            raise UsageError("--simulated begins anew or goes on: it takes no --from", "go on: --resume")
        folders = (checkpoint_dir, store, tensorboard_dir)
        asked = {"seed": seed} if _typed(context, "seed") else {}
        train_simulated(
            profile,
            simulated,
            settings_file,
            asked,
            folders,
            checkpoint_interval,
            minutes,
            sign,
            threads,
            resume=resume,
        )
        return
    from policyloop.bundle.signing import load_signer
    from policyloop.bundle.store import Store
    from policyloop.config import load_settings
    from policyloop.core.profile import load_profile
    from policyloop.learn.follower import follow
    from policyloop.learn.learner import Learner
    from policyloop.learn.ranks import Ranks
    from policyloop.learn.settings import LearnerName, LearnerSettings
    from policyloop.link.journal import Journal, appending

    stop = stop_on_signals()
    loaded = load_profile(profile)
    if learner not in get_args(LearnerName):
        raise ConfigError(f"no learner '{learner}'", f"use one of {', '.join(get_args(LearnerName))}")
    chosen = dict(
        learner=learner,
        network=network,
        device=device,
        seed=seed,
        demonstrations=demonstrations,
        update_interval=update_interval,
        checkpoint_interval=checkpoint_interval,
        total_updates=updates,
        time_budget_s=minutes * 60,
        stop_and_go=stop_and_go,
        threads=threads,
    )
    if settings_file is not None:  # a default does not override the file; what was typed does
        typed = {"updates": "total_updates", "minutes": "time_budget_s"}
        given = {typed.get(name, name) for name in context.params if _typed(context, name)}
        chosen = {name: value for name, value in chosen.items() if name in given}
    if parent is not None and not _typed(context, "demonstrations"):
        chosen["demonstrations"] = 0  # it can drive already
    signer = None if sign is None else load_signer(sign)
    settings = load_settings(LearnerSettings, settings_file, **chosen)
    ranks = Ranks.join(settings.learner, settings.device)
    if not ranks.leads:
        try:
            follow(ranks, journal)
        finally:
            ranks.close()
        return
    receiver, console = None, LearnerConsole()
    with closing(Journal(journal, loaded)) if offline else appending(journal, loaded) as log:
        try:
            if not offline:
                receiver = open_gateway(log, loaded, host, port, v1_port, keys, store if offer else None)
            worker = Learner(
                log,
                settings,
                checkpoints=checkpoint_dir,
                store=Store(store),
                runs=tensorboard_dir,
                gateway=receiver,
                resume=resume,
                parent=parent,
                report=console,
                stop=stop,
                signer=signer,
                ranks=ranks,
            )
            worker.run()
        finally:
            console.close()
            if receiver is not None:
                receiver.close()
            ranks.close()
    counts = ", ".join(f"{count} {name}" for name, count in worker.ledger.items())
    typer.echo(f"policy {worker.version} in {store}" + (f"; steps: {counts}" if counts else ""))


def _typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
