"""What is done with one placed frame: scan, track, coverage, alerts. The one path of all sources.

The flying pipeline, replay, simulation and reprocessing differ in where frames and poses come
from; what happens to them is here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from gossan.errors import DamagedDataError
from onboard.place.coverage import Coverage
from onboard.records import Alert, Detections, Footprint, Frame, FrameRecord, Poses, Track
from onboard.scan import Scanner, ScanResult, eight_bits
from onboard.survey_scene import SurveyScene
from onboard.tell.policy import AlertPolicy
from onboard.track import Tracker

log = logging.getLogger(__name__)

CHIP_PX = 128
CHIP_QUALITY = 85
MIN_CHIP_MARGIN = 2.0
"""A chip shows at least so many times the thing's own width."""


@dataclass(frozen=True)
class Step:
    """What one frame gave.

    Attributes:
        record: To be committed together.
        chips: JPEG thumbnails of tracks that this frame shows best, by track id.
        scan: The scan with its ortho; ``None`` where the frame was not placed.
    """

    record: FrameRecord
    chips: dict[int, bytes] = field(default_factory=dict)
    scan: ScanResult | None = None


class SurveyProcessor:
    """Scans placed frames of one flight and keeps its tracks, coverage and alerts.

    Args:
        scene: Rig, map, ground and plan.
        scanner: Orthocorrects and looks.
        policy: Decides what is told.
        flight_id: Part of the names of the flight's bias states.

    Attributes:
        tracker: All tracks.
        coverage: What was imaged.
    """

    def __init__(
        self, scene: SurveyScene, scanner: Scanner, policy: AlertPolicy, flight_id: str
    ) -> None:
        self.scene = scene
        self.scanner = scanner
        self.policy = policy
        self.flight_id = flight_id
        self.tracker = Tracker(scene.map_frame)
        self.coverage = Coverage(scene.map_frame, scene.planned_area)

    def process(self, frame: Frame, pose: Poses | None, t_mono_ns: int) -> Step:
        """Returns what a frame adds to the flight.

        Args:
            frame: With pixels.
            pose: Its one pose, or ``None`` where it could not be placed.
            t_mono_ns: When alerts are decided: now in flight, the frame's time in replay.
        """
        bare = replace(frame, pixels=None)
        if pose is None:
            return Step(FrameRecord(bare, dropped=("scan: not placed",)))
        if frame.pixels is None:
            raise DamagedDataError(f"{frame.name} has no pixels to scan", "load them first")
        scene = self.scene
        found = self.scanner.scan(
            frame, pose, scene.rig, scene.terrain, scene.map_frame, self.flight_id
        )
        tracks = self.tracker.update(found.detections, found.footprint)
        self.coverage.add(found.footprint)
        alerts = self.policy.decide(tracks, t_mono_ns, self.tracker.merged)
        record = FrameRecord(
            frame=bare,
            pose=pose,
            footprint=found.footprint,
            detections=found.detections,
            tracks=tuple(tracks),
            alerts=alerts,
            stage_ms=dict(found.stage_ms),
        )
        return Step(record, self._chips(bare.name, tracks, found), found)

    def restore(
        self,
        detections: Iterable[Detections],
        footprints: Iterable[Footprint],
        tracks: Iterable[Track],
        alerts: Iterable[Alert],
    ) -> None:
        """Takes up an interrupted flight: the stored frames go through the tracker again."""
        found = {item.frame: item for item in detections}
        for footprint in footprints:
            self.tracker.update(found.get(footprint.frame), footprint)
            self.coverage.add(footprint)
        known = {track.track_id for track in self.tracker.tracks}
        lost = [t.track_id for t in tracks if t.track_id not in known | set(self.tracker.merged)]
        if lost:
            log.warning("tracks_changed_on_resume ids=%s", lost)
        log.info("survey_restored tracks=%d alerts=%d", len(known), len(list(alerts)))

    def _chips(self, name: str, tracks: list[Track], found: ScanResult) -> dict[int, bytes]:
        return {
            track.track_id: chip
            for track in tracks
            if track.best_frame == name and (chip := _chip(track, found)) is not None
        }


def _chip(track: Track, found: ScanResult) -> bytes | None:
    """Returns a thumbnail of the ortho around a track, or ``None`` where it is not in it."""
    ortho = found.ortho
    if ortho is None:
        return None
    grid = ortho.grid
    col = (track.x_m - grid.x0_m) / grid.gsd_m
    row = (grid.y0_m - track.y_m) / grid.gsd_m
    half = max(CHIP_PX / 2, MIN_CHIP_MARGIN * np.sqrt(max(track.area_m2, 0.0)) / grid.gsd_m)
    x0, x1 = (int(np.clip(v, 0, grid.width)) for v in (col - half, col + half))
    y0, y1 = (int(np.clip(v, 0, grid.height)) for v in (row - half, row + half))
    if x1 - x0 < 4 or y1 - y0 < 4:
        return None
    return _jpeg(eight_bits(ortho.image[y0:y1, x0:x1], 3, ortho.map.view.rig.radiometry))


def _jpeg(rgb: NDArray[np.uint8]) -> bytes | None:
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    scale = CHIP_PX / max(bgr.shape[:2])
    if scale < 1.0:
        bgr = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    good, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, CHIP_QUALITY])
    return bytes(data.tobytes()) if good else None
