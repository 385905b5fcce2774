"""Exports: open in GDAL, follow RFC 7946, and twice is once."""

from __future__ import annotations

import csv
import importlib.util
import json
import sqlite3
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import geopandas
import numpy as np
import pyogrio
import pytest
from shapely.geometry import shape

from groundsync.errors import ExportError
from groundsync.export.csv import write_csv
from groundsync.export.geojson import write_geojson
from groundsync.export.gpkg import write_gpkg
from groundsync.export.rows import ellipse_polygon

LAYERS = ["targets", "ellipses", "detections", "gaps", "coverage"]


def _beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


made = _beside("project_view")


def test_the_geopackage_opens_with_every_layer(tmp_path: Path) -> None:
    path = write_gpkg(made.project(), tmp_path / "p.gpkg")
    assert [name for name, _ in pyogrio.list_layers(path)][:5] == LAYERS
    targets = geopandas.read_file(path, layer="targets")
    assert targets["rank"].tolist() == [1, 2, 3]
    assert targets.crs.to_epsg() == 32611
    assert targets.geometry.x.tolist() == pytest.approx(targets["x_m"].tolist(), abs=1e-3)
    assert not targets["calibrated"].all()
    assert targets["before_next"][0].startswith("rank 1 before rank 2")
    gaps = geopandas.read_file(path, layer="gaps")
    assert gaps.geometry.area.tolist() == pytest.approx(gaps["area_m2"].tolist())
    assert [p.name for p in tmp_path.iterdir()] == ["p.gpkg"]


def test_an_empty_project_still_has_its_layers_and_fields(tmp_path: Path) -> None:
    path = write_gpkg(made.project(empty=True), tmp_path / "p.gpkg")
    for layer in LAYERS:
        info = pyogrio.read_info(path, layer=layer)
        assert info["features"] == 0
        assert len(info["fields"]) >= 3
        assert "32611" in info["crs"]
    write_geojson(made.project(empty=True), tmp_path)
    assert json.loads((tmp_path / "targets.geojson").read_text())["features"] == []


def test_styles_are_inside_and_name_every_class(tmp_path: Path) -> None:
    path = write_gpkg(made.project(), tmp_path / "p.gpkg")
    with sqlite3.connect(path) as database:
        rows = database.execute(
            "SELECT f_table_name, f_geometry_column, styleQML, useAsDefault FROM layer_styles"
        ).fetchall()
        geometry = dict(
            database.execute("SELECT table_name, column_name FROM gpkg_geometry_columns")
        )
    database.close()
    assert [row[0] for row in rows] == LAYERS
    for layer, column, qml, default in rows:
        root = ElementTree.fromstring(qml)
        assert root.tag == "qgis"
        assert root.find("renderer-v2") is not None
        assert geometry[layer] == column
        assert default == 1
    targets = ElementTree.fromstring(rows[0][2])
    assert [c.get("value") for c in targets.iter("category")] == ["bleached_quartz", "iron_oxide"]
    assert len({s.get("name") for s in targets.iter("symbol")}) == 2


def test_twice_is_once(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        for _ in range(2):
            write_gpkg(made.project(), folder / "p.gpkg")
            write_geojson(made.project(), folder)
            write_csv(made.project(), folder)
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert len(names) == 8
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_geojson_follows_its_standard(tmp_path: Path) -> None:
    paths = write_geojson(made.project(), tmp_path)
    assert [p.name for p in paths] == [f"{name}.geojson" for name in LAYERS]
    for path in paths:
        collection = json.loads(path.read_text())
        assert collection["type"] == "FeatureCollection"
        assert "crs" not in collection
        for feature in collection["features"]:
            geometry = shape(feature["geometry"])
            left, bottom, right, top = geometry.bounds
            assert -118 < left <= right < -116
            assert 37 < bottom <= top < 38
            for part in getattr(geometry, "geoms", [geometry]):
                if part.geom_type == "Polygon":
                    assert part.exterior.is_ccw
                    assert not any(ring.is_ccw for ring in part.interiors)
    coverage = json.loads(paths[-1].read_text())["features"]
    assert len(coverage[0]["geometry"]["coordinates"]) == 2, "the hole stays"


def test_geojson_targets_carry_reasons_and_evidence_as_lists(tmp_path: Path) -> None:
    write_geojson(made.project(), tmp_path)
    features = json.loads((tmp_path / "targets.geojson").read_text())["features"]
    both = next(f["properties"] for f in features if len(f["properties"]["flights"]) == 2)
    assert [e["flight_id"] for e in both["evidence"]] == ["20260401-a", "20260402-b"]
    assert any("uncalibrated" in reason for reason in both["reasons"])
    assert both["looks"] == 10


def test_csv_holds_the_same_numbers(tmp_path: Path) -> None:
    view = made.project()
    write_csv(view, tmp_path)
    with (tmp_path / "targets.csv").open() as text:
        rows = list(csv.DictReader(text))
    for row, one in zip(rows, view.targets, strict=True):
        cov = one.target.cov_total_m2
        assert float(row["var_e_m2"]) == cov[0, 0]
        assert float(row["cov_en_m2"]) == cov[0, 1]
        assert float(row["lat_deg"]) == pytest.approx(one.target.lat_deg, abs=1e-9)
        assert row["calibrated"] == str(int(one.target.calibrated))


def test_the_ellipse_is_where_chi_square_says() -> None:
    """Every point of the outline lies 4.605 from the centre in the covariance, true axes."""
    one = made.project().targets[0]
    outline = np.asarray(ellipse_polygon(one, made.FRAME).exterior.coords)
    lat, lon = made.FRAME.to_geographic(one.target.x_m, one.target.y_m)
    local = made.FRAME.local(lat, lon)
    dx, dy = made.FRAME.offset(local, np.array([1.0, 0.0]), np.array([0.0, 1.0]), 1500.0)
    to_map = np.array([dx, dy])
    true = np.linalg.solve(to_map, (outline - [one.target.x_m, one.target.y_m]).T)
    d2 = np.einsum("in,ij,jn->n", true, np.linalg.inv(one.target.cov_total_m2), true)
    assert np.allclose(d2, 4.60517, rtol=1e-4)


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for write in (write_geojson, write_csv):
        with pytest.raises(ExportError):
            write(made.project(), tmp_path / "file")
    with pytest.raises(ExportError):
        write_gpkg(made.project(), tmp_path / "file" / "p.gpkg")
