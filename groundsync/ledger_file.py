"""The ledger as a file: ``ledger.npz``, plain numpy arrays, no pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS

from groundsync.errors import LedgerError
from groundsync.export.files import replace_file
from groundsync.grid import ProjectGrid
from groundsync.ledger import Ledger, Visit, VisitKey

SCHEMA = 1


def write_ledger(ledger: Ledger, grid: ProjectGrid, path: Path) -> Path:
    """Writes a ledger and the grid that its cells count on; the same ledger gives the same bytes.

    Raises:
        ExportError: The file cannot be written.
    """
    keys = sorted(ledger.visits)
    visits = [ledger.visits[key] for key in keys]
    file = BytesIO()
    np.savez_compressed(
        file,
        schema=np.int64(SCHEMA),
        crs=np.array(grid.crs.to_wkt()),
        grid=np.array([grid.x0, grid.y0, grid.cell_m, grid.width, grid.height], dtype=np.float64),
        keys=np.array([list(key) for key in keys], dtype=str).reshape(len(keys), 3),
        length=np.array([len(v.cells) for v in visits], dtype=np.int64),
        undecided=np.array([v.undecided for v in visits], dtype=np.int64),
        cells=_joined([v.cells for v in visits], np.int64),
        fraction=_joined([v.fraction for v in visits], np.float64),
        detected=_joined([v.detected for v in visits], np.bool_),
        llr=_joined([v.llr for v in visits], np.float64),
    )
    replace_file(path, file.getvalue())
    return path


def read_ledger(path: Path) -> tuple[Ledger, ProjectGrid]:
    """Returns the ledger and its grid.

    Raises:
        LedgerError: The file is missing, damaged, or of a later version.
    """
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as file:
            if int(file["schema"]) > SCHEMA:
                raise LedgerError(f"{path} is of version {int(file['schema'])}", "update Gossan")
            x0, y0, cell_m, width, height = file["grid"].tolist()
            crs = CRS.from_wkt(str(file["crs"]))
            grid = ProjectGrid(crs, x0, y0, cell_m, int(width), int(height))
            cuts = np.cumsum(file["length"])[:-1]
            columns = [np.split(file[n], cuts) for n in ("cells", "fraction", "detected", "llr")]
            ledger = Ledger()
            for i, key in enumerate(file["keys"]):
                cells, fraction, detected, llr = (column[i] for column in columns)
                left_out = int(file["undecided"][i])
                flight, sensor, name = (str(part) for part in key)
                ledger.put(
                    Visit(VisitKey(flight, sensor, name), cells, fraction, detected, llr, left_out)
                )
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise LedgerError(
            f"{path} is no ledger: {error}", "run gossan groundsync fuse again"
        ) from error
    return ledger, grid


def _joined(parts: Sequence[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)
