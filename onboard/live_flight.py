"""One flight while it is recorded: its folder, its counters, and what still has to be scanned."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pyproj import CRS
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from calibration.rig import Rig
from onboard.config import OnboardSettings
from onboard.keep.files import FRAMES, sha256_of
from onboard.keep.flight import (
    FlightHeader,
    create_flight,
    is_closed,
    list_flights,
    read_header,
)
from onboard.keep.read import FlightReader
from onboard.keep.space import SpaceGuard
from onboard.records import Frame, FrameRecord, Poses, UtcQuality
from onboard.sources.camera import STAMPED
from onboard.survey_scene import outline_deg

log = logging.getLogger(__name__)

DISK = "keep: disk"
"""What is written as dropped of a frame for which there was no room."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ScanItem:
    """A frame that waits for the network.

    Attributes:
        frame: Without pixels; ``path`` names the file to read, if it was kept.
        pose: Its pose.
        encoded: The file's bytes where it was not kept.
    """

    frame: Frame
    pose: Poses
    encoded: bytes | None = None


@dataclass
class LiveFlight:
    """One flight, shared by the stages.

    Attributes:
        folder: The flight folder.
        header: Its identity when it was opened.
        guard: Decides what is kept when the disk is nearly full.
        started_ns: When recording started (monotonic): older frames are not the flight's.
        ended_ns: When it landed; newer frames are not the flight's. ``None`` while it flies.
        other_boot: Whether it was recorded before the host restarted: it can only be finished.
        next_seq: The next frame's number; the capture stage counts on.
        known: Names of the frames that were committed before (a daemon that was restarted).
        resumed: Whether it was interrupted.
        backlog: Frames that were not scanned in time.
        found: Kept frames that no row named when the flight was taken up: they are stored anew.
        looked_back: Whether frames without pose were looked for after landing.
        counts: Frames, placed, scanned, detections, alerts and so on.
        coverage_percent: Imaged share of the plan; NaN where no plan is known.
    """

    folder: Path
    header: FlightHeader
    guard: SpaceGuard
    started_ns: int
    next_seq: int = 0
    ended_ns: int | None = None
    other_boot: bool = False
    known: frozenset[str] = frozenset()
    resumed: bool = False
    backlog: deque[ScanItem] = field(default_factory=deque)
    found: list[FrameRecord] = field(default_factory=list)
    looked_back: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    coverage_percent: float = float("nan")
    gaps: int = 0

    @property
    def flight_id(self) -> str:
        """Its name."""
        return self.header.flight_id

    def count(self, name: str, n: int = 1) -> None:
        """Adds to a counter; each counter belongs to one stage."""
        self.counts[name] = self.counts.get(name, 0) + n


def begin_flight(
    settings: OnboardSettings,
    rig: Rig,
    plan: BaseGeometry | None,
    utc: tuple[float, UtcQuality],
) -> LiveFlight:
    """Makes a new flight folder and returns the flight.

    Args:
        settings: The daemon's settings.
        rig: The camera and its mount; its file is copied into the flight.
        plan: The planned area in degrees, or ``None``.
        utc: UNIX time of now and how far it can be trusted.
    """
    t_utc_s, quality = utc
    if quality is UtcQuality.NONE:
        t_utc_s, quality = time.time(), UtcQuality.HOST
    stamp = datetime.fromtimestamp(t_utc_s, UTC)
    header = FlightHeader(
        flight_id=_free_name(settings, f"{stamp:%Y%m%dT%H%M%SZ}"),
        rig_hash=rig.hash,
        started_utc=stamp.isoformat(timespec="seconds"),
        utc_quality=quality,
        vehicle=settings.vehicle.name,
        software=software_version(),
        planned_area_deg=() if plan is None else outline_deg(plan),
    )
    settings.storage.root.mkdir(parents=True, exist_ok=True)
    content = settings.rig.file.read_bytes()
    folder = create_flight(settings.storage.root, header, {"rig.toml": content})
    log.info("flight_begun flight=%s folder=%s", header.flight_id, folder)
    guard = _guard(settings, folder)
    return LiveFlight(folder, header, guard, time.monotonic_ns())


