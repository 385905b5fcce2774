"""How well a calibrated camera fits its boards: residuals over the image plane, and by view."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.board import BoardCalibration
from calibration.errors import BoardError

Picture = NDArray[np.uint8]

PLANE_PX = 960
BAR_PX, BARS_PX = 18, 320
MARGIN_PX = 40
ARROW_SHARE = 0.04
"""Length of the arrow of a residual of three times the RMS, as a share of the plane's width."""
INK, FAINT, RED, BLUE = (40, 40, 40), (200, 200, 200), (40, 40, 200), (180, 110, 30)


def draw_residuals(path: str | Path, found: BoardCalibration) -> None:
    """Writes a PNG: each corner's residual as an arrow where it lies, and each view's RMS as a bar.

    Arrows that point one way over a part of the plane tell of a distortion the model lacks.

    Raises:
        BoardError: The file cannot be written.
    """
    plane = _plane(found)
    bars = _bars(found, plane.shape[0])
    if not cv2.imwrite(str(path), np.hstack([plane, bars])):
        raise BoardError(f"cannot write {path}", "give a writable path that ends in .png")


def _plane(found: BoardCalibration) -> Picture:
    camera = found.camera
    scale = PLANE_PX / camera.width_px
    height = round(camera.height_px * scale)
    picture = np.full((height + 2 * MARGIN_PX, PLANE_PX + 2 * MARGIN_PX, 3), 255, np.uint8)
    corner = (MARGIN_PX + PLANE_PX, MARGIN_PX + height)
    cv2.rectangle(picture, (MARGIN_PX, MARGIN_PX), corner, FAINT, 1)
    length = ARROW_SHARE * PLANE_PX / max(3.0 * found.rms_px, 1e-9)
    for uv, residual in zip(found.uv, found.residual_px, strict=True):
        start = MARGIN_PX + uv * scale
        end = start + residual * length
        for a, b in zip(start, end, strict=True):
            cv2.arrowedLine(picture, _pixel(a), _pixel(b), BLUE, 1, cv2.LINE_AA, tipLength=0.3)
    centre = MARGIN_PX + np.array([camera.cx_px, camera.cy_px]) * scale
    cv2.drawMarker(picture, _pixel(centre), RED, cv2.MARKER_CROSS, 16, 1)
    text = f"{camera.width_px} x {camera.height_px} px, RMS {found.rms_px:.3f} px"
    _write(picture, text, (MARGIN_PX, MARGIN_PX - 14))
    bar = _pixel(np.array([MARGIN_PX, corner[1] + 20.0]))
    far = (bar[0] + round(length * found.rms_px), bar[1])
    cv2.line(picture, bar, far, INK, 2)
    _write(picture, "one RMS; cross: principal point", (far[0] + 10, bar[1] + 5))
    return picture


def _bars(found: BoardCalibration, height: int) -> Picture:
    rows = max(height, 2 * MARGIN_PX + BAR_PX * len(found.used))
    picture = np.full((rows, BARS_PX, 3), 255, np.uint8)
    longest = max([*found.rms_by_view, 1e-9])
    _write(picture, "RMS by view, px", (10, MARGIN_PX - 14))
    for i, (name, rms) in enumerate(zip(found.used, found.rms_by_view, strict=True)):
        y = MARGIN_PX + BAR_PX * i
        end = (10 + round(120 * rms / longest), y + BAR_PX - 6)
        cv2.rectangle(picture, (10, y), end, BLUE, -1)
        _write(picture, f"{rms:.2f}  {name}", (end[0] + 8, y + BAR_PX - 7))
    return np.asarray(picture[:height], np.uint8)


def _write(picture: Picture, text: str, at: tuple[int, int]) -> None:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)


def _pixel(xy: NDArray[np.float64]) -> tuple[int, int]:
    return round(float(xy[0])), round(float(xy[1]))
