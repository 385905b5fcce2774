"""Alignment: boresight, clock, focal length and height of a flight, from its own overlaps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from calibration.clock_match import Offset, match_clock, sliding_offsets
from calibration.rig import Rig
from onboard.align_advice import advice
from onboard.drape import SHARED
from onboard.errors import AlignError
from onboard.fit_flight import Fit, Flight, fit_flight, shared_prior, with_shared
from onboard.records import Floats, Poses
from onboard.sources.flight import FlightSource
from onboard.sources.logged import LoggedSource
from onboard.sources.source import Source
from onboard.ties import Progress, Ties, find_ties
from onboard.turns import image_turns, turning_camera

CLEAR_HEIGHT = 3.0
"""The common height goes into the rig where it is this many σ from 0, on a DEM."""
TRIAL_TURN_RAD, TRIAL_TIME_S = 0.01, 0.05


@dataclass(frozen=True, slots=True)
class Alignment:
    """What a flight says of its rig.

    Attributes:
        rig: With totals and σ as found.
        fit: The adjustment behind it.
        clock: The clock from rotation alone, the whole flight; ``None`` without telemetry.
        windows: The same in sliding windows.
        left_out: Names of frames that contradict their neighbours.
        notes: What it could not tell, what surprises, what flying would help.
    """

    rig: Rig
    fit: Fit
    clock: Offset | None
    windows: tuple[Offset, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def align(flight: Flight, focal: bool = False, progress: Progress = iter) -> Alignment:
    """Returns boresight, clock and (if asked) focal length of a flight, with their σ.

    Args:
        flight: The source, placed with the rig as it stands.
        focal: Whether the focal length is found, too.
        progress: Wraps the iteration over frames.

    Raises:
        AlignError: The rig's mount has no part in the poses, or there are too few ties.
    """
    free = _free(flight, focal)
    ties, skipped = find_ties(
        flight.source, flight.poses, flight.rig, flight.terrain, flight.map_frame, progress
    )
    prior = shared_prior(flight, free, stated=False)
    fit = fit_flight(flight, ties, prior)
    rig = fit.rig
    up = SHARED.index("up")
    up_m, up_sigma = float(fit.shared[up]), float(np.sqrt(fit.covariance[up, up]))
    notes = list(advice(fit, free))
    if not flight.terrain.is_plane and abs(up_m) > CLEAR_HEIGHT * up_sigma:
        rig = _raised(rig, up_m)
        notes.append(
            f"heights are {-up_m:+.2f} ± {up_sigma:.2f} m too high against the DEM: the rig now "
            "says so in [mount] height_bias_m, for flights with these heights"
        )
    clock, windows = _clock(flight, fit, ties) if "clock" in free else (None, [])
    if clock is not None and np.isfinite(clock.offset_s):
        total_s, sigma_s = rig.clock.offset_s, float(np.hypot(rig.clock.sigma_s, clock.sigma_s))
        if abs(clock.offset_s - total_s) > 3.0 * sigma_s:
            notes.append(
                f"rotation alone says {clock.offset_s:+.3f} ± {clock.sigma_s:.3f} s, which "
                "contradicts the overlaps: look at the windows, the clock may drift"
            )
    names = flight.poses.frame
    left_out = tuple(names[i] for i in fit.contradicting)
    return Alignment(rig, fit, clock, tuple(windows), left_out, (*notes, *skipped))


def _free(flight: Flight, focal: bool) -> tuple[str, ...]:
    """Returns what can be found: what moves this source's poses.

    Raises:
        AlignError: The mount does not.
    """
    turned = with_shared(flight.rig, np.array([TRIAL_TURN_RAD, 0, 0, 0, 0, 0]))
    if not _moves(flight, turned):
        raise AlignError(
            f"the poses of {flight.source.name} are the camera's final ones: the rig's mount "
            "has no part in them",
            "align a source whose poses are the vehicle's or the gimbal's; to better final poses "
            "use gossan onboard refine",
        )
    late = with_shared(flight.rig, np.array([0, 0, 0, TRIAL_TIME_S, 0, 0]))
    timed = ("clock",) if _moves(flight, late) else ()
    return ("right", "down", "forward", *timed, "up", *(("focal",) if focal else ()))


def _moves(flight: Flight, rig: Rig) -> bool:
    other, known = flight.placed(rig)
    mine, here = other.take(np.flatnonzero(known)), flight.poses.take(np.flatnonzero(known))
    same = [
        np.allclose(getattr(mine, name), getattr(here, name), rtol=0.0, atol=1e-10)
        for name in ("r_ned_cam", "lat_deg", "lon_deg")
    ]
    return not all(same)


def _raised(rig: Rig, up_m: float) -> Rig:
    mount = replace(rig.mount, height_bias_m=rig.mount.height_bias_m + up_m)
    return replace(rig, mount=mount)


def _clock(flight: Flight, fit: Fit, ties: Ties) -> tuple[Offset | None, list[Offset]]:
    """Returns the clock from rotation alone, as totals, with the boresight that was found."""
    poses_at = _telemetry_of(flight.source, fit.rig)
    if poses_at is None:
        return None, []
    turns = image_turns(ties, fit.poses, fit.rig, flight.terrain, flight.map_frame)
    camera_at = turning_camera(poses_at)
    return match_clock(turns, camera_at), sliding_offsets(turns, camera_at)


def _telemetry_of(source: Source, rig: Rig) -> Callable[[Floats], Poses] | None:
    """Returns poses at any times by the source's telemetry, the clock's offset taken as 0."""
    timeless = replace(rig, clock=replace(rig.clock, offset_s=0.0))
    if isinstance(source, LoggedSource | FlightSource):
        buffer, epoch = source.telemetry_buffer()
        if buffer is None:
            return None

        def poses_at(t_s: Floats) -> Poses:
            return buffer.pose_at(t_s, [str(i) for i in range(len(t_s))], timeless, epoch)

        return poses_at
    return None
