"""The same thing over frames: association by covariance, fusion, confirmation, misses."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import shapely

from calibration.geodesy import MapFrame
from onboard.fuse_looks import align_biases, fuse_looks, relative_covariance
from onboard.place.coverage import footprint_polygon
from onboard.records import Detections, Floats, Footprint, Track
from onboard.tracked import Look, TrackedThing

__all__ = ["TrackSettings", "Tracker", "align_biases", "fuse_looks"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrackSettings:
    """How looks become tracks.

    Attributes:
        gate: Squared Mahalanobis distance within which a detection may belong to a track (χ²,
            2 degrees of freedom: 13.8 keeps 99.9 % of the true ones).
        merge_gate: The same for two tracks never seen side by side (9.21 keeps 99 %).
        extent_share: σ of a centroid from look to look, as a share of the thing's radius.
        confirm_looks: Looks after which a track is confirmed.
        confirm_probability: A single whole look this probable is enough, if calibrated.
        correlation: How alike the probabilities of two looks at one thing err, 0-1.
        max_looks: Looks kept one by one; older ones are melted into one.
    """

    gate: float = 13.8
    merge_gate: float = 9.21
    extent_share: float = 0.3
    confirm_looks: int = 2
    confirm_probability: float = 0.97
    correlation: float = 0.5
    max_looks: int = 48


@dataclass(frozen=True, slots=True)
class _Places:
    """Where n tracks lie, and σ of each along its longest axis with its wander."""

    things: list[TrackedThing]
    xy_m: Floats
    reach_m: Floats

    def near(self, look: Look) -> list[TrackedThing]:
        """Returns the tracks close enough to be worth a distance (6 σ of both, nothing shared)."""
        far = np.hypot(*(self.xy_m - look.xy_m).T)
        close = far <= 6.0 * (self.reach_m + look.reach_m + look.wander_m)
        return [self.things[i] for i in np.flatnonzero(close)]


@dataclass
class Tracker:
    """All tracks of one flight.

    Attributes:
        map_frame: The map that positions lie in.
        settings: How looks become tracks.
        merged: Which track went into which, by id.
        counts: What happened, by name.
    """

    map_frame: MapFrame
    settings: TrackSettings = field(default_factory=TrackSettings)
    merged: dict[int, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    _things: dict[int, TrackedThing] = field(default_factory=dict)
    _next_id: int = 1

    @property
    def tracks(self) -> list[Track]:
        """All tracks, in the order of their ids."""
        return self._records(list(self._things.values()))

    @property
    def confirmed(self) -> list[Track]:
        """The confirmed tracks, in the order of their ids."""
        return [track for track in self.tracks if track.state == "confirmed"]

    def update(
        self, detections: Detections | None, footprint: Footprint | None = None
    ) -> list[Track]:
        """Takes in one frame; returns the tracks that it changed.

        Args:
            detections: What was seen in the frame; ``None`` where it was not scanned.
            footprint: What the frame imaged: tracks inside it that were not seen are missed.
        """
        looks = [] if detections is None else self._looks(detections)
        pairs = self._associate(looks)
        changed = {self._add(look, pairs.get(i)) for i, look in enumerate(looks)}
        changed |= self._merge(changed)
        seen = set(changed)
        changed |= self._miss(footprint, seen)
        return self._records([self._things[i] for i in sorted(changed) if i in self._things])

    def _looks(self, detections: Detections) -> list[Look]:
        """Returns the detections that could be placed, covariances turned into map axes."""
        ground = detections.ground
        placed = np.isfinite(ground.x_m) & np.isfinite(ground.cov_random_m2).all(axis=(1, 2))
        self.counts["not_placed"] += int((~placed).sum())
        if not placed.any():
            return []
        turn = self._true_to_grid(ground.lat_deg, ground.lon_deg)
        looks = []
        for i in np.flatnonzero(placed):
            radius = float(np.sqrt(max(float(detections.area_m2[i]), 0.0) / np.pi))
            # What is cut by the frame's edge has its centroid anywhere within itself.
            cut = 0.0 if detections.inside[i] else radius
            random = turn[i] @ ground.cov_random_m2[i] @ turn[i].T
            looks.append(
                Look(
                    frame=detections.frame,
                    class_name=detections.class_name[i],
                    probability=float(detections.probability[i]),
                    calibrated=detections.calibrated,
                    ood=bool(detections.ood[i]),
                    inside=bool(detections.inside[i]),
                    area_m2=float(detections.area_m2[i]),
                    wander_m=self.settings.extent_share * radius,
                    xy_m=np.array([ground.x_m[i], ground.y_m[i]]),
                    alt_m=float(ground.alt_m[i]),
                    height_datum=ground.height_datum,
                    cov_random_m2=random + np.eye(2) * cut**2,
                    sensitivity_m=turn[i] @ ground.sensitivity_m[i],
                    bias_names=ground.bias_names,
                )
            )
        return looks

    def _true_to_grid(self, lat_deg: Floats, lon_deg: Floats) -> Floats:
        """Returns (n, 2, 2) rotations from true east/north to the map's axes."""
        gamma = np.broadcast_to(
            self.map_frame.local(lat_deg, lon_deg).convergence_rad, np.shape(lat_deg)
        )
        c, s = np.cos(gamma), np.sin(gamma)
        return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], axis=-2)

    def _associate(self, looks: list[Look]) -> dict[int, int]:
        """Returns look index → track id, one to one, the likeliest pairs first."""
        candidates: list[tuple[float, int, int]] = []
        places = self._index()
        for i, look in enumerate(looks):
            for thing in places.near(look):
                if thing.class_name != look.class_name:
                    continue
                d2, log_det = _distance(look, thing.fused)
                if d2 <= self.settings.gate:
                    candidates.append((d2 + log_det, i, thing.track_id))
        pairs: dict[int, int] = {}
        taken: set[int] = set()
        for _, i, track_id in sorted(candidates):
            if i not in pairs and track_id not in taken:
                pairs[i] = track_id
                taken.add(track_id)
        return pairs

    def _index(self) -> _Places:
        """Returns where all tracks lie and how far they reach, for one frame's questions."""
        things = list(self._things.values())
        xy = np.array([t.fused.xy_m for t in things]).reshape(-1, 2)
        return _Places(things, xy, np.array([t.fused.reach_m + t.fused.wander_m for t in things]))

    def _add(self, look: Look, track_id: int | None) -> int:
        if track_id is None:
            track_id = self._next_id
            self._next_id += 1
            self._things[track_id] = TrackedThing(track_id)
        self._things[track_id].add(look, self.settings.max_looks)
        return track_id

    def _merge(self, changed: set[int]) -> set[int]:
        """Merges changed tracks with others that turn out to be the same thing."""
        survivors: set[int] = set()
        places = self._index()
        for track_id in sorted(changed):
            thing = self._things.get(track_id)
            if thing is None:
                continue
            for other in places.near(thing.fused):
                if other.track_id in self._things and self._is_same(thing, other):
                    kept, gone = sorted((thing, other), key=lambda t: t.track_id)
                    kept.take_over(gone, self.settings.max_looks)
                    del self._things[gone.track_id]
                    self.merged[gone.track_id] = kept.track_id
                    self.counts["merged"] += 1
                    survivors.add(kept.track_id)
                    log.info("tracks_merged kept=%d gone=%d", kept.track_id, gone.track_id)
                    thing = kept
        return survivors

    def _is_same(self, a: TrackedThing, b: TrackedThing) -> bool:
        """Returns whether two tracks are one: alike, close, and never seen side by side."""
        if a.track_id == b.track_id or a.class_name != b.class_name or a.frames & b.frames:
            return False
        return _distance(a.fused, b.fused)[0] <= self.settings.merge_gate

    def _miss(self, footprint: Footprint | None, seen: set[int]) -> set[int]:
        """Counts a miss for tracks well inside a good, scanned footprint that were not seen."""
        if footprint is None or footprint.quality != "good" or not footprint.scanned:
            return set()
        area = footprint_polygon(footprint)
        if area.is_empty:
            return set()
        shapely.prepare(area)
        missed = set()
        for thing in self._things.values():
            if thing.track_id in seen:
                continue
            place = shapely.Point(*thing.fused.xy_m).buffer(2.0 * thing.fused.reach_m)
            if shapely.contains(area, place):
                thing.misses += 1
                missed.add(thing.track_id)
        return missed

    def _records(self, things: list[TrackedThing]) -> list[Track]:
        """Returns the records of things; the map is asked once for all of them."""
        if not things:
            return []
        xy = np.array([thing.fused.xy_m for thing in things])
        lat, lon = self.map_frame.to_geographic(xy[:, 0], xy[:, 1])
        turn = self._true_to_grid(lat, lon)
        return [
            thing.record(
                lat_deg=float(lat[i]),
                lon_deg=float(lon[i]),
                to_true=turn[i].T,
                confirmed=self._is_confirmed(thing),
                correlation=self.settings.correlation,
            )
            for i, thing in enumerate(things)
        ]

    def _is_confirmed(self, thing: TrackedThing) -> bool:
        if thing.looks_count >= self.settings.confirm_looks:
            return True
        look = thing.looks[0]
        sure = look.probability >= self.settings.confirm_probability and look.calibrated
        return sure and look.inside and not look.ood


def _distance(a: Look, b: Look) -> tuple[float, float]:
    """Returns squared Mahalanobis distance and log-determinant, shared states cancelled."""
    _, s = align_biases([a.bias_names, b.bias_names], [a.sensitivity_m, b.sensitivity_m])
    wander_m2 = a.wander_m**2 + b.wander_m**2 + 1e-6
    cov = relative_covariance(a.cov_random_m2, s[0], b.cov_random_m2, s[1]) + wander_m2 * np.eye(2)
    d = a.xy_m - b.xy_m
    return float(d @ np.linalg.solve(cov, d)), float(np.linalg.slogdet(cov)[1])
