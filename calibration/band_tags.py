"""What a band's file says about its light: MicaSense's XMP and DNG-style TIFF tags, and EXIF.

Angles and positions of such files are read where sources are opened; here it is the numbers of
the pixels only.
"""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import Image as Pillow
from PIL.ExifTags import IFD, Base

from calibration.band_profile import BandCamera
from calibration.errors import RadiometryError
from calibration.radiometry import Exposure

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
MAX_XMP_BYTES = 1 << 20
XMP_TAG, BLACK_LEVEL, ISO_SPEED = 700, 50714, 34867
MISTOLD_EXPOSURE_S, TRUE_EXPOSURE_S = 1.0 / 6329.0, 0.000274
"""Old RedEdge firmware writes 1/6329 s where it exposed for 0.000274 s, as the vendor says."""
BAND_FILE = re.compile(r"(.+)(_\d{1,2})")


@dataclass(frozen=True, slots=True)
class BandTags:
    """What one band's file says.

    Attributes:
        width_px: Image width.
        height_px: Image height.
        bits: Bits per sample.
        exposure: How it was exposed.
        name: The band's name; empty where the file is no band of a multi-band camera.
        wavelength_nm: Centre; 0 where unknown.
        fwhm_nm: Width at half height; 0 where unknown.
        dark_dn: Black level; 0 where none is said.
        radiance_gain: a1 of the vendor's model; 0 where none is said.
        row_a2_s: Its a2.
        row_a3: Its a3.
        vignette_center_px: Centre of its vignette.
        vignette: Its terms c1, c2, …; empty where none are said.
        camera: The band's own intrinsics, or ``None``.
        panel_reflectance: Reflectance of a panel that the camera recognised; 0 where none.
        panel_px: (4) corners of that panel; empty where none.
    """

    width_px: int
    height_px: int
    bits: int
    exposure: Exposure
    name: str = ""
    wavelength_nm: float = 0.0
    fwhm_nm: float = 0.0
    dark_dn: float = 0.0
    radiance_gain: float = 0.0
    row_a2_s: float = 0.0
    row_a3: float = 0.0
    vignette_center_px: tuple[float, float] = (0.0, 0.0)
    vignette: tuple[float, ...] = ()
    camera: BandCamera | None = None
    panel_reflectance: float = 0.0
    panel_px: tuple[tuple[float, float], ...] = ()


