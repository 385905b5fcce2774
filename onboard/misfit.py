"""How far neighbouring frames disagree on the ground: the flight judged by its own images."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.camera import Camera
from calibration.geodesy import MapFrame
from calibration.rig import Rig
from gossan.errors import GossanError
from onboard.place.ortho_view import FrameView
from onboard.place.terrain import Terrain
from onboard.records import Floats, Frame, Image, Poses
from onboard.sources.source import Source

log = logging.getLogger(__name__)

MAX_FEATURES = 2500
WORK_PX = 1640
"""Frames are matched at most this wide; larger ones are halved until they are."""
RATIO = 0.75
RANSAC_PX = 1.5
"""Distance from the epipolar line or the homography, in pixels of the matched image."""
LEAST_TIES = 12
MOST_TIES = 150
"""Ties taken from one pair, so that no pair outweighs the others."""
PLANAR_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Features:
    """Points of one frame: source pixels, undistorted plane coordinates, descriptors."""

    uv: Floats
    plane: Floats
    descriptors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PairMisfit:
    """What two neighbouring frames say.

    Attributes:
        first: The one frame's name.
        second: The other's.
        ties: Tie points that image geometry alone accepts and both rays place on the ground.
        median_m: Median distance of their two places; NaN without ties.
        p90_m: 90 % of the distances are smaller; NaN without ties.
    """

    first: str
    second: str
    ties: int
    median_m: float
    p90_m: float


@dataclass(frozen=True, slots=True)
class Misfit:
    """What all neighbours say.

    Attributes:
        median_m: Median distance over all tie points; NaN without any.
        p90_m: 90 % of the distances are smaller.
        ties: Number of tie points.
        pairs: The pairs, in order of the frames.
        skipped: Why pairs were left out, ``first-second: reason``.
    """

    median_m: float
    p90_m: float
    ties: int
    pairs: tuple[PairMisfit, ...]
    skipped: tuple[str, ...] = ()


def neighbour_misfit(
    source: Source, poses: Poses, rig: Rig, terrain: Terrain, map_frame: MapFrame
) -> Misfit:
    """Returns the ground disagreement of tie points between consecutive placed frames.

    SIFT matches are filtered by image geometry alone (a homography or epipolar geometry in
    undistorted coordinates), never by the poses; then both rays meet the terrain.

    Args:
        source: Frames.
        poses: Their poses.
        rig: The camera.
        terrain: The ground.
        map_frame: The map.
    """
    row = {name: i for i, name in enumerate(poses.frame)}
    frames = [frame for frame in source.frames() if frame.name in row]
    pairs: list[PairMisfit] = []
    distances: list[Floats] = []
    skipped: list[str] = []
    before: tuple[str, Features] | None = None
    for frame in frames:
        here = _features_of(source, frame, rig.camera, skipped)
        if here is None:
            before = None
            continue
        if before is not None:
            views = [
                FrameView.of(poses.take([row[name]]), rig, terrain, map_frame)
                for name in (before[0], frame.name)
            ]
            far = tie_distances_m(before[1], here, views[0], views[1], rig.camera)
            pairs.append(_pair(before[0], frame.name, far))
            if len(far):
                distances.append(far)
            else:
                skipped.append(f"{before[0]}-{frame.name}: too few tie points")
        before = (frame.name, here)
    every = np.concatenate(distances) if distances else np.zeros(0)
    whole = _pair("", "", every)
    return Misfit(whole.median_m, whole.p90_m, len(every), tuple(pairs), tuple(skipped))


def tie_distances_m(
    a: Features, b: Features, view_a: FrameView, view_b: FrameView, camera: Camera
) -> Floats:
    """Returns on-ground distances of two frames' tie points; empty where they do not overlap."""
    one, two = matches(a.descriptors, b.descriptors)
    if len(one) < LEAST_TIES:
        return np.zeros(0)
    step = max(1.0, max(camera.width_px, camera.height_px) / WORK_PX)
    tolerance = RANSAC_PX * step / camera.fx_px
    keep = consistent(a.plane[one], b.plane[two], tolerance)
    if keep.sum() < LEAST_TIES:
        return np.zeros(0)
    some = np.flatnonzero(keep)
    some = some[np.linspace(0, len(some) - 1, min(len(some), MOST_TIES)).astype(np.int64)]
    ground_a = view_a.to_ground(a.uv[one[some]])[:, :2]
    ground_b = view_b.to_ground(b.uv[two[some]])[:, :2]
    far = np.hypot(*(ground_a - ground_b).T)
    return np.asarray(far[np.isfinite(far)])


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


def matches(
    a: NDArray[np.float32], b: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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
    _, flat = cv2.findHomography(p, q, cv2.USAC_MAGSAC, 2.0, maxIters=5000, confidence=0.999)
    _, epipolar = cv2.findFundamentalMat(p, q, cv2.USAC_MAGSAC, 1.0, 0.999, 5000)
    nothing = np.zeros((len(a), 1), np.uint8)
    by_plane = np.asarray(nothing if flat is None else flat).ravel() > 0
    by_line = np.asarray(nothing if epipolar is None else epipolar).ravel() > 0
    return np.asarray(by_plane if by_plane.sum() >= PLANAR_SHARE * by_line.sum() else by_line)


def _features_of(
    source: Source, frame: Frame, camera: Camera, skipped: list[str]
) -> Features | None:
    try:
        pixels = source.load_pixels(frame).pixels
    except GossanError as error:
        skipped.append(f"{frame.name}: {error}")
        return None
    if pixels is None or pixels.shape[:2] != (camera.height_px, camera.width_px):
        skipped.append(f"{frame.name}: its size is not the rig's")
        return None
    return features(pixels, camera)


def _rooted(descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns RootSIFT descriptors (Arandjelovic and Zisserman 2012), unit length."""
    total = descriptors.sum(axis=1, keepdims=True)
    return np.asarray(np.sqrt(descriptors / np.maximum(total, 1e-6)), np.float32)


def _pair(first: str, second: str, far: Floats) -> PairMisfit:
    if not len(far):
        return PairMisfit(first, second, 0, float("nan"), float("nan"))
    median, p90 = np.quantile(far, (0.5, 0.9))
    return PairMisfit(first, second, len(far), float(median), float(p90))
