"""One door to every source: what is at a path, opened as frames with poses."""

from __future__ import annotations

from pathlib import Path

from calibration.rig import Rig
from onboard.records import HeightDatum, Poses
from onboard.sources.bands import radiometric
from onboard.sources.errors import FrameTimeError, SourceError, UnknownSourceError
from onboard.sources.gpmf import is_gpmf
from onboard.sources.logged import LoggedSource
from onboard.sources.misb import UL_PREFIX
from onboard.sources.opensfm import read_reconstruction
from onboard.sources.photos import PhotoSource
from onboard.sources.repositioned import Repositioned
from onboard.sources.source import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Source,
    image_files,
    nadir_rig,
)
from onboard.sources.tabled import TabledSource
from onboard.sources.telemetry_log import TELEMETRY_SUFFIXES
from onboard.sources.trajectory_file import read_trajectory

TRAJECTORY_SUFFIX = ".pos"
ACCEPTED = (
    "a flight folder; photos with EXIF/XMP poses; frames or a video with a .tlog, .bin or .ulg; a "
    "video with its DJI .srt, GoPro's GPMF or MISB KLV; frames with --poses POSES.csv; "
    "OpenSfM/ODM reconstruction.json or shots.geojson; one image"
)
RECONSTRUCTIONS = (
    "reconstruction.json",
    "opensfm/reconstruction.json",
    "odm_report/shots.geojson",
    "shots.geojson",
)


def open_source(
    path: str | Path,
    rig: Rig | None = None,
    poses_csv: str | Path | None = None,
    alt_datum: HeightDatum | None = None,
    video_step_s: float = 1.0,
) -> Source:
    """Returns what is at a path as a source of frames and poses.

    Args:
        path: A file or folder; see ``docs/sources.md``.
        rig: Its ``[radiometry]``, if it has one, corrects the frames' pixels.
        poses_csv: A pose table (or reconstruction) that takes the place of the source's own poses,
            or a post-processed trajectory (``.pos``) that replaces their positions.
        alt_datum: What heights are above that do not say it.
        video_step_s: How far apart frames are taken from a video.

    Raises:
        UnknownSourceError: Nothing there that is known.
    """
    at = Path(path)
    if not at.exists():
        raise UnknownSourceError(f"there is nothing at {at}", "check the path")
    table = Path(poses_csv) if poses_csv is not None else None
    if table is not None and not table.is_file():
        raise SourceError(f"there is no pose table at {table}", "check --poses")
    opened = _open_folder if at.is_dir() else _open_file
    if table is not None and table.suffix.lower() == TRAJECTORY_SUFFIX:
        # Its own heights are replaced, so that nobody need say what they are above.
        own = opened(at, None, alt_datum or "same", video_step_s)
        return radiometric(Repositioned(own, read_trajectory(table)), rig)
    return radiometric(opened(at, table, alt_datum, video_step_s), rig)


def _open_file(
    at: Path, table: Path | None, alt_datum: HeightDatum | None, video_step_s: float
) -> Source:
    suffix = at.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return _tabled([at], at.name, table, alt_datum) if table else _lone_image(at, alt_datum)
    if suffix in (".json", ".geojson"):
        return _reconstruction(at, at.parent, alt_datum)
    if suffix in VIDEO_SUFFIXES or suffix == ".srt":
        from onboard.sources.video import open_video

        return open_video(at, alt_datum, video_step_s)
    if _is_klv(at):
        from onboard.sources.misb_video import open_packets

        return open_packets(at)
    if suffix in TELEMETRY_SUFFIXES or is_gpmf(at):
        from onboard.sources.events import open_log

        return open_log(at)
    raise UnknownSourceError(f"{at} is no known source", f"known are {ACCEPTED}")


