"""A flight fitted to its own ties: frames and what they share, corrected until the ties meet."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from calibration.adjust import Adjusted, Corrections, adjust
from calibration.geodesy import MapFrame, offset_enu
from calibration.rig import Rig
from calibration.rotations import A_BODY_CAM, ENU_FROM_NED, rot_exp
from onboard.drape import SHARED, Scene, drape
from onboard.errors import AlignError
from onboard.place.terrain import Terrain
from onboard.records import Bools, Floats, Poses
from onboard.sources.source import Source
from onboard.ties import Ties

log = logging.getLogger(__name__)

UNKNOWN_MOUNT_RAD = float(np.radians(5.0))
UNKNOWN_CLOCK_S = 1.0
UNKNOWN_FOCAL = 0.02
"""What is assumed where the rig states no σ: of each boresight angle, the clock, the focal length
(as a share)."""
ROUNDS = 15
GROWING = 20
"""Steps in which the frames' own σ find their size, in each round."""
SETTLED, STEADY = 0.25, 1.3
"""Rounds end where no shared value moves by more than this share of its σ, and none of the frames'
variances by more than this factor."""
LEAST_TIES = 30
KINDS = ([0, 1], [2], [3, 4], [5])
"""Corrections of a frame whose σ belong together: horizontal, height, tilt, heading."""
PATIENCE = 6.0
"""How many frames' worth of belief the stated σ have against what the flight shows."""
MOST_GROWTH = 100.0
APART_RATIO, APART_SHARE = 5.0, 0.15
"""A pair contradicts where its median gap is larger than this many times the flight's, and than
this share of the height above ground."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What the ties of a flight say.

    Attributes:
        rig: With boresight, clock and focal length as found; σ as found.
        poses: Placed with that rig; the frames' own corrections are not in them.
        shared: (6,) values, in the order of ``SHARED``.
        covariance: (6, 6) of these.
        prior_covariance: (6, 6) before.
        frames: (f, 6) each frame's own corrections.
        frames_sigma: (f, 6) their σ.
        before_m: Median gap of the ties as delivered.
        shared_m: Median gap with what is shared corrected.
        after_m: Median gap with the frames corrected, too.
        ties: Number of ties.
        contradicting: Rows of frames that contradict all their neighbours, left out.
        growth: (4,) how many times larger than stated the frames' σ proved, per kind.
        settled: Whether the rounds ended by themselves.
    """

    rig: Rig
    poses: Poses
    shared: Floats
    covariance: Floats
    prior_covariance: Floats
    frames: Floats
    frames_sigma: Floats
    before_m: float
    shared_m: float
    after_m: float
    ties: int
    contradicting: tuple[int, ...]
    growth: Floats
    settled: bool


@dataclass(frozen=True, slots=True)
class Flight:
    """What is fitted.

    Attributes:
        source: Places its frames anew for each rig.
        rig: As it stands.
        poses: Placed with it.
        terrain: The ground.
        map_frame: The map.
    """

    source: Source
    rig: Rig
    poses: Poses
    terrain: Terrain
    map_frame: MapFrame

    def placed(self, rig: Rig) -> tuple[Poses, Bools]:
        """Returns the poses with another rig, in the same order, and which frames have one."""
        fresh = self.source.poses(rig)
        rows = {name: i for i, name in enumerate(fresh.frame)}
        known = np.array([name in rows for name in self.poses.frame])
        both = [rows.get(name, 0) for name in self.poses.frame]
        return fresh.take(both), known


def shared_prior(flight: Flight, free: tuple[str, ...], stated: bool) -> Floats:
    """Returns the (6, 6) prior covariance of what is shared; 0 where it is not to be found.

    Args:
        flight: The flight.
        free: Which of ``SHARED`` are to be found.
        stated: Whether a σ of 0 in the rig means exact; else it means unknown.
    """
    rig, poses = flight.rig, flight.poses
    unknown = 0.0 if stated else 1.0
    mount = np.where(rig.mount.sigma_rad > 0, rig.mount.sigma_rad, unknown * UNKNOWN_MOUNT_RAD)
    clock = rig.clock.sigma_s or unknown * UNKNOWN_CLOCK_S
    up = np.hypot(np.median(poses.bias_enu_m[:, 2]), flight.terrain.level_sigma_m)
    sigma = np.array([*mount, clock, up, UNKNOWN_FOCAL * rig.camera.fx_px])
    covariance = np.diag(sigma**2)
    # A heading that all frames share looks like a turn of the camera about the vertical.
    vertical = np.median(poses.r_ned_cam[:, 2, :], axis=0)
    heading = float(np.median(poses.bias_heading_rad)) * vertical
    covariance[:3, :3] += np.outer(heading, heading)
    held = np.array([name not in free for name in SHARED])
    covariance[held] = 0.0
    covariance[:, held] = 0.0
    return np.asarray(covariance)


