"""What frames' pixels say about them: unreadable, dark, blurred, or turned against neighbours."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from calibration.rotations import quat_from_r
from onboard.place.vehicle_state import metres_per_degree
from onboard.records import Floats, Frame, Image, Poses
from onboard.sources.errors import DamagedFrame
from onboard.sources.pixels import read_gray
from onboard.sources.source import Flag, Source, flag

BLURRED_BELOW = 0.5
"""Share of the gradient that a further blur takes away (Crete et al. 2007): sharp frames lose
0.7 and more at half size, a defocused one 0.34."""
DARK_MEAN, BLANK_STD = 12.0, 3.0
HALVE_ABOVE_PX = 1500
FEATURE_WIDTH_PX = 800
FEATURES = 1500
NEIGHBOURS = 4
RATIO = 0.75
MIN_INLIERS = 25
INLIER_PX = 4.0
MAX_SWING_RAD = np.radians(30.0)
QUARTER_TOLERANCE_RAD = np.radians(25.0)
QUARTER_RAD = np.pi / 2


@dataclass(frozen=True, slots=True)
class Look:
    """What is kept of a frame's pixels to judge it.

    Attributes:
        name: The frame's name.
        reasons: Codes of what looks wrong in itself.
        points_px: (n, 2) features, at the reduced size.
        descriptors: (n, 128) their descriptors; ``None`` where there are none.
        size_px: Width and height as stored; (0, 0) if unreadable.
    """

    name: str
    reasons: tuple[str, ...]
    points_px: Floats
    descriptors: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None = None
    size_px: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Turn:
    """How far the content of frame j is turned against what the poses predict from frame i."""

    i: int
    j: int
    quarters: int
    weight: int


def look_at(source: Source, frame: Frame) -> Look:
    """Returns what a frame's pixels say; a damaged one is ``unreadable``, never an error."""
    try:
        gray, size = _gray(source, frame)
    except DamagedFrame:
        return Look(frame.name, ("unreadable",), np.empty((0, 2)))
    reasons = tuple(_quality(gray))
    if "dark" in reasons:
        return Look(frame.name, reasons, np.empty((0, 2)), None, size)
    scale = min(FEATURE_WIDTH_PX / gray.shape[1], 1.0)
    small = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    points, descriptors = cv2.SIFT.create(FEATURES).detectAndCompute(small, None)
    xy = np.array([p.pt for p in points], dtype=np.float64).reshape(-1, 2)
    found = None if descriptors is None else np.asarray(descriptors, dtype=np.float32)
    return Look(frame.name, reasons, xy, found, size)


def pixel_flags(looks: Iterable[Look]) -> Iterator[Flag]:
    """Yields the flags of what looks wrong with frames in themselves."""
    for look in looks:
        for reason in look.reasons:
            yield flag(look.name, reason)


def turned_frames(looks: list[Look], poses: Poses) -> tuple[set[str], set[str], set[str]]:
    """Returns names of turned frames, of those in contradiction, and of those confirmed.

    The rotation between overlapping frames, by matched features, is compared with what the poses
    predict. Differences near 90, 180 or 270° make a graph of quarter turns; the largest group that
    agrees is right. Where two groups are equally large nobody can say which is wrong. Only pairs
    whose optical axes are within 30° are compared.
    """
    by_name = {look.name: look for look in looks if look.descriptors is not None}
    usable = [i for i, name in enumerate(poses.frame) if name in by_name]
    turns = [
        turn
        for i, j in _neighbours(poses, usable)
        if (turn := _turn(by_name, poses, i, j)) is not None
    ]
    turned: set[str] = set()
    unclear: set[str] = set()
    confirmed: set[str] = set()
    for group in _groups(turns):
        counts = [sum(q == k for q in group.values()) for k in range(4)]
        best = int(np.argmax(counts))
        split = counts.count(max(counts)) > 1
        for i, quarters in group.items():
            target = unclear if split else confirmed if quarters == best else turned
            target.add(poses.frame[i])
    return turned, unclear, confirmed


def _gray(source: Source, frame: Frame) -> tuple[Image, tuple[int, int]]:
    if frame.path is not None and frame.pixels is None:
        half = read_gray(frame.path, 2)
        if half.shape[1] * 2 > HALVE_ABOVE_PX:
            return half, (half.shape[1] * 2, half.shape[0] * 2)
        full = read_gray(frame.path, 1)
        return full, (full.shape[1], full.shape[0])
    pixels = source.load_pixels(frame).pixels
    assert pixels is not None  # noqa: S101 - load_pixels fills it or raises
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    gray = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    return gray, (gray.shape[1], gray.shape[0])


