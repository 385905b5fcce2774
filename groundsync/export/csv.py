"""CSV: one table of targets, one of detections."""

from __future__ import annotations

import csv
from io import StringIO
from math import isfinite
from pathlib import Path

from groundsync.export.files import replace_file
from groundsync.export.rows import Sheet, Value, sheets
from groundsync.view import ProjectView

TABLES = ("targets", "detections")


def write_csv(view: ProjectView, folder: Path) -> list[Path]:
    """Writes ``targets.csv`` and ``detections.csv`` into a folder and returns their paths.

    Raises:
        ExportError: The folder cannot be written to.
    """
    written = []
    for sheet in sheets(view):
        if sheet.name in TABLES:
            path = folder / f"{sheet.name}.csv"
            replace_file(path, csv_text(sheet).encode())
            written.append(path)
    return written


def csv_text(sheet: Sheet) -> str:
    """Returns a layer's fields as CSV; truth values are 1 and 0, what is unknown is empty."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([name for name, _ in sheet.columns])
    writer.writerows([_cell(value) for value in row] for row in sheet.rows)
    return text.getvalue()


def _cell(value: Value) -> Value:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return repr(value) if isfinite(value) else ""
    return value
