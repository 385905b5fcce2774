"""Finds calibration patterns in photos: chessboards, ChArUco boards, circle grids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.errors import BoardError

Floats = NDArray[np.float64]
Gray = NDArray[np.uint8]
PatternType = Literal["chess", "charuco", "circles"]

SMALLEST_HALF_WINDOW = 4
LARGEST_HALF_WINDOW = 11
WINDOW_PER_SQUARE = 0.22
"""Sub-pixel windows reach this share of the closest corners' distance: half-windows of 5-11 px on
usual photos. Smaller ones bend the focal length, larger ones reach the next corner."""

MIN_CHARUCO_CORNERS = 8
SUBPIX = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-4)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A flat pattern of known size.

    Attributes:
        cols: Inner corners (or circles) along its longer side.
        rows: Inner corners (or circles) along the other.
        square_m: Side of a square, or distance of neighbouring circles, metres.
        kind: What it is.
        dictionary: ArUco dictionary of a ChArUco board.
        marker_m: Side of its markers; three quarters of a square where 0.
    """

    cols: int
    rows: int
    square_m: float
    kind: PatternType = "chess"
    dictionary: str = "DICT_4X4_50"
    marker_m: float = 0.0

    def points_m(self) -> Floats:
        """Returns the (cols·rows, 3) points of a rectangular grid, row by row, z = 0."""
        grid = np.zeros((self.rows * self.cols, 3))
        grid[:, :2] = np.mgrid[0 : self.cols, 0 : self.rows].T.reshape(-1, 2)
        return grid * self.square_m

    def staggered_m(self) -> Floats:
        """Returns the points of an asymmetric circle grid: every other row half a step aside."""
        col, row = np.mgrid[0 : self.cols, 0 : self.rows].T.reshape(-1, 2).T
        points = np.zeros((self.rows * self.cols, 3))
        points[:, 0], points[:, 1] = col + 0.5 * (row % 2), 0.5 * row
        return points * self.square_m


@dataclass(frozen=True, slots=True)
class View:
    """One photo's pattern points.

    Attributes:
        name: The file's name.
        points_m: (n, 3) on the board.
        uv: (n, 2) pixels.
    """

    name: str
    points_m: Floats
    uv: Floats


def find_view(path: Path, pattern: Pattern) -> tuple[View | None, tuple[int, int]]:
    """Returns a photo's pattern points (``None`` where it is not seen) and its width and height.

    Raises:
        BoardError: The photo cannot be read.
    """
    gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if gray is None:
        raise BoardError(f"{path} cannot be read as an image", "leave it out or copy it again")
    image: Gray = np.asarray(gray, dtype=np.uint8)
    size = (image.shape[1], image.shape[0])
    found = {"chess": _chess, "charuco": _charuco, "circles": _circles}[pattern.kind](
        image, pattern
    )
    if found is None:
        return None, size
    points, uv = found
    return View(path.name, points, np.asarray(uv, dtype=np.float64).reshape(-1, 2)), size


def _chess(image: Gray, pattern: Pattern) -> tuple[Floats, Floats] | None:
    """Finds inner corners: the classic finder, and the exhaustive sector finder where it fails."""
    size = (pattern.cols, pattern.rows)
    flags = cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_FAST_CHECK
    seen, corners = cv2.findChessboardCorners(image, size, flags=flags)
    if not seen:
        flags = cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_NORMALIZE_IMAGE
        seen, corners = cv2.findChessboardCorners(image, size, flags=flags)
    if seen:
        rough = corners.reshape(-1, 1, 2).astype(np.float32)
        half = _half_window(rough.reshape(pattern.rows, pattern.cols, 2))
        uv = cv2.cornerSubPix(image, rough, (half, half), (-1, -1), SUBPIX)
        return pattern.points_m(), uv.reshape(-1, 2).astype(np.float64)
    exhaustive = cv2.CALIB_CB_EXHAUSTIVE | cv2.CALIB_CB_ACCURACY
    seen, corners = cv2.findChessboardCornersSB(image, size, flags=exhaustive)
    return (pattern.points_m(), corners.reshape(-1, 2).astype(np.float64)) if seen else None


def _half_window(uv: NDArray[np.float32]) -> int:
    along = np.linalg.norm(np.diff(uv, axis=1), axis=2).min()
    across = np.linalg.norm(np.diff(uv, axis=0), axis=2).min()
    reach = int(WINDOW_PER_SQUARE * min(along, across))
    return int(np.clip(reach, SMALLEST_HALF_WINDOW, LARGEST_HALF_WINDOW))


def _charuco(image: Gray, pattern: Pattern) -> tuple[Floats, Floats] | None:
    """Finds ChArUco corners of either layout (OpenCV's before and after 4.6)."""
    number = getattr(cv2.aruco, pattern.dictionary, None)
    if number is None:
        raise BoardError(
            f"there is no dictionary '{pattern.dictionary}'", "for example DICT_5X5_100"
        )
    marker_m = pattern.marker_m or 0.75 * pattern.square_m
    dictionary = cv2.aruco.getPredefinedDictionary(number)
    best: tuple[Floats, Floats] | None = None
    for legacy in (False, True):
        board = cv2.aruco.CharucoBoard(
            (pattern.cols + 1, pattern.rows + 1), pattern.square_m, marker_m, dictionary
        )
        board.setLegacyPattern(legacy)
        corners, ids, _, _ = cv2.aruco.CharucoDetector(board).detectBoard(image)
        if ids is None or len(ids) < MIN_CHARUCO_CORNERS:
            continue
        if best is None or len(ids) > len(best[0]):
            points = np.asarray(board.getChessboardCorners(), dtype=np.float64)
            best = points[np.ravel(ids)], np.asarray(corners, dtype=np.float64).reshape(-1, 2)
    return best


def _circles(image: Gray, pattern: Pattern) -> tuple[Floats, Floats] | None:
    """Finds a grid of circles, rectangular first, then staggered."""
    size = (pattern.cols, pattern.rows)
    for flags, points in (
        (cv2.CALIB_CB_SYMMETRIC_GRID, pattern.points_m()),
        (cv2.CALIB_CB_ASYMMETRIC_GRID, pattern.staggered_m()),
    ):
        seen, centres = cv2.findCirclesGrid(image, size, flags=flags)
        if seen:
            return points, centres.reshape(-1, 2).astype(np.float64)
    return None