def _quality(gray: Image) -> Iterator[str]:
    mean, std = cv2.meanStdDev(gray)
    if mean[0, 0] < DARK_MEAN or std[0, 0] < BLANK_STD:
        yield "dark"
    elif min(_sharpness(gray, 1), _sharpness(gray, 0)) < BLURRED_BELOW:
        yield "blurred"


def _sharpness(gray: Image, axis: int) -> float:
    """Returns the share of the gradient along an axis that a further blur takes away."""
    size = (9, 1) if axis == 1 else (1, 9)
    before = np.abs(np.diff(gray.astype(np.float32), axis=axis))
    after = np.abs(np.diff(cv2.blur(gray, size).astype(np.float32), axis=axis))
    total = float(before.sum())
    return float(np.maximum(before - after, 0.0).sum()) / total if total > 0 else 0.0


def _neighbours(poses: Poses, usable: list[int]) -> list[tuple[int, int]]:
    """Returns pairs of frames that are nearest to each other on the ground."""
    if len(usable) < 2:
        return []
    lat, lon = poses.lat_deg[usable], poses.lon_deg[usable]
    north, east = metres_per_degree(lat, np.zeros(len(lat)))
    xy = np.stack([lon * east.mean(), lat * north.mean()], axis=1)
    pairs: set[tuple[int, int]] = set()
    for a, here in enumerate(xy):
        order = np.argsort(np.hypot(*(xy - here).T), kind="stable")
        for b in [int(k) for k in order if k != a][:NEIGHBOURS]:
            pairs.add((min(usable[a], usable[b]), max(usable[a], usable[b])))
    return sorted(pairs)


def _turn(looks: dict[str, Look], poses: Poses, i: int, j: int) -> Turn | None:
    """Returns by how many quarters j is turned against prediction; None where that is unclear."""
    twist, swing = _twist(poses.r_ned_cam[j].T @ poses.r_ned_cam[i])
    if swing > MAX_SWING_RAD:
        return None
    found = _rotation(looks[poses.frame[i]], looks[poses.frame[j]])
    if found is None:
        return None
    rotation, inliers = found
    off = rotation - twist
    quarters = round(off / QUARTER_RAD)
    if abs(off - quarters * QUARTER_RAD) > QUARTER_TOLERANCE_RAD:
        return None
    return Turn(i, j, quarters % 4, inliers)


def _twist(r_j_i: Floats) -> tuple[float, float]:
    """Returns the rotation about the optical axis, and the angle between the axes, radians."""
    w, _, _, z = (float(part) for part in quat_from_r(r_j_i))
    return 2.0 * float(np.arctan2(z, w)), 2.0 * float(np.arccos(min(np.hypot(w, z), 1.0)))


def _rotation(a: Look, b: Look) -> tuple[float, int] | None:
    """Returns the rotation of the image from a to b, clockwise, and how many matches agree."""
    if (
        a.descriptors is None
        or b.descriptors is None
        or min(len(a.points_px), len(b.points_px)) < 2
    ):
        return None
    matches = cv2.BFMatcher(cv2.NORM_L2).knnMatch(a.descriptors, b.descriptors, k=2)
    good = [m[0] for m in matches if len(m) == 2 and m[0].distance < RATIO * m[1].distance]
    if len(good) < MIN_INLIERS:
        return None
    from_px = a.points_px[[m.queryIdx for m in good]]
    to_px = b.points_px[[m.trainIdx for m in good]]
    cv2.setRNGSeed(1)
    model, mask = cv2.estimateAffinePartial2D(
        from_px, to_px, method=cv2.RANSAC, ransacReprojThreshold=INLIER_PX
    )
    inliers = int(mask.sum()) if model is not None else 0
    if inliers < MIN_INLIERS:
        return None
    return float(np.arctan2(model[1, 0], model[0, 0])), inliers


def _groups(turns: list[Turn]) -> Iterator[dict[int, int]]:
    """Yields, for each connected set of frames, each one's quarter turns against the first."""
    links: dict[int, list[tuple[int, int, int]]] = {}
    for turn in turns:
        links.setdefault(turn.i, []).append((turn.weight, turn.j, turn.quarters))
        links.setdefault(turn.j, []).append((turn.weight, turn.i, -turn.quarters))
    left = set(links)
    while left:
        start = max(left, key=lambda i: sum(weight for weight, _, _ in links[i]))
        group = {start: 0}
        queue = deque([start])
        while queue:
            i = queue.popleft()
            for _, j, quarters in sorted(links[i], reverse=True):
                if j not in group:
                    group[j] = (group[i] + quarters) % 4
                    queue.append(j)
        left -= set(group)
        yield group
