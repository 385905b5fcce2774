from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from calibration.geodesy import ecef_from_geodetic
from gossan.cli import gossan

CASES = {
    "a_nadir_and_oblique": 0.02,
    "b_body_fixed_mount": 0.02,
    "c_fisheye": 0.02,
    "d_geoid_heights": 0.05,
    "e_mixed_datums": 0.05,
    "f_sigmas": 0.02,
}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def placed(rows: list[dict[str, str]]) -> np.ndarray:
    return ecef_from_geodetic(*(column(rows, c) for c in ("lat_deg", "lon_deg", "alt_m_ellipsoid")))


@pytest.mark.real_data
@pytest.mark.parametrize("case", CASES, ids=CASES)
def test_geotag_gives_the_contracts_answers(case: str, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "contract" / case
    out = tmp_path / "out.csv"
    command = ["onboard", "geotag", str(folder / "points.csv"), "--out", str(out)]
    command += ["--poses", str(folder / "poses.csv"), "--rig", str(folder / "rig.toml")]
    result = CliRunner().invoke(gossan, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    got, expected = rows_of(out), rows_of(folder / "expected.csv")
    assert [(r["frame"], float(r["x_px"]), float(r["y_px"])) for r in got] == [
        (r["frame"], float(r["x_px"]), float(r["y_px"])) for r in expected
    ]
    miss_m = np.linalg.norm(placed(got) - placed(expected), axis=1)
    assert miss_m.max() < CASES[case]
    if "var_e_m2" not in expected[0]:
        return
    for name in ("var_e_m2", "var_n_m2", "ce90_m"):
        assert column(got, name) == pytest.approx(column(expected, name), rel=0.01)
    scale = np.sqrt(column(expected, "var_e_m2") * column(expected, "var_n_m2"))
    off = column(got, "cov_en_m2") - column(expected, "cov_en_m2")
    assert np.abs(off / scale).max() < 0.01