def _open_folder(
    at: Path,
    table: Path | None,
    alt_datum: HeightDatum | None,
    video_step_s: float,
) -> Source:
    flight = at.parent if at.name == "frames" else at
    if table is None and (flight / "flight.toml").is_file():
        from onboard.sources.flight import FlightSource

        return FlightSource(flight)
    files, folder = _images(at)
    if table is not None and files:
        return _tabled(files, at.name, table, alt_datum)
    found = next((at / name for name in RECONSTRUCTIONS if (at / name).is_file()), None)
    if found is not None:
        return _reconstruction(found, at, alt_datum)
    log = _log(at, folder)
    if files and log is not None:
        return _logged(files, log, at.name, alt_datum)
    if files and (at / "poses.csv").is_file():
        return _tabled(files, at.name, at / "poses.csv", alt_datum)
    if files:
        return PhotoSource(files, at.name, alt_datum)
    videos = [p for p in sorted(at.iterdir()) if p.suffix.lower() in VIDEO_SUFFIXES]
    if len(videos) == 1:
        return _open_file(videos[0], None, alt_datum, video_step_s)
    if log is not None:
        return _open_file(log, None, alt_datum, video_step_s)
    raise UnknownSourceError(f"no frames in {at}", f"known are {ACCEPTED}{_deeper(at)}")


def _images(at: Path) -> tuple[list[Path], Path]:
    """Returns the images of a folder, or of its ``frames/`` or ``images/``, and where they lie."""
    for folder in (at / "frames", at / "images", at):
        if folder.is_dir() and (files := image_files(folder)):
            return files, folder
    return [], at


def _log(at: Path, folder: Path) -> Path | None:
    """Returns the one telemetry log in the folder, beside the frames or above them.

    Raises:
        SourceError: There are several.
    """
    places = dict.fromkeys((at, folder))
    if at.name in ("frames", "images"):
        places[at.parent] = None
    for place in places:
        logs = [p for p in sorted(place.iterdir()) if p.suffix.lower() in TELEMETRY_SUFFIXES]
        for suffix in (".tlog", ".bin", ".ulg"):
            mine = [p for p in logs if p.suffix.lower() == suffix and not _is_klv(p)]
            if len(mine) > 1:
                names = ", ".join(p.name for p in mine[:4])
                raise SourceError(
                    f"{place} holds {len(mine)} telemetry logs: {names}",
                    "leave the one of these frames in the folder",
                )
            if mine:
                return mine[0]
    return None


def _logged(files: list[Path], log: Path, name: str, alt_datum: HeightDatum | None) -> Source:
    """Returns frames with their log; photos whose times cannot be found, by their own poses."""
    try:
        return LoggedSource(files, log, name)
    except FrameTimeError:
        photos = PhotoSource(files, name, alt_datum)
        if not any(facts.r_ned_cam is not None for facts in photos.facts.values()):
            raise
        photos.notes.append(
            f"{log.name} is left aside: no times tie the photos to it, they carry their own poses"
        )
        return photos


def _lone_image(at: Path, alt_datum: HeightDatum | None) -> Source:
    """Returns one image: by its own pose, else by the log or table beside it."""
    source = PhotoSource([at], at.name, alt_datum)
    if not any(f.reason in ("no_gps", "gps_void", "no_attitude") for f in source.flagged):
        return source
    log = _log(at.parent, at.parent)
    if log is not None:
        return LoggedSource([at], log, at.name)
    if (at.parent / "poses.csv").is_file():
        return _tabled([at], at.name, at.parent / "poses.csv", alt_datum)
    return source


def _tabled(files: list[Path], name: str, table: Path, alt_datum: HeightDatum | None) -> Source:
    notes = [f"poses from {table.name}"]
    if table.suffix.lower() in (".json", ".geojson"):
        kind = "frames with an OpenSfM/ODM reconstruction"
        return TabledSource(
            files, name, kind, lambda rig: read_reconstruction(table, rig, alt_datum), notes
        )
    from onboard.sources.pose_table import read_poses

    kind = "frames with a pose table"

    def read(rig: Rig | None) -> Poses:
        return read_poses(table, rig or nadir_rig(), alt_datum)

    return TabledSource(files, name, kind, read, notes)


def _reconstruction(at: Path, folder: Path, alt_datum: HeightDatum | None) -> Source:
    """Returns the frames of a reconstruction: the images beside it, or one or two folders up."""
    for place in (folder, *list(at.parents)[:3]):
        files, _ = _images(place)
        if files:
            return _tabled(files, folder.name, at, alt_datum)
    raise SourceError(
        f"no images beside {at}", "give the folder that holds images/ and opensfm/, or --poses"
    )


def _is_klv(at: Path) -> bool:
    with at.open("rb") as file:
        return file.read(4) == UL_PREFIX


def _deeper(at: Path) -> str:
    below = [p for p in sorted(at.iterdir()) if p.is_dir() and _images(p)[0]]
    return f". Frames lie in {below[0]}: give that folder" if below else ""
