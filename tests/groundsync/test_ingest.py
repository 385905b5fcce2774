"""Ingest: copied whole, indexed, twice is once; damage is said, nothing is overwritten silently."""

from __future__ import annotations

from pathlib import Path

import pytest
from flights import write_flight

from groundsync.catalogue import SqliteCatalogue
from groundsync.errors import FlightConflictError
from groundsync.ingest import ingest_flight, ingest_received


def test_a_flight_is_copied_and_indexed_once(tmp_path: Path) -> None:
    source = write_flight(tmp_path / "card")
    project = tmp_path / "project"
    catalogue = SqliteCatalogue(project)
    first = ingest_flight(source, project, catalogue)
    revision = catalogue.revision()
    again = ingest_flight(source, project, catalogue)
    assert (first.changed, again.changed) == (True, False)
    assert catalogue.revision() == revision
    row = catalogue.flights()[0]
    assert (row.state, row.frames, row.placed, row.scanned) == ("complete", 1, 1, 1)
    assert (row.detections, row.tracks, row.alerts, row.note) == (1, 1, 1, "")
    assert (project / row.folder / "manifest.json").read_bytes() == (
        source / "manifest.json"
    ).read_bytes()


def test_a_flight_that_was_never_closed_is_closed_in_the_copy_alone(tmp_path: Path) -> None:
    source = write_flight(tmp_path / "card", close=False)
    project = tmp_path / "project"
    catalogue = SqliteCatalogue(project)
    row = ingest_flight(source, project, catalogue).row
    assert row.state == "complete"
    assert "not closed on board" in row.note
    assert not (source / "manifest.json").exists()
    assert not ingest_flight(source, project, catalogue).changed


def test_a_changed_file_is_found_by_its_hash(tmp_path: Path) -> None:
    source = write_flight(tmp_path / "card")
    (source / "flight.db").write_bytes((source / "flight.db").read_bytes() + b"x")
    project = tmp_path / "project"
    row = ingest_flight(source, project, SqliteCatalogue(project)).row
    assert row.state == "damaged"
    assert "flight.db" in row.note


def test_another_flight_of_the_same_name_is_refused(tmp_path: Path) -> None:
    project = tmp_path / "project"
    catalogue = SqliteCatalogue(project)
    ingest_flight(write_flight(tmp_path / "a"), project, catalogue)
    other = write_flight(tmp_path / "b", at=(40.0, 10.0))
    with pytest.raises(FlightConflictError, match="flight-1") as caught:
        ingest_flight(other, project, catalogue)
    assert "rename" in caught.value.hint


def test_an_interrupted_copy_is_done_again(tmp_path: Path) -> None:
    source = write_flight(tmp_path / "card")
    project = tmp_path / "project"
    part = project / "flights" / ".flight-1.part"
    part.mkdir(parents=True)
    (part / "half").write_bytes(b"half")
    catalogue = SqliteCatalogue(project)
    row = ingest_flight(source, project, catalogue).row
    assert not (project / row.folder / "half").exists()
    assert not part.exists()


def test_synced_flights_are_indexed_where_they_lie(tmp_path: Path) -> None:
    project = tmp_path / "project"
    write_flight(project / "flights", "f1")
    write_flight(project / "flights", "f2", close=False)
    catalogue = SqliteCatalogue(project)
    assert [item.row.flight_id for item in ingest_received(project, catalogue)] == ["f1"]
