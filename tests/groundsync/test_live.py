"""A flight that is still arriving is on the map already."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flights import detections, square, track, write_flight
from starlette.testclient import TestClient

from groundsync.bindings import Binding, Bindings
from groundsync.blobs import Blobs
from groundsync.live import LiveFlights
from groundsync.server import create_app
from onboard.keep import rows
from onboard.records import Alert, Footprint


def arrive(project: Path, number: int, *sent: tuple[str, dict[str, object]]) -> None:
    """Lets a bundle of rows arrive as the sync endpoint lays it."""
    body = "".join(json.dumps({"kind": kind, "row": row}) + "\n" for kind, row in sent).encode()
    blobs = Blobs(project / "objects")
    bindings = Bindings(project, blobs)
    item = Binding("f1", f"rows/{number:06d}.jsonl", blobs.put(body), len(body), "rows")
    bindings.claim("f1", "drone")
    bindings.bind([item])
    assert bindings.lay(item)
    bindings.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project into which a flight's first bundle of rows has arrived."""
    project = tmp_path / "project"
    write_flight(project / "flights", "f1", close=False)
    arrive(
        project,
        0,
        ("footprint", rows.footprint_row(Footprint("a.jpg", square(0, 0, 40), (), 0.1))),
        ("detections", rows.detections_row(detections("a.jpg", 10.0, 10.0))),
        ("track", rows.track_row(track(1, 10.0, 10.0))),
        ("alert", rows.flat_row(Alert(1, 1, 5, 4, "IRON OXIDE 1"))),
    )
    return project


def test_what_has_arrived_is_shown(project: Path) -> None:
    client = TestClient(create_app(project))
    described = client.get("/api/project").json()
    assert "f1: 1 frames, 1 tracks, arriving now" in described["summary"]
    assert described["alerts"] == ["IRON OXIDE 1"]
    assert len(client.get("/api/layers/coverage.geojson").json()["features"]) == 1
    (found,) = client.get("/api/layers/detections.geojson").json()["features"]
    assert found["properties"]["class_name"] == "iron_oxide"
    assert found["geometry"]["coordinates"] == pytest.approx([-117.19, 37.53], abs=1e-3)


def test_later_rows_are_read_on_and_replace_earlier_ones(project: Path) -> None:
    live = LiveFlights(project)
    before = live.state(exclude=[])
    later = rows.footprint_row(Footprint("a.jpg", square(0, 0, 80), (), 0.1))
    arrive(project, 1, ("footprint", later))
    after = live.state(exclude=[])
    assert after.revision != before.revision
    assert len(live.features("coverage", exclude=[])) == 1
    assert after.bounds is not None
    assert before.bounds is not None
    assert after.bounds[2] > before.bounds[2]


def test_a_row_that_cannot_be_read_is_left_out_and_the_rest_shown(project: Path) -> None:
    arrive(project, 1, ("track", {"no": "track"}))
    state = LiveFlights(project).state(exclude=[])
    assert "1 tracks" in state.summary


def test_a_fused_flight_is_no_longer_live(project: Path) -> None:
    assert LiveFlights(project).state(exclude=["f1"]).summary == ""
