"""OpenSfM's ``reconstruction.json`` and ODM's ``shots.geojson`` as camera poses.

A reconstruction of OpenSfM lives in the east-north-up frame at its reference point. ODM's has the
same form, but its axes are those of the UTM grid and its reference point is a whole-metre UTM
position: by that it is known. Shots hold the rotation world → camera as a rotation vector and
t = −R C; camera axes are ours (x right, y down).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from calibration.errors import DatumError
from calibration.geodesy import (
    MapFrame,
    ecef_from_geodetic,
    geodetic_from_ecef,
    r_ecef_enu,
    to_ellipsoid_m,
)
from calibration.rig import Rig
from calibration.rotations import ENU_FROM_NED, rot_exp
from onboard.records import Floats, HeightDatum, Poses
from onboard.sources.errors import SourceError
from onboard.sources.source import Placement, placed

MAX_BYTES = 1 << 30
WHOLE_M = 0.01


def read_reconstruction(path: Path, rig: Rig | None, alt_datum: HeightDatum | None = None) -> Poses:
    """Returns the poses of an OpenSfM reconstruction or of ODM's shots.

    Args:
        path: ``reconstruction.json`` or ``shots.geojson``.
        rig: Gives the σ; its mount never applies.
        alt_datum: What the heights are above: SfM inherits it from the photos' GPS.

    Raises:
        SourceError: The file is no reconstruction, or has no reference point.
        DatumError: No datum is given.
    """
    if alt_datum is None:
        raise DatumError(
            f"{path} does not say what its heights are above",
            "give --alt-datum ellipsoid|egm96, or same (with --dem-datum same) where DEM and "
            "poses come from one reconstruction",
        )
    content = _load(path)
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        at = _shots(content, path, alt_datum)
    else:
        at = _reconstructions(content, path, alt_datum)
    return placed(at, rig)


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SourceError(f"{path} is over 1 GiB", "give a smaller reconstruction")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {error}", "check the file") from error


def _reconstructions(content: Any, path: Path, datum: HeightDatum) -> Placement:
    names: list[str] = []
    lla: list[Floats] = []
    r_ned_cam: list[Floats] = []
    for part in content if isinstance(content, list) else [content]:
        shots = part.get("shots", {})
        if not shots:
            continue
        reference = part.get("reference_lla") or _reference_beside(path)
        r_cam_local = rot_exp(np.array([s["rotation"] for s in shots.values()], dtype=np.float64))
        shifts = np.array([s["translation"] for s in shots.values()], dtype=np.float64)
        centres = -np.einsum("nji,nj->ni", r_cam_local, shifts)
        place = _on_grid if _is_grid(reference) else _on_tangent_plane
        at, r_ned = place(reference, centres, np.swapaxes(r_cam_local, 1, 2))
        names += list(shots)
        lla.append(at)
        r_ned_cam.append(r_ned)
    if not names:
        raise SourceError(f"{path} holds no shots", "give OpenSfM's reconstruction.json")
    return _placement(names, np.concatenate(lla), np.concatenate(r_ned_cam), datum)


def _is_grid(reference: dict[str, float]) -> bool:
    """Returns whether the frame is ODM's: map axes of the UTM zone about a whole-metre origin."""
    frame = MapFrame.utm(reference["latitude"], reference["longitude"])
    x, y = frame.to_map(reference["latitude"], reference["longitude"])
    return bool(abs(x - np.round(x)) < WHOLE_M and abs(y - np.round(y)) < WHOLE_M)


def _on_grid(
    reference: dict[str, float], centres: Floats, r_grid_cam: Floats
) -> tuple[Floats, Floats]:
    """Returns (n, 3) lat, lon, height and attitudes of shots in the axes of the UTM grid."""
    frame = MapFrame.utm(reference["latitude"], reference["longitude"])
    x, y = frame.to_map(reference["latitude"], reference["longitude"])
    lat, lon = frame.to_geographic(centres[:, 0] + x, centres[:, 1] + y)
    at = np.stack([lat, lon, centres[:, 2] + reference["altitude"]], axis=1)
    return at, _true_north(frame, lat, lon, r_grid_cam)


def _true_north(frame: MapFrame, lat: Floats, lon: Floats, r_grid_cam: Floats) -> Floats:
    turn = np.tile(np.eye(3), (len(lat), 1, 1))
    turn[:, :2, :2] = frame.enu_from_map_rotation(frame.local(lat, lon))
    return np.asarray(ENU_FROM_NED.T @ turn @ r_grid_cam)


def _on_tangent_plane(
    reference: dict[str, float], centres: Floats, r_enu_cam: Floats
) -> tuple[Floats, Floats]:
    """Returns (n, 3) lat, lon, height and attitudes of shots about an east-north-up origin."""
    lat0, lon0 = reference["latitude"], reference["longitude"]
    r_enu = r_ecef_enu(lat0, lon0)
    origin = ecef_from_geodetic(lat0, lon0, reference["altitude"])
    at = np.stack(geodetic_from_ecef(origin + centres @ r_enu.T), axis=-1)
    local = np.stack([r_ecef_enu(lat, lon) for lat, lon, _ in at])
    return at, np.asarray(ENU_FROM_NED.T @ np.swapaxes(local, 1, 2) @ r_enu @ r_enu_cam)


def _reference_beside(path: Path) -> dict[str, float]:
    """Returns the reference point that OpenSfM keeps in a file of its own."""
    beside = path.with_name("reference_lla.json")
    if not beside.is_file():
        raise SourceError(
            f"{path} has no reference point (reference_lla)",
            "copy OpenSfM's reference_lla.json beside it",
        )
    reference: dict[str, float] = _load(beside)
    return reference


def _shots(content: dict[str, Any], path: Path, datum: HeightDatum) -> Placement:
    """Returns ODM's shots: positions in degrees, rotation vectors UTM grid → camera."""
    features = [f for f in content.get("features", []) if "rotation" in f.get("properties", {})]
    if not features:
        raise SourceError(f"{path} holds no shots with a rotation", "give ODM's shots.geojson")
    names = [str(f["properties"]["filename"]) for f in features]
    at = np.array([f["geometry"]["coordinates"][:3] for f in features], dtype=np.float64)
    vectors = np.array([f["properties"]["rotation"] for f in features], dtype=np.float64)
    frame = MapFrame.utm(float(np.median(at[:, 1])), float(np.median(at[:, 0])))
    r_grid_cam = np.swapaxes(rot_exp(vectors), 1, 2)
    r_ned_cam = _true_north(frame, at[:, 1], at[:, 0], r_grid_cam)
    return _placement(names, at[:, [1, 0, 2]], r_ned_cam, datum)


def _placement(names: list[str], lla: Floats, r_ned_cam: Floats, datum: HeightDatum) -> Placement:
    lat, lon, alt_m = lla[:, 0].copy(), lla[:, 1].copy(), lla[:, 2].copy()
    if datum in ("egm96", "egm2008"):
        alt_m, datum = to_ellipsoid_m(alt_m, datum, lat, lon), "ellipsoid"
    return Placement(tuple(names), lat, lon, alt_m, datum, r_ned_cam)
