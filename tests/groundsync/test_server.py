"""The office's server: what the map reads, who may read it, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from flights import write_flight
from starlette.testclient import TestClient

from groundsync.catalogue import SqliteCatalogue
from groundsync.fuse import fuse
from groundsync.ingest import ingest_flight
from groundsync.publish import publish
from groundsync.receive import routes
from groundsync.server import LAYERS, create_app
from groundsync.settings import ProjectSettings


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one fused flight."""
    folder = tmp_path / "project"
    catalogue = SqliteCatalogue(folder)
    ingest_flight(write_flight(tmp_path / "card"), folder, catalogue)
    publish(fuse(folder, catalogue.flights(), ProjectSettings()).view, folder, catalogue)
    return folder


def test_the_map_gets_its_project_and_layers(project: Path) -> None:
    client = TestClient(create_app(project))
    described = client.get("/api/project").json()
    assert described["summary"].startswith("1 flight, 1 frames")
    assert described["alerts"] == ["IRON OXIDE 1"]
    west, south, east, north = described["bounds"]
    assert west < east
    assert south < north
    for layer in LAYERS:
        answer = client.get(f"/api/layers/{layer}.geojson").json()
        assert answer["type"] == "FeatureCollection"
    targets = client.get("/api/layers/targets.geojson").json()["features"]
    assert targets[0]["properties"]["class_name"] == "iron_oxide"


@pytest.mark.parametrize(
    "path",
    [
        "/api/layers/secret.geojson",
        "/api/pictures/none.png",
        "/chips/flight-1/none.jpg",
        "/chips/..%2f..%2fkeys/tokens.json",
        "/chips/flight-1/..%2fflight.db",
    ],
)
def test_what_is_not_there_is_not_served(project: Path, path: str) -> None:
    assert TestClient(create_app(project)).get(path).status_code == 404


def test_a_map_on_an_open_address_asks_for_its_token(project: Path) -> None:
    client = TestClient(create_app(project, map_token="right"), follow_redirects=True)
    assert client.get("/api/project").status_code == 401
    assert client.get("/api/project?token=wrong").status_code == 401
    assert client.get("/api/project?token=right").status_code == 200
    assert client.get("/api/project").status_code == 200, "the cookie is remembered"


def test_the_sync_endpoint_asks_for_a_drones_token_whatever_the_maps(project: Path) -> None:
    client = TestClient(create_app(project, routes(project), map_token="right"))
    answer = client.post("/sync/want", json={"flight_id": "f", "objects": []})
    assert answer.status_code == 401


def test_without_a_bundle_the_page_says_how_to_build_it(project: Path, tmp_path: Path) -> None:
    page = TestClient(create_app(project, bundle=tmp_path / "none")).get("/").text
    assert "hatch_build.py" in page
