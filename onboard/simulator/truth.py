"""The planted truth of a simulated flight: written by the simulator, read by scorers alone."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geodesy import MapFrame
from calibration.rotations import ypr_from_r_ned_cam
from onboard.simulator.anomalies import Patch
from onboard.simulator.camera import TruePose
from onboard.simulator.errors import SimulatorError
from onboard.simulator.family import CLASSES
from onboard.simulator.noise import Window
from onboard.simulator.world import World

Floats = NDArray[np.float64]

SCHEMA = 1
PIXEL_M = 0.1
_FINE_M = 0.05
_PRESENT = 0.5


@dataclass(frozen=True, slots=True)
class Planted:
    """One planted anomaly.

    Attributes:
        planted_id: Counts up within the world.
        class_name: Its class.
        lat_deg: Centroid of its area, WGS84.
        lon_deg: Centroid of its area.
        alt_m_ellipsoid: True ground there.
        x_m: Centroid on the map.
        y_m: Centroid on the map.
        area_m2: Its area where it is at least half opaque.
        visible_px: Pixels of 0.1 m that shrubs leave of it.
        occluded: Share of its area that shrubs hide.
        frames: In how many frames its centroid was really imaged.
        polygon_map_m: (m, 2) map outline.
    """

    planted_id: int
    class_name: str
    lat_deg: float
    lon_deg: float
    alt_m_ellipsoid: float
    x_m: float
    y_m: float
    area_m2: float
    visible_px: float
    occluded: float
    frames: int
    polygon_map_m: Floats


def read_truth(folder: Path) -> list[Planted]:
    """Returns the planted anomalies of a simulated flight (the folder of the flight).

    Raises:
        SimulatorError: The folder has no truth.
    """
    path = folder / "truth" / "anomalies.geojson"
    if not path.is_file():
        raise SimulatorError(f"no planted truth in {folder}", "only simulated flights have one")
    document = json.loads(path.read_text(encoding="utf-8"))
    planted = []
    for feature in document["features"]:
        known = dict(feature["properties"])
        known["polygon_map_m"] = np.array(known["polygon_map_m"], dtype=float)
        planted.append(Planted(**known))
    return planted


def look_at_truth(world: World, map_frame: MapFrame, outlines_m: Sequence[Floats]) -> list[Planted]:
    """Returns what is planted, measured on the true ground; ``outlines_m`` are footprints."""
    planted = []
    for patch in world.anomalies:
        found = _measure(world, patch)
        if found is None:
            continue
        x, y, area, hidden, polygon = found
        lat, lon = map_frame.to_geographic(np.array([x]), np.array([y]))
        frames = sum(_holds(outline, x, y) for outline in outlines_m)
        planted.append(
            Planted(
                planted_id=patch.patch_id,
                class_name=patch.material,
                lat_deg=float(lat[0]),
                lon_deg=float(lon[0]),
                alt_m_ellipsoid=float(world.height_m(np.array([x]), np.array([y]))[0]),
                x_m=x,
                y_m=y,
                area_m2=area,
                visible_px=area * (1 - hidden) / PIXEL_M**2,
                occluded=hidden,
                frames=frames,
                polygon_map_m=polygon,
            )
        )
    return planted


def write_truth(
    folder: Path, planted: Sequence[Planted], map_frame: MapFrame, about: dict[str, Any]
) -> None:
    """Writes ``truth/anomalies.geojson`` and ``truth/truth.json`` (what the flight drew)."""
    folder = folder / "truth"
    folder.mkdir(parents=True, exist_ok=True)
    features = [_feature(item, map_frame) for item in planted]
    document = {"type": "FeatureCollection", "features": features}
    (folder / "anomalies.geojson").write_text(json.dumps(document), encoding="utf-8")
    text = json.dumps({"schema": SCHEMA, **about}, indent=2)
    (folder / "truth.json").write_text(text, encoding="utf-8")


def write_true_poses(folder: Path, frames: Sequence[str], poses: Sequence[TruePose]) -> None:
    """Writes ``truth/poses.csv``: the POSES table of the true projection centres."""
    folder = folder / "truth"
    folder.mkdir(parents=True, exist_ok=True)
    header = ["frame", "lat_deg", "lon_deg", "alt_m_ellipsoid", "yaw_deg", "pitch_deg", "roll_deg"]
    with (folder / "poses.csv").open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(header)
        for name, pose in zip(frames, poses, strict=True):
            angles = [float(np.degrees(a)) for a in ypr_from_r_ned_cam(pose.r_ned_cam)]
            place = (f"{pose.lat_deg:.10f}", f"{pose.lon_deg:.10f}", f"{pose.alt_m_ellipsoid:.4f}")
            table.writerow([name, *place, *(f"{a:.6f}" for a in angles)])


def _measure(world: World, patch: Patch) -> tuple[float, float, float, float, Floats] | None:
    """Returns centroid x, y, area, hidden share and outline of what was planted as one patch."""
    size = int(2 * (patch.reach_m + 0.5) / _FINE_M)
    half = size * _FINE_M / 2
    window = Window(patch.x_m - half, patch.y_m + half, _FINE_M, size, size)
    painted = world.paint(window)
    there = (painted.opacity > _PRESENT) & (painted.label == _class_index(patch))
    if not there.any():
        return None
    rows, cols = np.nonzero(there)
    hidden = float((painted.hidden[there] > _PRESENT).mean())
    outlines, _ = cv2.findContours(
        there.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    largest = max(outlines, key=cv2.contourArea)[:, 0].astype(float)
    polygon = np.stack(
        [window.x0_m + largest[:, 0] * _FINE_M, window.y0_m - largest[:, 1] * _FINE_M], axis=1
    )
    x = window.x0_m + float(cols.mean()) * _FINE_M
    y = window.y0_m - float(rows.mean()) * _FINE_M
    return x, y, float(there.sum()) * _FINE_M**2, hidden, polygon


def _class_index(patch: Patch) -> int:
    return CLASSES.index(patch.material)


def _holds(outline_m: Floats, x_m: float, y_m: float) -> bool:
    ring = (outline_m - [x_m, y_m]).astype(np.float32).reshape(-1, 1, 2)
    return bool(cv2.pointPolygonTest(ring, (0.0, 0.0), False) >= 0)


def _feature(item: Planted, map_frame: MapFrame) -> dict[str, Any]:
    lat, lon = map_frame.to_geographic(item.polygon_map_m[:, 0], item.polygon_map_m[:, 1])
    ring = [[round(float(a), 9), round(float(b), 9)] for a, b in zip(lon, lat, strict=True)]
    known = {name: getattr(item, name) for name in Planted.__slots__}
    known["polygon_map_m"] = [[round(float(v), 3) for v in p] for p in item.polygon_map_m]
    geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    return {"type": "Feature", "properties": known, "geometry": geometry}
