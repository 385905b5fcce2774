"""What a source of frames is, and the codes of what may look wrong with a frame."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from calibration.camera import Camera
from calibration.rig import Defaults, Mount, Rig
from calibration.rotations import r_from_ypr
from onboard.records import Floats, Frame, HeightDatum, Poses

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
SAMPLE_FORMAT, REAL_NUMBERS = 339, 3
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".ts", ".m2ts", ".m4v", ".webm")


class Flag(NamedTuple):
    """What looks wrong with a frame, and what to do."""

    frame: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class FlagCode:
    """A documented code: what it means, and what to do."""

    meaning: str
    remedy: str


FLAG_CODES: dict[str, FlagCode] = {
    "no_gps": FlagCode(
        "The frame carries no position.",
        "give a pose table (--poses) or leave it out; check the camera's GPS setting",
    ),
    "gps_void": FlagCode(
        "Its position is 0/0, out of range or marked void by the receiver.",
        "wait for a fix before taking photos; give a pose table (--poses) for this frame",
    ),
    "no_attitude": FlagCode(
        "It says where it was taken but not where the camera looked.",
        "give a pose table (--poses), the flight's .tlog, or resect it from control points",
    ),
    "no_height": FlagCode(
        "It carries no height.",
        "give a pose table (--poses) with heights",
    ),
    "repeated_fix": FlagCode(
        "Its position repeats an earlier frame's although it was taken at another time.",
        "do not trust its position; interpolate it from its neighbours or the flight's .tlog",
    ),
    "exif_rotated": FlagCode(
        "EXIF Orientation asks viewers to turn it; Gossan never does, calibration belongs to the "
        "array as stored.",
        "nothing if the camera wrote it; if a program turned the pixels, take the original",
    ),
    "turned": FlagCode(
        "Its image content is turned by 90, 180 or 270° against its neighbours and its yaw: "
        "a viewer turned the pixels and left the attitude as it was.",
        "take the original file, or turn it back without re-encoding (jpegtran)",
    ),
    "yaw_contradicts": FlagCode(
        "Its image content is turned against its neighbour's although their yaws agree; one of "
        "the two is wrong and nothing says which.",
        "compare both with the originals; give more overlapping frames",
    ),
    "contradicts_neighbours": FlagCode(
        "What it shows lies elsewhere than in all its neighbours: its pose or pixels are wrong.",
        "compare it with its neighbours; take the original file, or leave it out",
    ),
    "resaved": FlagCode(
        "A photo program saved it again: pixels may be turned or cropped and its yaw stale.",
        "take the original file from the camera's card",
    ),
    "stale_focal": FlagCode(
        "Its EXIF focal plane resolution belongs to another image size: it was resized.",
        "use a rig calibrated at this size; do not take the focal length from EXIF",
    ),
    "size_differs": FlagCode(
        "Its size is not the rig's.",
        "use the rig of this camera and image size",
    ),
    "unreadable": FlagCode(
        "It cannot be decoded, or its file ends before the image does.",
        "copy it again from the card; it is left out",
    ),
    "blurred": FlagCode(
        "It is blurred.",
        "shorten the exposure or fly slower; it does not count as a look",
    ),
    "dark": FlagCode(
        "It is dark or blank (lens cap, night, exposure failure).",
        "take the lens cap off, check exposure; it does not count as a look",
    ),
    "cut_short": FlagCode(
        "Its telemetry ends before it says what its neighbours say: the file was cut or damaged.",
        "take the file from the drone's card again; give a pose table (--poses) for this frame",
    ),
    "no_time": FlagCode(
        "No time could be found for it.",
        "add it to times.csv (frame,t_boot_s or frame,t_utc_s)",
    ),
    "no_telemetry": FlagCode(
        "The log has no telemetry at its time.",
        "check that log and frames are of the same flight, and the rig's [clock] offset_s",
    ),
    "no_position": FlagCode(
        "The log has no position at its time.",
        "wait for a position fix before flying; give a pose table (--poses)",
    ),
    "no_pose": FlagCode(
        "The pose table or reconstruction does not name it.",
        "add its row; names match by file name, then by stem",
    ),
    "not_in_trajectory": FlagCode(
        "The post-processed trajectory does not cover it, or has a gap of over 2 s there.",
        "solve the whole flight; leave --poses out to place it by its own position",
    ),
    "telemetry_gap": FlagCode(
        "Its pose is interpolated across a gap in the telemetry; its σ says so.",
        "raise the telemetry rates or take the .bin from the autopilot's card",
    ),
    "extrapolated": FlagCode(
        "Its time is outside the telemetry by at most 2 s; its σ says so.",
        "start recording before the first and stop after the last frame",
    ),
    "height_barometric": FlagCode(
        "No GNSS height was there to level the barometric height.",
        "stream GPS_RAW_INT; give --dem and align, or expect metres of height error",
    ),
    "no_gimbal_attitude": FlagCode(
        "The rig has a gimbal but the telemetry has no gimbal attitude: taken as straight down.",
        "stream GIMBAL_DEVICE_ATTITUDE_STATUS, or use a rig with a fixed mount",
    ),
}
"""Every code that ``flagged`` or a pose's flags may carry."""


