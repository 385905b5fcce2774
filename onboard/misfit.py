"""How far neighbouring frames disagree on the ground: the flight judged by its own images."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from calibration.camera import Camera
from calibration.geodesy import MapFrame
from calibration.rig import Rig
from onboard.image_matches import Features, common_points, features_of
from onboard.place.ortho_view import FrameView
from onboard.place.terrain import Terrain
from onboard.records import Floats, Poses
from onboard.sources.source import Source

log = logging.getLogger(__name__)

MOST_TIES = 150
"""Ties taken from one pair, so that no pair outweighs the others."""


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
        here = features_of(source, frame, rig.camera, skipped)
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
    one, two = common_points(a, b, camera)
    if not len(one):
        return np.zeros(0)
    some = np.linspace(0, len(one) - 1, min(len(one), MOST_TIES)).astype(np.int64)
    ground_a = view_a.to_ground(a.uv[one[some]])[:, :2]
    ground_b = view_b.to_ground(b.uv[two[some]])[:, :2]
    far = np.hypot(*(ground_a - ground_b).T)
    return np.asarray(far[np.isfinite(far)])


def _pair(first: str, second: str, far: Floats) -> PairMisfit:
    if not len(far):
        return PairMisfit(first, second, 0, float("nan"), float("nan"))
    median, p90 = np.quantile(far, (0.5, 0.9))
    return PairMisfit(first, second, len(far), float(median), float(p90))
