"""The prior command: a small district of known truth, and Cloncurry."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio import Affine
from shapely import Point

from groundsync.cli.prior import prior
from groundsync.errors import PriorError
from groundsync.prior.area import study_area, training
from groundsync.prior.conditions import find_conditions
from groundsync.prior.files import read_prior
from groundsync.prior.layers import read_layer
from groundsync.prior.model import Score, independence
from groundsync.prior.settings import Area, Layer, Occurrences
from groundsync.prior.weights import plain_weights

KEYS = {
    "layers",
    "posterior",
    "t_over_n",
    "ci_rejected",
    "auc_random",
    "auc_block",
    "information_gain_bits",
}


def run(toml: Path, out: Path) -> dict[str, object]:
    done = CliRunner().invoke(prior, [str(toml), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.fixture
def district(tmp_path: Path) -> Path:
    """A strip of favourable ground with nine tenths of the occurrences; a hole in the layer."""
    rng = np.random.default_rng(11)
    units = np.ones((120, 120), dtype=np.uint8)
    units[:, 30:60] = 2
    units[100:110, 100:110] = 0
    with rasterio.open(
        tmp_path / "units.tif",
        "w",
        driver="GTiff",
        dtype="uint8",
        count=1,
        height=120,
        width=120,
        crs="EPSG:32611",
        transform=Affine(100.0, 0.0, 500000.0, 0.0, -100.0, 4100000.0),
        nodata=0,
    ) as data:
        data.write(units, 1)
    x = np.where(rng.random(80) < 0.9, rng.uniform(3000, 6000, 80), rng.uniform(6000, 9900, 80))
    y = rng.uniform(2100, 12000, 80)
    rows = "\n".join(f"{500000 + a:.2f},{4088000 + b:.2f}" for a, b in zip(x, y, strict=True))
    (tmp_path / "points.csv").write_text(f"x_m,y_m\n{rows}\n")
    (tmp_path / "priors.toml").write_text(
        """
name = "district"
[area]
like = "units.tif"
unit_cell_km2 = 0.1
[occurrences]
path = "points.csv"
licence = "none"
[[layers]]
name = "units"
path = "units.tif"
kind = "categorical"
date = "2001-01-01"
[[surface]]
class = "iron_oxide"
p_given_deposit = 0.6
p_given_barren = 0.02
[model]
block_km = 2
"""
    )
    return tmp_path / "priors.toml"


def test_a_district_is_learned(district: Path) -> None:
    out = district.parent / "out"
    answer = run(district, out)
    assert set(answer) >= KEYS
    assert answer["t_over_n"] == pytest.approx(1.0, abs=0.1)
    assert answer["information_gain_bits"] > 0.5
    found = read_prior(out)
    p = found.probability
    assert p[50, 45] > 5 * p[50, 10]
    assert np.isfinite(p[105, 105]), "a missing layer leaves the cell its mean rate"
    assert p[50, 10] < p[105, 105] < p[50, 45]
    assert found.sigma[105, 105] / p[105, 105] > found.sigma[50, 45] / p[50, 45]
    assert -np.log1p(-p.astype(float)).sum() == pytest.approx(80, rel=0.02)
    assert found.surface[0].class_name == "iron_oxide"
    assert any("1 km² have no layer" in note for note in found.evaluation["notes"])


def test_people_read_how_far_to_trust_it(district: Path) -> None:
    done = CliRunner().invoke(prior, [str(district), "--out", str(district.parent / "out")])
    assert done.exit_code == 0
    assert "how far to trust it" in done.stdout
    assert "AUC, held-out blocks" in done.stdout


def test_the_table_names_every_class_and_what_is_missing(district: Path) -> None:
    out = district.parent / "out"
    run(district, out)
    with (out / "weights.csv").open() as text:
        rows = list(csv.DictReader(text))
    assert [row["class"] for row in rows] == ["1", "2", "missing"]
    assert rows[2]["weight"] == "0.0"
    assert float(rows[2]["weight_sd"]) > 0
    assert float(rows[1]["contrast"]) > 2


def test_twice_is_once(district: Path) -> None:
    first, second = district.parent / "a", district.parent / "b"
    run(district, first)
    run(district, second)
    for name in ("weights.csv", "evaluation.json", "posterior.tif"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert sorted(p.name for p in first.iterdir()) == [
        "evaluation.json",
        "posterior.tif",
        "weights.csv",
    ]


def test_a_damaged_folder_is_refused(district: Path) -> None:
    out = district.parent / "out"
    run(district, out)
    (out / "posterior.tif").write_bytes(b"no raster")
    with pytest.raises(PriorError):
        read_prior(out)


@pytest.fixture
def cloncurry(shared_data: Path, tmp_path: Path) -> Path:
    """priors.toml of the real district, its paths relative to the temporary folder."""
    folder = os.path.relpath(shared_data / "geology" / "cloncurry_iocg", tmp_path)
    layers = (
        ("stratigraphy", "strat_no", "categorical"),
        ("distance_to_breccia", "dist_breccia_m", "continuous"),
        ("fault_density", "fault_density_class", "categorical"),
        ("distance_to_fault", "dist_fault_m_200m", "continuous"),
    )
    text = f"""
