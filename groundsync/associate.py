"""Association: which tracks of different flights are one thing on the ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi, sqrt

import numpy as np
from scipy.spatial import cKDTree

from calibration.geodesy import MapFrame
from onboard.fuse_looks import align_biases, relative_covariance
from onboard.records import Floats, Track

GATE = 9.21034037197618
"""χ²₂ at 99 %: two tracks farther apart than that are two things."""
EXTENT_SHARE = 0.3
"""σ of a centroid from look to look, as a share of the thing's radius."""

Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Member:
    """A confirmed track on the project's map; covariances in map axes.

    Attributes:
        key: Flight, model and number; no two members of one flight and model are one thing.
        track: The track.
        xy_m: (2,) position on the project's map.
        random: (2, 2) random covariance.
        sensitivity: (2, k) metres per σ of each bias state.
        reach_m: σ along the longest axis, the thing's radius included.
    """

    key: Key
    track: Track
    xy_m: Floats
    random: Floats
    sensitivity: Floats
    reach_m: float

    @property
    def extent_m2(self) -> float:
        """Variance of a centroid that comes from the thing's size."""
        return EXTENT_SHARE**2 * max(self.track.area_m2, 0.0) / pi


def place_track(key: Key, track: Track, map_frame: MapFrame) -> Member:
    """Returns a track on the project's map."""
    x, y = map_frame.to_map(track.lat_deg, track.lon_deg)
    turn = map_from_true(map_frame, track.lat_deg, track.lon_deg)
    cov = track.cov_total_m2
    return Member(
        key,
        track,
        np.array([float(x), float(y)]),
        turn @ track.cov_random_m2 @ turn.T,
        turn @ track.sensitivity_m,
        float(sqrt(max(np.linalg.eigvalsh(cov)[-1], 0.0) + max(track.area_m2, 0.0) / pi)),
    )


def map_from_true(map_frame: MapFrame, lat_deg: float, lon_deg: float) -> Floats:
    """Returns the (2, 2) rotation of true east/north into map axes."""
    gamma = float(map_frame.local(lat_deg, lon_deg).convergence_rad[0])
    return np.array([[np.cos(gamma), -np.sin(gamma)], [np.sin(gamma), np.cos(gamma)]])


def groups_of(members: Sequence[Member], gate: float = GATE) -> list[list[Member]]:
    """Returns the members of one class as groups, each one thing.

    Complete linkage, closest pairs first: two groups are joined only where all pairs of both lie
    inside the gate. The members' order decides nothing but the order of the result.
    """
    distance = _close_pairs(members, gate)
    group_of = list(range(len(members)))
    held: dict[int, list[int]] = {i: [i] for i in group_of}
    for i, j in sorted(distance, key=lambda pair: (distance[pair], pair)):
        a, b = sorted((group_of[i], group_of[j]))
        if a == b or not all((min(p, q), max(p, q)) in distance for p in held[a] for q in held[b]):
            continue
        for q in held.pop(b):
            group_of[q] = a
            held[a].append(q)
    return [[members[i] for i in sorted(rows)] for _, rows in sorted(held.items())]


def _close_pairs(members: Sequence[Member], gate: float) -> dict[tuple[int, int], float]:
    """Returns the squared Mahalanobis distance of every pair that may be one thing."""
    if len(members) < 2:
        return {}
    reach = 2.0 * sqrt(gate) * max(m.reach_m for m in members)
    tree = cKDTree(np.array([m.xy_m for m in members]))
    found: dict[tuple[int, int], float] = {}
    for i, j in sorted(tree.query_pairs(reach)):
        one, other = members[i], members[j]
        if one.key[:2] == other.key[:2]:
            continue
        d2 = _distance2(one, other)
        if d2 <= gate:
            found[(i, j)] = d2
    return found


def _distance2(one: Member, other: Member) -> float:
    """Returns the squared Mahalanobis distance; bias states that both share cancel."""
    _, s = align_biases(
        [one.track.bias_names, other.track.bias_names], [one.sensitivity, other.sensitivity]
    )
    cov = relative_covariance(one.random, s[0], other.random, s[1])
    cov = cov + np.eye(2) * (one.extent_m2 + other.extent_m2 + 1e-8)
    d = one.xy_m - other.xy_m
    return float(d @ np.linalg.solve(cov, d))
