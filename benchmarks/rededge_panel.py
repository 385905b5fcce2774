"""MicaSense RedEdge panel: our panel means, factors and band alignment beside the published ones.

    python benchmarks/rededge_panel.py ../shared/data/imagery/micasense_rededge

The published numbers are those of the vendor's own examples on this capture: the raw mean of the
blue band's panel (45406, its tests allow 1 %), the blue panel's radiance (0.170284 W/m²/sr/nm),
and the radiance-to-reflectance factor 5.727, which is the NIR band's with a panel reflectance of
0.61 over the hand-drawn rectangle (660, 490) to (840, 670).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PANEL = "Blue=0.67,Green=0.69,Red=0.68,NIR=0.61,Red edge=0.67"
RECTANGLE = "660,490,839,669"
REACH = 0.005


def main() -> None:
    """Prints the table."""
    folder = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(next(folder.glob("*.tar.xz"))) as archive:
            archive.extractall(scratch, filter="data")
        found = run(scratch)
        by_hand = run(scratch, "--panel-region", RECTANGLE)
    blue, nir = found["bands"]["Blue"], found["bands"]["NIR"]
    rows = [
        ("blue panel, raw mean", blue["panel_dn"], 45406.0),
        ("blue panel, radiance", blue["panel_radiance"], 0.170284),
        ("NIR factor, panel found by its code", nir["reflectance_per_radiance"], 5.727),
        ("NIR factor, the published rectangle",
         by_hand["bands"]["NIR"]["reflectance_per_radiance"], 5.727),
    ]  # fmt: skip
    print(f"{os.cpu_count()} {platform.machine()} cores; panel {found['panel_serial']}")
    print(f"{'':38}{'ours':>12}{'published':>12}{'off %':>8}")
    for name, ours, published in rows:
        print(f"{name:38}{ours:12.6g}{published:12.6g}{100 * (ours / published - 1):8.3f}")
    print(f"\nalignment to {found['reference']}, pixels: shift at the centre, median and 90 % left")
    for name, band in found["bands"].items():
        if "misfit_px" in band:
            x, y = band["shift_px"]
            left = f"{band['misfit_px']:8.2f}{band['misfit_p90_px']:8.2f}"
            print(f"{name:12}{x:8.1f}{y:8.1f}{left}   in {band['windows']} windows")
    reached = all(abs(ours / published - 1) <= REACH for _, ours, published in rows)
    print(f"\nwithin {100 * REACH:.1f} %: {'yes' if reached else 'NO'}")
    sys.exit(not reached)


def run(folder: str, *options: str) -> dict[str, dict[str, dict[str, float]]]:
    """Returns what the command says about the captures of a folder."""
    command = [
        sys.executable,
        "-m",
        "gossan",
        "calibration",
        "radiometry",
        folder,
        "--panel",
        PANEL,
    ]
    out = ["--out", str(Path(folder) / "rig.toml"), "--json"]
    done = subprocess.run([*command, *options, *out], check=True, stdout=subprocess.PIPE)
    found: dict[str, dict[str, dict[str, float]]] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
