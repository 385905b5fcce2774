"""Replay: a recorded flight through the code that flies; its flight folder is the same kind."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from calibration.rig import Rig, load_rig
from gossan.errors import DamagedDataError, GossanError, UserError
from onboard.config import AlertSettings, ModelSettings
from onboard.errors import SizeDiffersError
from onboard.eyes import Eyes, open_eyes
from onboard.inspect import check_frames
from onboard.keep.files import keep_chip, keep_frame
from onboard.keep.flight import HEADER, TELEMETRY, FlightHeader, create_flight, read_header
from onboard.keep.store import FlightStore
from onboard.live_flight import software_version
from onboard.records import Frame, FrameRecord, HeightDatum, Poses
from onboard.replay_ground import open_with_ground
from onboard.scan import ScanResult
from onboard.sources.source import Flag, Source
from onboard.survey import Step, SurveyProcessor
from onboard.survey_scene import Ground, SurveyScene, outline_deg, read_plan
from onboard.tell.policy import AlertPolicy
from onboard.write_cog import write_cog

if TYPE_CHECKING:
    from onboard.misfit import Misfit

log = logging.getLogger(__name__)

ORTHOS = "orthos"
REMEDIES = {
    "no_ground": "give a DEM that reaches this far; check its datum and the frame's height",
    "unreadable": "copy it again from the card; it is left out",
    "scan_failed": "see the flight's health table for why",
}

Progress = Callable[[Iterable[Frame], str, int], Iterator[Frame]]


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What to replay and how.

    Attributes:
        source: What to replay.
        rig: The rig's file.
        out: The flight folder to make.
        poses: A pose table that takes the place of the source's poses.
        ground: The DEM, or none.
        alt_datum: What heights are above that do not say it.
        model: A zoo name, a model folder, or ``none``.
        plan: GeoJSON of the planned area.
        orthos: Whether each frame's ortho is written.
        gsd_m: Pixel size of the orthos; ``None`` takes the model's, else the frame's own.
        misfit: Whether neighbouring frames are compared.
    """

    source: Path
    rig: Path
    out: Path
    poses: Path | None = None
    ground: Ground = field(default_factory=Ground)
    alt_datum: HeightDatum | None = None
    model: str = "surface-rgb"
    plan: Path | None = None
    orthos: bool = True
    gsd_m: float | None = None
    misfit: bool = True


@dataclass
class ReplayResult:
    """What came out; ``payload`` is its JSON."""

    flight_id: str
    out: Path
    frames: int = 0
    placed: int = 0
    scanned: int = 0
    detections: int = 0
    notes: list[str] = field(default_factory=list)
    flagged: list[Flag] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    tracks: int = 0
    coverage: dict[str, Any] = field(default_factory=dict)
    misfit: Misfit | None = None
    model: str = "none"

    def payload(self) -> dict[str, Any]:
        """Returns the keys that others read."""
        m = self.misfit
        return {
            "flight_id": self.flight_id,
            "out": str(self.out),
            "frames": self.frames,
            "placed": self.placed,
            "scanned": self.scanned,
            "notes": self.notes,
            "flagged": [f._asdict() for f in self.flagged],
            "detections": self.detections,
            "tracks": self.tracks,
            "alerts": len(self.alerts),
            "spoken": self.alerts,
            "misfit_m": {
                "median": None if m is None else m.median_m,
                "p90": None if m is None else m.p90_m,
            },
            "ties": 0 if m is None else m.ties,
            "coverage": self.coverage,
            "model": self.model,
        }


def replay(
    options: ReplayOptions, progress: Progress = lambda items, _label, _n: iter(items)
) -> ReplayResult:
    """Replays a source into a flight folder and returns what came out.

    A replay of the same source that is already there is replaced by the new one as a whole;
    anything else there is left alone.

    Raises:
        GossanError: Source, rig, DEM or model cannot be used, or the folder is another's.
    """
    rig = load_rig(options.rig)
    source, poses, scene = _scene(options, rig)
    eyes = open_eyes(ModelSettings.model_validate({"name": options.model}), options.gsd_m)
    frames = list(source.frames())
    flight_id = _flight_id(source, frames, options.source)
    _check_out(options, flight_id)
    result = ReplayResult(flight_id, options.out, len(frames), model=eyes.model_name)
    workplace = options.out.parent / f".{options.out.name}.replay-{os.getpid()}"
    shutil.rmtree(workplace, ignore_errors=True)
    workplace.mkdir(parents=True)
    try:
        folder = create_flight(
            workplace,
            _header(flight_id, rig, eyes, scene, [*source.notes, *scene.notes]),
            {"rig.toml": options.rig.read_bytes()},
        )
        run = _Run(options, source, poses, scene, eyes, folder, result)
        run.all(progress(frames, "frames", len(frames)))
        _finish(run, rig)
        _settle(folder, options.out)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    return result


