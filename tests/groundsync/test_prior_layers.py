"""Layers on the grid: rasters warped, vectors burnt, distances, missing cells."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from pyproj import CRS
from rasterio import Affine
from shapely import LineString, Point, box

from gossan.errors import SettingsError
from groundsync.errors import GridError, LayerError, OccurrenceError
from groundsync.grid import ProjectGrid
from groundsync.prior.area import study_area, training
from groundsync.prior.layers import read_layer
from groundsync.prior.settings import Area, Layer, Occurrences, load_priors

UTM = CRS.from_epsg(32611)
GRID = ProjectGrid(UTM, 1000.0, 2000.0, 10.0, 20, 10)
ALL = np.ones(GRID.shape, dtype=bool)


def raster(path: Path, values: np.ndarray, *, nodata: float | None = None, crs: str = "x") -> Path:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype=values.dtype,
        count=1,
        height=values.shape[0],
        width=values.shape[1],
        crs=UTM.to_wkt() if crs == "x" else None,
        transform=Affine(10.0, 0.0, 1000.0, 0.0, -10.0, 2000.0),
        nodata=nodata,
    ) as data:
        data.write(values, 1)
    return path


def test_a_categorical_raster_keeps_its_codes(tmp_path: Path) -> None:
    values = np.full((10, 20), 7, dtype=np.int32)
    values[:, 10:] = 90001
    values[0, 0] = -1
    raster(tmp_path / "units.tif", values, nodata=-1)
    layer = Layer(name="units", path=Path("units.tif"), kind="categorical")
    classed = read_layer(layer, tmp_path, GRID, ALL)
    assert classed.labels == ("7", "90001")
    assert classed.codes[0, 0] == -1
    assert classed.codes[5, 9] == 0
    assert classed.codes[5, 10] == 1


def test_a_nodata_value_that_the_type_cannot_hold_masks_nothing(tmp_path: Path) -> None:
    values = np.full((10, 20), 241, dtype=np.uint8)
    raster(tmp_path / "u8.tif", values)
    layer = Layer(name="u", path=Path("u8.tif"), kind="categorical", nodata=-9999.0)
    assert (read_layer(layer, tmp_path, GRID, ALL).codes == 0).all()


def test_a_much_finer_raster_is_averaged_and_says_so(tmp_path: Path) -> None:
    """Cells of 40 m take the mean, or the most frequent code, of 16 pixels."""
    coarse = ProjectGrid(UTM, 1000.0, 2000.0, 40.0, 5, 2)
    rng = np.random.default_rng(2)
    values = rng.uniform(0, 1, (10, 20)).astype(np.float32)
    raster(tmp_path / "fine.tif", values)
    layer = Layer(name="f", path=Path("fine.tif"), kind="continuous", edges=(0.5,))
    classed = read_layer(layer, tmp_path, coarse, np.ones(coarse.shape, dtype=bool))
    means = values[:8].reshape(2, 4, 5, 4).mean(axis=(1, 3))
    assert (classed.codes == (means > 0.5)).all()
    assert "mean" in classed.notes[0]
    codes = np.full((10, 20), 3, dtype=np.int16)
    codes[::4, ::4] = 9
    codes[:4, :3] = -1
    raster(tmp_path / "codes.tif", codes, nodata=-1)
    layer = Layer(name="c", path=Path("codes.tif"), kind="categorical")
    assert read_layer(layer, tmp_path, coarse, np.ones((2, 5), dtype=bool)).labels == ("3",)


def test_measurements_are_no_classes(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 200, dtype=np.float32).reshape(10, 20)
    values[0, 0] = np.nan
    raster(tmp_path / "grav.tif", values)
    with pytest.raises(LayerError, match="fractions"):
        read_layer(Layer(name="g", path=Path("grav.tif"), kind="categorical"), tmp_path, GRID, ALL)
    raster(tmp_path / "codes.tif", np.where(np.isnan(values), values, 4).astype(np.float32))
    layer = Layer(name="g", path=Path("codes.tif"), kind="categorical")
    classed = read_layer(layer, tmp_path, GRID, ALL)
    assert classed.labels == ("4",)
    assert classed.codes[0, 0] == -1


def test_outside_a_raster_is_missing_not_zero(tmp_path: Path) -> None:
    raster(tmp_path / "small.tif", np.ones((5, 5), dtype=np.uint8))
    layer = Layer(name="small", path=Path("small.tif"), kind="categorical")
    classed = read_layer(layer, tmp_path, GRID, ALL)
    assert (classed.codes >= 0).sum() == 25
    assert classed.labels == ("1",)


def test_bins_of_equal_area_and_nan(tmp_path: Path) -> None:
    values = np.arange(200, dtype=np.float32).reshape(10, 20)
    values[0, :20] = np.nan
    raster(tmp_path / "grav.tif", values)
    layer = Layer(name="grav", path=Path("grav.tif"), kind="continuous", bins=4)
    classed = read_layer(layer, tmp_path, GRID, ALL)
    assert (classed.codes[0] == -1).all()
    assert np.bincount(classed.codes[1:].ravel()).tolist() == [45, 45, 45, 45]


def test_a_value_on_an_edge_belongs_below(tmp_path: Path) -> None:
    raster(tmp_path / "d.tif", np.full((10, 20), 100, dtype=np.int32))
    layer = Layer(name="d", path=Path("d.tif"), kind="continuous", edges=(100.0, 500.0))
    classed = read_layer(layer, tmp_path, GRID, ALL)
    assert classed.labels == ("<= 100", "100 to 500", "> 500")
    assert (classed.codes == 0).all()


def test_distance_to_a_line_also_outside_the_area(tmp_path: Path) -> None:
    line = LineString([(950.0, 0.0), (950.0, 4000.0)])
    geopandas.GeoDataFrame({"kind": ["fault"]}, geometry=[line], crs=UTM).to_file(
        tmp_path / "faults.gpkg"
    )
    layer = Layer(name="faults", path=Path("faults.gpkg"), kind="distance", edges=(75.0, 125.0))
    classed = read_layer(layer, tmp_path, GRID, ALL)
    metres = np.abs(GRID.centres()[0] - 950.0)
    expected = np.searchsorted([75.0, 125.0], metres)
    clear = (np.abs(metres - 75.0) > 10.0) & (np.abs(metres - 125.0) > 10.0)
    assert (classed.codes[3][clear] == expected[clear]).all()
    assert classed.notes


def test_polygons_by_attribute_in_another_crs(tmp_path: Path) -> None:
    shapes = [box(1000, 1900, 1100, 2000), box(1100, 1900, 1150, 2000)]
    frame = geopandas.GeoDataFrame({"unit": ["schist", "granite"]}, geometry=shapes, crs=UTM)
    frame.to_crs(4326).to_file(tmp_path / "geology.geojson")
    layer = Layer(
        name="geology", path=Path("geology.geojson"), kind="categorical", attribute="unit"
    )
    classed = read_layer(layer, tmp_path, GRID, ALL)
    assert classed.labels == ("granite", "schist")
    assert classed.codes[5, 0] == 1
    assert classed.codes[5, 12] == 0
    assert classed.codes[5, 17] == -1


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        pytest.param("gone.tif", "continuous", "no file", id="missing-file"),
        pytest.param("nocrs.tif", "continuous", "no CRS", id="no-crs"),
        pytest.param("ok.tif", "distance", "raster", id="raster-as-distance"),
        pytest.param("lines.gpkg", "continuous", "no raster", id="vector-as-continuous"),
        pytest.param("lines.gpkg", "categorical", "attribute", id="no-attribute"),
    ],
)
def test_unusable_layers_say_what_to_do(tmp_path: Path, name: str, kind: str, said: str) -> None:
    raster(tmp_path / "ok.tif", np.ones((10, 20), dtype=np.float32))
    raster(tmp_path / "nocrs.tif", np.ones((10, 20), dtype=np.float32), crs="")
    line = LineString([(1000.0, 1900.0), (1100.0, 2000.0)])
    geopandas.GeoDataFrame(geometry=[line], crs=UTM).to_file(tmp_path / "lines.gpkg")
    layer = Layer(name="layer", path=Path(name), kind=kind)
    with pytest.raises(LayerError) as caught:
        read_layer(layer, tmp_path, GRID, ALL)
    assert said in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint


def test_occurrences_are_counted_and_those_outside_too(tmp_path: Path) -> None:
    points = [Point(1005 + 10 * i, 1995) for i in range(6)] + [Point(1005, 1994), Point(0, 0)]
    geopandas.GeoDataFrame(geometry=points, crs=UTM).to_file(tmp_path / "points.gpkg")
    found = training(Occurrences(path=Path("points.gpkg")), tmp_path, GRID, ALL)
    assert (found.used, found.outside, found.shared) == (7, 1, 1)
    assert found.count[0, 0] == 2


def test_occurrences_from_csv_in_degrees(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame(
        geometry=[Point(1005 + 10 * i, 1955) for i in range(5)], crs=UTM
    ).to_crs(4326)
    rows = "\n".join(f"{p.y:.9f},{p.x:.9f}" for p in frame.geometry)
    (tmp_path / "points.csv").write_text(f"lat_deg,lon_deg\n{rows}\n")
    found = training(Occurrences(path=Path("points.csv")), tmp_path, GRID, ALL)
    assert found.count[4, :5].tolist() == [1] * 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("name,x\na,1\n", "name, x", id="no-coordinates"),
        pytest.param("x_m,y_m\n1005,here\n", "line 2: y_m = 'here'", id="no-number"),
    ],
)
def test_bad_tables_of_occurrences_say_where(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(OccurrenceError, match=said):
        training(Occurrences(path=Path("points.csv")), tmp_path, GRID, ALL)


def test_too_few_occurrences_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("x_m,y_m\n1005,1995\n")
    with pytest.raises(OccurrenceError, match="1 of 1"):
        training(Occurrences(path=Path("points.csv")), tmp_path, GRID, ALL)


def test_the_area_is_cut_by_its_polygon(tmp_path: Path) -> None:
    geopandas.GeoDataFrame(geometry=[box(1000, 1950, 1200, 2000)], crs=UTM).to_file(
        tmp_path / "area.gpkg"
    )
    area = Area(crs="EPSG:32611", cell_m=10.0, polygon=Path("area.gpkg"))
    grid, studied = study_area(area, tmp_path)
    assert grid.shape == (5, 20)
    assert studied.all()


def test_a_raster_gives_its_grid_if_its_cells_are_square(tmp_path: Path) -> None:
    values = np.ones((10, 20), dtype=np.uint8)
    values[2, 3] = 0
    raster(tmp_path / "like.tif", values, nodata=0)
    _, studied = study_area(Area(like=Path("like.tif"), mask=True), tmp_path)
    assert np.argwhere(~studied).tolist() == [[2, 3]]
    grid, studied = study_area(Area(like=Path("like.tif")), tmp_path)
    assert studied.all()
    assert (grid.x0, grid.y0, grid.cell_m, grid.shape) == (1000.0, 2000.0, 10.0, (10, 20))
    with pytest.raises(GridError, match="cannot read"):
        study_area(Area(like=Path("gone.tif")), tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("[area]\ncrs='EPSG:32611'\n", "'like'", id="half-an-area"),
        pytest.param("[area]\nlike='a.tif'\nbins=3\n", "bins", id="unknown-key"),
        pytest.param(
            "[[layers]]\nname='a'\npath='a.tif'\nkind='contineous'\n", "kind", id="wrong-kind"
        ),
        pytest.param(
            "[[surface]]\nclass='iron'\np_given_deposit=0.1\np_given_barren=0.2\n",
            "below",
            id="surface-turned-round",
        ),
    ],
)
def test_priors_toml_is_checked(tmp_path: Path, text: str, said: str) -> None:
    whole = {
        "[area]": "[area]\nlike='a.tif'\n",
        "[occurrences]": "[occurrences]\npath='p.gpkg'\n",
        "[[layers]]": "[[layers]]\nname='x'\npath='x.tif'\nkind='categorical'\n",
    }
    parts = [part for head, part in whole.items() if head not in text]
    (tmp_path / "priors.toml").write_text("".join(parts) + text)
    with pytest.raises(SettingsError) as caught:
        load_priors(tmp_path / "priors.toml")
    assert said in f"{caught.value} {caught.value.hint}"