def read_tags(path: Path) -> BandTags:
    """Returns what a file says about its light; what it does not say is left at its default.

    Raises:
        RadiometryError: It is no image that can be opened.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Pillow.open(path) as image:
                width, height = image.size
                bits = 16 if image.mode.startswith("I") else 8
                base = image.getexif()
                more = base.get_ifd(IFD.Exif)
                packet = image.info.get("xmp") or base.get(XMP_TAG)
    except (OSError, ValueError, SyntaxError, KeyError, Pillow.DecompressionBombError) as error:
        raise RadiometryError(f"cannot open {path}: {error}", "copy it again") from error
    xmp = _xmp(packet)
    gain = _number(more.get(ISO_SPEED, more.get(Base.ISOSpeedRatings))) / 100.0
    a1, a2, a3 = _numbers(xmp.get("RadiometricCalibration"), 3) or (0.0, 0.0, 0.0)
    center = _numbers(xmp.get("VignettingCenter"), 2)
    dark = _numbers(base.get(BLACK_LEVEL))
    return BandTags(
        width_px=width,
        height_px=height,
        bits=bits,
        exposure=Exposure(_seconds(more.get(Base.ExposureTime)), gain),
        name=_word(xmp.get("BandName")),
        wavelength_nm=_known(xmp.get("CentralWavelength")),
        fwhm_nm=_known(xmp.get("WavelengthFWHM")),
        dark_dn=sum(dark) / len(dark) if dark else 0.0,
        radiance_gain=a1,
        row_a2_s=a2,
        row_a3=a3,
        vignette_center_px=(center[0], center[1]) if center else (0.0, 0.0),
        vignette=_numbers(xmp.get("VignettingPolynomial")),
        camera=_camera(xmp, more),
        panel_reflectance=_known(xmp.get("Albedo")),
        panel_px=_corners(_numbers(xmp.get("ReflectArea"), 8)),
    )


def read_exposure(path: Path) -> Exposure:
    """Returns how a file was exposed; unknown where it cannot be opened or does not say."""
    try:
        return read_tags(path).exposure
    except RadiometryError:
        return Exposure()


def capture_of(path: Path) -> tuple[str, str]:
    """Returns the capture that a band's file belongs to and its suffix: IMG_0001_3 → IMG_0001, _3.

    A name without such a suffix is a capture of its own, with an empty suffix.
    """
    found = BAND_FILE.fullmatch(path.stem)
    return (found[1], found[2]) if found else (path.stem, "")


def _camera(xmp: dict[str, str | list[str]], more: dict[int, Any]) -> BandCamera | None:
    """Returns the intrinsics in Pix4D's ``Camera:*`` tags; lengths are px or mm."""
    focal = _known(xmp.get("PerspectiveFocalLength"))
    center = _numbers(xmp.get("PrincipalPoint"), 2)
    per_mm = _known(more.get(Base.FocalPlaneXResolution))
    terms = _numbers(xmp.get("PerspectiveDistortion"), 5) or (0.0,) * 5
    if _word(xmp.get("PerspectiveFocalLengthUnits")) == "mm":
        focal *= per_mm
    if not (focal > 0 and center and per_mm > 0):
        return None
    k1, k2, k3, p1, p2 = terms
    return BandCamera(
        fx_px=focal,
        fy_px=focal,
        cx_px=center[0] * per_mm,
        cy_px=center[1] * per_mm,
        k1=k1,
        k2=k2,
        p1=p1,
        p2=p2,
        k3=k3,
    )


def _xmp(packet: bytes | str | None) -> dict[str, str | list[str]]:
    """Returns the properties of an XMP packet by local name; a sequence as a list of texts.

    Packets over 1 MiB and packets with declarations (entities) are not read.
    """
    if not packet or len(packet) > MAX_XMP_BYTES:
        return {}
    text = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else packet
    start, end = text.find("<x:xmpmeta"), text.rfind("</x:xmpmeta>")
    text = text[start : end + len("</x:xmpmeta>")] if 0 <= start < end else text.strip("\0\ufeff ")
    if "<!" in text.replace("<!--", ""):
        return {}
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - no declarations, size capped
    except ElementTree.ParseError:
        return {}
    found: dict[str, str | list[str]] = {}
    for node in root.iter(f"{RDF}Description"):
        for key, value in node.attrib.items():
            found.setdefault(key.rpartition("}")[2], value.strip())
        for child in node:
            items = [(item.text or "").strip() for item in child.iter(f"{RDF}li")]
            found.setdefault(child.tag.rpartition("}")[2], items or (child.text or "").strip())
    return found


def _numbers(value: Any, count: int = 0) -> tuple[float, ...]:
    """Returns the numbers of a list or of a text with commas or blanks; empty where they fail."""
    if value is None:
        return ()
    if isinstance(value, (bytes, str)):
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        value = re.split(r"[,\s]+", text.strip("\0 "))
    parts = value if isinstance(value, (list, tuple)) else (value,)
    numbers = tuple(_number(part) for part in parts)
    whole = all(math.isfinite(number) for number in numbers)
    return numbers if whole and (not count or len(numbers) == count) else ()


def _corners(numbers: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _seconds(value: Any) -> float:
    seconds = _number(value)
    return TRUE_EXPOSURE_S if abs(seconds - MISTOLD_EXPOSURE_S) < 1e-6 else seconds


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _known(value: Any) -> float:
    number = _number(value)
    return number if math.isfinite(number) and number > 0 else 0.0


def _number(value: Any) -> float:
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    try:
        return float(value) if value is not None else math.nan
    except (TypeError, ValueError, ZeroDivisionError):
        return math.nan
