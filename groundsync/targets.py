"""Targets: the confirmed tracks of all flights, what is one thing brought together."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import exp, log

import numpy as np

from calibration.geodesy import MapFrame
from groundsync.associate import GATE, Key, Member, groups_of, map_from_true, place_track
from onboard.fuse_looks import align_biases, fuse_looks
from onboard.place.ellipses import ce90_m, ellipse
from onboard.records import Floats, HeightDatum, Track

CORRELATION = 0.5
"""How alike the probabilities of two flights over one thing err, 0-1."""


@dataclass(frozen=True, slots=True)
class FlightTracks:
    """What one flight hands over.

    Attributes:
        flight_id: The flight.
        model_hash: The model that looked.
        calibrated: Whether its probabilities were calibrated on held-out data.
        tracks: Its tracks; only confirmed ones become targets.
    """

    flight_id: str
    model_hash: str
    calibrated: bool
    tracks: tuple[Track, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One track that a target rests on.

    Attributes:
        flight_id: The flight.
        track_id: The track within it.
        model_hash: The model that looked.
        looks: Frames that saw it.
        misses: Frames that imaged the place and did not see it.
        probability: Of the track.
        calibrated: Whether that is calibrated on held-out data.
        ood: Whether the out-of-distribution gate doubts it.
        lat_deg: Its own position.
        lon_deg: Its own position.
        ce90_m: Radius that holds 90 % of its own position error.
        first_frame: First frame that saw it.
        last_frame: Last frame that saw it.
        best_frame: The frame that shows it best.
    """

    flight_id: str
    track_id: int
    model_hash: str
    looks: int
    misses: int
    probability: float
    calibrated: bool
    ood: bool
    lat_deg: float
    lon_deg: float
    ce90_m: float
    first_frame: str
    last_frame: str
    best_frame: str


@dataclass(frozen=True, slots=True)
class Target:
    """One thing on the ground, fused from the tracks of all flights.

    Attributes:
        target_id: Depends only on the first of its tracks (by flight and number), so it stays
            when later flights see the target again.
        class_name: The class of its tracks.
        lat_deg: Fused position, WGS84.
        lon_deg: Fused position, WGS84.
        alt_m: Height above ``height_datum``.
        height_datum: What ``alt_m`` is above.
        x_m: Fused x on the project's map.
        y_m: Fused y on the project's map.
        cov_random_m2: (2, 2) random covariance, true east/north.
        sensitivity_m: (2, k) metres east/north per σ of each bias state.
        bias_names: k names.
        probability: That it is of its class, all tracks combined.
        calibrated: Whether every track's probability is calibrated on held-out data.
        ood: Whether the out-of-distribution gate doubts most of its looks.
        area_m2: Median area of its tracks, weighted by their looks.
        looks: Frames that saw it, all flights.
        misses: Frames that imaged the place and did not see it.
        remedy: What would shrink its ellipse most; empty if nothing is known.
        evidence: The tracks it rests on, by flight and number.
    """

    target_id: str
    class_name: str
    lat_deg: float
    lon_deg: float
    alt_m: float
    height_datum: HeightDatum
    x_m: float
    y_m: float
    cov_random_m2: Floats
    sensitivity_m: Floats
    bias_names: tuple[str, ...]
    probability: float
    calibrated: bool
    ood: bool
    area_m2: float
    looks: int
    misses: int
    remedy: str
    evidence: tuple[Evidence, ...]

    @property
    def cov_total_m2(self) -> Floats:
        """(2, 2) random plus systematic covariance, true east/north, m²."""
        return np.asarray(self.cov_random_m2 + self.sensitivity_m @ self.sensitivity_m.T)

    @property
    def ce90_m(self) -> float:
        """Radius of the circle that holds 90 % of the position error."""
        return float(ce90_m(self.cov_total_m2[None])[0])

    @property
    def ellipse90(self) -> tuple[float, float, float]:
        """(semi-major m, semi-minor m, azimuth of the major axis in degrees from true north)."""
        major, minor, azimuth = ellipse(self.cov_total_m2[None], 0.9)
        return float(major[0]), float(minor[0]), float(azimuth[0])

    @property
    def flights(self) -> tuple[str, ...]:
        """The flights that saw it, sorted, each once."""
        return tuple(sorted({e.flight_id for e in self.evidence}))


@dataclass(frozen=True, slots=True)
class FusedTargets:
    """All targets of a project, and what did not become one.

    Attributes:
        targets: By identifier.
        left_out: Why tracks are in no target, counted.
    """

    targets: tuple[Target, ...]
    left_out: dict[str, int]


