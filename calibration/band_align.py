"""Lays the bands of a multi-lens camera over one another: one homography between rays per band."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.band_profile import BandTable, RadiometryTable
from calibration.camera import Camera
from calibration.errors import RadiometryError

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

SCALES = (4, 2, 1)
"""Image pyramid: each scale begins where the coarser one ended."""
SMOOTH_PX = 5
ECC_STEPS = 200
ECC_DONE = 1e-6
CHECK_WINDOW_PX = 64
CHECK_STEP_PX = 96
LEAST_RESPONSE = 0.15
"""A window counts towards the misfit where the bands correlate; crops change their contrast."""
LEAST_WINDOWS = 12


@dataclass(frozen=True, slots=True)
class BandFit:
    """How one band lies on the reference.

    Attributes:
        from_reference: (3, 3) homography from the reference's rays to the band's.
        misfit_px: Median distance that is left in windows that correlate, pixels.
        p90_px: 90 % of them are within this.
        windows: How many windows were compared.
        correlation: Of the edges of both bands, once laid over one another.
        shift_px: How far the image's centre moved against the raw bands.
    """

    from_reference: Floats
    misfit_px: float
    p90_px: float
    windows: int
    correlation: float
    shift_px: tuple[float, float]


def band_map(
    table: RadiometryTable, i: int, reference: Camera, homography: Floats | None = None
) -> tuple[Singles, Singles]:
    """Returns (h, w) x and y: where each pixel of the reference lies in band i.

    Through the reference's lens to a ray, by the homography to the band's ray, through its lens.

    Args:
        table: The rig's radiometry.
        i: Which band.
        reference: The rig's camera.
        homography: (3, 3) in place of the band's own.
    """
    band = table.band[i]
    turn = band.homography if homography is None else homography
    camera = camera_of(band, reference)
    width, height = reference.width_px, reference.height_px
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    rays = reference.unproject(np.stack([x.ravel(), y.ravel()], axis=1))
    there = camera.project(rays @ turn.T)
    maps = np.nan_to_num(there, nan=-1e6).reshape(height, width, 2).astype(np.float32)
    return np.ascontiguousarray(maps[..., 0]), np.ascontiguousarray(maps[..., 1])


def camera_of(band: BandTable, reference: Camera) -> Camera:
    """Returns the band's own camera, or the reference's where it has none."""
    if band.camera is None:
        return reference
    return band.camera.camera(reference.width_px, reference.height_px)


def align_band(
    table: RadiometryTable, i: int, reference: Camera, fixed: NDArray[Any], moving: NDArray[Any]
) -> BandFit:
    """Returns how band i lies on the reference band, from one capture of distant ground.

    Maximises the enhanced correlation coefficient (Evangelidis and Psarakis 2008, as OpenCV has
    it) of the two bands' edges, coarse to fine, from the shift that phase correlation finds; the
    bands' lenses are taken out first, so that what is left is the homography between two cameras
    with one centre. Ground nearer than some 30 times the lenses' distance shows their parallax.

    Args:
        table: The rig's radiometry.
        i: The band.
        reference: The rig's camera.
        fixed: (h, w) the reference band's pixels.
        moving: (h, w) band i's pixels.

    Raises:
        RadiometryError: The bands do not correlate.
    """
    still = _edges(fixed)
    laid = _edges(_sampled(moving, *band_map(table, i, reference, np.eye(3))))
    warp = _first_shift(still, laid)
    correlation = 0.0
    for scale in SCALES:
        warp, correlation = _ecc(still, laid, warp, scale, table.band[i].name)
    k = reference.matrix
    turn = np.linalg.inv(k) @ warp @ k
    turn /= turn[2, 2]
    misses = _misses(fixed, _sampled(moving, *band_map(table, i, reference, turn)))
    size = np.hypot(misses[:, 0], misses[:, 1])
    middle = np.array([(reference.width_px - 1) / 2, (reference.height_px - 1) / 2])
    there = camera_of(table.band[i], reference).project(reference.unproject(middle) @ turn.T)[0]
    enough = len(size) >= LEAST_WINDOWS
    return BandFit(
        turn,
        float(np.median(size)) if enough else float("nan"),
        float(np.percentile(size, 90)) if enough else float("nan"),
        len(size),
        correlation,
        (float(there[0] - middle[0]), float(there[1] - middle[1])),
    )


def aligned(
    table: RadiometryTable, i: int, reference: Camera, pixels: NDArray[Any]
) -> NDArray[Any]:
    """Returns band i resampled to the reference's pixels, bilinear; 0 where it did not look."""
    return _sampled(pixels, *band_map(table, i, reference))