def fit_flight(flight: Flight, ties: Ties, covariance: Floats) -> Fit:
    """Returns the corrections that bring the ties together, against their priors.

    Each round places the frames anew with the rig as it is by then, since a clock's fraction of a
    second in a turn is not a small correction. The frames' own σ grow where the flight shows that
    they are larger than stated (expectation-maximisation of the variances, held back by the stated
    ones).

    Raises:
        AlignError: Too few ties meet the ground.
    """
    stated = _frames_sigma(flight.poses)
    own, shared = np.zeros_like(stated), np.zeros(len(SHARED))
    growth = np.ones(len(KINDS))
    rig, poses = flight.rig, flight.poses
    ties, contradicting = _agreeing(flight, ties)
    before_m = gap_m(flight, ties, rig, poses, 0.0)
    settled = False
    found: Adjusted | None = None
    for _ in range(ROUNDS):
        prior = Corrections(own, shared, _grown(stated, growth), covariance, flight.terrain.sigma_m)
        scene = Scene(rig, flight.terrain, flight.map_frame)
        gaps, _ = drape(ties, poses, own, float(shared[SHARED.index("up")]), scene)
        if len(gaps.first) < LEAST_TIES:
            raise AlignError(
                f"{len(gaps.first)} tie points meet the ground, at least {LEAST_TIES} are needed",
                "fly with more overlap over textured ground; check that the DEM covers the flight",
            )
        found = adjust(gaps, prior, prior)
        before = growth
        for _ in range(GROWING):
            grown = _growth(found, stated, growth)
            if np.allclose(grown, growth, rtol=0.02):
                break
            growth = grown
            found = adjust(gaps, replace(prior, frames_sigma=_grown(stated, growth)), prior)
        sigma = np.sqrt(np.diag(found.shared_covariance))
        moved = np.abs(found.shared - shared) > SETTLED * sigma
        own, shared = found.frames, found.shared
        rig = with_shared(flight.rig, shared)
        poses, known = flight.placed(rig)
        ties = ties.take(np.flatnonzero(known[ties.first] & known[ties.second]))
        log.info("align_round shared=%s growth=%s", shared, growth)
        steady = np.abs(np.log(growth / before)) < np.log(STEADY)
        if steady.all() and not moved.any():
            settled = True
            break
    assert found is not None  # noqa: S101 - there is at least one round
    sigma = np.sqrt(np.diag(found.shared_covariance))
    up_m = float(shared[SHARED.index("up")])
    return Fit(
        _told(rig, sigma, covariance),
        poses,
        shared,
        found.shared_covariance,
        covariance,
        own,
        found.frames_sigma,
        before_m,
        gap_m(flight, ties, rig, poses, up_m),
        gap_m(flight, ties, rig, poses, up_m, own),
        len(ties),
        contradicting,
        np.sqrt(growth),
        settled,
    )


def with_shared(rig: Rig, shared: Floats) -> Rig:
    """Returns the rig with its camera turned, its clock moved and its focal length changed."""
    turn = A_BODY_CAM @ rot_exp(shared[:3]) @ A_BODY_CAM.T
    camera = rig.camera
    focal = float(shared[SHARED.index("focal")])
    return replace(
        rig,
        mount=replace(rig.mount, r_mount=rig.mount.r_mount @ turn),
        clock=replace(
            rig.clock, offset_s=rig.clock.offset_s + float(shared[SHARED.index("clock")])
        ),
        camera=replace(
            camera,
            fx_px=camera.fx_px + focal,
            fy_px=camera.fy_px + focal * camera.fy_px / camera.fx_px,
        ),
    )


def corrected(fit: Fit) -> Poses:
    """Returns the poses with the frames' own corrections and σ, and the common height's."""
    poses, own = fit.poses, fit.frames
    lift = np.array([0.0, 0.0, fit.shared[SHARED.index("up")]])
    lat, lon, up = offset_enu(poses.lat_deg, poses.lon_deg, poses.alt_m, own[:, :3] + lift)
    turn = ENU_FROM_NED.T @ rot_exp(own[:, 3:]) @ ENU_FROM_NED
    sigma = fit.frames_sigma
    return replace(
        poses,
        lat_deg=lat,
        lon_deg=lon,
        alt_m=up,
        r_ned_cam=turn @ poses.r_ned_cam,
        r_ned_body=turn @ poses.r_ned_body,
        sigma_enu_m=sigma[:, :3],
        sigma_tilt_rad=np.sqrt((sigma[:, 3] ** 2 + sigma[:, 4] ** 2) / 2),
        sigma_heading_rad=sigma[:, 5],
    )


