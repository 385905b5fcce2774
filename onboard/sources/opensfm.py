"""OpenSfM's ``reconstruction.json`` and ODM's ``shots.geojson`` as camera poses.

A reconstruction lives in the east-north-up frame at its reference point; its shots hold the
rotation world → camera as a rotation vector and t = −R C. Camera axes are ours (x right, y down).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from calibration.errors import DatumError
from calibration.geodesy import (
    ecef_from_geodetic,
    geodetic_from_ecef,
    r_ecef_enu,
    to_ellipsoid_m,
)
from calibration.rig import Rig
from calibration.rotations import ENU_FROM_NED, rot_exp
from onboard.records import HeightDatum, Poses
from onboard.sources.errors import SourceError
from onboard.sources.source import Placement, placed

MAX_BYTES = 1 << 30


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
    lla: list[tuple[float, float, float]] = []
    r_ecef_cam: list[np.ndarray[Any, np.dtype[np.float64]]] = []
    for part in content if isinstance(content, list) else [content]:
        reference = part.get("reference_lla") or _reference_beside(path)
        lat0, lon0 = reference["latitude"], reference["longitude"]
        r_enu = r_ecef_enu(lat0, lon0)
        origin = ecef_from_geodetic(lat0, lon0, reference["altitude"])
        for name, shot in part.get("shots", {}).items():
            r_cam_enu = rot_exp(np.array(shot["rotation"], dtype=np.float64))
            centre = -r_cam_enu.T @ np.array(shot["translation"], dtype=np.float64)
            lat, lon, alt = geodetic_from_ecef(origin + r_enu @ centre)
            names.append(name)
            lla.append((float(lat), float(lon), float(alt)))
            r_ecef_cam.append(r_enu @ r_cam_enu.T)
    if not names:
        raise SourceError(f"{path} holds no shots", "give OpenSfM's reconstruction.json")
    at = np.array(lla)
    local = np.stack([r_ecef_enu(lat, lon) for lat, lon, _ in lla])
    r_ned_cam = ENU_FROM_NED.T @ np.swapaxes(local, 1, 2) @ np.stack(r_ecef_cam)
    return _placement(names, at, r_ned_cam, datum)


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
    """Returns ODM's shots: rotation vectors world → camera, axes taken as true east-north-up."""
    features = [f for f in content.get("features", []) if "rotation" in f.get("properties", {})]
    if not features:
        raise SourceError(f"{path} holds no shots with a rotation", "give ODM's shots.geojson")
    names = [str(f["properties"]["filename"]) for f in features]
    at = np.array([f["geometry"]["coordinates"][:3] for f in features], dtype=np.float64)
    vectors = np.array([f["properties"]["rotation"] for f in features], dtype=np.float64)
    r_enu_cam = np.swapaxes(rot_exp(vectors), 1, 2)
    return _placement(names, at[:, [1, 0, 2]], ENU_FROM_NED.T @ r_enu_cam, datum)


def _placement(names: list[str], lla: Any, r_ned_cam: Any, datum: HeightDatum) -> Placement:
    lat, lon, alt_m = lla[:, 0].copy(), lla[:, 1].copy(), lla[:, 2].copy()
    if datum in ("egm96", "egm2008"):
        alt_m, datum = to_ellipsoid_m(alt_m, datum, lat, lon), "ellipsoid"
    return Placement(tuple(names), lat, lon, alt_m, datum, r_ned_cam)
