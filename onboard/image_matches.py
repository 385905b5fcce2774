"""What two images show in common: SIFT features, and matches that image geometry alone accepts."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.camera import Camera
from gossan.errors import GossanError
from onboard.records import Floats, Frame, Image, Ints
from onboard.sources.source import Source

MAX_FEATURES = 2500
WORK_PX = 1640
"""Frames are matched at most this wide; larger ones are halved until they are."""
RATIO = 0.75
RANSAC_PX = 1.5
"""Distance from the epipolar line or the homography, in pixels of the matched image."""
LEAST_TIES = 12
PLANAR_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Features:
    """Points of one frame.

    Attributes:
        uv: (n, 2) source pixels.
        plane: (n, 2) undistorted plane coordinates.
        descriptors: (n, 128) SIFT.
    """

    uv: Floats
    plane: Floats
    descriptors: NDArray[np.float32]


def features_of(
    source: Source, frame: Frame, camera: Camera, skipped: list[str]
) -> Features | None:
    """Returns a frame's features; ``None`` and a line in ``skipped`` where it cannot be used."""
    try:
        pixels = source.load_pixels(frame).pixels
    except GossanError as error:
        skipped.append(f"{frame.name}: {error}")
        return None
    if pixels is None or pixels.shape[:2] != (camera.height_px, camera.width_px):
        skipped.append(f"{frame.name}: its size is not the rig's")
        return None
    return features(pixels, camera)


def features(pixels: Image, camera: Camera) -> Features:
    """Returns SIFT features of a frame, with their undistorted plane coordinates."""
    grey = pixels if pixels.ndim == 2 else pixels[..., min(1, pixels.shape[2] - 1)]
    eight = np.asarray(grey if grey.dtype == np.uint8 else grey >> 8, np.uint8)
    step = 1
    while max(eight.shape) > WORK_PX * 1.2:
        half = cv2.resize(eight, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        eight = np.asarray(half, np.uint8)
        step *= 2
    eight = np.asarray(cv2.createCLAHE(2.0, (8, 8)).apply(eight), np.uint8)
    sift = cv2.SIFT.create(nfeatures=MAX_FEATURES)
    points, found = sift.detectAndCompute(eight, None)
    uv = (np.array([p.pt for p in points]).reshape(-1, 2) + 0.5) * step - 0.5
    rays = camera.unproject(uv)
    with np.errstate(divide="ignore", invalid="ignore"):
        plane = rays[:, :2] / rays[:, 2:]
    good = np.isfinite(plane).all(axis=1) & (rays[:, 2] > 0.05)
    descriptors = np.zeros((len(uv), 128), np.float32) if found is None else np.asarray(found)
    return Features(uv[good], plane[good], np.asarray(descriptors[good], np.float32))


def matched_px(camera: Camera) -> float:
    """Returns how many source pixels one pixel of the matched image is wide, at least 1."""
    return max(1.0, max(camera.width_px, camera.height_px) / WORK_PX)


def common_points(a: Features, b: Features, camera: Camera) -> tuple[Ints, Ints]:
    """Returns rows of both frames' features that show the same; empty where too few agree."""
    nothing = np.zeros(0, np.int64)
    one, two = matches(a.descriptors, b.descriptors)
    if len(one) < LEAST_TIES:
        return nothing, nothing
    tolerance = RANSAC_PX * matched_px(camera) / camera.fx_px
    keep = consistent(a.plane[one], b.plane[two], tolerance)
    if keep.sum() < LEAST_TIES:
        return nothing, nothing
    return one[keep], two[keep]


def matches(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[Ints, Ints]:
    """Returns indices of descriptors that are each other's best, clearly better than the next."""
    if len(a) < 2 or len(b) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    likeness = _rooted(a) @ _rooted(b).T
    best_b, best_a = likeness.argmax(axis=1), likeness.argmax(axis=0)
    index = np.arange(len(a))
    top = likeness[index, best_b]
    likeness[index, best_b] = -1.0
    second = likeness.max(axis=1)
    clear = np.sqrt(np.maximum(2 - 2 * top, 0)) < RATIO * np.sqrt(np.maximum(2 - 2 * second, 0))
    keep = (best_a[best_b] == index) & clear
    return index[keep], best_b[keep].astype(np.int64)


def consistent(a: Floats, b: Floats, tolerance: float) -> NDArray[np.bool_]:
    """Returns which pairs of undistorted points fit one homography or one epipolar geometry.

    Nearly flat ground leaves the epipolar geometry undetermined: the homography decides where it
    holds for most pairs that the epipolar geometry accepts.

    Args:
        a: (n, 2) in the one frame's plane.
        b: (n, 2) in the other's.
        tolerance: In the same plane units.
    """
    # OpenCV's estimators expect pixel-like magnitudes.
    scale = 1.0 / tolerance
    p, q = (a * scale).astype(np.float64), (b * scale).astype(np.float64)
    nothing = np.zeros((len(a), 1), np.uint8)
    try:
        _, flat = cv2.findHomography(p, q, cv2.USAC_MAGSAC, 2.0, maxIters=5000, confidence=0.999)
        _, epipolar = cv2.findFundamentalMat(p, q, cv2.USAC_MAGSAC, 1.0, 0.999, 5000)
    except cv2.error:  # its solvers refuse some degenerate samples
        return np.zeros(len(a), np.bool_)
    by_plane = np.asarray(nothing if flat is None else flat).ravel() > 0
    by_line = np.asarray(nothing if epipolar is None else epipolar).ravel() > 0
    return np.asarray(by_plane if by_plane.sum() >= PLANAR_SHARE * by_line.sum() else by_line)


def _rooted(descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns RootSIFT descriptors (Arandjelovic and Zisserman 2012), unit length."""
    total = descriptors.sum(axis=1, keepdims=True)
    return np.asarray(np.sqrt(descriptors / np.maximum(total, 1e-6)), np.float32)