def gap_m(
    flight: Flight,
    ties: Ties,
    rig: Rig,
    poses: Poses,
    up_m: float,
    frames: Floats | None = None,
) -> float:
    """Returns the median distance of the ties' two places on the ground; NaN without any."""
    zero = np.zeros((len(poses), 6)) if frames is None else frames
    gaps, _ = drape(ties, poses, zero, up_m, Scene(rig, flight.terrain, flight.map_frame))
    return float(np.median(np.hypot(*gaps.gap_m.T))) if len(gaps.first) else float("nan")


def _frames_sigma(poses: Poses) -> Floats:
    tilt, heading = poses.sigma_tilt_rad, poses.sigma_heading_rad
    return np.column_stack([poses.sigma_enu_m, tilt, tilt, heading])


def _grown(stated: Floats, growth: Floats) -> Floats:
    out = stated.copy()
    for kind, times in zip(KINDS, growth, strict=True):
        out[:, kind] *= np.sqrt(times)
    return out


def _growth(found: Adjusted, stated: Floats, growth: Floats) -> Floats:
    """Returns how many times larger than stated the variances of the frames' errors are."""
    fresh = growth.copy()
    for i, kind in enumerate(KINDS):
        said = stated[:, kind]
        if not (said > 0).all():
            continue
        seen = (found.frames[:, kind] ** 2 + found.frames_sigma[:, kind] ** 2) / said**2
        believed = PATIENCE * len(kind)
        fresh[i] = np.clip((seen.sum() + believed) / (seen.size + believed), 1.0, MOST_GROWTH)
    return fresh


def _agreeing(flight: Flight, ties: Ties) -> tuple[Ties, tuple[int, ...]]:
    """Returns the ties without pairs that contradict, and the frames that no pair bears out."""
    gaps, good = drape(
        ties, flight.poses, np.zeros((len(flight.poses), 6)), 0.0,
        Scene(flight.rig, flight.terrain, flight.map_frame),
    )  # fmt: skip
    far = np.hypot(*gaps.gap_m.T)
    if not len(far):
        return ties.take(good), ()
    low, _ = flight.terrain.z_range
    above = max(1.0, float(np.median(flight.poses.alt_m)) - low)
    limit = max(APART_RATIO * float(np.median(far)), APART_SHARE * above)
    pairs = gaps.first * len(flight.poses) + gaps.second
    keep = np.ones(len(far), np.bool_)
    fine: set[int] = set()
    for pair in np.unique(pairs):
        mine = pairs == pair
        if np.median(far[mine]) > limit:
            keep &= ~mine
        else:
            fine |= {int(v) for v in divmod(int(pair), len(flight.poses))}
    lonely = {int(i) for i in np.unique([gaps.first, gaps.second])} - fine
    return ties.take(good[keep]), tuple(sorted(lonely))


def _told(rig: Rig, sigma: Floats, prior: Floats) -> Rig:
    """Returns the rig with the σ that were found."""
    free = np.diag(prior) > 0
    mount = np.where(free[:3], sigma[:3], rig.mount.sigma_rad)
    clock_s = float(sigma[3]) if free[3] else rig.clock.sigma_s
    told = replace(
        rig,
        mount=replace(rig.mount, sigma_rad=mount),
        clock=replace(rig.clock, sigma_s=clock_s),
    )
    return _with_focal_sigma(told, float(sigma[5])) if free[5] else told


def _with_focal_sigma(rig: Rig, sigma_px: float) -> Rig:
    """Returns the rig with the σ of the focal length in place of what it had of it."""
    kept = [i for i, name in enumerate(rig.covariance_order) if name not in ("fx_px", "fy_px")]
    k = len(kept)
    covariance = np.zeros((k + 2, k + 2))
    if rig.covariance is not None:
        covariance[:k, :k] = rig.covariance[np.ix_(kept, kept)]
    both = sigma_px * np.array([1.0, rig.camera.fy_px / rig.camera.fx_px])
    covariance[k:, k:] = np.outer(both, both)
    order = (*[rig.covariance_order[i] for i in kept], "fx_px", "fy_px")
    return replace(rig, covariance=covariance, covariance_order=order)