def flag(frame: str, reason: str) -> Flag:
    """Returns the flag of a documented code."""
    return Flag(frame, reason, FLAG_CODES[reason].remedy)


class Source(Protocol):
    """Frames and where they were taken from.

    Attributes:
        name: What it is called: the file's or folder's name.
        kind: Which kind of source, for people.
        notes: What concerns the whole batch.
        flagged: What looks wrong with single frames, as far as is known yet.
        has_telemetry: Whether poses come from a telemetry log.
        telemetry: The log's path, if there is one.
    """

    name: str
    kind: str
    notes: list[str]
    flagged: list[Flag]
    has_telemetry: bool
    telemetry: Path | None

    def frames(self) -> Iterator[Frame]:
        """Yields the frames in order, without pixels."""
        ...

    def poses(self, rig: Rig | None) -> Poses:
        """Returns the poses of the frames that can be placed; ``flagged`` says why others not."""
        ...

    def load_pixels(self, frame: Frame) -> Frame:
        """Returns the frame with its pixels.

        Raises:
            DamagedFrame: It cannot be decoded.
        """
        ...


def image_files(folder: Path) -> list[Path]:
    """Returns the images of a folder in natural order (IMG_9 before IMG_10).

    Hidden files and rasters of real numbers (a DEM beside the frames) are none.
    """
    found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    frames = [p for p in found if not p.name.startswith(".") and not _is_dem(p)]
    return sorted(frames, key=natural_key)


def _is_dem(path: Path) -> bool:
    """Returns whether a TIFF file holds real numbers: SampleFormat 3 in its first directory."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return False
    try:
        with path.open("rb") as file:
            head = file.read(8)
            order = {b"II*\0": "<", b"MM\0*": ">"}.get(head[:4])
            if order is None:
                return False
            file.seek(struct.unpack(f"{order}I", head[4:])[0])
            (count,) = struct.unpack(f"{order}H", file.read(2))
            entries = file.read(12 * count)
        for tag, _, values, first in struct.iter_unpack(f"{order}HHIH2x", entries):
            if tag == SAMPLE_FORMAT:
                return bool(values == 1 and first == REAL_NUMBERS)
    except (OSError, struct.error):
        return False
    return False


def natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Returns the sort key that counts digits as numbers."""
    parts = re.split(r"(\d+)", path.name.lower())
    return tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts)


def nadir_rig() -> Rig:
    """Returns the stand-in where no rig is given: a fixed camera looking straight down."""
    camera = Camera("opencv", 4000, 3000, 3000.0, 3000.0, 1999.5, 1499.5)
    return Rig(camera, Mount("fixed", r_from_ypr(0.0, -np.pi / 2, 0.0)))


@dataclass(frozen=True, slots=True)
class Placement:
    """Camera poses as a source states them; what it does not state is NaN.

    Attributes:
        frame: n names.
        lat_deg: (n,).
        lon_deg: (n,).
        alt_m: (n,) above ``datum``.
        datum: What the heights are above.
        r_ned_cam: (n, 3, 3) camera axes to local NED.
        r_ned_body: (n, 3, 3) or ``None``.
        sigma_enu_m: (n, 3) stated σ, NaN where none is.
        t_s: (n,) capture times on any one clock, NaN where unknown.
        flags: n tuples of codes.
    """

    frame: tuple[str, ...]
    lat_deg: Floats
    lon_deg: Floats
    alt_m: Floats
    datum: HeightDatum
    r_ned_cam: Floats
    r_ned_body: Floats | None = None
    sigma_enu_m: Floats | None = None
    t_s: Floats | None = None
    flags: tuple[tuple[str, ...], ...] | None = None


def placed(at: Placement, rig: Rig | None) -> Poses:
    """Returns poses with the rig's (or the stated default) σ where the source states none."""
    d = rig.defaults if rig else Defaults()
    n = len(at.frame)
    sigma = np.tile([d.sigma_e_m, d.sigma_n_m, d.sigma_u_m], (n, 1))
    bias = np.tile([d.bias_e_m, d.bias_n_m, d.bias_u_m], (n, 1))
    if at.sigma_enu_m is not None:
        said = np.isfinite(at.sigma_enu_m)
        sigma, bias = np.where(said, at.sigma_enu_m, sigma), np.where(said, 0.0, bias)
    nans = np.full((n, 3), np.nan)
    return Poses(
        frame=at.frame,
        lat_deg=at.lat_deg,
        lon_deg=at.lon_deg,
        alt_m=at.alt_m,
        height_datum=at.datum,
        r_ned_cam=at.r_ned_cam,
        r_ned_body=np.full((n, 3, 3), np.nan) if at.r_ned_body is None else at.r_ned_body,
        v_ned_mps=nans,
        omega_ned_rps=nans.copy(),
        sigma_enu_m=sigma,
        sigma_tilt_rad=np.full(n, np.radians(d.sigma_tilt_deg)),
        sigma_heading_rad=np.full(n, np.radians(d.sigma_heading_deg)),
        bias_enu_m=bias,
        bias_heading_rad=np.full(n, np.radians(d.bias_heading_deg)),
        t_boot_s=np.full(n, np.nan),
        flags=at.flags or ((),) * n,
    )
