"""Alignment and refinement of real flights, by the commands that a user has.

    python benchmarks/align_real.py SHARED_DATA

Brighton Beach: ground points by XMP poses, after `calibration align` and after `onboard refine`,
against structure from motion (which neither command sees). CUAV CMAC: the clock found, and the
neighbours' misfit by `replay` before and after.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS

from calibration.geodesy import MapFrame
from calibration.rig import load_rig
from calibration.rotations import ENU_FROM_NED
from onboard.place.geotag import geotag
from onboard.place.terrain import open_dem
from onboard.records import Poses
from onboard.sources.open import open_source

RIGS = Path(__file__).parents[1] / "calibration" / "rigs"
MAP = MapFrame(CRS.from_epsg(32615))


def main() -> int:
    """Prints both tables; returns 1 where a bar is missed."""
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    imagery = Path(sys.argv[1]) / "imagery"
    print(f"{platform.machine()}; metres, median and p90")
    with tempfile.TemporaryDirectory() as folder:
        fine = _brighton(imagery / "brighton_beach", Path(folder))
        return int(not (_cmac(imagery / "cuav_cmac_2018", Path(folder)) and fine))


def _brighton(data: Path, out: Path) -> bool:
    photos, given = data / "images", RIGS / "brighton_fc300s.toml"
    ground = ["--dem", data / "dsm_0p25m.tif", "--dem-datum", "same"]
    aligned, table = out / "brighton.toml", out / "poses.csv"
    _gossan("calibration", "align", photos, "--rig", given, *ground, "--out", aligned)
    _gossan("onboard", "refine", photos, "--rig", aligned, *ground, "--out", table)
    bars = {"direct": 1.2, "aligned": 0.8, "refined": 0.25}
    ways = {"direct": (given, None), "aligned": (aligned, None), "refined": (aligned, table)}
    fine = True
    for name, (path, poses_csv) in ways.items():
        rig = load_rig(path)
        poses = open_source(photos, rig, poses_csv, "same").poses(rig)
        median, p90 = _against_reference(data, poses, path)
        print(f"Brighton {name:8} {median:5.2f} {p90:5.2f}   (bar {bars[name]} median)")
        fine &= median <= bars[name]
    return fine


def _cmac(data: Path, out: Path) -> bool:
    given, aligned = RIGS / "cuav_picam_v2.toml", out / "cmac.toml"
    found = _gossan("calibration", "align", data, "--rig", given, "--out", aligned)
    clock, turned = found["clock"], found["rotation_clock"]
    print(f"CMAC clock {clock['offset_s']:+.3f} ± {clock['sigma_s']:.3f} s (bar -0.3 ± 0.1)")
    if turned:
        print(f"CMAC clock by rotation {turned['offset_s']:+.3f} ± {turned['sigma_s']:.3f} s")
    misfit = {}
    for name, rig in (("before", given), ("after", aligned)):
        say = ["--model", "none", "--no-orthos", "--out", out / name]
        misfit[name] = _gossan("onboard", "replay", data, "--rig", rig, *say)["misfit_m"]
        print(f"CMAC misfit {name:6} {misfit[name]['median']:5.2f} {misfit[name]['p90']:5.2f}")
    print("(bar 0.8 median)")
    return bool(abs(clock["offset_s"] + 0.3) <= 0.1 and misfit["after"]["median"] <= 0.8)


def _gossan(*args: object) -> Any:
    command = [sys.executable, "-m", "gossan", *map(str, args), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def _against_reference(data: Path, poses: Poses, rig_path: Path) -> tuple[float, float]:
    given = json.loads((data / "reference_poses.json").read_text())["frames"]
    frames = [f for f in given if f["file"] in poses.frame and not f["windows_rotated_180"]]
    true = _reference(frames)
    mine = poses.take([poses.frame.index(f["file"]) for f in frames])
    terrain = open_dem(data / "dsm_0p25m.tif", MAP, "same", 0.0)
    rig = replace(load_rig(rig_path), covariance=None, covariance_order=())
    u, v = np.meshgrid(np.linspace(200, 3800, 12), np.linspace(150, 2100, 11))
    uv = np.tile(np.column_stack([u.ravel(), v.ravel()]), (len(frames), 1))
    index = np.repeat(np.arange(len(frames)), u.size)
    a, b = (geotag(p, index, uv, 0.0, rig, terrain, MAP) for p in (true, mine))
    median, p90 = np.nanquantile(np.hypot(a.x_m - b.x_m, a.y_m - b.y_m), (0.5, 0.9))
    return float(median), float(p90)


def _reference(frames: list[dict[str, Any]]) -> Poses:
    n = len(frames)
    centres = np.array([f["C_utm15n"] for f in frames])
    lat, lon = MAP.to_geographic(centres[:, 0], centres[:, 1])
    to_enu: NDArray[np.float64] = np.zeros((n, 3, 3))
    to_enu[:, 2, 2] = 1.0
    to_enu[:, :2, :2] = MAP.enu_from_map_rotation(MAP.local(lat, lon))
    r_map_cam = np.swapaxes([f["R_enu2cv_pristine"] for f in frames], 1, 2)
    zero, zero3, nan3 = np.zeros(n), np.zeros((n, 3)), np.full((n, 3), np.nan)
    return Poses(
        tuple(f["file"] for f in frames), lat, lon, centres[:, 2], "same",
        ENU_FROM_NED @ to_enu @ r_map_cam, np.full((n, 3, 3), np.nan), nan3, nan3, zero3, zero,
        zero, zero3, zero, zero, ((),) * n,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
