"""A project as exports and reports see it: plain records, filled from whatever catalogue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from shapely.geometry.base import BaseGeometry

from groundsync.grid import ProjectGrid
from groundsync.rank import RankedTarget


@dataclass(frozen=True, slots=True)
class FlightView:
    """One flight.

    Attributes:
        flight_id: The flight.
        started_utc: ISO 8601; empty where no clock was trusted.
        state: ``complete``, ``receiving`` or ``damaged``.
        model_name: The model that looked, with its version.
        model_hash: Its hash; empty where none looked.
        rig_hash: The rig it flew with.
        frames: Frames recorded.
        placed: Frames with a pose.
        scanned: Frames that the model looked at.
        detections: Detections.
        tracks: Confirmed tracks.
        alerts: Alerts told in flight.
        covered_km2: Ground imaged at good quality.
        planned_km2: Ground that was to be imaged; ``None`` without a plan.
        covered_share: Share of the plan that was imaged; ``None`` without a plan.
        dropped: What was dropped, skipped or degraded, by reason.
        notes: What is wrong with it, in words.
    """

    flight_id: str
    started_utc: str = ""
    state: str = "complete"
    model_name: str = ""
    model_hash: str = ""
    rig_hash: str = ""
    frames: int = 0
    placed: int = 0
    scanned: int = 0
    detections: int = 0
    tracks: int = 0
    alerts: int = 0
    covered_km2: float = 0.0
    planned_km2: float | None = None
    covered_share: float | None = None
    dropped: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DetectionView:
    """One detection.

    Attributes:
        flight_id: The flight.
        frame: The frame's name.
        number: Its place in the frame's detections.
        class_name: The class.
        probability: Of the class.
        calibrated: Whether that is calibrated on held-out data.
        ood: Whether the out-of-distribution gate doubts it.
        lat_deg: Position of the centroid, WGS84.
        lon_deg: Position of the centroid, WGS84.
        ce90_m: Radius that holds 90 % of its position error.
        area_m2: Area on the ground.
        model_hash: The model.
    """

    flight_id: str
    frame: str
    number: int
    class_name: str
    probability: float
    calibrated: bool
    ood: bool
    lat_deg: float
    lon_deg: float
    ce90_m: float
    area_m2: float
    model_hash: str


@dataclass(frozen=True, slots=True)
class CoverageView:
    """Ground that a flight imaged at good quality; scanned or only kept.

    Attributes:
        flight_id: The flight.
        geometry: Polygon or MultiPolygon in the project's CRS.
        gsd_m: Median ground sample distance.
        scanned: Whether the model looked at it.
    """

    flight_id: str
    geometry: BaseGeometry
    gsd_m: float
    scanned: bool = True


@dataclass(frozen=True, slots=True)
class GapView:
    """Ground inside the plan that nobody imaged or scanned.

    Attributes:
        flight_id: The flight whose plan it belongs to; empty for the whole project.
        geometry: Polygon or MultiPolygon in the project's CRS.
        reason: ``not imaged``, ``not scanned``, ``blurred``, …
    """

    flight_id: str
    geometry: BaseGeometry
    reason: str = "not imaged"


@dataclass(frozen=True, slots=True)
class BeliefView:
    """Prior and posterior on the project grid.

    Attributes:
        grid: The grid.
        prior: (height, width) probability before the drone looked; NaN outside the study area.
        posterior: (height, width) probability after; the same array shape.
        assumed: Whether no prior geology stands behind it.
        name: The prior study's name.
        evaluation: The prior's evaluation.json; empty where it is assumed.
    """

    grid: ProjectGrid
    prior: NDArray[np.floating[Any]]
    posterior: NDArray[np.floating[Any]]
    assumed: bool
    name: str = ""
    evaluation: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProjectView:
    """All that exports and the report need.

    Attributes:
        name: The project's name.
        crs: The project's map.
        targets: Ranked, first to last.
        flights: By identifier.
        detections: By flight, frame and number.
        coverage: What was imaged.
        gaps: What was not.
        planned: What was to be imaged, project CRS; ``None`` without a plan.
        belief: Prior and posterior; ``None`` where fusion made none.
        left_out: Tracks in no target, by reason.
        notes: What a reader must know, in words.
        software: Name and version that made it.
    """

    name: str
    crs: CRS
    targets: tuple[RankedTarget, ...] = ()
    flights: tuple[FlightView, ...] = ()
    detections: tuple[DetectionView, ...] = ()
    coverage: tuple[CoverageView, ...] = ()
    gaps: tuple[GapView, ...] = ()
    planned: BaseGeometry | None = None
    belief: BeliefView | None = None
    left_out: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    software: str = "gossan"
