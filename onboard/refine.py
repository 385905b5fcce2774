"""Refinement: the poses of a flight corrected frame by frame, from its own overlaps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onboard.drape import SHARED
from onboard.fit_flight import Fit, Flight, corrected, fit_flight, shared_prior
from onboard.records import Poses
from onboard.ties import Progress, find_ties


@dataclass(frozen=True, slots=True)
class Refinement:
    """Poses after an adjustment on the ground's constraint.

    Attributes:
        poses: Final camera poses with their own σ.
        fit: The adjustment behind them.
        left_out: Names of frames that contradict their neighbours; their poses are not changed.
        notes: Why frames were left out.
    """

    poses: Poses
    fit: Fit
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def refine(flight: Flight, progress: Progress = iter) -> Refinement:
    """Returns a flight's poses, each corrected as its overlaps say, the telemetry as prior.

    The rig's own σ are believed: align first, and boresight and clock move no further than that.

    Args:
        flight: The source, placed with the rig.
        progress: Wraps the iteration over frames.

    Raises:
        AlignError: There are too few ties.
    """
    ties, skipped = find_ties(
        flight.source, flight.poses, flight.rig, flight.terrain, flight.map_frame, progress
    )
    free = tuple(name for name in SHARED if name != "focal")
    fit = fit_flight(flight, ties, shared_prior(flight, free, stated=True))
    bad = fit.contradicting
    poses = corrected(fit)
    flags = tuple(
        (*mine, "contradicts_neighbours") if i in bad and "contradicts_neighbours" not in mine
        else mine
        for i, mine in enumerate(poses.flags)
    )  # fmt: skip
    names = np.array(flight.poses.frame)
    return Refinement(
        replace(poses, flags=flags), fit, tuple(names[list(bad)].tolist()), tuple(skipped)
    )
