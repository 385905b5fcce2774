"""Finds a reflectance panel in a photo by the QR code beside it, and measures it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.errors import RadiometryError
from calibration.radiometry import SATURATED

Floats = NDArray[np.float64]

SERIAL = re.compile(r"RP(\d{2})-\d{7}-")
OLD_PANEL = (
    ((898, 748), (880, 567), (701, 584), (718, 762)),
    ((894, 469), (868, 232), (630, 258), (656, 496)),
)
NEW_PANEL = (
    ((821, 324), (819, 506), (996, 509), (999, 330)),
    ((557, 350), (550, 480), (695, 480), (700, 350)),
)
"""Corners of code and panel in one photo each of a panel before and from version 3, pixels, from
the vendor's published figures: they say where the panel lies as seen from its code. The inner part
is meant, clear of the rim.
"""


@dataclass(frozen=True, slots=True)
class PanelView:
    """A panel as one band shows it.

    Attributes:
        serial: What its code says; empty where its place was given.
        corners_px: (4, 2) corners.
    """

    serial: str
    corners_px: Floats


@dataclass(frozen=True, slots=True)
class PanelStats:
    """Pixels of a panel.

    Attributes:
        mean: Their mean.
        std: Their standard deviation.
        count: How many.
        saturated: Share of them at the upper end.
    """

    mean: float
    std: float
    count: int
    saturated: float


def find_panel(pixels: NDArray[Any]) -> PanelView | None:
    """Returns the panel in an (h, w) image, or ``None`` where no panel's code can be read.

    The code is read at several brightnesses. Its square gives an affine map from a known photo;
    as decoders differ in which corner they call the first, all four turns are tried and the one
    whose place is the most even wins.

    Args:
        pixels: (h, w) digital numbers, any type.
    """
    detector = cv2.QRCodeDetector()
    top = float(np.percentile(pixels, 99.9))
    for full in (top, 0.6 * top, 0.35 * top):
        gray = np.clip(pixels * (255.0 / max(full, 1.0)), 0, 255).astype(np.uint8)
        try:
            text, code, _ = detector.detectAndDecode(gray)
        except cv2.error:
            continue
        found = SERIAL.match(text or "")
        if found and code is not None:
            corners = _place(pixels, code.reshape(4, 2), int(found[1]))
            return None if corners is None else PanelView(text, corners)
    return None


def _place(pixels: NDArray[Any], code: NDArray[Any], version: int) -> Floats | None:
    known_code, known_panel = OLD_PANEL if version < 3 else NEW_PANEL
    best: tuple[float, Floats] | None = None
    for turn in range(4):
        for order in (1, -1):
            turned = np.roll(np.array(known_code, np.float32)[::order], turn, axis=0)
            affine = np.asarray(cv2.estimateAffine2D(turned, code.astype(np.float32))[0])
            if affine.shape != (2, 3):
                continue
            corners = np.array(known_panel, np.float64) @ affine[:, :2].T + affine[:, 2]
            height, width = pixels.shape
            if (corners < 0).any() or (corners > [width - 1, height - 1]).any():
                continue
            stats = region_stats(pixels, corners, np.inf)
            uneven = stats.std / max(stats.mean, 1e-9)
            if stats.count and (best is None or uneven < best[0]):
                best = (uneven, corners)
    return None if best is None else best[1]


def region_stats(pixels: NDArray[Any], corners_px: Floats, full_scale: float) -> PanelStats:
    """Returns the statistics of the pixels in a polygon.

    Args:
        pixels: (h, w).
        corners_px: (n, 2) corners of the polygon.
        full_scale: The value from whose 98 % on a pixel counts as saturated.

    Raises:
        RadiometryError: The polygon holds no pixel of the image.
    """
    mask = np.zeros(pixels.shape, np.uint8)
    cv2.fillPoly(mask, [np.rint(corners_px).astype(np.int32)], 1)
    inside = pixels[mask > 0].astype(np.float64)
    if not inside.size:
        raise RadiometryError(
            f"no pixel of {pixels.shape[1]} x {pixels.shape[0]} lies in the panel's place "
            f"{corners_px.round().tolist()}",
            "give --panel-region X0,Y0,X1,Y1 inside the image",
        )
    saturated = float((inside >= SATURATED * full_scale).mean())
    return PanelStats(float(inside.mean()), float(inside.std()), int(inside.size), saturated)
