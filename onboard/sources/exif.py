"""What a photo says about itself: EXIF and XMP, with misspelt tags and other vendors' angles.

Angles are converted by namespace: DJI, Skydio and Parrot give the camera's yaw, pitch (−90 looks
down) and roll; Pix4D's ``Camera:*`` (senseFly, too) gives yaw, pitch and roll of a body whose
camera looks straight down, top to the nose, so that its pitch is 0 at nadir.
"""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL.ExifTags import GPS, IFD, Base

from calibration.rotations import A_BODY_CAM, r_from_ypr, r_ned_cam_from_ypr
from onboard.records import Floats
from onboard.sources.errors import DamagedFrame
from onboard.sources.xmp import parse_xmp

LATITUDE = ("Latitude", "GpsLatitude", "GPSLatitude")
LONGITUDE = ("Longitude", "GpsLongitude", "GpsLongtitude", "GPSLongitude", "GPSLongtitude")
VENDORS = ("drone-dji", "drone-skydio", "drone-parrot", "Camera")
CAMERA_ANGLES = (
    ("drone-dji:GimbalYawDegree", "drone-dji:GimbalPitchDegree", "drone-dji:GimbalRollDegree"),
    (
        "drone-skydio:CameraOrientationNED/drone-skydio:Yaw",
        "drone-skydio:CameraOrientationNED/drone-skydio:Pitch",
        "drone-skydio:CameraOrientationNED/drone-skydio:Roll",
    ),
    (
        "drone-parrot:CameraYawDegree",
        "drone-parrot:CameraPitchDegree",
        "drone-parrot:CameraRollDegree",
    ),
)
BODY_ANGLES = (
    ("drone-dji:FlightYawDegree", "drone-dji:FlightPitchDegree", "drone-dji:FlightRollDegree"),
    (
        "drone-parrot:DroneYawDegree",
        "drone-parrot:DronePitchDegree",
        "drone-parrot:DroneRollDegree",
    ),
)
PIX4D_ANGLES = ("Camera:Yaw", "Camera:Pitch", "Camera:Roll")
RTK_FLAGS = ("16", "34", "50")
CM, INCH = 3, 2
NAME_UTC = re.compile(r"(?<!\d)(\d{14})(\d{0,6})Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """What one photo says about itself.

    Attributes:
        width_px: Width as stored.
        height_px: Height as stored.
        lat_deg: Latitude; NaN where none is said.
        lon_deg: Longitude.
        alt_m: Absolute height above a datum that is rarely said.
        alt_datum: ``ellipsoid`` or ``egm96`` where the photo says it, else empty.
        alt_m_takeoff: Height above take-off.
        r_ned_cam: (3, 3) camera's attitude, or ``None``.
        final: Whether it is the camera's own (Pix4D); else a gimbal's, to which a rig's mount
            applies.
        r_ned_body: (3, 3) vehicle's attitude, or ``None``.
        sigma_enu_m: Stated σ of the position; NaN where none is.
        t_utc_s: UNIX time; if ``utc_known`` is false its zone is not said.
        utc_known: Whether ``t_utc_s`` is UTC.
        subsecond: Whether the time has parts of a second.
        orientation: EXIF Orientation; 1 = as stored.
        software: What wrote it last.
        void: Whether the receiver marked the fix void.
        focal_px: Focal length by focal plane resolution; NaN where none.
        focal35_px: Focal length by the 35-mm equivalent; NaN where none.
        exif_width_px: Width that EXIF says it has; 0 where none.
        notes: Misspelt tags and the like.
    """

    width_px: int
    height_px: int
    lat_deg: float = math.nan
    lon_deg: float = math.nan
    alt_m: float = math.nan
    alt_datum: str = ""
    alt_m_takeoff: float = math.nan
    r_ned_cam: Floats | None = None
    final: bool = False
    r_ned_body: Floats | None = None
    sigma_enu_m: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    t_utc_s: float = math.nan
    utc_known: bool = False
    subsecond: bool = False
    orientation: int = 1
    software: str = ""
    void: bool = False
    focal_px: float = math.nan
    focal35_px: float = math.nan
    exif_width_px: int = 0
    notes: tuple[str, ...] = field(default=())


def read_facts(path: Path) -> PhotoFacts:
    """Returns what a photo says about itself.

    Raises:
        DamagedFrame: It is no image that can be opened.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Pillow.open(path) as image:
                size = image.size
                base, camera, gps, packet = _tags(image)
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise DamagedFrame(f"cannot open {path}: {error}", "copy it again from the card") from error
    xmp = parse_xmp(packet)
    lat, lon, alt = _position(gps, xmp)
    t_utc_s, utc_known, subsecond = _time(base, camera)
    focal, focal35 = _focal(camera, size)
    r_ned_cam, final = _camera_attitude(xmp)
    return PhotoFacts(
        width_px=size[0],
        height_px=size[1],
        lat_deg=lat,
        lon_deg=lon,
        alt_m=alt,
        alt_datum=_datum(xmp),
        alt_m_takeoff=_number(xmp.get("drone-dji:RelativeAltitude")),
        r_ned_cam=r_ned_cam,
        final=final,
        r_ned_body=_body_attitude(xmp),
        sigma_enu_m=_sigma(gps, xmp),
        t_utc_s=t_utc_s,
        utc_known=utc_known,
        subsecond=subsecond,
        orientation=_whole(base.get(Base.Orientation), 1),
        software=f"{_text(base.get(Base.Software))} {xmp.get('xmp:CreatorTool', '')}".strip(),
        void=_text(gps.get(GPS.GPSStatus)) == "V",
        focal_px=focal,
        focal35_px=focal35,
        exif_width_px=_whole(camera.get(Base.ExifImageWidth), 0),
        notes=_misspelt(xmp),
    )


def _tags(image: Any) -> tuple[Any, dict[int, Any], dict[int, Any], bytes | None]:
    exif = image.getexif()
    packet = image.info.get("xmp") or exif.get(700)
    try:
        return exif, exif.get_ifd(IFD.Exif), exif.get_ifd(IFD.GPSInfo), packet
    except (KeyError, TypeError, ValueError, OSError):
        return exif, {}, {}, packet


def _position(gps: dict[int, Any], xmp: dict[str, str]) -> tuple[float, float, float]:
    """Returns latitude, longitude, height: XMP's where it has them (it keeps more digits)."""
    lat = _degrees(gps.get(GPS.GPSLatitude), gps.get(GPS.GPSLatitudeRef), "S")
    lon = _degrees(gps.get(GPS.GPSLongitude), gps.get(GPS.GPSLongitudeRef), "W")
    alt = _number(gps.get(GPS.GPSAltitude))
    ref = gps.get(GPS.GPSAltitudeRef, 0)
    if ref in (1, b"\x01", 3, b"\x03"):
        alt = -alt
    for vendor in VENDORS[:3]:
        x_lat = _first(xmp, [f"{vendor}:{name}" for name in LATITUDE])
        x_lon = _first(xmp, [f"{vendor}:{name}" for name in LONGITUDE])
        if math.isfinite(x_lat) and math.isfinite(x_lon):
            lat, lon = x_lat, x_lon
        x_alt = _number(xmp.get(f"{vendor}:AbsoluteAltitude"))
        alt = x_alt if math.isfinite(x_alt) else alt
    return lat, lon, alt


def _datum(xmp: dict[str, str]) -> str:
    """Returns the datum that the photo names: Pix4D's vertical CRS, or DJI's RTK (ellipsoidal)."""
    named = xmp.get("Camera:VertCS", "").lower()
    if "ellips" in named:
        return "ellipsoid"
    if "egm96" in named or "egm 96" in named:
        return "egm96"
    rtk = xmp.get("drone-dji:RtkFlag", "") in RTK_FLAGS
    return "ellipsoid" if rtk or xmp.get("drone-dji:AltitudeType", "") == "RtkAlt" else ""


def _camera_attitude(xmp: dict[str, str]) -> tuple[Floats | None, bool]:
    """Returns the camera's attitude, and whether it is final (not a gimbal's)."""
    for names in CAMERA_ANGLES:
        yaw, pitch, roll = (_number(xmp.get(name)) for name in names)
        if math.isfinite(yaw) and math.isfinite(pitch):
            roll = roll if math.isfinite(roll) else 0.0
            return r_ned_cam_from_ypr(*np.radians([yaw, pitch, roll])), False
    yaw, pitch, roll = (_number(xmp.get(name)) for name in PIX4D_ANGLES)
    if not (math.isfinite(yaw) and math.isfinite(pitch)):
        return None, False
    roll = roll if math.isfinite(roll) else 0.0
    body = r_from_ypr(*np.radians([yaw, pitch, roll]))
    return np.asarray(body @ r_from_ypr(0.0, -np.pi / 2, 0.0) @ A_BODY_CAM), True


def _body_attitude(xmp: dict[str, str]) -> Floats | None:
    for names in BODY_ANGLES:
        angles = [_number(xmp.get(name)) for name in names]
        if all(math.isfinite(angle) for angle in angles):
            return r_from_ypr(*np.radians(angles))
    return None


def _sigma(gps: dict[int, Any], xmp: dict[str, str]) -> tuple[float, float, float]:
    names = ("drone-dji:RtkStdLon", "drone-dji:RtkStdLat", "drone-dji:RtkStdHgt")
    e, n, u = (_number(xmp.get(name)) for name in names)
    if e > 0 and n > 0 and u > 0:
        return e, n, u
    e, n = (_number(xmp.get(f"Camera:GPS{axis}Accuracy")) for axis in ("XY", "XY"))
    u = _number(xmp.get("Camera:GPSZAccuracy"))
    if not e > 0:
        e = n = _number(gps.get(GPS.GPSHPositioningError))
    return (e if e > 0 else math.nan, n if n > 0 else math.nan, u if u > 0 else math.nan)


def _time(base: Any, camera: dict[int, Any]) -> tuple[float, bool, bool]:
    """Returns UNIX time of exposure, whether it is UTC, and whether it has sub-seconds."""
    text = _text(camera.get(Base.DateTimeOriginal)) or _text(base.get(Base.DateTime))
    try:
        moment = datetime.strptime(text[:19], "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return math.nan, False, False
    digits = re.sub(r"\D", "", _text(camera.get(Base.SubsecTimeOriginal)))
    seconds = int(digits) / 10 ** len(digits) if digits else 0.0
    zone = re.fullmatch(r"([+-])(\d\d):(\d\d)", _text(camera.get(Base.OffsetTimeOriginal)))
    if zone:
        sign = 1 if zone[1] == "+" else -1
        moment -= sign * timedelta(hours=int(zone[2]), minutes=int(zone[3]))
    return moment.timestamp() + seconds, zone is not None, bool(digits.strip("0"))


def _focal(camera: dict[int, Any], size: tuple[int, int]) -> tuple[float, float]:
    """Returns focal lengths in pixels by focal plane resolution and by 35-mm equivalent."""
    f_mm = _number(camera.get(Base.FocalLength))
    per_unit = _number(camera.get(Base.FocalPlaneXResolution))
    unit_mm = 10.0 if _whole(camera.get(Base.FocalPlaneResolutionUnit), INCH) == CM else 25.4
    f35_mm = _number(camera.get(Base.FocalLengthIn35mmFilm))
    by_35 = f35_mm / 43.27 * math.hypot(*size) if f35_mm > 0 else math.nan
    return (f_mm * per_unit / unit_mm if per_unit > 0 else math.nan), by_35


def utc_of_name(name: str) -> float:
    """Returns the UNIX time of a UTC stamp in a file name (``…YYYYmmddHHMMSSff…Z…``), or NaN."""
    found = NAME_UTC.search(name)
    if not found:
        return math.nan
    try:
        moment = datetime.strptime(found[1], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return math.nan
    return moment.timestamp() + (int(found[2]) / 10 ** len(found[2]) if found[2] else 0.0)


def _misspelt(xmp: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"tag misspelt: {name}" for name in xmp if "ongtitude" in name)


def _degrees(parts: Any, ref: Any, negative: str) -> float:
    try:
        d, m, s = (float(part) for part in parts)
    except (TypeError, ValueError, ZeroDivisionError):
        return _number(parts)
    value = d + m / 60.0 + s / 3600.0
    return -value if _text(ref).upper().startswith(negative) else value


def _first(xmp: dict[str, str], names: list[str]) -> float:
    return next((v for v in (_number(xmp.get(n)) for n in names) if math.isfinite(v)), math.nan)


def _number(value: Any) -> float:
    try:
        return float(value) if value is not None else math.nan
    except (TypeError, ValueError, ZeroDivisionError):
        return math.nan


def _whole(value: Any, default: int) -> int:
    number = _number(value)
    return int(number) if math.isfinite(number) else default


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return str(value).strip("\0 ") if value is not None else ""
