"""The rig: one camera as it is mounted, with its uncertainties, read from and written to TOML."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tomlkit
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, NonNegativeFloat, PositiveFloat, PositiveInt

from calibration.band_profile import RadiometryTable
from calibration.camera import INTRINSICS, Camera
from calibration.errors import RigError
from calibration.rotations import A_BODY_CAM, r_from_ypr, ypr_from_r
from gossan.settings import Settings, load_settings

Floats = NDArray[np.float64]
MountType = Literal["fixed", "gimbal"]
Triple = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
SigmaTriple = tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat]

FOCAL_SHORT = {"fx": "fx_px", "fy": "fy_px", "cx": "cx_px", "cy": "cy_px"}
HASH_DECIMALS = 12
LATER = ("height_bias_m",)
"""What rigs did not have at first: at 0 it is not part of the hash."""


class CameraTable(Settings):
    """The table ``[camera]``."""

    model: Literal["opencv", "fisheye"]
    width_px: PositiveInt
    height_px: PositiveInt
    fx_px: PositiveFloat
    fy_px: PositiveFloat
    cx_px: FiniteFloat
    cy_px: FiniteFloat
    k1: FiniteFloat = 0.0
    k2: FiniteFloat = 0.0
    p1: FiniteFloat = 0.0
    p2: FiniteFloat = 0.0
    k3: FiniteFloat = 0.0
    k4: FiniteFloat = 0.0
    k5: FiniteFloat = 0.0
    k6: FiniteFloat = 0.0
    s1: FiniteFloat = 0.0
    s2: FiniteFloat = 0.0
    s3: FiniteFloat = 0.0
    s4: FiniteFloat = 0.0
    sigma_px: NonNegativeFloat = 0.0
    covariance_order: tuple[str, ...] = ()
    covariance: tuple[tuple[FiniteFloat, ...], ...] | None = None


class MountTable(Settings):
    """The table ``[mount]``."""

    type: MountType
    yaw_deg: FiniteFloat | None = None
    pitch_deg: FiniteFloat | None = None
    roll_deg: FiniteFloat | None = None
    sigma_deg: SigmaTriple = (0.0, 0.0, 0.0)
    lever_arm_m: Triple = (0.0, 0.0, 0.0)
    lever_arm_sigma_m: SigmaTriple = (0.0, 0.0, 0.0)
    heading_bias_deg: FiniteFloat = 0.0
    height_bias_m: FiniteFloat = 0.0


class ClockTable(Settings):
    """The table ``[clock]``."""

    offset_s: FiniteFloat = 0.0
    sigma_s: NonNegativeFloat = 0.0
    readout_s: NonNegativeFloat = 0.0


class DefaultsTable(Settings):
    """The table ``[defaults]``: σ used where a table or a log gives none."""

    sigma_e_m: NonNegativeFloat = 0.5
    sigma_n_m: NonNegativeFloat = 0.5
    sigma_u_m: NonNegativeFloat = 0.8
    sigma_tilt_deg: NonNegativeFloat = 0.7
    sigma_heading_deg: NonNegativeFloat = 1.0
    sigma_dem_m: NonNegativeFloat = 1.0
    bias_e_m: NonNegativeFloat = 1.0
    bias_n_m: NonNegativeFloat = 1.0
    bias_u_m: NonNegativeFloat = 1.8
    bias_heading_deg: NonNegativeFloat = 1.7
    dem_level_m: NonNegativeFloat = 1.0


class RigTable(Settings):
    """A whole rig file."""

    camera: CameraTable
    mount: MountTable
    clock: ClockTable = ClockTable()
    defaults: DefaultsTable = DefaultsTable()
    radiometry: RadiometryTable | None = None
    about: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mount:
    """How the camera sits on the vehicle.

    Attributes:
        type: ``fixed`` to the body, or behind a ``gimbal`` that reports its own attitude.
        r_mount: (3, 3) the camera's attitude in the body (fixed), or the small rotation after the
            gimbal's (gimbal); without the axes' change A.
        sigma_rad: (3,) boresight σ about the camera's right, down and forward.
        lever_arm_m: (3,) from the telemetry's reference point to the projection centre,
            forward-right-down in body axes.
        heading_bias_rad: Added to the telemetry's heading (about world down).
        lever_arm_sigma_m: (3,) its σ.
        height_bias_m: Added to the telemetry's height.
    """

    type: MountType
    r_mount: Floats
    sigma_rad: Floats = field(default_factory=lambda: np.zeros(3))
    lever_arm_m: Floats = field(default_factory=lambda: np.zeros(3))
    heading_bias_rad: float = 0.0
    lever_arm_sigma_m: Floats = field(default_factory=lambda: np.zeros(3))
    height_bias_m: float = 0.0

    def r_ned_cam(self, r_ned_base: Floats) -> Floats:
        """Returns the (n, 3, 3) rotations camera → NED.

        Args:
            r_ned_base: (n, 3, 3) body → NED for a fixed mount; the gimbal's reported camera
                attitude, camera axes → NED, for a gimbal.
        """
        base = self.level(np.asarray(r_ned_base, dtype=np.float64))
        if self.type == "gimbal":
            base = base @ A_BODY_CAM.T
        return np.asarray(base @ self.r_mount @ A_BODY_CAM)

    def level(self, r_ned: Floats) -> Floats:
        """Returns attitudes turned about world down by the heading bias."""
        if self.heading_bias_rad == 0.0:
            return r_ned
        return np.asarray(r_from_ypr(self.heading_bias_rad, 0.0, 0.0) @ r_ned)


@dataclass(frozen=True, slots=True)
class Clock:
    """When the camera's rows are exposed.

    Attributes:
        offset_s: Exposure of the middle row = stamp + ``offset_s``.
        sigma_s: Its σ.
        readout_s: From the exposure of the first row to that of the last.
    """

    offset_s: float = 0.0
    sigma_s: float = 0.0
    readout_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Defaults:
    """σ used where a table or a log gives none; ``bias_*`` is what a whole flight shares."""

    sigma_e_m: float = 0.5
    sigma_n_m: float = 0.5
    sigma_u_m: float = 0.8
    sigma_tilt_deg: float = 0.7
    sigma_heading_deg: float = 1.0
    sigma_dem_m: float = 1.0
    bias_e_m: float = 1.0
    bias_n_m: float = 1.0
    bias_u_m: float = 1.8
    bias_heading_deg: float = 1.7
    dem_level_m: float = 1.0


@dataclass(frozen=True, slots=True)
class Rig:
    """A camera model with its covariance, a mount, a clock, default σ and a radiometric profile.

    Attributes:
        camera: The intrinsics.
        mount: How it sits on the vehicle.
        clock: When its rows are exposed.
        defaults: σ where nothing else gives them.
        sigma_px: σ of a pixel measurement, each axis.
        covariance: (k, k) covariance of the intrinsics in ``covariance_order``; ``None`` = exact.
        covariance_order: k names of intrinsics.
        radiometry: What the numbers of its bands mean, or ``None``.
        about: Where the numbers come from, for people; not part of the hash.
        path: The file it was read from.
        hash: SHA-256 over all values but ``about`` and ``path``.
    """

    camera: Camera
    mount: Mount
    clock: Clock = Clock()
    defaults: Defaults = Defaults()
    sigma_px: float = 0.0
    covariance: Floats | None = None
    covariance_order: tuple[str, ...] = ()
    radiometry: RadiometryTable | None = None
    about: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    hash: str = field(init=False, default="")

    def __post_init__(self) -> None:
        _check_covariance(self.camera, self.covariance, self.covariance_order)
        content = {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.name not in ("about", "path", "hash")
        }
        text = json.dumps(_canonical(content), sort_keys=True, separators=(",", ":"))
        object.__setattr__(self, "hash", hashlib.sha256(text.encode()).hexdigest())

    @property
    def label(self) -> str:
        """``rig/`` and the first eight digits of the hash: the stem of its bias states' names."""
        return f"rig/{self.hash[:8]}"


