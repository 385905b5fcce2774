"""The POINTS and OUT tables of geotag: pixels in, ground points out (docs/formats/points.md)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from calibration.csv_table import COLUMN_OF_DATUM, CsvTable, height_column, read_csv
from onboard.place.ellipses import ce90_m
from onboard.records import Floats, GroundPoints, HeightDatum

GROUND_COLUMNS = tuple(f"ground_{column}" for column in (*COLUMN_OF_DATUM.values(), "alt_m"))


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
    ground = np.full(len(table.rows), np.nan)
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
    added = {
        "lat_deg": _cells(ground.lat_deg, 10),
        "lon_deg": _cells(ground.lon_deg, 10),
        COLUMN_OF_DATUM[ground.height_datum]: _cells(ground.alt_m, 4),
        "var_e_m2": _cells(cov[:, 0, 0], 6),
        "var_n_m2": _cells(cov[:, 1, 1], 6),
        "cov_en_m2": _cells(cov[:, 0, 1], 6),
        "ce90_m": _cells(ce90_m(cov), 4),
        "flags": [";".join(flags) for flags in ground.flags],
    }
    kept = [i for i, name in enumerate(points.table.columns) if name not in added]
    with Path(path).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*(points.table.columns[i] for i in kept), *added])
        for row, *cells in zip(points.table.rows, *added.values(), strict=True):
            writer.writerow([*(row[i] for i in kept), *cells])


def _cells(values: Floats, decimals: int) -> list[str]:
    return ["" if np.isnan(v) else f"{v:.{decimals}f}" for v in values]