def _sampled(pixels: NDArray[Any], x: Singles, y: Singles) -> NDArray[Any]:
    laid = cv2.remap(pixels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(laid)


def _edges(pixels: NDArray[Any]) -> Singles:
    """Returns the strength of edges: it survives a contrast that turns over between bands."""
    image = cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), 1.5)
    image = np.log1p(image)
    edges = cv2.magnitude(cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1))
    edges = np.minimum(edges, np.float32(np.percentile(edges, 98)))
    return np.asarray(edges, np.float32)


def _first_shift(fixed: Singles, moving: Singles) -> Floats:
    window = cv2.createHanningWindow(fixed.shape[::-1], cv2.CV_32F)
    (dx, dy), _ = cv2.phaseCorrelate(fixed, moving, window)
    return np.array([[1.0, 0.0, dx], [0.0, 1.0, dy], [0.0, 0.0, 1.0]])


def _ecc(
    fixed: Singles, moving: Singles, warp: Floats, scale: int, name: str
) -> tuple[Floats, float]:
    """Returns the warp refined at one scale of the pyramid, and the correlation reached."""
    shrink = np.array(
        [[1 / scale, 0, 0.5 / scale - 0.5], [0, 1 / scale, 0.5 / scale - 0.5], [0, 0, 1.0]]
    )
    small = [
        cv2.resize(image, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
        for image in (fixed, moving)
    ]
    start = (shrink @ warp @ np.linalg.inv(shrink)).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, ECC_STEPS, ECC_DONE)
    seen = (small[1] > 0).astype(np.uint8)
    try:
        correlation, found = cv2.findTransformECC(
            small[0], small[1], start, cv2.MOTION_HOMOGRAPHY, stop, seen, SMOOTH_PX
        )
    except cv2.error as error:
        raise RadiometryError(
            f"band {name} does not correlate with the reference band",
            "give a capture of distant, varied ground in daylight",
        ) from error
    full = np.linalg.inv(shrink) @ found.astype(np.float64) @ shrink
    return np.asarray(full / full[2, 2], np.float64), float(correlation)


def _misses(fixed: NDArray[Any], laid: NDArray[Any]) -> Floats:
    """Returns the (n, 2) shifts left in windows over the image, where they correlate."""
    a, b = _edges(fixed), _edges(laid)
    window = cv2.createHanningWindow((CHECK_WINDOW_PX, CHECK_WINDOW_PX), cv2.CV_32F)
    found = []
    for y in range(0, a.shape[0] - CHECK_WINDOW_PX + 1, CHECK_STEP_PX):
        for x in range(0, a.shape[1] - CHECK_WINDOW_PX + 1, CHECK_STEP_PX):
            cut = np.s_[y : y + CHECK_WINDOW_PX, x : x + CHECK_WINDOW_PX]
            if not laid[cut].all():
                continue
            shift, response = cv2.phaseCorrelate(
                np.ascontiguousarray(a[cut]), np.ascontiguousarray(b[cut]), window
            )
            if response > LEAST_RESPONSE and np.hypot(shift[0], shift[1]) < CHECK_WINDOW_PX / 4:
                found.append(shift)
    return np.array(found, np.float64).reshape(-1, 2)