def load_rig(path: str | Path) -> Rig:
    """Returns the rig in a TOML file.

    Raises:
        SettingsError: The file cannot be read, or a key or value is refused.
        RigError: Its values contradict each other.
    """
    path = Path(path)
    table = load_settings(path, RigTable)
    camera = table.camera
    order = tuple(FOCAL_SHORT.get(name, name) for name in camera.covariance_order)
    covariance = None if camera.covariance is None else _matrix(camera.covariance, path)
    return Rig(
        camera=_camera(camera, path),
        mount=_mount(table.mount, path),
        clock=Clock(**table.clock.model_dump()),
        defaults=Defaults(**table.defaults.model_dump()),
        sigma_px=camera.sigma_px,
        covariance=covariance,
        covariance_order=order,
        radiometry=table.radiometry,
        about=table.about,
        path=path,
    )


def write_rig(path: str | Path, rig: Rig) -> Rig:
    """Writes a rig as TOML and returns it as read back."""
    path = Path(path)
    camera = rig.camera
    table: dict[str, Any] = {"model": camera.model}
    table |= {name: getattr(camera, name) for name in ("width_px", "height_px", *INTRINSICS)}
    table |= {
        name: value
        for name, value in zip(camera.terms, camera.distortion, strict=True)
        if value or name in ("k1", "k2", "p1", "p2")
    }
    table["sigma_px"] = rig.sigma_px
    if rig.covariance is not None:
        table["covariance_order"] = list(rig.covariance_order)
        table["covariance"] = rig.covariance.tolist()
    document: dict[str, Any] = {"about": rig.about} if rig.about else {}
    document |= {
        "camera": table,
        "mount": _mount_table(rig.mount),
        "clock": asdict(rig.clock),
        "defaults": asdict(rig.defaults),
    }
    if rig.radiometry is not None:
        document["radiometry"] = rig.radiometry.model_dump(mode="json", exclude_defaults=True)
    path.write_text(tomlkit.dumps(document), encoding="utf-8")
    return load_rig(path)


