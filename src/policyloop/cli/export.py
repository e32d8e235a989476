"""`policyloop export`: a checkpoint's policy as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policyloop.cli import app
from policyloop.cli.options import Json, echo_json


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Directory of a checkpoint, such as checkpoints/000010.")],
    output: Annotated[Path, typer.Option(help="ONNX file to write.")],
    as_json: Json = False,
) -> None:
    """Write a checkpoint's policy as ONNX and check it against torch."""
    from policyloop.cli.progress import progress_bar
    from policyloop.convert.export import check_parity, export_onnx, probe_features
    from policyloop.convert.graph import prepare
    from policyloop.core.files import write_file
    from policyloop.errors import StorageError
    from policyloop.learn.checkpoint import load_checkpoint

    with progress_bar("exporting, and checking against torch"):
        saved = load_checkpoint(checkpoint)
        network = saved.network()
        data = export_onnx(network, saved.state.profile, saved.state.normalizer, saved.state.version)
        prepared = prepare(data)  # refuses what the NPU's converter would refuse, by name
        parity = check_parity(network, data, saved.state.profile, probe_features(saved.state.profile, 64))
    try:
        write_file(output, data)
    except OSError as error:
        raise StorageError.cannot_write(output, error) from error
    if as_json:
        echo_json(
            {
                "output": str(output),
                "bytes": len(data),
                "version": saved.state.version,
                "profile": saved.state.profile.name,
                "max_abs_error": parity.max_abs_error,
                "observations": parity.observations,
                "macs": prepared.macs,
            }
        )
        return
    typer.echo(
        f"{output}: {len(data)} bytes, policy {saved.state.version}, profile {saved.state.profile.name}; "
        f"torch and onnxruntime differ by at most {parity.max_abs_error:.1e} on {parity.observations} inputs; "
        f"every operator runs on an RK3588's NPU, {prepared.macs / 1e6:.2f} M multiplications"
    )
