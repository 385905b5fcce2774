"""What all rooms exchange: frames, poses, detections, tracks, alerts, footprints.

Sets are struct-of-arrays, validated once at construction; single things are frozen dataclasses.
They mean the same in the database, on the wire, in exports and in tests.

Axes: map x east, y north in the flight's projected CRS (metres); attitude against local NED
(true north); camera axes x right, y down, z forward. Covariances are in true east/north, m².

A position's error has two parts. The *random* part is a 2×2 covariance, independent from look to
look. The *systematic* part is a 2×k matrix of sensitivities, in metres per standard deviation, to
k named bias states, each of unit variance (`names` say which: ``rig/…``, ``flight/…``, ``dem/…``).
A state that two looks share is one state. Total covariance = random + S Sᵀ.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Image = NDArray[np.uint8] | NDArray[np.uint16]

HeightDatum = Literal["ellipsoid", "egm96", "egm2008", "takeoff", "same"]

CHI2_2_P90 = 4.605170185988092
"""The 90 % quantile of χ² with two degrees of freedom: 90 % ellipses have this squared radius."""


class UtcQuality(StrEnum):
    """How far a UTC label can be trusted."""

    NONE = "none"
    HOST = "host"
    GPS = "gps"


@dataclass(frozen=True, slots=True)
class ClockTie:
    """One tie between the clocks at hand.

    Attributes:
        t_mono_ns: Host monotonic time.
        t_boot_s: Autopilot time since boot, within ``epoch``.
        epoch: Counts the autopilot's reboots.
        rtt_s: Round trip of the exchange that made the tie; NaN for arrival-time ties.
        t_utc_s: UNIX time; NaN where unknown.
        utc_quality: Where ``t_utc_s`` comes from.
    """

    t_mono_ns: int
    t_boot_s: float
    epoch: int = 0
    rtt_s: float = float("nan")
    t_utc_s: float = float("nan")
    utc_quality: UtcQuality = UtcQuality.NONE


@dataclass(frozen=True, slots=True)
class Frame:
    """One exposure before it is placed.

    Attributes:
        name: The source's file name; tables match by it, then by its stem.
        seq: Counts up within the flight.
        t_mono_ns: Host monotonic time of the exposure's middle row, if it was captured live.
        t_boot_s: Autopilot time of the exposure's middle row; NaN where unknown.
        path: The file that holds the pixels, if there is one.
        pixels: (h, w, bands) or (h, w) array as decoded, never turned by EXIF Orientation; RGB
            order; ``None`` until it is read.
        flags: What looks wrong with it, documented codes.
    """

    name: str
    seq: int
    t_mono_ns: int | None = None
    t_boot_s: float = float("nan")
    path: Path | None = None
    pixels: Image | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Poses:
    """Camera poses of n frames: final attitude of the camera, projection centre.

    Attributes:
        frame: n names.
        lat_deg: (n,) WGS84.
        lon_deg: (n,) WGS84.
        alt_m: (n,) height of the projection centre above ``height_datum``.
        height_datum: What ``alt_m`` is above.
        r_ned_cam: (n, 3, 3) camera axes to local NED (true north).
        r_ned_body: (n, 3, 3) body axes to local NED; NaN where unknown.
        v_ned_mps: (n, 3) velocity; NaN where unknown.
        omega_ned_rps: (n, 3) angular rate of the camera, in NED axes; NaN where unknown.
        sigma_enu_m: (n, 3) σ of east, north, up, random from frame to frame.
        sigma_tilt_rad: (n,) σ of the world rotation about each horizontal axis, random.
        sigma_heading_rad: (n,) σ of the world rotation about the vertical, random.
        bias_enu_m: (n, 3) σ of what the whole flight shares of the position error.
        bias_heading_rad: (n,) σ of what the whole flight shares of the heading error.
        t_boot_s: (n,) autopilot time of the middle row; NaN where unknown.
        flags: n tuples of documented codes.
    """

    frame: tuple[str, ...]
    lat_deg: Floats
    lon_deg: Floats
    alt_m: Floats
    height_datum: HeightDatum
    r_ned_cam: Floats
    r_ned_body: Floats
    v_ned_mps: Floats
    omega_ned_rps: Floats
    sigma_enu_m: Floats
    sigma_tilt_rad: Floats
    sigma_heading_rad: Floats
    bias_enu_m: Floats
    bias_heading_rad: Floats
    t_boot_s: Floats
    flags: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        n = len(self.frame)
        shapes = {
            **dict.fromkeys(("r_ned_cam", "r_ned_body"), (n, 3, 3)),
            **dict.fromkeys(("v_ned_mps", "omega_ned_rps", "sigma_enu_m", "bias_enu_m"), (n, 3)),
        }
        _check_arrays(self, n, shapes)

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, index: Ints | list[int]) -> Self:
        """Returns the poses at these indices, in their order."""
        kept: Self = _take(self, np.asarray(index, dtype=np.int64))
        return kept


@dataclass(frozen=True, slots=True)
class GroundPoints:
    """n pixels placed on the ground.

    Attributes:
        lat_deg: (n,) WGS84; NaN where the point could not be placed.
        lon_deg: (n,) WGS84.
        alt_m: (n,) height above ``height_datum``.
        height_datum: ``ellipsoid``, or ``same``/``takeoff`` where no more is known.
        x_m: (n,) map x of the scene's CRS.
        y_m: (n,) map y.
        cov_random_m2: (n, 2, 2) random covariance, true east/north.
        sensitivity_m: (n, 2, k) metres east/north per σ of each bias state.
        bias_names: k names of the bias states.
        cause_names: c names of the causes of error.
        cause_share: (n, c) each cause's share of the total variance (sums to 1).
        flags: n tuples of documented codes.
    """

    lat_deg: Floats
    lon_deg: Floats
    alt_m: Floats
    height_datum: HeightDatum
    x_m: Floats
    y_m: Floats
    cov_random_m2: Floats
    sensitivity_m: Floats
    bias_names: tuple[str, ...]
    cause_names: tuple[str, ...]
    cause_share: Floats
    flags: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        n = len(self.flags)
        shapes = {
            "cov_random_m2": (n, 2, 2),
            "sensitivity_m": (n, 2, len(self.bias_names)),
            "cause_share": (n, len(self.cause_names)),
        }
        _check_arrays(self, n, shapes)

    def __len__(self) -> int:
        return len(self.flags)

    @property
    def cov_total_m2(self) -> Floats:
        """(n, 2, 2) random plus systematic covariance, true east/north, m²."""
        s = self.sensitivity_m
        return np.asarray(self.cov_random_m2 + s @ np.swapaxes(s, 1, 2))

    def take(self, index: Ints | list[int]) -> Self:
        """Returns the points at these indices, in their order."""
        kept: Self = _take(self, np.asarray(index, dtype=np.int64))
        return kept


@dataclass(frozen=True, slots=True)
class Detections:
    """n things the machine saw in one frame, placed.

    Attributes:
        frame: The frame's name.
        class_name: n class names of the model's manifest.
        probability: (n,) probability of the class.
        calibrated: Whether ``probability`` was calibrated on held-out data.
        ood: (n,) True where the out-of-distribution gate doubts it.
        area_m2: (n,) area on the ground.
        polygon_px: n arrays (m, 2) of source pixels, closed implicitly.
        centroid_px: (n, 2) source pixel of the centroid.
        ground: Where the centroids lie.
        polygon_map_m: n arrays (m, 2) of map x, y.
        model_hash: SHA-256 of the model's manifest.
        inside: (n,) True where the region touches neither the frame's edge nor a masked pixel.
    """

    frame: str
    class_name: tuple[str, ...]
    probability: Floats
    calibrated: bool
    ood: Bools
    area_m2: Floats
    polygon_px: tuple[Floats, ...]
    centroid_px: Floats
    ground: GroundPoints
    polygon_map_m: tuple[Floats, ...]
    model_hash: str
    inside: Bools

    def __post_init__(self) -> None:
        n = len(self.class_name)
        _check_arrays(self, n, {"centroid_px": (n, 2)})
        for name in ("polygon_px", "polygon_map_m", "ground"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name} has {len(getattr(self, name))} rows, not {n}")

    def __len__(self) -> int:
        return len(self.class_name)


@dataclass(frozen=True, slots=True)
class Track:
    """The same thing over frames.

    Attributes:
        track_id: Counts up within the flight.
        class_name: The class it was seen as most.
        state: ``tentative`` until enough looks agree, then ``confirmed``.
        looks: Number of frames that saw it.
        misses: Number of frames that imaged the place and did not see it.
        probability: Combined probability of its looks.
        lat_deg: Fused position, WGS84.
        lon_deg: Fused position, WGS84.
        alt_m: Height above ``height_datum``.
        height_datum: What ``alt_m`` is above.
        x_m: Fused map x.
        y_m: Fused map y.
        cov_random_m2: (2, 2) random covariance, true east/north.
        sensitivity_m: (2, k) metres east/north per σ of each bias state.
        bias_names: k names.
        area_m2: Median area of its looks.
        first_frame: Name of the first frame that saw it.
        last_frame: Name of the last frame that saw it.
        best_frame: Name of the frame whose chip shows it best.
        ood: True where most looks are doubted by the out-of-distribution gate.
        remedy: What would shrink its ellipse most, one line; empty if nothing is known.
    """

    track_id: int
    class_name: str
    state: Literal["tentative", "confirmed"]
    looks: int
    misses: int
    probability: float
    lat_deg: float
    lon_deg: float
    alt_m: float
    height_datum: HeightDatum
    x_m: float
    y_m: float
    cov_random_m2: Floats
    sensitivity_m: Floats
    bias_names: tuple[str, ...]
    area_m2: float
    first_frame: str
    last_frame: str
    best_frame: str
    ood: bool = False
    remedy: str = ""

    @property
    def cov_total_m2(self) -> Floats:
        """(2, 2) random plus systematic covariance, true east/north, m²."""
        return np.asarray(self.cov_random_m2 + self.sensitivity_m @ self.sensitivity_m.T)


@dataclass(frozen=True, slots=True)
class Alert:
    """A track told to a human in flight.

    Attributes:
        alert_id: Counts up within the flight.
        track_id: The track it tells of.
        t_mono_ns: When the policy decided.
        severity: MAVLink severity (4 warning, 5 notice, 6 info).
        text: What is said, at most 50 ASCII characters.
        told: When it was sent, host monotonic ns; ``None`` until then.
    """

    alert_id: int
    track_id: int
    t_mono_ns: int
    severity: int
    text: str
    told: int | None = None


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one frame really imaged.

    Attributes:
        frame: The frame's name.
        polygon_map_m: (m, 2) map x, y of the imaged ground's outline.
        holes_map_m: Arrays (m, 2) of what inside the outline was not seen (occlusions, voids).
        gsd_m: Median ground sample distance of the source.
        quality: ``good``, or why the frame does not count as a look (``blurred``, ``dark``, …).
        scanned: Whether the network looked at it.
    """

    frame: str
    polygon_map_m: Floats
    holes_map_m: tuple[Floats, ...]
    gsd_m: float
    quality: str = "good"
    scanned: bool = False


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """All that one frame adds to the flight, committed together.

    Attributes:
        frame: The frame (without pixels).
        pose: One pose, or ``None`` where it could not be placed.
        kept_path: The kept file, relative to the flight folder; empty if it was not kept.
        kept_sha256: Its hash; empty if it was not kept.
        footprint: What it imaged, or ``None``.
        detections: What was seen in it, or ``None`` where it was not scanned.
        tracks: The tracks that it changed.
        alerts: The alerts that it raised.
        stage_ms: Milliseconds spent in each stage.
        dropped: Why stages were skipped, ``stage: reason``.
    """

    frame: Frame
    pose: Poses | None = None
    kept_path: str = ""
    kept_sha256: str = ""
    footprint: Footprint | None = None
    detections: Detections | None = None
    tracks: tuple[Track, ...] = ()
    alerts: tuple[Alert, ...] = ()
    stage_ms: dict[str, float] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


def _check_arrays(record: Any, n: int, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises ValueError where an array field has another shape than (n,) or the one given."""
    for item in fields(record):
        value = getattr(record, item.name)
        if isinstance(value, np.ndarray):
            expected = shapes.get(item.name, (n,))
            if value.shape != expected:
                kind = type(record).__name__
                raise ValueError(f"{kind}.{item.name} has shape {value.shape}, not {expected}")
        elif item.name == "flags" and len(value) != n:
            raise ValueError(f"{type(record).__name__}.flags has {len(value)} rows, not {n}")


def _take(record: Any, index: Ints) -> Any:
    """Returns the struct-of-arrays at these rows; names of states and causes stay as they are."""
    kept: dict[str, Any] = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if isinstance(value, np.ndarray):
            kept[item.name] = value[index]
        elif item.name in ("frame", "flags"):
            kept[item.name] = tuple(value[i] for i in index)
        else:
            kept[item.name] = value
    return type(record)(**kept)
