"""Journal -> CSV: one line per step, for spreadsheets, pandas and PlotJuggler. Pictures stay behind."""

from __future__ import annotations

import csv
from pathlib import Path

from policyloop.core.files import staged
from policyloop.errors import StorageError, UsageError
from policyloop.link.journal import Journal
from policyloop.link.telemetry import Value, columns, proprio_of, telemetry
from policyloop.wire.codec import check_record

__all__ = ["export_csv"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet would calculate what begins so."""


def export_csv(journal: Journal, output: Path) -> int:
    """Write every intact step; returns how many.

    Args:
        journal: Where steps are.
        output: A new `.csv` file.

    Raises:
        UsageError: `output` exists.
        StorageError: The disk refuses; no half file is left under its final name.
    """
    if output.exists():
        raise UsageError(f"{output} exists already", "choose another --output")
    try:
        with staged(output) as staging:
            return _write(journal, staging)
    except OSError as error:
        raise StorageError.cannot_write(output, error) from error


def _write(journal: Journal, path: Path) -> int:
    def row(position: int) -> dict[str, Value]:
        header, frames, _ = journal.parts(position)
        check_record(header.record, journal.profile)
        return telemetry(header.record, proprio_of(frames, journal.profile), journal.profile)

    written = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns(journal.profile))
        writer.writeheader()
        for _, values in journal.intact(row):
            writer.writerow({name: _harmless(value) for name, value in values.items()})
            written += 1
    return written


def _harmless(value: Value) -> Value:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