def fuse_targets(
    flights: Sequence[FlightTracks], map_frame: MapFrame, gate: float = GATE
) -> FusedTargets:
    """Returns the targets of all flights, the same in whatever order flights and tracks come.

    Two tracks of one class and of different flights (or models) belong together where their
    difference lies inside the gate of its own covariance, in which bias states that both share
    cancel. The closest pairs are joined first, and only where *all* pairs of the two groups pass;
    two tracks that one flight's tracker kept apart are never joined.

    Args:
        flights: The flights' tracks.
        map_frame: The project's map.
        gate: Squared Mahalanobis distance.
    """
    left_out: Counter[str] = Counter()
    members: list[Member] = []
    flight_of: dict[Key, FlightTracks] = {}
    for flight in flights:
        for track in flight.tracks:
            if track.state != "confirmed":
                left_out["tentative"] += 1
            elif not np.isfinite([track.lat_deg, track.lon_deg]).all():
                left_out["not placed"] += 1
            else:
                key = (flight.flight_id, flight.model_hash, track.track_id)
                flight_of[key] = flight
                members.append(place_track(key, track, map_frame))
    members.sort(key=lambda m: m.key)
    keys = Counter(m.key for m in members)
    twice = [key for key, times in keys.items() if times > 1]
    if twice:
        raise ValueError(f"the same track twice: {twice[0]}")
    groups = [
        group
        for name in sorted({m.track.class_name for m in members})
        for group in groups_of([m for m in members if m.track.class_name == name], gate)
    ]
    targets = sorted(
        (_fuse(group, flight_of, map_frame) for group in groups), key=lambda t: t.target_id
    )
    return FusedTargets(tuple(targets), dict(sorted(left_out.items())))


def combined_probability(probabilities: Sequence[float]) -> float:
    """Returns the probability that several flights' tracks give together.

    The mean log-odds, counted n/(1 + (n − 1)ρ) times: as many as n looks of equal correlation ρ
    are independent ones.
    """
    bounded = [min(max(p, 1e-6), 1.0 - 1e-6) for p in probabilities]
    n = len(bounded)
    mean = sum(log(p / (1.0 - p)) for p in bounded) / n
    return 1.0 / (1.0 + exp(-mean * n / (1.0 + (n - 1) * CORRELATION)))


def _fuse(
    group: Sequence[Member], flight_of: Mapping[Key, FlightTracks], map_frame: MapFrame
) -> Target:
    """Returns one target from its tracks."""
    names, s = align_biases([m.track.bias_names for m in group], [m.sensitivity for m in group])
    spread = [np.eye(2) * m.extent_m2 if len(group) > 1 else np.zeros((2, 2)) for m in group]
    random = np.array([m.random + e for m, e in zip(group, spread, strict=True)])
    xy, cov, sensitivity = fuse_looks(np.array([m.xy_m for m in group]), random, s)
    lat, lon = (float(v) for v in map_frame.to_geographic(xy[0], xy[1]))
    back = map_from_true(map_frame, lat, lon).T
    tracks = [m.track for m in group]
    best = max(tracks, key=lambda t: (t.looks, t.probability))
    doubted = sum(t.looks for t in tracks if t.ood)
    looks = sum(t.looks for t in tracks)
    return Target(
        target_id=_identifier(group[0].key),
        class_name=best.class_name,
        lat_deg=lat,
        lon_deg=lon,
        alt_m=best.alt_m,
        height_datum=best.height_datum,
        x_m=float(xy[0]),
        y_m=float(xy[1]),
        cov_random_m2=back @ cov @ back.T,
        sensitivity_m=back @ sensitivity,
        bias_names=names,
        probability=combined_probability([t.probability for t in tracks]),
        calibrated=all(flight_of[m.key].calibrated for m in group),
        ood=2 * doubted > looks,
        area_m2=_weighted_median([t.area_m2 for t in tracks], [t.looks for t in tracks]),
        looks=looks,
        misses=sum(t.misses for t in tracks),
        remedy=best.remedy,
        evidence=tuple(_evidence(m.track, flight_of[m.key]) for m in group),
    )


def _evidence(t: Track, flight: FlightTracks) -> Evidence:
    return Evidence(
        flight_id=flight.flight_id,
        track_id=t.track_id,
        model_hash=flight.model_hash,
        looks=t.looks,
        misses=t.misses,
        probability=t.probability,
        calibrated=flight.calibrated,
        ood=t.ood,
        lat_deg=t.lat_deg,
        lon_deg=t.lon_deg,
        ce90_m=float(ce90_m(t.cov_total_m2[None])[0]),
        first_frame=t.first_frame,
        last_frame=t.last_frame,
        best_frame=t.best_frame,
    )


def _identifier(key: Key) -> str:
    text = "\n".join(map(str, key)).encode()
    return f"T-{hashlib.sha256(text).hexdigest()[:10]}"


def _weighted_median(values: Sequence[float], weights: Sequence[int]) -> float:
    order = np.argsort(values, kind="stable")
    running = np.cumsum(np.maximum(np.asarray(weights, dtype=np.float64)[order], 1e-9))
    return float(np.asarray(values)[order][np.searchsorted(running, running[-1] / 2.0)])


def pairs_of_flights(targets: Sequence[Target]) -> dict[tuple[str, str], int]:
    """Returns how many targets each two flights share, by their sorted names."""
    shared: Counter[tuple[str, str]] = Counter()
    for target in targets:
        shared.update((a, b) for a, b in combinations(target.flights, 2))
    return dict(sorted(shared.items()))
