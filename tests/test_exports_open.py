"""What Gossan writes, opened by others: GDAL's own programs, GeoJSON's rules, COG readers."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import pyogrio
import pytest
import rasterio
from bad_world import write_survey
from flights import write_flight
from rasterio.enums import MaskFlags
from shapely.geometry import shape

from groundsync.catalogue import SqliteCatalogue
from groundsync.ingest import ingest_flight

COUNTS = {"targets": 2, "ellipses": 2, "detections": 2, "gaps": 1, "coverage": 2}
"""Two flights of one track each, 50 m apart; both left the same part unseen."""


def gossan(*arguments: str | Path) -> str:
    """Returns what the command line says on stdout."""
    command = [sys.executable, "-m", "gossan", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def gdal(program: str, *arguments: str | Path) -> str:
    """Returns what one of GDAL's programs says; it may not warn."""
    if shutil.which(program) is None:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have {program} (gdal-bin)")
        pytest.skip(f"no {program}: install gdal-bin")
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "Warning" not in done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export folder of a small fused project, made by the commands."""
    folder = tmp_path_factory.mktemp("exports")
    project = folder / "project"
    catalogue = SqliteCatalogue(project)
    for name, at in (("one", (10.0, 10.0)), ("two", (50.0, 40.0))):
        ingest_flight(write_flight(folder / name, f"flight-{name}", at), project, catalogue)
    gossan("groundsync", "fuse", "--data", project, "--json")
    files = json.loads(gossan("groundsync", "export", "--data", project, "--json"))["files"]
    assert all(Path(name).is_file() for name in files)
    return project / "export"


def test_the_geopackage_opens_in_gdal(export: Path) -> None:
    path = export / "gossan.gpkg"
    layers = [str(name) for name, _ in pyogrio.list_layers(path)]
    assert set(COUNTS) <= set(layers)
    for layer, count in COUNTS.items():
        info = pyogrio.read_info(path, layer=layer)
        assert (layer, info["features"]) == (layer, count)
        assert info["crs"] == "EPSG:32611"
    said = gdal("ogrinfo", "-ro", "-so", "-al", path)
    found = Counter(line.split(": ")[1] for line in said.splitlines() if "Layer name" in line)
    assert set(COUNTS) <= set(found)
    assert said.count("Feature Count: 2") == list(COUNTS.values()).count(2)
    assert 'ID["EPSG",32611]' in said


def test_the_geopackage_is_a_whole_database_with_its_styles(export: Path) -> None:
    database = sqlite3.connect(f"file:{export / 'gossan.gpkg'}?mode=ro", uri=True)
    try:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        assert database.execute("PRAGMA application_id").fetchone() == (0x47504B47,)
        styled = database.execute("SELECT f_table_name FROM layer_styles").fetchall()
        contents = dict(database.execute("SELECT table_name, data_type FROM gpkg_contents"))
    finally:
        database.close()
    assert {name for (name,) in styled} == set(COUNTS)
    assert contents["layer_styles"] == "attributes"
    assert {contents[name] for name in COUNTS} == {"features"}


def no_constants(name: str) -> NoReturn:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize("layer", COUNTS)
def test_geojson_keeps_rfc_7946(export: Path, layer: str) -> None:
    text = (export / f"{layer}.geojson").read_text(encoding="utf-8")
    collection: dict[str, Any] = json.loads(text, parse_constant=no_constants)
    assert collection["type"] == "FeatureCollection"
    assert "crs" not in collection
    assert len(collection["features"]) == COUNTS[layer]
    for feature in collection["features"]:
        assert feature["type"] == "Feature"
        assert isinstance(feature["properties"], dict)
        geometry = shape(feature["geometry"])
        assert geometry.is_valid
        west, south, east, north = geometry.bounds
        assert -117.2 < west <= east < -117.18
        assert 37.52 < south <= north < 37.54
        for part in getattr(geometry, "geoms", [geometry]):
            if part.geom_type == "Polygon":
                assert part.exterior.is_ccw
                assert not any(ring.is_ccw for ring in part.interiors)
    said = gdal("ogrinfo", "-ro", "-so", "-al", export / f"{layer}.geojson")
    assert f"Feature Count: {COUNTS[layer]}" in said
    assert "4326" in said


@pytest.fixture(scope="module")
def orthos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Orthos of three frames at 5 cm, made by the command."""
    survey = write_survey(tmp_path_factory.mktemp("orthos") / "survey")
    options = ["--rig", "rig.toml", "--poses", "poses.csv", "--dem", "dem.tif"]
    paths = [survey / o if "." in o else o for o in options]
    where = ["--dem-datum", "ellipsoid", "--gsd", "0.05", "--out", survey / "orthos"]
    gossan("onboard", "ortho", survey / "frames", *paths, *where, "--json")
    return sorted((survey / "orthos").iterdir())


def test_orthos_are_cogs(orthos: list[Path]) -> None:
    assert [p.name for p in orthos] == ["f0.tif", "f1.tif", "f2.tif"]
    for path in orthos:
        with rasterio.open(path) as raster:
            assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert raster.profile["tiled"]
            assert raster.block_shapes == [(512, 512)] * 3
            assert min(raster.shape) > 900
            assert [raster.overviews(band)[0] for band in (1, 2, 3)] == [2, 2, 2]
            assert raster.mask_flag_enums == ([MaskFlags.per_dataset],) * 3
            assert raster.crs.to_epsg() == 32611
            assert raster.res == (0.05, 0.05)
            assert raster.tags()["GOSSAN_FRAME"] == f"{path.stem}.jpg"
            seen = raster.dataset_mask() > 0
            assert 0.9 < seen.mean() < 1.0
            assert (raster.read()[:, seen].max(axis=0) > 0).all()
        said = gdal("gdalinfo", "-checksum", path)
        assert "LAYOUT=COG" in said
        assert "Overviews of mask band" in said
        assert said.count("Checksum=") >= 3