name = "Cloncurry IOCG"
[area]
like = "{folder}/raster/strat_no.tif"
[occurrences]
path = "{folder}/vector/iocg_deposits.gpkg"
date = "2020"
licence = "Apache-2.0, (c) Commonwealth of Australia (Geoscience Australia) 2023"
"""
    for name, file, kind in layers:
        text += f'[[layers]]\nname="{name}"\npath="{folder}/raster/{file}.tif"\nkind="{kind}"\n'
    (tmp_path / "priors.toml").write_text(text)
    return tmp_path / "priors.toml"


@pytest.mark.real_data
def test_cloncurry_is_calibrated_on_held_out_blocks(cloncurry: Path) -> None:
    out = cloncurry.parent / "out"
    answer = run(cloncurry, out)
    assert 0.9 < answer["t_over_n"] < 1.1
    assert answer["information_gain_bits"] > 0.3
    assert answer["ci_rejected"] is True
    assert 0.70 < answer["auc_block"] < answer["auc_random"] < 0.82
    found = read_prior(out)
    assert found.evaluation["occurrences"]["used"] == 258
    assert found.evaluation["raw_t_over_n"] > 2.0
    assert found.grid.shape == (2487, 1259)
    assert -np.log1p(-found.probability.astype(float)).sum() == pytest.approx(258, rel=1e-4)


@pytest.mark.real_data
def test_gawler_has_gaps_and_few_deposits_and_says_so(shared_data: Path, tmp_path: Path) -> None:
    folder = os.path.relpath(shared_data / "geology" / "gawler_sa_20km", tmp_path)
    bands = {"magnetics": 15, "gravity": 27, "potassium": 33, "ferrous_iron": 75, "faults": 39}
    text = f"""
name = "Gawler"
[area]
like = "{folder}/stack_20km.tif"
mask = true
unit_cell_km2 = 400
[occurrences]
path = "{folder}/deposits.gpkg"
[model]
block_km = 200
"""
    for name, band in bands.items():
        text += f'[[layers]]\nname="{name}"\npath="{folder}/stack_20km.tif"\nband={band}\n'
        text += 'kind="continuous"\nbins=5\n'
    (tmp_path / "priors.toml").write_text(text)
    answer = run(tmp_path / "priors.toml", tmp_path / "out")
    missing = {la["name"]: la["missing_km2"] for la in answer["layers"]}
    assert missing["potassium"] > 50_000
    assert missing["faults"] == 0.0
    found = read_prior(tmp_path / "out")
    studied = int(found.evaluation["cells"])
    assert studied == 2459
    assert np.isfinite(found.probability).sum() == studied, "a gap never makes a hole in the map"
    expected = -np.log1p(-found.probability[np.isfinite(found.probability)].astype(float)).sum()
    assert expected == pytest.approx(found.evaluation["occurrences"]["used"], rel=1e-4)
    assert 0.5 < answer["t_over_n"] < 2.0
    assert answer["auc_block"] > 0.5


@pytest.mark.real_data
def test_hamersleys_maps_become_layers(shared_data: Path) -> None:
    folder = shared_data / "geology" / "hamersley_geology"
    left, bottom, right, top = 515687.0, 7473446.0, 562666.0, 7521273.0
    area = Area(crs="EPSG:28350", cell_m=250.0, bounds_m=(left, bottom, right, top))
    grid, studied = study_area(area, folder)
    path = Path("hamersley.gpkg")
    units = read_layer(
        Layer(name="u", path=path, layer="geology", kind="categorical", attribute="unitname"),
        folder,
        grid,
        studied,
    )
    assert len(units.labels) > 5
    assert (units.codes >= 0).mean() > 0.95
    faults = read_layer(
        Layer(name="f", path=path, layer="faults", kind="distance", edges=(500.0, 2000.0)),
        folder,
        grid,
        studied,
    )
    lines = geopandas.read_file(folder / path, layer="faults").geometry.union_all()
    x, y = grid.centres()
    for row, col in ((20, 30), (100, 90), (150, 150)):
        metres = lines.distance(Point(x[col], y[row]))
        if min(abs(metres - 500.0), abs(metres - 2000.0)) > 250.0:
            assert faults.codes[row, col] == np.searchsorted([500.0, 2000.0], metres)


@pytest.mark.real_data
def test_the_independence_test_takes_whole_conditions(shared_data: Path) -> None:
    """s(T) of four binary maps is 40.1; taking cells as independent gives 0.7."""
    folder = shared_data / "geology" / "cloncurry_iocg"
    grid, studied = study_area(Area(like=Path("raster/bin_StratNo.tif")), folder)
    count = training(Occurrences(path=Path("vector/iocg_deposits.gpkg")), folder, grid, studied)
    names = ("bin_Dist2Breccia", "bin_Dist2Fault", "bin_FaultDensity", "bin_StratNo")
    layers = [
        read_layer(
            Layer(name=n, path=Path(f"raster/{n}.tif"), kind="categorical"), folder, grid, studied
        )
        for n in names
    ]
    conditions = find_conditions(layers, studied)
    area, n = conditions.cells() * grid.cell_km2, conditions.sums(count.count)
    value, variance = np.zeros(len(area)), np.zeros(len(area))
    for column in range(4):
        code = conditions.codes[:, column].astype(int)
        w = plain_weights(np.bincount(code, area), np.bincount(code, n))
        value += w.plus[code]
        variance += w.plus_sd[code] ** 2
    test = independence(Score(value, variance), area, 258.0, 1.0)
    assert test.expected == pytest.approx(390.6, abs=0.05)
    assert test.sd == pytest.approx(40.1, abs=0.05)
    assert test.rejected
