"""The ledger as a file: round trip, same bytes, damage is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyproj import CRS
from shapely import box

from groundsync.errors import LedgerError
from groundsync.grid import ProjectGrid
from groundsync.ledger import Ledger, Sensor, Sighting, visit
from groundsync.ledger_file import read_ledger, write_ledger

GRID = ProjectGrid(CRS.from_epsg(32611), 0.0, 100.0, 10.0, 10, 10)


def ledger(order: int = 1) -> Ledger:
    made = Ledger()
    for name in ("f1", "f2", "f3")[::order]:
        sensor = Sensor("abc", "iron_oxide", 0.8, 5.0)
        made.put(visit(GRID, name, sensor, [box(0, 0, 55, 100)], [Sighting(5, 5, np.eye(2))]))
    made.put(visit(GRID, "f9", Sensor("d", "quartz", 0.5, 1.0), [], []))
    return made


def test_what_is_written_is_read(tmp_path: Path) -> None:
    before = ledger()
    after, grid = read_ledger(write_ledger(before, GRID, tmp_path / "ledger.npz"))
    assert (grid.x0, grid.y0, grid.cell_m, grid.shape) == (0.0, 100.0, 10.0, (10, 10))
    assert grid.crs.equals(GRID.crs)
    assert list(after.visits) == sorted(before.visits)
    for key, was in before.visits.items():
        now = after.visits[key]
        assert np.array_equal(was.cells, now.cells)
        assert now.detected.dtype == bool
        assert was.undecided == now.undecided
    total = before.total("iron_oxide", 100)
    assert after.total("iron_oxide", 100).tobytes() == total.tobytes()


def test_the_order_of_filing_does_not_show(tmp_path: Path) -> None:
    one = write_ledger(ledger(1), GRID, tmp_path / "a.npz").read_bytes()
    assert write_ledger(ledger(-1), GRID, tmp_path / "b.npz").read_bytes() == one


def test_an_empty_ledger_is_a_ledger(tmp_path: Path) -> None:
    after, _ = read_ledger(write_ledger(Ledger(), GRID, tmp_path / "ledger.npz"))
    assert after.visits == {}


@pytest.mark.parametrize(
    "content", [pytest.param(b"", id="empty"), pytest.param(b"PK\3\4x", id="cut")]
)
def test_damage_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.npz"
    path.write_bytes(content)
    with pytest.raises(LedgerError):
        read_ledger(path)
    with pytest.raises(LedgerError):
        read_ledger(tmp_path / "gone.npz")