def interrupted_flights(root: Path) -> list[Path]:
    """Returns the flight folders that were never closed, oldest first."""
    return [folder for folder in list_flights(root) if not is_closed(folder)]


def resume_flight(settings: OnboardSettings, folder: Path) -> LiveFlight:
    """Returns an interrupted flight to go on with: what was not scanned is its backlog.

    Raises:
        GossanError: The folder cannot be read.
    """
    header = read_header(folder)
    with FlightReader(folder) as reader:
        records, meta = reader.frames(), reader.meta()
        alerts = len(reader.alerts())
    same_boot = meta.get("boot_id", "") == host_boot_id()
    started_ns = int(meta.get("started_mono_ns", 0)) if same_boot else time.monotonic_ns()
    first_free = max((r.frame.seq for r in records), default=-1) + 1
    found = unnamed_frames(folder, {record.frame.name for record in records}, first_free)
    flight = LiveFlight(
        folder,
        header,
        _guard(settings, folder),
        started_ns=started_ns,
        other_boot=not same_boot,
        next_seq=first_free + len(found),
        known=frozenset(record.frame.name for record in [*records, *found]),
        resumed=True,
        found=found,
    )
    flight.backlog.extend(unscanned(folder, records))
    flight.counts = {
        "frames": len(records) + len(found),
        "kept": sum(bool(record.kept_path) for record in [*records, *found]),
        "placed": sum(record.pose is not None for record in records),
        "scanned": sum(record.detections is not None for record in records),
        "detections": sum(len(r.detections) for r in records if r.detections is not None),
        "alerts": alerts,
    }
    log.info("flight_resumed flight=%s frames=%d", header.flight_id, len(records))
    return flight


def unnamed_frames(folder: Path, named: set[str], first_seq: int) -> list[FrameRecord]:
    """Returns the kept frames that no row names: their file was written, then the power failed.

    Only names that say their time are taken; they are placed from the log after landing.
    """
    matches = [
        (int(match.group(1)), path)
        for path in (folder / FRAMES).iterdir()
        if path.name not in named and (match := STAMPED.fullmatch(path.name))
    ]
    return [
        FrameRecord(
            Frame(path.name, first_seq + i, t_mono_ns, path=path, flags=("no_telemetry",)),
            kept_path=f"{FRAMES}/{path.name}",
            kept_sha256=sha256_of(path),
        )
        for i, (t_mono_ns, path) in enumerate(sorted(matches))
    ]


def unscanned(folder: Path, records: list[FrameRecord]) -> list[ScanItem]:
    """Returns the kept and placed frames that were not scanned."""
    items = []
    for record in records:
        if record.pose is None or not record.kept_path or record.footprint is not None:
            continue
        frame = record.frame
        items.append(
            ScanItem(
                Frame(
                    frame.name,
                    frame.seq,
                    frame.t_mono_ns,
                    frame.t_boot_s,
                    folder / record.kept_path,
                    flags=frame.flags,
                ),
                record.pose,
            )
        )
    return items


def header_crs(header: FlightHeader) -> CRS | None:
    """Returns the flight's map, or ``None`` before its first position."""
    try:
        return CRS.from_wkt(header.crs_wkt) if header.crs_wkt else None
    except CRSError:
        return None


def host_boot_id() -> str:
    """Returns what names this run of the host; monotonic times mean something within it only."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"


def software_version() -> str:
    """Returns name and version for headers."""
    try:
        return f"gossan {version('gossan')}"
    except PackageNotFoundError:
        return "gossan"


def _free_name(settings: OnboardSettings, stamp: str) -> str:
    base = f"{settings.vehicle.name}-{stamp}"
    name, n = base, 1
    while (settings.storage.root / name).exists():
        n += 1
        name = f"{base}-{n}"
    return name


def _guard(settings: OnboardSettings, folder: Path) -> SpaceGuard:
    return SpaceGuard(folder, settings.storage.low_free_mb, settings.storage.critical_free_mb)