class _Run:
    """One pass over the frames."""

    def __init__(
        self,
        options: ReplayOptions,
        source: Source,
        poses: Poses,
        scene: SurveyScene,
        eyes: Eyes,
        folder: Path,
        result: ReplayResult,
    ) -> None:
        self.options = options
        self.source = source
        self.poses = poses
        self.scene = scene
        self.folder = folder
        self.result = result
        self.index = {name: i for i, name in enumerate(poses.frame)}
        policy = AlertPolicy(AlertSettings())  # type: ignore[call-arg]
        self.processor = SurveyProcessor(scene, eyes.scanner, policy, result.flight_id)

    def all(self, frames: Iterable[Frame]) -> None:
        """Processes and stores all frames, and closes the flight."""
        telemetry = self.source.telemetry
        if telemetry is not None and telemetry.suffix.lower() == ".tlog":
            shutil.copyfile(telemetry, self.folder / TELEMETRY)
        with FlightStore(self.folder) as store:
            ties = getattr(getattr(self.source, "log", None), "clock", None)
            store.add_ties(ties.ties() if ties is not None else [])
            for frame in frames:
                self.one(frame, store)
            store.set_landed(0)

    def one(self, frame: Frame, store: FlightStore) -> None:
        """Processes and stores one frame; a bad one is flagged and left behind."""
        i = self.index.get(frame.name)
        pose = None if i is None else self.poses.take([i])
        if pose is not None and np.isfinite(pose.t_boot_s[0]):
            frame = replace(frame, t_boot_s=float(pose.t_boot_s[0]))
        try:
            loaded = self.source.load_pixels(frame)
            step = self.processor.process(loaded, pose, _when_ns(frame))
        except (GossanError, ValueError, ArithmeticError, cv2.error) as error:
            log.warning("frame_failed frame=%s error=%r", frame.name, error)
            reason = _reason(error)
            self._flag(frame, reason)
            if reason != "unreadable":
                self._note(f"{frame.name}: {error}")
            store.commit_frame(FrameRecord(frame, pose, dropped=(f"scan: {error}",)))
            return
        self._count(frame, step)
        path, digest = self._keep(loaded, pose)
        record = replace(step.record, kept_path=path, kept_sha256=digest)
        chips = [keep_chip(self.folder, n, content) for n, content in step.chips.items()]
        store.commit_frame(record, chips)
        if self.options.orthos and step.scan is not None:
            _write_ortho(self.folder / ORTHOS, frame.name, step.scan, self.result)

    def _keep(self, frame: Frame, pose: Poses | None) -> tuple[str, str]:
        if frame.path is not None and frame.path.is_file():
            return keep_frame(self.folder, frame.name, frame.path.read_bytes(), pose)
        pixels = np.asarray(frame.pixels)
        good, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        name = f"{Path(frame.name).stem}.png"
        return keep_frame(self.folder, name, data.tobytes(), pose) if good else ("", "")

    def _count(self, frame: Frame, step: Step) -> None:
        result, found = self.result, step.record.detections
        seen = step.record.footprint
        if seen is not None and len(seen.polygon_map_m) >= 3:
            result.placed += 1
        elif step.record.pose is not None:
            self._flag(frame, "no_ground")
        if found is not None:
            result.scanned += 1
            result.detections += len(found)
        if seen is not None and seen.quality in ("blurred", "dark"):
            self._flag(frame, seen.quality)
        result.alerts += [
            {"alert_id": a.alert_id, "track_id": a.track_id, "severity": a.severity, "text": a.text}
            for a in step.record.alerts
        ]

    def _flag(self, frame: Frame, reason: str) -> None:
        from onboard.sources.source import FLAG_CODES

        remedy = REMEDIES.get(reason) or FLAG_CODES[reason].remedy
        if not any(f.frame == frame.name and f.reason == reason for f in self.result.flagged):
            self.result.flagged.append(Flag(frame.name, reason, remedy))

    def _note(self, text: str) -> None:
        if text not in self.result.notes:
            self.result.notes.append(text)


def _reason(error: Exception) -> str:
    if isinstance(error, DamagedDataError):
        return "unreadable"
    return "size_differs" if isinstance(error, SizeDiffersError) else "scan_failed"


