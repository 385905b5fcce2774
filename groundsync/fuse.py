"""Fusion of a project: all flights' tracks to targets, looks to belief, belief to a ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyproj import CRS

from calibration.geodesy import MapFrame
from groundsync.belief import Belief, believe, place_of
from groundsync.catalogue import FlightRow
from groundsync.errors import EmptyProjectError
from groundsync.flown import read_flown
from groundsync.fused_view import make_view
from groundsync.posterior import ASSUMED
from groundsync.rank import rank_targets
from groundsync.sensors import sensors_of
from groundsync.settings import ProjectSettings
from groundsync.targets import fuse_targets
from groundsync.view import ProjectView


@dataclass(frozen=True)
class Fusion:
    """What a project's flights and geology give together.

    Attributes:
        view: All that map, exports and report read.
        belief: Prior and posterior with their σ.
    """

    view: ProjectView
    belief: Belief


def fuse(project: Path, rows: Sequence[FlightRow], settings: ProjectSettings) -> Fusion:
    """Returns the fused project; the same for the same flights in any order.

    Args:
        project: The project folder; a prior is read from its ``prior/`` where there is one.
        rows: The catalogue's flights; those that are not complete are named and left out.
        settings: The project's settings.

    Raises:
        EmptyProjectError: No flight is complete and placed.
    """
    used = [row for row in rows if row.state == "complete" and row.crs_wkt]
    if not used:
        raise EmptyProjectError(
            f"no complete, placed flight in {project}",
            "gossan groundsync ingest FLIGHT --data DIR, or wait for the sync to end",
        )
    map_frame = MapFrame(CRS.from_wkt(used[0].crs_wkt))
    flown = [read_flown(project, row, map_frame) for row in used]
    fused = fuse_targets([f.for_targets for f in flown], map_frame)
    sensors, notes = sensors_of(flown)
    belief = believe(project, flown, sensors, map_frame.crs, settings)
    ranked = rank_targets(
        fused.targets,
        [place_of(target, belief) for target in fused.targets],
        [belief.expressions.get(t.class_name, ASSUMED) for t in fused.targets],
    )
    left = [f"{row.flight_id} is {row.state}: not fused" for row in rows if row not in used]
    name = settings.name or project.resolve().name
    view = make_view(name, map_frame, flown, fused, ranked, belief, [*notes, *left])
    return Fusion(view, belief)
