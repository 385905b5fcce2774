"""The catalogue keeps what it is given, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gossan.errors import DamagedDataError
from groundsync.catalogue import FlightRow, PictureRow, SqliteCatalogue

FLIGHT = FlightRow("f1", "flights/f1", "complete", "ab" * 32, "EPSG:32611", "", "r", "m", frames=3)


def test_rows_and_documents_come_back_as_they_went_in(tmp_path: Path) -> None:
    catalogue = SqliteCatalogue(tmp_path)
    picture = PictureRow(
        "p", "Mosaic", "a.png", "a.tif", ((1.0, 2.0), (3.0, 2.0), (3.0, 1.0), (1.0, 1.0))
    )
    catalogue.put_flight(FLIGHT)
    catalogue.put_picture(picture)
    catalogue.put_document("targets", [{"rank": 1}])
    again = SqliteCatalogue(tmp_path)
    assert again.flights() == [FLIGHT]
    assert again.pictures() == [picture]
    assert again.document("targets") == [{"rank": 1}]
    assert again.document("none") is None


def test_twice_is_once_and_a_change_raises_the_revision(tmp_path: Path) -> None:
    catalogue = SqliteCatalogue(tmp_path)
    catalogue.put_flight(FLIGHT)
    revision = catalogue.revision()
    catalogue.put_flight(FLIGHT)
    assert catalogue.revision() == revision
    catalogue.put_flight(
        FlightRow(**{**{n: getattr(FLIGHT, n) for n in FLIGHT.__slots__}, "frames": 4})
    )
    assert catalogue.revision() > revision
    assert [row.frames for row in catalogue.flights()] == [4]


def test_a_damaged_catalogue_is_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "project.db").write_bytes(b"not a database, but long enough to be read" * 40)
    with pytest.raises(DamagedDataError, match=r"project\.db") as caught:
        SqliteCatalogue(tmp_path)
    assert "ingest" in caught.value.hint
