"""The prior geology of a simulated district: layers, training occurrences and priors.toml."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import rasterio
import tomlkit
from numpy.typing import NDArray
from rasterio.features import shapes

from calibration.geodesy import MapFrame
from onboard.simulator.family import CLASSES
from onboard.simulator.geology import UNITS, Geology
from onboard.simulator.given_dem import corner_transform
from onboard.simulator.noise import Window
from onboard.simulator.world import MAP_EPSG, World

Floats = NDArray[np.float64]

CELL_M = 25.0
SIDE_M = 4000.0
OCCURRENCES = 60
CLEAR_M = 300.0
"""No training occurrence lies nearer to the survey than this."""


def write_priors(
    folder: Path,
    world: World,
    map_frame: MapFrame,
    survey_m: tuple[float, float, float, float],
    rng: np.random.Generator,
) -> None:
    """Writes ``priors.toml`` and its layers: what an earlier mapping of the district knew.

    Args:
        folder: Where to.
        world: Whose geology.
        map_frame: Its map.
        survey_m: West, south, east, north of the survey, kept free of training occurrences.
        rng: Draws the occurrences.
    """
    folder.mkdir(parents=True, exist_ok=True)
    geology = world.geology
    x, y = world.centre_xy_m
    cells = int(SIDE_M / CELL_M)
    window = Window(x - SIDE_M / 2 + CELL_M / 2, y + SIDE_M / 2 - CELL_M / 2, CELL_M, cells, cells)
    _write_lithology(folder / "lithology.geojson", geology, window, map_frame)
    _write_fault_distance(folder / "fault_distance_m.tif", geology, window)
    _write_occurrences(folder / "occurrences.csv", geology, window, survey_m, rng)
    bounds = [x - SIDE_M / 2, y - SIDE_M / 2, x + SIDE_M / 2, y + SIDE_M / 2]
    said = {"date": "2019-05-01", "licence": "Apache-2.0 (simulated)"}
    lithology = {"name": "lithology", "path": "lithology.geojson", "kind": "categorical"}
    faults = {"name": "distance_to_fault", "path": "fault_distance_m.tif", "kind": "continuous"}
    document = {
        "name": f"Simulated district {world.seed}",
        "area": {
            "crs": f"EPSG:{MAP_EPSG}",
            "cell_m": CELL_M,
            "bounds_m": bounds,
            "unit_cell_km2": 0.01,
        },
        "occurrences": {"path": "occurrences.csv", **said},
        "layers": [
            {**lithology, "attribute": "unit", **said},
            {**faults, "edges": [25.0, 60.0, 120.0, 240.0, 480.0], **said},
        ],
        "surface": [
            {
                "class": name,
                "p_given_deposit": 0.5,
                "p_given_barren": 0.03,
                "source": "the simulator's stated numbers",
            }
            for name in CLASSES[1:]
        ],
        "model": {"folds": 5, "block_km": 0.8, "seed": 1},
    }
    (folder / "priors.toml").write_text(tomlkit.dumps(document), encoding="utf-8")


def _write_lithology(path: Path, geology: Geology, window: Window, map_frame: MapFrame) -> None:
    """Writes the units as polygons in WGS84; mapped at a third of the cell, so edges differ."""
    fine = Window(
        window.x0_m - window.gsd_m / 3,
        window.y0_m + window.gsd_m / 3,
        window.gsd_m / 3,
        window.width * 3,
        window.height * 3,
    )
    index = geology.unit_index(fine).astype(np.uint8)
    corner = corner_transform(fine)
    features = []
    for geometry, value in shapes(index, transform=corner):
        rings = []
        for ring in geometry["coordinates"]:
            xy = np.array(ring)
            lat, lon = map_frame.to_geographic(xy[:, 0], xy[:, 1])
            rings.append(
                [[round(float(a), 8), round(float(b), 8)] for a, b in zip(lon, lat, strict=True)]
            )
        features.append(
            {
                "type": "Feature",
                "properties": {"unit": UNITS[int(value)]},
                "geometry": {"type": "Polygon", "coordinates": rings},
            }
        )
    text = json.dumps({"type": "FeatureCollection", "features": features})
    path.write_text(text, encoding="utf-8")


def _write_fault_distance(path: Path, geology: Geology, window: Window) -> None:
    x, y = np.meshgrid(window.x_m, window.y_m)
    profile = {
        "driver": "GTiff",
        "width": window.width,
        "height": window.height,
        "count": 1,
        "dtype": "float32",
        "crs": f"EPSG:{MAP_EPSG}",
        "transform": corner_transform(window),
        "nodata": -1.0,
        "compress": "deflate",
    }
    with rasterio.open(path, "w", **profile) as out:
        out.write(geology.fault_distance_m(x, y).astype(np.float32), 1)


def _write_occurrences(
    path: Path,
    geology: Geology,
    window: Window,
    survey_m: tuple[float, float, float, float],
    rng: np.random.Generator,
) -> None:
    """Writes occurrences drawn as often as the geology favours them, away from the survey."""
    favour = geology.favour_in(window)
    x, y = np.meshgrid(window.x_m, window.y_m)
    west, south, east, north = survey_m
    near = (x > west - CLEAR_M) & (x < east + CLEAR_M)
    near &= (y > south - CLEAR_M) & (y < north + CLEAR_M)
    chance = np.where(near, 0.0, favour).ravel()
    cells = rng.choice(chance.size, OCCURRENCES, replace=False, p=chance / chance.sum())
    spread = rng.uniform(-window.gsd_m / 2, window.gsd_m / 2, (OCCURRENCES, 2))
    with path.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["x_m", "y_m"])
        for cell, (dx, dy) in zip(cells, spread, strict=True):
            table.writerow([f"{x.ravel()[cell] + dx:.1f}", f"{y.ravel()[cell] + dy:.1f}"])
