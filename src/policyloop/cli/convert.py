"""`policyloop convert`: a policy for the NPU, with a report of what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policyloop.cli import app
from policyloop.cli.options import echo_json, stop_on_signals
from policyloop.cli.progress import progress_bar

if TYPE_CHECKING:
    from policyloop.acceptance.report import Attempt, ConversionReport


@app.command()
def convert(
    policy: Annotated[Path, typer.Argument(help="A checkpoint, bundle, store, demo folder, or an .onnx file.")],
    output: Annotated[Path, typer.Option(help="File to write, such as policy.rknn; the report goes beside it.")],
    precision: Annotated[str, typer.Option(help="auto, float16, int8 or hybrid (INT8, the head in float16).")] = "auto",
    journal: Annotated[
        Path | None, typer.Option(help="Recording to calibrate on and, other episodes, to judge with.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of calibration_NNNN.npz; every fourth judges instead.")
    ] = None,
    profile: Annotated[str, typer.Option(help="Robot profile; default: the policy's.")] = "",
    bundle: Annotated[Path | None, typer.Option(help="Also write a bundle for the robot into this new folder.")] = None,
    target: Annotated[str, typer.Option(help="rk3588, or another Rockchip NPU.")] = "rk3588",
    algorithm: Annotated[
        str, typer.Option(help="How INT8 ranges are found: normal, kl_divergence, or mmse, which is slow.")
    ] = "normal",
    per_channel: Annotated[bool, typer.Option(help="One scale per channel of a weight, not per layer.")] = True,
    optimization_level: Annotated[int, typer.Option(min=0, max=3, help="The converter's optimisation level.")] = 3,
    allow_cpu: Annotated[bool, typer.Option("--allow-cpu", help="Accept layers on the board's CPU.")] = False,
    episodes: Annotated[int, typer.Option(min=0, help="Simulated arenas to drive in closed loop; 0 = none.")] = 50,
    held_out: Annotated[int, typer.Option(min=8, help="Samples of a journal to judge with.")] = 500,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds for one conversion.")] = 1800.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Convert a policy for the NPU with the vendor's toolkit; refuse what would drive differently."""
    from policyloop.acceptance.output import write_outcome
    from policyloop.acceptance.source import open_source
    from policyloop.acceptance.trial import convert_policy, precision_of
    from policyloop.convert.judge import Thresholds
    from policyloop.convert.rknn import converter_options
    from policyloop.convert.toolkit import Toolkit
    from policyloop.errors import SafetyRefusal, UsageError

    wanted = precision_of(precision)
    options = converter_options(
        target=target,
        algorithm=algorithm,
        per_channel=per_channel,
        optimization_level=optimization_level,
        time_limit_s=time_limit,
    )
    if bundle is not None and bundle.exists():
        raise UsageError(f"{bundle} exists", "choose another --bundle")
    if output.is_dir():
        raise UsageError(f"{output} is a folder", "give --output a file, such as policy.rknn")
    toolkit = Toolkit()
    toolkit.require()
    with progress_bar("reading") as bar:
        source = open_source(
            policy, profile, journal, calibration, held_out=held_out, allow_cpu=allow_cpu, progress=bar
        )
    stop = stop_on_signals()
    with progress_bar("converting") as bar:

        def progress(what: str, share: float) -> None:
            bar(round(1000 * share), 1000, what)
            if stop.is_set():
                raise KeyboardInterrupt

        outcome = convert_policy(
            source.network,
            source=str(policy),
            precision=wanted,
            calibration=source.calibration,
            held_out=source.held_out,
            bundle=source.bundle,
            profile=source.profile,
            toolkit=toolkit,
            options=options,
            thresholds=Thresholds(),
            episodes=episodes,
            progress=progress,
        )
    write_outcome(outcome, source, output, bundle)
    if as_json:
        echo_json(outcome.report)
    else:
        _tell(outcome.report, output)
    if outcome.rknn is None:
        raise SafetyRefusal(f"{output} is not written: {outcome.report.reason}", _advice(outcome.report, output))


def _tell(report: ConversionReport, output: Path) -> None:
    for attempt in report.attempts:
        typer.echo(f"{attempt.precision}: {'passed' if attempt.passed else 'refused'}, {attempt.size_bytes} bytes")
        for line in _lines(attempt):
            typer.echo(f"  {line}")
    if report.chosen:
        typer.echo(f"{output}: {report.reason}")
    typer.echo(f"report: {output.with_suffix('.html')}")


def _lines(attempt: Attempt) -> list[str]:
    lines = [
        f"{entry.name}: mean {entry.mean:.2g}, p99 {entry.p99:.2g}, worst {entry.worst:.2g} {entry.unit} of "
        f"{entry.range:.2g}"
        for entry in attempt.judgement.actions
    ]
    loop, paper = attempt.closed_loop, attempt.estimate
    if loop is not None:
        lines.append(
            f"closed loop ({loop.backend}, {loop.episodes} arenas): return {loop.converted_return:.1f}, float32 "
            f"{loop.float_return:.1f} ({-loop.return_loss:+.1%}); collisions {loop.converted_collisions:.0%}, "
            f"{loop.float_collisions:.0%}"
        )
    else:
        lines.append(f"not driven: {attempt.not_driven}")
    on_cpu = f"; on the board's CPU: {', '.join(paper.cpu_layers)}" if paper.cpu_layers else ""
    lines.append(f"NPU: {paper.milliseconds:.2f} ms a tick, {paper.label}{on_cpu}")
    return lines + attempt.failures


def _advice(report: ConversionReport, output: Path) -> str:
    other = {"int8": "try --precision auto or hybrid, or calibrate on more of how it drives", "hybrid": "try float16"}
    return f"see {output.with_suffix('.html')}; {other.get(report.requested, 'train on, or look at the worst samples')}"
