"""The rig's table ``[radiometry]``: what the numbers of a camera's bands mean, one row per band."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    Field,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    model_validator,
)

from calibration.camera import Camera
from gossan.settings import Settings

Floats = NDArray[np.float64]
Encoding = Literal["linear", "srgb"]
Row = tuple[FiniteFloat, FiniteFloat, FiniteFloat]


class BandCamera(Settings):
    """``[radiometry.band.camera]``: the intrinsics of a band with a lens of its own.

    ``k1, k2, p1, p2, k3`` as OpenCV has them; the image size is the rig's.
    """

    fx_px: PositiveFloat
    fy_px: PositiveFloat
    cx_px: FiniteFloat
    cy_px: FiniteFloat
    k1: FiniteFloat = 0.0
    k2: FiniteFloat = 0.0
    p1: FiniteFloat = 0.0
    p2: FiniteFloat = 0.0
    k3: FiniteFloat = 0.0

    def camera(self, width_px: int, height_px: int) -> Camera:
        """Returns the band's camera model for images of that size."""
        terms = (self.k1, self.k2, self.p1, self.p2, self.k3)
        return Camera(
            "opencv", width_px, height_px, self.fx_px, self.fy_px, self.cx_px, self.cy_px, terms
        )


class BandTable(Settings):
    """One ``[[radiometry.band]]``, in the order the bands of an image are to have.

    Attributes:
        name: What it is called.
        file_suffix: What its file's stem ends with (``_1``); empty where it is a channel of one
            image.
        channel: Which channel of the image (0 first); only where there is no ``file_suffix``.
        wavelength_nm: Centre; 0 where unknown.
        fwhm_nm: Width at half height; 0 where unknown.
        dark_dn: What the band shows of darkness, digital numbers.
        full_scale_dn: The digital number that counts as 1 (65536 at 16 bits).
        vignette_center_px: Where the vignette's polynomial has its origin, x and y.
        vignette: c1, c2, … of 1 + c1·r + c2·r² + …, what is left of the light at r pixels from
            the centre; empty where it is unknown.
        radiance_gain: a1: W/m²/sr/nm per unit of (DN/full scale)/(s·gain); 0 where unknown.
        row_a2_s, row_a3: The row gradient of the vendor's model: the exposure of row y counts as
            t + a2·y − a3·t·y.
        reflectance_per_radiance: From radiance (or, without ``radiance_gain``, from relative
            intensity) to reflectance, from a panel; 0 where unknown.
        panel_reflectance, panel_dn, panel_saturated: What the panel was said to reflect, its mean
            digital number, and the share of its pixels at the upper end.
        camera: Its intrinsics, where it has a lens of its own.
        from_reference: 3×3 homography from the reference band's ray (x/z, y/z, 1) to this one's;
            without it the bands look alike.
        misfit_px: Median residual of that homography, in this band's pixels.
    """

    name: str
    file_suffix: str = ""
    channel: NonNegativeInt = 0
    wavelength_nm: NonNegativeFloat = 0.0
    fwhm_nm: NonNegativeFloat = 0.0
    dark_dn: NonNegativeFloat = 0.0
    full_scale_dn: PositiveFloat = 65536.0
    vignette_center_px: tuple[FiniteFloat, FiniteFloat] = (0.0, 0.0)
    vignette: tuple[FiniteFloat, ...] = ()
    radiance_gain: NonNegativeFloat = 0.0
    row_a2_s: FiniteFloat = 0.0
    row_a3: FiniteFloat = 0.0
    reflectance_per_radiance: NonNegativeFloat = 0.0
    panel_reflectance: NonNegativeFloat = 0.0
    panel_dn: NonNegativeFloat = 0.0
    panel_saturated: NonNegativeFloat = 0.0
    camera: BandCamera | None = None
    from_reference: tuple[Row, Row, Row] | None = None
    misfit_px: NonNegativeFloat = 0.0

    @property
    def homography(self) -> Floats:
        """(3, 3) from the reference band's ray to this one's."""
        return np.eye(3) if self.from_reference is None else np.array(self.from_reference)


class RadiometryTable(Settings):
    """``[radiometry]``.

    Attributes:
        encoding: ``linear`` digital numbers, or ``srgb``, whose curve is taken off before
            anything is corrected and put on again after.
        reference: The band that ``[camera]`` describes, to which the others are aligned; empty
            where all bands share one image.
        reference_exposure_s, reference_gain: The exposure to which relative intensities are
            brought; 0 leaves each frame's exposure in.
        reflectance_dn: The digital number written for a reflectance of 1.
        band: The bands.
    """

    encoding: Encoding = "linear"
    reference: str = ""
    reference_exposure_s: NonNegativeFloat = 0.0
    reference_gain: PositiveFloat = 1.0
    reflectance_dn: PositiveFloat = 32768.0
    band: tuple[BandTable, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _coherent(self) -> RadiometryTable:
        names = [band.name for band in self.band]
        if len(set(names)) < len(names):
            raise ValueError(f"two bands have one name: {', '.join(names)}")
        suffixes = [band.file_suffix for band in self.band]
        if any(suffixes) and (not all(suffixes) or len(set(suffixes)) < len(suffixes)):
            raise ValueError(
                f"every band needs a file_suffix of its own, or none has one: {suffixes}"
            )
        if any(suffixes) and self.reference not in names:
            raise ValueError(f"reference = {self.reference!r} is none of {', '.join(names)}")
        return self

    @property
    def in_files(self) -> bool:
        """Whether each band has a file of its own."""
        return bool(self.band[0].file_suffix)

    @property
    def reference_band(self) -> BandTable:
        """The band that ``[camera]`` describes; the first where bands share one image."""
        return next((band for band in self.band if band.name == self.reference), self.band[0])

    @property
    def unit(self) -> Literal["reflectance", "relative"]:
        """What corrected values are: reflectance where every band's panel is known."""
        known = all(band.reflectance_per_radiance > 0 for band in self.band)
        return "reflectance" if known else "relative"
