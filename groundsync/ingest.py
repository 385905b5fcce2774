"""Flight folders into the project: copied whole, checked by hash, indexed; twice is once."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from gossan.errors import GossanError
from groundsync.catalogue import Catalogue, FlightRow
from groundsync.errors import FlightConflictError
from onboard.keep.files import safe_relative, sha256_of
from onboard.keep.flight import DATABASE, MANIFEST, is_closed, list_flights, read_header
from onboard.keep.read import FlightReader
from onboard.keep.segments import verify_segments
from onboard.keep.store import FlightStore

FLIGHTS = "flights"


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of one source.

    Attributes:
        row: The catalogue's row.
        changed: False where the project already had it.
    """

    row: FlightRow
    changed: bool


def ingest_flight(source: Path, project: Path, catalogue: Catalogue) -> Ingested:
    """Copies a flight folder into the project and indexes it.

    A flight that was never closed (a power cut, a pulled card) is closed in the copy, and the row
    says so; the source is never changed.

    Args:
        source: A flight folder, possibly the project's own copy that the drone synced.
        project: The project folder.
        catalogue: Its catalogue.

    Raises:
        FlightConflictError: The project holds another flight of the same name.
        GossanError: The folder is no flight or cannot be read.
    """
    header = read_header(source)
    folder = project / FLIGHTS / header.flight_id
    content = _content_sha256(source)
    known = {row.flight_id: row for row in catalogue.flights()}.get(header.flight_id)
    if known and known.content_sha256 == content and known.state == "complete":
        return Ingested(known, changed=False)
    if folder.resolve() != source.resolve():
        _copy_in(source, folder, in_use=known is not None and known.state == "complete")
    notes = []
    if not is_closed(folder):
        FlightStore(folder).close(final=True)
        notes.append("it was not closed on board; it was closed here as far as it goes")
    row = _index(folder, project, content, notes)
    catalogue.put_flight(row)
    return Ingested(row, changed=known != row)


def ingest_received(project: Path, catalogue: Catalogue) -> list[Ingested]:
    """Indexes every closed flight that lies in the project, synced or copied there by hand."""
    folders = [folder for folder in list_flights(project / FLIGHTS) if is_closed(folder)]
    return [ingest_flight(folder, project, catalogue) for folder in folders]


def _copy_in(source: Path, folder: Path, in_use: bool) -> None:
    """Copies a flight folder next to its place, then renames it there."""
    if folder.exists():
        if _content_sha256(folder) == _content_sha256(source):
            return
        if in_use:
            raise FlightConflictError(
                f"{folder} holds another flight named {folder.name} than {source}",
                "rename one of the two folders and its flight_id in flight.toml",
            )
        shutil.rmtree(folder)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part)
    part.rename(folder)


def _index(folder: Path, project: Path, content: str, notes: list[str]) -> FlightRow:
    problems = [*verify_segments(folder), *_verify_manifest(folder)]
    with FlightReader(folder) as flight:
        counts = flight.counts()
        header = flight.header
        told = sum(alert.told is not None for alert in flight.alerts())
        confirmed = sum(track.state == "confirmed" for track in flight.tracks())
    return FlightRow(
        flight_id=header.flight_id,
        folder=folder.relative_to(project).as_posix(),
        state="damaged" if problems else "complete",
        content_sha256=content,
        crs_wkt=header.crs_wkt,
        started_utc=header.started_utc,
        rig_hash=header.rig_hash,
        model_hash=header.model_hash,
        frames=counts["frames"],
        placed=counts["poses"],
        scanned=counts["scans"],
        detections=counts["detections"],
        tracks=confirmed,
        alerts=told,
        note="; ".join([*notes, *problems]),
    )


def _verify_manifest(folder: Path) -> list[str]:
    """Returns what of the final manifest is missing or not what its hash says."""
    problems = []
    for entry in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]:
        path = folder / safe_relative(entry["path"])
        if not path.is_file():
            problems.append(f"{entry['path']} is missing")
        elif sha256_of(path) != entry["sha256"]:
            problems.append(f"{entry['path']} is not what its hash says")
    return problems


def _content_sha256(folder: Path) -> str:
    """Returns the hash of the final manifest, or of the database where there is none yet."""
    path = folder / MANIFEST
    path = path if path.is_file() else folder / DATABASE
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise GossanError(f"cannot read {path}: {error.strerror}", "check the medium") from error
