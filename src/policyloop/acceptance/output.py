"""Write what a conversion came to: the file for the board if it passed, the report in any case."""

from __future__ import annotations

from pathlib import Path

import msgspec

from policyloop.acceptance.page import conversion_page
from policyloop.acceptance.report import ConversionReport, Outcome
from policyloop.acceptance.source import Source
from policyloop.bundle.build import Bundle, build_bundle
from policyloop.bundle.manifest import RKNN_NAME
from policyloop.core.files import write_directory, write_file
from policyloop.errors import StorageError, UsageError

__all__ = ["converted_bundle", "write_outcome"]


def write_outcome(outcome: Outcome, source: Source, output: Path, bundle: Path | None) -> None:
    """Write `output`, and beside it `.json` and `.html`; an older `output` stays if nothing passed.

    Args:
        outcome: What the trial came to.
        source: What was tried.
        output: The `.rknn` file.
        bundle: New folder for a bundle with both networks; None = none.

    Raises:
        UsageError: A bundle of a network that does not say which robot it drives.
        StorageError: The disk refuses.
    """
    page = conversion_page(outcome, source.profile, source.held_out.distances_m)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_file(output.with_suffix(".html"), page.encode())
        write_file(
            output.with_suffix(".json"), msgspec.json.format(msgspec.json.encode(outcome.report), indent=2) + b"\n"
        )
        if outcome.rknn is not None:
            write_file(output, outcome.rknn)
    except OSError as error:
        raise StorageError.cannot_write(output, error) from error
    if outcome.rknn is None or bundle is None:
        return
    contents = converted_bundle(outcome.report, outcome.rknn, source).contents
    try:
        write_directory(bundle, contents)
    except OSError as error:
        raise StorageError.cannot_write(bundle, error) from error


def converted_bundle(report: ConversionReport, rknn: bytes, source: Source) -> Bundle:
    """Return the source's bundle with a network for the NPU in it.

    Raises:
        UsageError: The source does not say which robot it drives, or is no bundle.
    """
    if source.bundle is None or not source.bundle.manifest.created:
        raise UsageError("only a checkpoint or a bundle becomes a bundle", "leave --bundle away for an .onnx file")
    about = msgspec.structs.replace(source.bundle.manifest, conversion=report.conversion)
    return build_bundle(about, {**source.bundle.files, RKNN_NAME: rknn})
