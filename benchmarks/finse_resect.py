"""Finse: one oblique frame resected from 45 surveyed points, each met when it is left out.

    python benchmarks/finse_resect.py SHARED_DATA

Prints misses in sample and left out, by range, and how many points lie inside their 90 % ellipse.
"""

from __future__ import annotations

import csv
import itertools
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

RIG = Path(__file__).parents[1] / "calibration" / "rigs" / "finse_webcam.toml"
MAX_MEDIAN_M, LEAST_INSIDE, MOST_INSIDE = 0.65, 36, 44
RANGES_M = (0, 100, 300, 2000)


def main() -> int:
    """Prints the table; returns 1 where a bar is missed."""
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    folder = Path(sys.argv[1]) / "imagery" / "finse_oblique"
    with (folder / "GCPs_pointagev4.csv").open(newline="") as stream:
        points = list(csv.DictReader(stream))
    with tempfile.TemporaryDirectory() as out:
        found = _resect(points, Path(out))
    left = found["leave_one_out"]
    miss, chi2 = np.array(left["miss_m"]), np.array(left["chi2"])
    xyz = np.array([[float(p[k]) for k in ("x_world", "y_world", "z_world")] for p in points])
    centre = np.array([419169.2, 6718421.3, 1212.0])  # the survey's own first value
    away = np.linalg.norm(xyz - centre, axis=1)
    print(f"{platform.machine()}; {len(points)} points, focal length and k1 free")
    print(f"in sample   {found['median_m']:.2f} m median, {found['median_px']:.1f} px")
    print(
        f"left out    {left['median_m']:.2f} m median (bar {MAX_MEDIAN_M}), {left['p90_m']:.2f} p90"
    )
    for low, high in itertools.pairwise(RANGES_M):
        some = (away >= low) & (away < high)
        if some.any():
            print(f"  {low}-{high} m away: {np.median(miss[some]):.2f} m of {some.sum()} points")
    inside = left["inside_90"]
    print(f"in their 90 % ellipse {inside} of {len(points)} (bar {LEAST_INSIDE}-{MOST_INSIDE})")
    print(f"χ² median {np.median(chi2):.2f} (1.39 expected), largest {chi2.max():.1f}")
    good = left["median_m"] <= MAX_MEDIAN_M and LEAST_INSIDE <= inside <= MOST_INSIDE
    return int(not good)


def _resect(points: list[dict[str, str]], out: Path) -> dict[str, object]:
    gcps = out / "gcps.csv"
    with gcps.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["frame", "x_px", "y_px", "x_m", "y_m", "alt_m_same"])
        names = ("x_img", "y_img", "x_world", "y_world", "z_world")
        writer.writerows(["finse.jpg", *[p[name] for name in names]] for p in points)
    command = [sys.executable, "-m", "gossan", "calibration", "resect", str(gcps)]
    command += ["--rig", str(RIG), "--free", "f,k1", "--crs", "EPSG:32632", "--json"]
    command += ["--out", str(out / "poses.csv"), "--rig-out", str(out / "rig.toml")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    frame: dict[str, object] = json.loads(done.stdout)["frames"]["finse.jpg"]
    return frame


if __name__ == "__main__":
    sys.exit(main())
