"""`policyloop import`: bring a policy that was trained elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policyloop.cli import app
from policyloop.cli.options import Profile


@app.command("import")
def import_(
    policy: Annotated[
        Path,
        typer.Argument(help="A .pt file (state dict, checkpoint, TorchScript), a .zip of stable-baselines3, or .onnx."),
    ],
    profile: Profile,
    output: Annotated[Path, typer.Option(help="New folder for the bundle.")],
    network: Annotated[
        Path | None, typer.Option(help="YAML that describes the network of a .pt file: see docs/import.md.")
    ] = None,
    obs_stats: Annotated[
        Path | None,
        typer.Option(help="Its statistics of observations, .npz with mean and std; default: its own or the profile's."),
    ] = None,
    obs_stats_of: Annotated[
        str,
        typer.Option(
            help="sensed: of what the robot senses, the default for a file; scaled: of that after the profile's "
            "centres and scales, the default for those in a checkpoint."
        ),
    ] = "",
    strict: Annotated[bool, typer.Option(help="Refuse a .pt file that holds more than the network.")] = True,
    policy_version: Annotated[
        int, typer.Option(min=0, max=999_999, help="Version of the policy; a robot takes none below its newest.")
    ] = 1,
    sign: Annotated[Path | None, typer.Option(help="Directory of a signing key: sign the bundle at once.")] = None,
) -> None:
    """Make a bundle of a policy that was trained elsewhere; a .pt file is opened in a process without rights."""
    from policyloop.bundle.signing import load_signer, sign_bundle
    from policyloop.cli.progress import progress_bar
    from policyloop.convert.importer import import_policy
    from policyloop.convert.observation_statistics import statistics_of
    from policyloop.core.files import write_directory
    from policyloop.core.profile import load_profile
    from policyloop.errors import StorageError, UsageError

    if output.exists():
        raise UsageError(f"{output} exists", "choose another --output")
    signer = None if sign is None else load_signer(sign)
    with progress_bar("importing"):
        bundle = import_policy(
            policy,
            load_profile(profile),
            description=network,
            statistics=obs_stats,
            statistics_of=statistics_of(obs_stats_of) if obs_stats_of else None,
            strict=strict,
            version=policy_version,
        )
    try:
        write_directory(output, bundle.contents)
    except OSError as error:
        raise StorageError.cannot_write(output, error) from error
    if signer is not None:
        sign_bundle(output, bundle.manifest.encode(), signer)
    about = bundle.manifest
    typer.echo(
        f"{output}: policy {about.version} for {about.profile_name}; onnxruntime and {policy.name} differ by at most "
        f"{about.parity.max_abs_error:.1e} on {about.parity.observations} inputs"
    )
    for name in ("network", "tensors", "normalisation", "output"):
        typer.echo(f"  {name}: {about.training[name]}")
