"""Poses written back: into copies of the frames, and as ODM's ``geo.txt``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gossan.errors import UserError
from onboard.keep.exif import altitude_m
from onboard.keep.restamp import restamp_pose
from onboard.records import Floats, Poses
from onboard.sources.source import Source

GEO_TXT = "geo.txt"
NamedFile = tuple[str, Path]
Progress = Callable[[Iterable[NamedFile]], Iterable[NamedFile]]


@dataclass(frozen=True, slots=True)
class Stamped:
    """What was written.

    Attributes:
        frames: Number of frames in the source.
        stamped: Names of the copies that carry their pose.
        as_they_are: Names of copies whose format or tags take none; ``geo.txt`` has them.
        without_pose: Names of frames that have no pose and were not copied.
    """

    frames: int
    stamped: tuple[str, ...]
    as_they_are: tuple[str, ...]
    without_pose: tuple[str, ...]


def stamp_frames(source: Source, poses: Poses, out: Path, progress: Progress = iter) -> Stamped:
    """Copies the frames that have a pose into a folder, their pose in their tags.

    Raises:
        UserError: The folder is the source's own, or there are no files to copy.
    """
    files = {frame.name: frame.path for frame in source.frames() if frame.path is not None}
    if not files:
        raise UserError(f"{source.name} has no image files", "give photos, frames or a flight")
    if any(path.parent.resolve() == out.resolve() for path in files.values()):
        raise UserError(f"{out} holds the originals", "give another folder as --out")
    out.mkdir(parents=True, exist_ok=True)
    row_of = {name: i for i, name in enumerate(poses.frame)}
    stamped: list[str] = []
    plain: list[str] = []
    lost: list[str] = []
    for name, path in progress(files.items()):
        if name not in row_of:
            lost.append(name)
            continue
        content = path.read_bytes()
        new = restamp_pose(content, poses.take([row_of[name]]))
        (out / name).write_bytes(content if new is None else new)
        (plain if new is None else stamped).append(name)
    (out / GEO_TXT).write_text(geo_txt(poses), encoding="utf-8")
    return Stamped(len(files), tuple(stamped), tuple(plain), tuple(lost))


def geo_txt(poses: Poses) -> str:
    """Returns ODM's ``geo.txt``: name, longitude, latitude, height, ω φ κ, accuracies.

    Heights are above EGM96 as in EXIF, where the datum allows it. Angles are degrees as OpenSfM
    has them; accuracies one σ in metres with what the flight shares added.
    https://docs.opendronemap.org/geo/
    """
    lines = ["EPSG:4326", f"# heights above {_datum(poses)}; omega phi kappa in degrees"]
    sigma_m = np.hypot(poses.sigma_enu_m, poses.bias_enu_m)
    opk = np.degrees(omega_phi_kappa(poses.r_ned_cam))
    for i, name in enumerate(poses.frame):
        place = f"{poses.lon_deg[i]:.9f} {poses.lat_deg[i]:.9f} {altitude_m(poses.take([i])):.3f}"
        angles = " ".join(f"{angle:.6f}" for angle in opk[i])
        flat_m = math.sqrt((sigma_m[i, 0] ** 2 + sigma_m[i, 1] ** 2) / 2.0)
        lines.append(f"{name} {place} {angles} {flat_m:.3f} {sigma_m[i, 2]:.3f}")
    return "\n".join(lines) + "\n"


def omega_phi_kappa(r_ned_cam: Floats) -> Floats:
    """Returns (n, 3) ω, φ, κ in radians of (n, 3, 3) attitudes, as OpenSfM defines them.

    R_world_image = Rx(ω)·Ry(φ)·Rz(κ), world east-north-up, image axes right, up, backward.
    """
    enu = r_ned_cam[:, [1, 0, 2], :] * np.array([1.0, 1.0, -1.0])[:, None]
    r = enu * np.array([1.0, -1.0, -1.0])
    return np.column_stack(
        [
            np.arctan2(-r[:, 1, 2], r[:, 2, 2]),
            np.arcsin(np.clip(r[:, 0, 2], -1.0, 1.0)),
            np.arctan2(-r[:, 0, 1], r[:, 0, 0]),
        ]
    )


def _datum(poses: Poses) -> str:
    return "EGM96" if poses.height_datum == "ellipsoid" else poses.height_datum
