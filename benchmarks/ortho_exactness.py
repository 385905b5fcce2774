"""How exact the ortho is: against orthority's output, and against its own exact map.

    python benchmarks/ortho_exactness.py [--data ../shared/data]

Row by row: share of the common pixels, 2 px inside their edge, that agree with orthority's file
within 1 and 4 DN (Keys' surface, plane map), and how far our map strays from the exact one.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import rasterio

from calibration.camera import Camera
from calibration.geodesy import MapFrame
from calibration.rig import Mount, Rig
from onboard.ortho_batch import read_bands
from onboard.place.grid import Grid
from onboard.place.ortho import apply_map, backward_map
from onboard.place.terrain import GridTerrain, open_dem
from onboard.records import Floats, Poses

READ = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


@dataclass(frozen=True)
class Case:
    """One frame with orthority's output."""

    name: str
    image: Path
    dem: Path
    reference: Path
    camera: Camera
    centre: Floats
    r_grid_cam: Floats
    tolerance_dn: int


def pose_on_map(case: Case, map_frame: MapFrame) -> Poses:
    """Returns a photogrammetric pose (grid axes) as a pose against true north."""
    lat, lon = map_frame.to_geographic(case.centre[:1], case.centre[1:2])
    gamma = float(map_frame.local(lat, lon).convergence_rad[0])
    c, s = np.cos(gamma), np.sin(gamma)
    true_from_grid = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]])
    ned_from_enu = np.array([[0, 1.0, 0], [1.0, 0, 0], [0, 0, -1.0]])
    r = (ned_from_enu @ true_from_grid @ case.r_grid_cam)[None]
    none, zero = np.full((1, 3), np.nan), np.zeros((1, 3))
    return Poses(
        (case.image.name,), lat, lon, case.centre[2:], "same", r, np.full((1, 3, 3), np.nan),
        none, none, zero, np.zeros(1), np.zeros(1), zero, np.zeros(1), np.full(1, np.nan), ((),),
    )  # fmt: skip


def brighton(data: Path) -> Case:
    """Frame 0031 of the rocky shore, JPEG."""
    folder = data / "imagery/brighton_beach"
    reference = json.loads((folder / "reference_poses.json").read_text())
    cam = reference["cam"]
    frame = next(f for f in reference["frames"] if f["file"] == "DJI_0031.JPG")
    camera = Camera(
        "opencv", cam["w"], cam["h"], cam["fx"], cam["fy"], cam["cx"], cam["cy"],
        (cam["k1"], cam["k2"], cam["p1"], cam["p2"]),
    )  # fmt: skip
    return Case(
        "Brighton 0031", folder / "images/DJI_0031.JPG", folder / "dsm_0p25m.tif",
        folder / "orthority_ref/DJI_0031_ORTHO_0p05m.tif", camera,
        np.array(frame["C_utm15n"]), np.array(frame["R_enu2cv_as_shipped"]).T, 4,
    )  # fmt: skip


def tuniu(data: Path) -> Case:
    """Frame 0140 of the river, −60° pitch, TIFF."""
    folder = data / "imagery/orthority_odm_tuniu"
    features = json.loads((folder / "orthority_ref/ext_param.geojson").read_text())["features"]
    found = next(f["properties"] for f in features if "0140" in f["properties"]["filename"])
    w, h, f, cx, cy = 1368, 912, 0.6664614123723713, -0.0015460447606643697, 0.004751874732641298
    camera = Camera(
        "opencv", w, h, f * w, f * w, (w - 1) / 2 + cx * w, (h - 1) / 2 + cy * w,
        (-0.2640629100413887, 0.10188934223670705, 0.0007345906274317972,
         0.0002595206713083041, -0.02581956399353581),
    )  # fmt: skip
    (so, sp, sk), (co, cp, ck) = np.sin(found["opk"]), np.cos(found["opk"])
    rx = np.array([[1, 0, 0], [0, co, -so], [0, so, co]])
    ry = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    rz = np.array([[ck, -sk, 0], [sk, ck, 0], [0, 0, 1]])
    return Case(
        "Tuniu 0140", folder / "images/100_0005_0140.tif", folder / "odm_dem/dsm.tif",
        folder / "orthority_ref/100_0005_0140_ORTHO.tif", camera,
        np.array(found["xyz"]), rx @ ry @ rz @ np.diag([1.0, -1.0, -1.0]), 1,
    )  # fmt: skip


