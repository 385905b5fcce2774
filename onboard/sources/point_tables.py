"""The POINTS and OUT tables of geotag: pixels in, ground points out (docs/formats/points.md)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from calibration.csv_table import COLUMN_OF_DATUM, CsvTable, height_column, read_csv
from onboard.place.ellipses import ce90_m
from onboard.records import Floats, GroundPoints, HeightDatum

GROUND_COLUMNS = tuple(f"ground_{column}" for column in (*COLUMN_OF_DATUM.values(), "alt_m"))


LINES_AT_ONCE = 50_000


@dataclass(frozen=True, slots=True)
class PointTable:
    """Pixels to be placed.

    Attributes:
        table: The rows as they stand.
        frame: n names.
        uv: (n, 2) pixels.
        sigma_px: (n,) σ of each axis; NaN where the rig's applies.
        ground_alt_m: (n,) own ground heights; NaN where there is none.
        ground_datum: What they are above; ``None`` where there are none.
    """

    table: CsvTable
    frame: tuple[str, ...]
    uv: Floats
    sigma_px: Floats
    ground_alt_m: Floats
    ground_datum: HeightDatum | None


def read_points(path: str | Path, alt_datum: str | None = None) -> PointTable:
    """Returns a POINTS table.

    Raises:
        TableError: It cannot be used; the message names line and value.
    """
    table = read_csv(path)
    ground = np.full(len(table), np.nan)
    datum: str | None = None
    if set(GROUND_COLUMNS) & set(table.columns):
        column, datum = height_column(table, "ground_alt_m", alt_datum)
        ground = table.numbers(column)
    return PointTable(
        table=table,
        frame=table.text("frame"),
        uv=np.stack([table.required("x_px"), table.required("y_px")], axis=1),
        sigma_px=table.numbers("sigma_px", 0.0),
        ground_alt_m=ground,
        ground_datum=cast("HeightDatum | None", datum),
    )


def write_points(path: str | Path, points: PointTable, ground: GroundPoints) -> None:
    """Writes an OUT table: the rows as they stand, then where they lie."""
    cov = ground.cov_total_m2
    height = COLUMN_OF_DATUM[ground.height_datum]
    numbers = {
        "lat_deg": (ground.lat_deg, 10),
        "lon_deg": (ground.lon_deg, 10),
        height: (ground.alt_m, 4),
        "var_e_m2": (cov[:, 0, 0], 6),
        "var_n_m2": (cov[:, 1, 1], 6),
        "cov_en_m2": (cov[:, 0, 1], 6),
        "ce90_m": (ce90_m(cov), 4),
    }
    added = (*numbers, "flags")
    kept = [i for i, name in enumerate(points.table.columns) if name not in added]
    values = np.array([column for column, _ in numbers.values()])
    decimals = [places for _, places in numbers.values()]
    joined = {flags: ";".join(flags) for flags in set(ground.flags)}
    with Path(path).open("w", newline="", encoding="utf-8") as stream:
        head = io.StringIO()
        csv.writer(head, lineterminator="").writerow([points.table.columns[i] for i in kept])
        stream.write(f"{head.getvalue()},{','.join(added)}\n")
        for start in range(0, len(ground.flags), LINES_AT_ONCE):
            some = slice(start, start + LINES_AT_ONCE)
            given = _lines([points.table.cells[i][some] for i in kept])
            told = [joined[flags] for flags in ground.flags[some]]
            stream.write("".join(_placed_lines(given, values[:, some], decimals, told)))


def _placed_lines(
    given: list[str], values: Floats, decimals: list[int], told: list[str]
) -> Iterable[str]:
    """Returns lines of OUT: the row as given, its numbers (empty where not finite), its flags."""
    if np.isfinite(values).all():
        form = "%s," + ",".join(f"%.{places}f" for places in decimals) + ",%s\n"
        return map(form.__mod__, zip(given, *values.tolist(), told, strict=True))
    forms = [f"%.{places}f" for places in decimals]
    cells = [
        ["" if math.isnan(value) else form % value for value in row]
        for form, row in zip(forms, values.tolist(), strict=True)
    ]
    return [",".join(row) + "\n" for row in zip(given, *cells, told, strict=True)]


def _lines(columns: list[Sequence[str]]) -> list[str]:
    """Returns rows of cells as CSV text, quoted where they must be."""
    lines = [",".join(row) for row in zip(*columns, strict=True)]
    together = "\n".join(lines)
    commas = len(lines) * (len(columns) - 1)
    plain = together.count(",") == commas and together.count("\n") == len(lines) - 1
    if plain and '"' not in together and "\r" not in together:
        return lines
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="")
    out = []
    for row in zip(*columns, strict=True):
        writer.writerow(row)
        out.append(text.getvalue())
        text.seek(0)
        text.truncate()
    return out