def _camera(table: CameraTable, path: Path) -> Camera:
    values = table.model_dump()
    names = ("k1", "k2", "k3", "k4") if table.model == "fisheye" else (
        "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6", "s1", "s2", "s3", "s4",
    )  # fmt: skip
    foreign = [name for name in table.model_fields_set & {"p1", "p2", "k5", "k6", "s1", "s2"}
               if name not in names and values[name]]  # fmt: skip
    if foreign:
        raise RigError(
            f"{path}: the fisheye model has no {', '.join(sorted(foreign))}",
            "its terms are k1, k2, k3, k4",
        )
    return Camera(
        model=table.model,
        width_px=table.width_px,
        height_px=table.height_px,
        fx_px=table.fx_px,
        fy_px=table.fy_px,
        cx_px=table.cx_px,
        cy_px=table.cy_px,
        distortion=tuple(values[name] for name in names),
    )


def _mount(table: MountTable, path: Path) -> Mount:
    given = {name: getattr(table, name) for name in ("yaw_deg", "pitch_deg", "roll_deg")}
    missing = [name for name, value in given.items() if value is None]
    if table.type == "fixed" and missing:
        raise RigError(
            f"{path}: a fixed mount needs {', '.join(missing)} in [mount]",
            "looking straight down with the image's top to the nose: yaw 0, pitch -90, roll 0",
        )
    yaw, pitch, roll = (np.radians(value or 0.0) for value in given.values())
    return Mount(
        type=table.type,
        r_mount=r_from_ypr(yaw, pitch, roll),
        sigma_rad=np.radians(table.sigma_deg),
        lever_arm_m=np.array(table.lever_arm_m),
        heading_bias_rad=float(np.radians(table.heading_bias_deg)),
        lever_arm_sigma_m=np.array(table.lever_arm_sigma_m),
        height_bias_m=table.height_bias_m,
    )


def _mount_table(mount: Mount) -> dict[str, Any]:
    yaw, pitch, roll = (round(float(np.degrees(a)), 12) for a in ypr_from_r(mount.r_mount))
    table: dict[str, Any] = {
        "type": mount.type,
        "yaw_deg": yaw,
        "pitch_deg": pitch,
        "roll_deg": roll,
        "sigma_deg": np.degrees(mount.sigma_rad).round(12).tolist(),
        "lever_arm_m": mount.lever_arm_m.tolist(),
        "heading_bias_deg": round(float(np.degrees(mount.heading_bias_rad)), 12),
    }
    if mount.height_bias_m:
        table["height_bias_m"] = mount.height_bias_m
    if mount.lever_arm_sigma_m.any():
        table["lever_arm_sigma_m"] = mount.lever_arm_sigma_m.tolist()
    return table


def _matrix(rows: tuple[tuple[float, ...], ...], path: Path) -> Floats:
    if any(len(row) != len(rows) for row in rows):
        raise RigError(
            f"{path}: [camera] covariance is not square: {len(rows)} rows of "
            f"{sorted({len(row) for row in rows})}",
            "one row and one column for each name of covariance_order",
        )
    return np.array(rows, dtype=np.float64)


def _check_covariance(camera: Camera, covariance: Floats | None, order: tuple[str, ...]) -> None:
    """Raises RigError where the covariance does not fit its names or is no covariance."""
    if covariance is None:
        return
    unknown = [name for name in order if name not in (*INTRINSICS, *camera.terms)]
    if unknown or len(set(order)) != len(order) or covariance.shape != (len(order), len(order)):
        raise RigError(
            f"[camera] covariance of shape {covariance.shape} with covariance_order {list(order)}",
            f"name each row once; known names: {', '.join((*INTRINSICS, *camera.terms))}",
        )
    if not np.allclose(covariance, covariance.T, rtol=1e-6, atol=0.0):
        raise RigError("[camera] covariance is not symmetric", "write both triangles")
    scale = np.sqrt(np.abs(np.diag(covariance)))
    scaled = covariance / np.where(scale > 0, scale, 1.0) / np.where(scale > 0, scale, 1.0)[:, None]
    if len(order) and np.linalg.eigvalsh(scaled).min() < -1e-6:
        raise RigError("[camera] covariance has a negative eigenvalue", "check its numbers")


def _canonical(value: Any) -> Any:
    """Returns a value as JSON types with floats rounded, so that equal rigs hash alike."""
    if isinstance(value, dict):
        return {str(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _canonical(value.tolist())
    if isinstance(value, RadiometryTable):
        return value.model_dump_json()  # its terms span 20 decades: no rounding
    if isinstance(value, (list, tuple)):
        return [_canonical(v) for v in value]
    if isinstance(value, (Camera, Mount, Clock, Defaults)):
        named = {item.name: _canonical(getattr(value, item.name)) for item in fields(value)}
        return {name: given for name, given in named.items() if name not in LATER or given}
    if isinstance(value, float):
        return round(value, HASH_DECIMALS) + 0.0
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