@dataclass(frozen=True)
class Score:
    """What a comparison gave."""

    within: float
    within_tight: float
    common: float
    map_max_px: float


def compare(case: Case, dem_resampling: str = "cubic", resampling: str = "cubic") -> Score:
    """Returns how our ortho of a case agrees with orthority's."""
    grid = Grid.from_raster(case.reference)
    map_frame = MapFrame(grid.crs, "plane")
    terrain = open_dem(case.dem, map_frame, "same")
    rig = Rig(camera=case.camera, mount=Mount("gimbal", np.eye(3)))
    tiff = case.image.suffix == ".tif"
    pixels = read_bands(case.image) if tiff else cv2.imread(str(case.image), READ)
    back = backward_map(
        pose_on_map(case, map_frame), rig, terrain, map_frame, grid, dem_resampling=dem_resampling
    )
    ours = apply_map(pixels, back, resampling=resampling)
    with rasterio.open(case.reference) as raster:
        theirs = np.moveaxis(raster.read(), 0, -1)
        valid = raster.dataset_mask() > 0
    both = valid & (ours.mask | ours.occluded)
    inner = cv2.erode(np.pad(both.astype(np.uint8), 2), np.ones((5, 5), np.uint8))[2:-2, 2:-2]
    share = float(both.sum() / valid.sum())
    both = inner > 0
    guess = np.stack(back.maps(slice(None)), -1)
    shown = ours.image
    if ours.occluded.any():  # orthority paints hidden ground too
        shown = cv2.remap(pixels, guess, None, _flag(resampling), borderMode=cv2.BORDER_REPLICATE)
    off = np.abs(shown.astype(int) - theirs).max(axis=-1)[both]
    return Score(
        float((off <= case.tolerance_dn).mean()),
        float((off <= 1).mean()),
        share,
        map_deviation_px(back, guess, terrain),
    )


def map_deviation_px(back: object, guess: Floats, terrain: GridTerrain) -> float:
    """Returns the largest deviation of an interpolated map from the exact one, inside the frame."""
    del terrain
    rows, cols = guess.shape[:2]
    rng = np.random.default_rng(0)
    pick = np.stack([rng.integers(0, cols, 300_000), rng.integers(0, rows, 300_000)], 1)
    exact = back.source_px(pick)  # type: ignore[attr-defined]
    inside = np.isfinite(exact).all(axis=1) & back.view.camera.inside(exact)  # type: ignore[attr-defined]
    off = np.hypot(*(guess[pick[:, 1], pick[:, 0]] - exact).T)
    return float(off[inside].max())


def _flag(resampling: str) -> int:
    return cv2.INTER_LINEAR if resampling == "linear" else cv2.INTER_CUBIC


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__).resolve().parents[2]
    parser.add_argument("--data", type=Path, default=here / "shared/data")
    data = parser.parse_args().data
    print("frame          DEM     image       agree   <=1 DN   common   map max")
    for case in (brighton(data), tuniu(data)):
        for dem, image in (("cubic", "cubic"), ("linear", "cubic"), ("cubic", "linear")):
            s = compare(case, dem, image)
            print(
                f"{case.name:<14} {dem:<7} {image:<7} {100 * s.within:7.2f} % "
                f"{100 * s.within_tight:6.2f} % {100 * s.common:6.2f} % {s.map_max_px:6.3f} px"
            )


if __name__ == "__main__":
    main()
