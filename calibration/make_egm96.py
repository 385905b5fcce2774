"""Makes ``egm96.npz``, the compact EGM96 geoid grid, from the public-domain ``egm96_15.gtx``.

The 15-minute grid (721 × 1440 posts) is rounded to whole centimetres, differenced along both axes
and deflated. Debian's package ``proj-data`` installs the source file:

    python -m calibration.make_egm96 /usr/share/proj/egm96_15.gtx
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

NOTICE = (
    "EGM96 15-minute geoid heights of the US National Geospatial-Intelligence Agency (NGA, then "
    "NIMA) and NASA/GSFC, public domain; converted from egm96_15.gtx, rounded to 1 cm"
)


def make(source: Path, target: Path) -> float:
    """Writes the compact grid and returns the largest error in metres against its source."""
    raw = source.read_bytes()
    south, west, step_lat, step_lon = np.frombuffer(raw[:32], dtype=">f8")
    rows, cols = np.frombuffer(raw[32:40], dtype=">i4")
    grid_m = np.frombuffer(raw[40:], dtype=">f4").reshape(rows, cols).astype(np.float64)
    cm = np.round(grid_m * 100.0).astype(np.int32)
    delta = np.diff(np.diff(cm, axis=0, prepend=0), axis=1, prepend=0)
    if np.abs(delta).max() > np.iinfo(np.int16).max:
        raise ValueError("a difference between posts does not fit 16 bits")
    corner = np.array([south, west, step_lat, step_lon])
    delta_bytes = delta.astype("<i2").view(np.uint8).reshape(rows, cols, 2)
    planes = np.moveaxis(delta_bytes, -1, 0).copy()  # high and low bytes apart deflate better
    np.savez_compressed(target, planes=planes, corner=corner, notice=np.array(NOTICE))
    return float(np.abs(grid_m - cm / 100.0).max())


if __name__ == "__main__":
    given = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/proj/egm96_15.gtx")
    made = Path(__file__).with_name("egm96.npz")
    worst_m = make(given, made)
    sys.stdout.write(f"{made}: {made.stat().st_size} bytes, largest error {worst_m:.4f} m\n")