def _scene(options: ReplayOptions, rig: Rig) -> tuple[Source, Poses, SurveyScene]:
    plan = None if options.plan is None else read_plan(options.plan)
    return open_with_ground(
        options.source, rig, options.poses, options.ground, options.alt_datum, plan
    )


def _finish(run: _Run, rig: Rig) -> None:
    """Adds what is known only at the end: notes, flags, coverage, misfit."""
    result, processor, source = run.result, run.processor, run.source
    said, seen = list(source.flagged), list[str]()
    if run.options.misfit and len(run.poses) > 1:
        said, seen = check_frames(source, run.poses)  # turned frames show beside their neighbours
    known = {(f.frame, f.reason) for f in result.flagged}
    result.flagged = [*[f for f in said if (f.frame, f.reason) not in known], *result.flagged]
    notes = [*source.notes, *seen, *run.scene.notes, *result.notes]
    result.notes = list(dict.fromkeys(notes))
    result.tracks = len(processor.tracker.tracks)
    coverage = processor.coverage
    result.coverage = {
        "percent": coverage.percent(),
        "area_m2": coverage.area_m2(),
        "gaps": len(coverage.gaps()),
    }
    if run.options.misfit and len(run.poses) > 1:
        from onboard.misfit import neighbour_misfit  # only where neighbours are compared

        scene = run.scene
        result.misfit = neighbour_misfit(source, run.poses, rig, scene.terrain, scene.map_frame)


def _write_ortho(folder: Path, name: str, scan: ScanResult, result: ReplayResult) -> None:
    if scan.ortho is None:
        return
    folder.mkdir(exist_ok=True)
    tags = {"GOSSAN_FLIGHT": result.flight_id, "GOSSAN_FRAME": name}
    write_cog(
        folder / f"{Path(name).stem}.tif", scan.ortho.image, scan.ortho.mask, scan.ortho.grid,
        tags=tags,
    )  # fmt: skip


def _header(
    flight_id: str, rig: Rig, eyes: Eyes, scene: SurveyScene, notes: list[str]
) -> FlightHeader:
    outline: tuple[tuple[float, float], ...] = ()
    if scene.planned_area is not None:
        x_y = np.array(outline_deg(scene.planned_area))[:, ::-1]
        lat, lon = scene.map_frame.to_geographic(x_y[:, 0], x_y[:, 1])
        outline = tuple(zip(lat.tolist(), lon.tolist(), strict=True))
    return FlightHeader(
        flight_id=flight_id,
        crs_wkt=scene.map_frame.crs.to_wkt(),
        rig_hash=rig.hash,
        model_hash=eyes.model_hash,
        model_name=eyes.model_name,
        dem_label=scene.terrain.label,
        software=software_version(),
        source="replay",
        planned_area_deg=outline,
        notes=tuple(dict.fromkeys(notes)),
    )


def _flight_id(source: Source, frames: list[Frame], path: Path) -> str:
    """Returns the flight's name: the flight folder's own, else the source's with a hash.

    The hash is of the frames' names, times and file sizes, so that a replay with another rig or
    model is the same flight, and another flight of the same plan is not.
    """
    if (path / HEADER).is_file():
        return read_header(path).flight_id
    digest = hashlib.sha256()
    for frame in frames:
        size = frame.path.stat().st_size if frame.path and frame.path.is_file() else 0
        digest.update(f"{frame.name}|{frame.t_boot_s:.6f}|{size}\n".encode())
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", source.name).strip("-._")[:40] or "flight"
    return f"{slug}-{digest.hexdigest()[:8]}"


def _check_out(options: ReplayOptions, flight_id: str) -> None:
    out = options.out
    if out.resolve() == options.source.resolve():
        raise UserError(f"{out} is the source itself", "give another --out")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if (out / HEADER).is_file():
        header = read_header(out)
        if header.source == "replay" and header.flight_id == flight_id:
            return
        raise UserError(
            f"{out} already holds the flight {header.flight_id} ({header.source})",
            "give another --out; only a replay of the same source is replaced",
        )
    raise UserError(f"{out} is not empty and no flight", "give another --out")


def _settle(folder: Path, out: Path) -> None:
    """Brings the finished flight under its name, in place of an older replay of it."""
    old = folder.parent / "replaced"
    if out.exists():
        out.replace(old)
    folder.replace(out)


def _when_ns(frame: Frame) -> int:
    """Returns when an alert is decided in replay: the frame's own time."""
    if frame.t_mono_ns is not None:
        return frame.t_mono_ns
    return int(frame.t_boot_s * 1e9) if np.isfinite(frame.t_boot_s) else frame.seq
