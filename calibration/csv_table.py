"""CSV tables: named columns, cells checked as numbers, errors that name line and value."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.errors import TableError
from calibration.geodesy import HEIGHT_DATUMS

Floats = NDArray[np.float64]

HEIGHT_COLUMNS: dict[str, str] = {
    "alt_m_ellipsoid": "ellipsoid",
    "alt_m_geoid": "egm96",
    "alt_m_egm2008": "egm2008",
    "alt_m_takeoff": "takeoff",
    "alt_m_same": "same",
}
COLUMN_OF_DATUM = {datum: column for column, datum in HEIGHT_COLUMNS.items()}


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A CSV file, column by column.

    Attributes:
        path: The file.
        columns: Names of the columns.
        cells: The stripped cells of each column, in order of the rows.
        lines: The line that each row stands on.
    """

    path: Path
    columns: tuple[str, ...]
    cells: tuple[Sequence[str], ...]
    lines: Sequence[int]

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.lines)

    def text(self, column: str) -> tuple[str, ...]:
        """Returns a column's cells, stripped.

        Raises:
            TableError: There is no such column; the message names the nearest.
        """
        if column not in self.columns:
            near = difflib.get_close_matches(column, self.columns, n=1, cutoff=0.75)
            hint = (
                f"did you mean '{near[0]}'?" if near else f"its columns: {', '.join(self.columns)}"
            )
            raise TableError(f"{self.path} has no column '{column}'", hint)
        return tuple(self.cells[self.columns.index(column)])

    def numbers(self, column: str, low: float = -np.inf, high: float = np.inf) -> Floats:
        """Returns a column as (n,) numbers, NaN where a cell is empty or the column is absent.

        Raises:
            TableError: A cell is no finite number between ``low`` and ``high``.
        """
        out = np.full(len(self), np.nan)
        if column not in self.columns:
            return out
        cells = self.text(column)
        try:
            quick = np.fromiter(map(float, cells), np.float64, len(cells))
        except ValueError:
            quick = out
        if (np.isfinite(quick) & (quick >= low) & (quick <= high)).all():
            return quick
        for i, cell in enumerate(cells):
            if cell:
                out[i] = self._number(column, i, cell, low, high)
        return out

    def required(self, column: str, low: float = -np.inf, high: float = np.inf) -> Floats:
        """Returns a column as (n,) numbers, none of which may be missing."""
        self.text(column)
        out = self.numbers(column, low, high)
        for i in np.flatnonzero(np.isnan(out))[:1]:
            raise TableError(
                f"{self.path}, line {self.lines[i]}: '{column}' is empty", "fill it or drop the row"
            )
        return out

    def _number(self, column: str, i: int, cell: str, low: float, high: float) -> float:
        try:
            value = float(cell)
        except ValueError:
            value = np.nan
        if not np.isfinite(value) or not low <= value <= high:
            limits = "" if np.isinf(low) and np.isinf(high) else f" from {low:g} to {high:g}"
            raise TableError(
                f"{self.path}, line {self.lines[i]}: {column} = {cell!r}",
                f"a finite number{limits} belongs there",
            )
        return value


def read_csv(path: str | Path) -> CsvTable:
    """Returns a CSV file with a header line; empty lines are left out.

    Raises:
        TableError: It cannot be read, is empty, or a row has more cells than the header.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            text = stream.read()
        rows = None if _is_plain(text) else _rows(text)
    except OSError as error:
        raise TableError(f"cannot read {path}: {error.strerror}", "check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path} is no CSV text: {error}", "save it as UTF-8 CSV") from error
    if rows is None:
        columns = tuple(text.partition("\n")[0].split(","))
        _check_names(path, columns)
        flat = text.strip("\n").replace("\n", ",").split(",")
        k = len(columns)
        cells = tuple(flat[k + i :: k] for i in range(k))
        return CsvTable(path, columns, cells, range(2, 2 + len(cells[0])))
    if not rows:
        raise TableError(f"{path} is empty", "its first line names the columns")
    columns = tuple(cell.strip() for cell in rows[0][1])
    _check_names(path, columns)
    k = len(columns)
    padded = []
    for line, row in rows[1:]:
        if len(row) > k and any(cell.strip() for cell in row[k:]):
            raise TableError(
                f"{path}, line {line}: {len(row)} cells, the header has {k}",
                "check for a comma inside a name or number",
            )
        padded.append([cell.strip() for cell in row[:k]] + [""] * (k - len(row)))
    cells = tuple([row[i] for row in padded] for i in range(k))
    return CsvTable(path, columns, cells, tuple(line for line, _ in rows[1:]))


def _check_names(path: Path, columns: tuple[str, ...]) -> None:
    doubled = [name for name in columns if name and columns.count(name) > 1]
    if doubled:
        raise TableError(f"{path} has the column '{doubled[0]}' twice", "keep one of them")


def _is_plain(text: str) -> bool:
    """Returns whether every line has as many cells as the first, none quoted, padded or wrapped.

    Such a file can be taken apart as a whole, many times faster.
    """
    body = text.strip("\n")
    if not body or body != text.rstrip("\n") or "\n\n" in body:
        return False
    if any(sign.isspace() and sign != "\n" for sign in set(body)) or '"' in body or "\0" in body:
        return False
    lines = body.split("\n")
    commas = lines[0].count(",")
    return all(line.count(",") == commas for line in lines)


def _rows(text: str) -> list[tuple[int, list[str]]]:
    """Returns the lines that are not empty, with their numbers, as cells."""
    reader = csv.reader(io.StringIO(text, newline=""))
    return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]


def height_column(table: CsvTable, stem: str, alt_datum: str | None) -> tuple[str, str]:
    """Returns the one height column of a table and what its heights are above.

    Args:
        table: The table.
        stem: What the column's name begins with, ``alt_m`` or ``ground_alt_m``.
        alt_datum: The datum of a column that does not say its own.

    Raises:
        TableError: There is none, or more than one, or its datum is not known.
    """
    prefix = stem.removesuffix("alt_m")
    known = {prefix + name: datum for name, datum in HEIGHT_COLUMNS.items()}
    known[stem] = alt_datum or ""
    found = [name for name in known if name in table.columns]
    if len(found) != 1:
        what = "no height column" if not found else f"several height columns: {', '.join(found)}"
        raise TableError(
            f"{table.path} has {what}", f"one of {', '.join(list(known)[:-1])} belongs there"
        )
    datum = known[found[0]]
    if datum == "same" and alt_datum:
        datum = alt_datum
    if not datum:
        raise TableError(
            f"the heights '{found[0]}' of {table.path} do not say what they are above",
            f"name it: --alt-datum {'|'.join(HEIGHT_DATUMS)}",
        )
    return found[0], datum
