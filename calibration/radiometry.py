"""From digital numbers to light, on arrays: dark level, vignette, exposure, panel reflectance.

The model of one band is the one that MicaSense publishes for its cameras ("RedEdge Camera
Radiometric Calibration Model"), and, with the terms that a camera lacks at 0, any linear camera's:

    L = a1 · (p − p_dark) / (V(r) · g · (t + a2·y − a3·t·y)),  V(r) = 1 + c1·r + c2·r² + …

with p the digital number over full scale, g the gain (ISO/100), t the exposure, y the row, r the
distance from the vignette's centre in pixels. A panel of known reflectance ρ gives ρ/L of its mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.band_profile import BandTable, RadiometryTable
from calibration.errors import RadiometryError

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Counts = NDArray[np.uint8] | NDArray[np.uint16]

LEAST_LIGHT = 0.05
"""Where the vignette's polynomial leaves less than this share of the light, it is not believed."""
FIT_CELLS = 48
"""A flat frame is averaged to so many cells across before its vignette is fitted."""
SATURATED = 0.98
"""Share of full scale from which a pixel counts as saturated."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """How a frame was exposed; NaN where it does not say.

    Attributes:
        seconds: Exposure time.
        gain: Analogue and digital gain together; ISO/100.
    """

    seconds: float = float("nan")
    gain: float = float("nan")

    @property
    def known(self) -> bool:
        """Whether both are said."""
        return bool(self.seconds > 0 and self.gain > 0)


def light_share(band: BandTable, width_px: int, height_px: int) -> Singles:
    """Returns V, the (h, w) share of the light that the lens leaves at each pixel.

    Raises:
        RadiometryError: The polynomial leaves next to nothing somewhere in the image.
    """
    return _light_share(band.vignette, band.vignette_center_px, width_px, height_px)


@lru_cache(maxsize=16)
def _light_share(
    terms: tuple[float, ...], center: tuple[float, float], width_px: int, height_px: int
) -> Singles:
    x = np.arange(width_px) - center[0]
    y = np.arange(height_px) - center[1]
    r = np.hypot(x[None, :], y[:, None])
    share = np.asarray(np.polynomial.polynomial.polyval(r, (1.0, *terms)))
    if float(share.min()) < LEAST_LIGHT:
        raise RadiometryError(
            f"the vignette leaves {share.min():.3f} of the light at some pixel of "
            f"{width_px} x {height_px}",
            "its terms belong to another image size, or were fitted to frames that are not flat",
        )
    out = np.asarray(share, np.float32)
    out.setflags(write=False)
    return out


def row_seconds(band: BandTable, height_px: int, seconds: float) -> Floats:
    """Returns the (h,) exposure that counts for each row: t + a2·y − a3·t·y."""
    y = np.arange(height_px)
    return np.asarray(seconds + band.row_a2_s * y - band.row_a3 * seconds * y)


def intensity(band: BandTable, pixels: Counts, exposure: Exposure) -> Singles:
    """Returns the (h, w) light that fell in, per second at gain 1, in units of full scale.

    The dark level and the vignette are taken off; negative values are 0.

    Args:
        band: What its numbers mean.
        pixels: (h, w) digital numbers, linear in light.
        exposure: How the frame was exposed.

    Raises:
        RadiometryError: The exposure is not known.
    """
    if not exposure.known:
        raise RadiometryError(
            f"band {band.name}: exposure {exposure.seconds} s, gain {exposure.gain}",
            "the frame must say its exposure time and ISO (EXIF)",
        )
    height, width = pixels.shape
    seconds = row_seconds(band, height, exposure.seconds) * exposure.gain * band.full_scale_dn
    light = np.maximum(pixels.astype(np.float32) - np.float32(band.dark_dn), np.float32(0))
    light /= light_share(band, width, height)
    light /= seconds.astype(np.float32)[:, None]
    return np.asarray(light, np.float32)


def radiance(band: BandTable, pixels: Counts, exposure: Exposure) -> Singles:
    """Returns the (h, w) radiance in W/m²/sr/nm; without ``radiance_gain`` the intensity."""
    light = intensity(band, pixels, exposure)
    return np.asarray(light * np.float32(band.radiance_gain or 1.0), np.float32)


def reflectance(band: BandTable, pixels: Counts, exposure: Exposure) -> Singles:
    """Returns the (h, w) reflectance, by the light that the panel was seen in.

    Raises:
        RadiometryError: No panel was measured in this band.
    """
    if not band.reflectance_per_radiance:
        raise RadiometryError(
            f"band {band.name} has no reflectance_per_radiance",
            "gossan calibration radiometry --panel measures it from a photo of the panel",
        )
    per = np.float32(band.reflectance_per_radiance)
    return np.asarray(radiance(band, pixels, exposure) * per, np.float32)


def corrected(table: RadiometryTable, i: int, pixels: Counts, exposure: Exposure) -> Counts:
    """Returns one band's (h, w) pixels corrected, in their own type.

    Reflectance, ``reflectance_dn`` standing for 1, where the profile and the exposure are known
    and the values are linear; else relative: dark level and vignette taken off, and brought to the
    reference exposure where both exposures are known. What exceeds the type is its largest value.

    Args:
        table: The rig's radiometry.
        i: Which band.
        pixels: (h, w) digital numbers as stored.
        exposure: How the frame was exposed.
    """
    band = table.band[i]
    top = float(np.iinfo(pixels.dtype).max)
    if table.unit == "reflectance" and table.encoding == "linear" and exposure.known:
        full = top if pixels.dtype == np.uint8 else table.reflectance_dn
        return _counts(reflectance(band, pixels, exposure) * np.float32(full), pixels, top)
    height, width = pixels.shape
    factor = np.float32(exposure_factor(table, exposure)) / light_share(band, width, height)
    if table.encoding == "srgb":
        dark = float(srgb_to_linear(np.array(band.dark_dn / top)))
        light = (_linear_table(int(top))[pixels] - np.float32(dark)) * factor
        steps = np.clip(light * np.float32(65535), 0, 65535).astype(np.uint16)
        return _counts(_srgb_table()[steps] * np.float32(top), pixels, top)
    light = (pixels.astype(np.float32) - np.float32(band.dark_dn)) * factor
    return _counts(light, pixels, top)


def exposure_factor(table: RadiometryTable, exposure: Exposure) -> float:
    """Returns what brings a frame to the reference exposure; 1 where either is unknown."""
    if not (exposure.known and table.reference_exposure_s > 0):
        return 1.0
    reference = table.reference_exposure_s * table.reference_gain
    return reference / (exposure.seconds * exposure.gain)


def dark_level(frames: Sequence[Counts]) -> tuple[Floats, Floats]:
    """Returns per band the dark level and its standard error, digital numbers, from dark frames.

    Args:
        frames: (h, w) or (h, w, bands) each, taken with the lens covered.

    Raises:
        RadiometryError: Light fell in: the frames are not dark, or differ.
    """
    means = []
    for frame in frames:
        cube = frame[..., None] if frame.ndim == 2 else frame
        means.append(cube.reshape(-1, cube.shape[2]).mean(axis=0))
        top = float(np.iinfo(frame.dtype).max)
        spread = np.percentile(cube, 99.0) - np.percentile(cube, 1.0)
        if spread > 0.1 * top or means[-1].max() > 0.25 * top:
            raise RadiometryError(
                f"a dark frame has a mean of {means[-1].max():.0f} of {top:.0f} and values over "
                f"{spread:.0f}: light fell in",
                "cover the lens, at the exposure and gain of the flight",
            )
    level = np.stack(means)
    error = level.std(axis=0, ddof=1) / np.sqrt(len(level)) if len(level) > 1 else level[0] * 0.0
    return np.asarray(level.mean(axis=0)), np.asarray(error)


@dataclass(frozen=True, slots=True)
class VignetteFit:
    """A vignette fitted to flat frames.

    Attributes:
        center_px: Its centre, x and y.
        terms: c1 … c6 (odd ones 0).
        residual: RMS of what is left, as a share of the light.
        corner: Share of the light that is left in the darkest corner.
    """

    center_px: tuple[float, float]
    terms: tuple[float, ...]
    residual: float
    corner: float


def flat_field(frames: Sequence[Counts], dark_dn: float) -> Floats:
    """Returns the (rows, cols) mean light of frames in cells, each frame scaled to a median of 1.

    One frame of an even surface will do; of scenes it takes many, whose contents average out.
    The median over frames keeps what only a few of them show out.

    Args:
        frames: (h, w) each, all of one size.
        dark_dn: Dark level.
    """
    cells = []
    for frame in frames:
        rows = max(8, round(FIT_CELLS * frame.shape[0] / frame.shape[1]))
        light = frame.astype(np.float32) - np.float32(dark_dn)
        small = cv2.resize(light, (FIT_CELLS, rows), interpolation=cv2.INTER_AREA)
        cells.append(small / max(float(np.median(small)), 1e-6))
    return np.asarray(np.median(np.stack(cells), axis=0), np.float64)


def fit_vignette(cells: Floats, width_px: int, height_px: int) -> VignetteFit:
    """Returns the vignette 1 + c2·r² + c4·r⁴ + c6·r⁶ about a free centre that fits a flat field.

    Soft L1 losses keep stains from pulling it.

    Args:
        cells: (rows, cols) relative light.
        width_px: Width of the frames that the cells average.
        height_px: Their height.

    Raises:
        RadiometryError: What was found is no vignette: it grows brighter outwards, or leaves
            next to nothing.
    """
    rows, cols = cells.shape
    x = (np.arange(cols) + 0.5) * width_px / cols - 0.5
    y = (np.arange(rows) + 0.5) * height_px / rows - 0.5
    unit = float(np.hypot(width_px, height_px)) / 2
    middle = np.array([(width_px - 1) / 2, (height_px - 1) / 2])

    def model(p: Floats) -> Floats:
        at = middle + p[1:3] * unit
        q2 = ((x[None, :] - at[0]) ** 2 + (y[:, None] - at[1]) ** 2) / unit**2
        return np.asarray(p[0] * (1 + q2 * (p[3] + q2 * (p[4] + q2 * p[5]))))

    def misfit(p: Floats) -> Floats:
        return np.asarray((model(p) - cells).ravel())

    start = np.array([float(np.percentile(cells, 90)), 0.0, 0.0, -0.3, 0.0, 0.0])
    from scipy.optimize import least_squares  # half a second that reading a rig need not spend

    found = least_squares(
        misfit,
        start,
        bounds=([0.0, -0.3, -0.3, -3, -3, -3], [np.inf, 0.3, 0.3, 3, 3, 3]),
        loss="soft_l1",
        f_scale=0.02,
    ).x
    c2, c4, c6 = found[3] / unit**2, found[4] / unit**4, found[5] / unit**6
    at = middle + found[1:3] * unit
    share = model(found) / found[0]
    if share.min() < LEAST_LIGHT or share.max() > 1.1:
        raise RadiometryError(
            f"the frames' mean is no vignette: from {share.min():.2f} to {share.max():.2f} of the "
            "light at the centre",
            "give frames of an even surface (a clear sky, a diffuser), or many more scenes",
        )
    return VignetteFit(
        (float(at[0]), float(at[1])),
        (0.0, float(c2), 0.0, float(c4), 0.0, float(c6)),
        float(np.sqrt(((model(found) - cells) ** 2).mean()) / found[0]),
        float(share.min()),
    )


def srgb_to_linear(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns linear light of sRGB values, both 0 to 1 (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: Singles) -> Singles:
    """Returns sRGB values of linear light, both 0 to 1 (IEC 61966-2-1)."""
    curve = 1.055 * np.power(light, np.float32(1 / 2.4)) - 0.055
    return np.where(light <= 0.0031308, light * 12.92, curve).astype(np.float32)


def display_table(table: RadiometryTable) -> NDArray[np.uint8]:
    """Returns 65536 entries: the sRGB value, 8 bits, of each 16-bit number that is linear in light.

    White is a reflectance of 1, or full scale where values are relative.
    """
    return _display_table(table.reflectance_dn if table.unit == "reflectance" else 65535.0)


@lru_cache(maxsize=4)
def _display_table(white: float) -> NDArray[np.uint8]:
    light = np.clip(np.arange(65536, dtype=np.float32) / np.float32(white), 0, 1)
    return np.rint(linear_to_srgb(light) * 255).astype(np.uint8)


@lru_cache(maxsize=2)
def _linear_table(top: int) -> Singles:
    return np.asarray(srgb_to_linear(np.arange(top + 1) / top), np.float32)


@lru_cache(maxsize=1)
def _srgb_table() -> Singles:
    return linear_to_srgb(np.linspace(0, 1, 65536, dtype=np.float32))


def _counts(values: Singles, like: Counts, top: float) -> Counts:
    whole = np.clip(np.rint(values), 0, top)
    return whole.astype(np.uint8) if like.dtype == np.uint8 else whole.astype(np.uint16)
