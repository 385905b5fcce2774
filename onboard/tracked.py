"""What a tracker keeps of one thing: its looks, their fusion, and what would sharpen it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from onboard.fuse_looks import align_biases, fuse_looks
from onboard.place.ellipses import ce90_m
from onboard.records import Floats, HeightDatum, Track

REMEDY_GAIN = 0.8
"""A remedy is told where it shrinks the error to this share or less."""


@dataclass(frozen=True)
class Look:
    """One look at a thing, or several melted into one; positions and covariances in map axes.

    Attributes:
        frame: The frame's name.
        class_name: What it was taken for.
        probability: Of that class.
        calibrated: Whether the probability is calibrated.
        ood: Whether the out-of-distribution gate doubts it.
        inside: Whether all of it was in the frame.
        area_m2: Its area.
        wander_m: σ of its centroid from look to look; counts when looks are compared, not fused.
        xy_m: (2,) map position.
        alt_m: Height above ``height_datum``.
        height_datum: What ``alt_m`` is above.
        cov_random_m2: (2, 2).
        sensitivity_m: (2, k).
        bias_names: k names.
    """

    frame: str
    class_name: str
    probability: float
    calibrated: bool
    ood: bool
    inside: bool
    area_m2: float
    wander_m: float
    xy_m: Floats
    alt_m: float
    height_datum: HeightDatum
    cov_random_m2: Floats
    sensitivity_m: Floats
    bias_names: tuple[str, ...]

    @cached_property
    def cov_total_m2(self) -> Floats:
        """(2, 2) random plus systematic covariance."""
        return np.asarray(self.cov_random_m2 + self.sensitivity_m @ self.sensitivity_m.T)

    @cached_property
    def reach_m(self) -> float:
        """σ along the longest axis of the total ellipse."""
        return float(np.sqrt(max(np.linalg.eigvalsh(self.cov_total_m2)[-1], 0.0)))


@dataclass
class TrackedThing:
    """One thing and all looks at it.

    Attributes:
        track_id: Counts up within the flight.
        looks: Its looks; the first may be several melted into one.
        looks_count: How many frames saw it.
        misses: How many imaged its place and did not see it.
        frames: Names of the frames that saw it.
    """

    track_id: int
    looks: list[Look] = field(default_factory=list)
    looks_count: int = 0
    misses: int = 0
    frames: set[str] = field(default_factory=set)
    votes: Counter[str] = field(default_factory=Counter)
    logits: list[float] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    doubts: int = 0
    first_frame: str = ""
    last_frame: str = ""
    best: tuple[float, str] = (-1.0, "")
    _fused: Look | None = None

    @property
    def class_name(self) -> str:
        """The class it was seen as most."""
        return self.votes.most_common(1)[0][0]

    @property
    def fused(self) -> Look:
        """All looks as one."""
        if self._fused is None:
            self._fused = melt(self.looks)
        return self._fused

    def add(self, look: Look, max_looks: int) -> None:
        """Takes in one more look."""
        self.first_frame = self.first_frame or look.frame
        self.last_frame = look.frame
        self.best = max(self.best, (look.probability * (1.0 if look.inside else 0.5), look.frame))
        self.frames.add(look.frame)
        self.looks_count += 1
        self.votes[look.class_name] += 1
        p = min(max(look.probability, 1e-4), 1.0 - 1e-4)
        self.logits.append(float(np.log(p / (1.0 - p))))
        self.areas.append(look.area_m2)
        self.doubts += look.ood
        self.looks.append(look)
        self._shorten(max_looks)

    def take_over(self, other: TrackedThing, max_looks: int) -> None:
        """Takes all looks of a track that turned out to be the same thing."""
        self.last_frame = other.last_frame if other.track_id > self.track_id else self.last_frame
        self.best = max(self.best, other.best)
        self.frames |= other.frames
        self.looks_count += other.looks_count
        self.misses += other.misses
        self.votes.update(other.votes)
        self.logits += other.logits
        self.areas += other.areas
        self.doubts += other.doubts
        self.looks += other.looks
        self._shorten(max_looks)

    def probability(self, correlation: float) -> float:
        """Returns the looks' combined probability.

        The mean log-odds, counted as often as n looks of equal correlation ρ are independent:
        n / (1 + (n − 1) ρ). ``votes`` of other classes do not lower it.
        """
        n = len(self.logits)
        effective = n / (1.0 + (n - 1) * correlation)
        return float(1.0 / (1.0 + np.exp(-np.mean(self.logits) * effective)))

    def record(
        self,
        *,
        lat_deg: float,
        lon_deg: float,
        to_true: Floats,
        confirmed: bool,
        correlation: float,
    ) -> Track:
        """Returns the track's record; ``to_true`` (2, 2) turns map axes to true east/north."""
        fused = self.fused
        return Track(
            track_id=self.track_id,
            class_name=self.class_name,
            state="confirmed" if confirmed else "tentative",
            looks=self.looks_count,
            misses=self.misses,
            probability=self.probability(correlation),
            lat_deg=lat_deg,
            lon_deg=lon_deg,
            alt_m=fused.alt_m,
            height_datum=fused.height_datum,
            x_m=float(fused.xy_m[0]),
            y_m=float(fused.xy_m[1]),
            cov_random_m2=to_true @ fused.cov_random_m2 @ to_true.T,
            sensitivity_m=to_true @ fused.sensitivity_m,
            bias_names=fused.bias_names,
            area_m2=float(np.median(self.areas)),
            first_frame=self.first_frame,
            last_frame=self.last_frame,
            best_frame=self.best[1],
            ood=self.doubts * 2 > self.looks_count,
            remedy=remedy(self.looks, fused),
        )

    def _shorten(self, max_looks: int) -> None:
        if len(self.looks) > max_looks:
            half = len(self.looks) // 2
            self.looks = [melt(self.looks[:half]), *self.looks[half:]]
        self._fused = None


def melt(looks: list[Look]) -> Look:
    """Returns several looks fused into one."""
    if len(looks) == 1:
        return looks[0]
    names, s = align_biases([k.bias_names for k in looks], [k.sensitivity_m for k in looks])
    xy, random, fused_s = fuse_looks(
        np.array([k.xy_m for k in looks]), np.array([k.cov_random_m2 for k in looks]), s
    )
    return replace(
        looks[-1],
        xy_m=xy,
        alt_m=float(np.mean([k.alt_m for k in looks])),
        cov_random_m2=random,
        sensitivity_m=fused_s,
        bias_names=names,
    )


def opposite(look: Look) -> Look:
    """Returns the look that a pass in the opposite direction would give.

    What turns with the aircraft changes its sign (mount, clock, camera, heading, heights); a
    position bias of the flight does not.
    """
    keeps = np.array([name.endswith(("/east", "/north")) for name in look.bias_names], dtype=bool)
    return replace(look, sensitivity_m=np.where(keeps, 1.0, -1.0) * look.sensitivity_m)


def remedy(looks: list[Look], fused: Look) -> str:
    """Returns what would shrink the ellipse most, one line; empty where nothing much would."""
    if not fused.bias_names:
        return ""
    best = min(looks, key=lambda k: float(np.trace(k.cov_total_m2)))
    after = melt([*looks, opposite(best)])
    now_m, then_m = ce90_m(np.stack([fused.cov_total_m2, after.cov_total_m2]))
    if not then_m <= REMEDY_GAIN * now_m:
        return ""
    return f"one reverse pass: {now_m:.1f} -> {then_m:.1f} m"
