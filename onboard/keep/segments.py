"""One-minute segments: manifests of what was kept, each holding the hash of the one before."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onboard.keep.errors import DamagedFlightError
from onboard.keep.files import TEMP_SUFFIX, is_safe, make_folder, sha256_of, write_durably
from onboard.keep.flight import DATABASE, MANIFEST, SEGMENTS, TELEMETRY

log = logging.getLogger(__name__)

FORMAT = "gossan-segment/1"
FINAL_FORMAT = "gossan-flight-manifest/1"
SEGMENT_NS = 60 * 10**9


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file of the flight.

    Attributes:
        path: Relative to the flight folder.
        sha256: Hash of its content.
        size_bytes: Its size.
        kind: ``frame``, ``chip``, ``segment``, ``telemetry``, ``table`` or ``header``.
    """

    path: str
    sha256: str
    size_bytes: int
    kind: str


def segment_path(number: int) -> str:
    """Returns the path of a segment's manifest inside the flight folder."""
    return f"{SEGMENTS}/{number:06d}.json"


def canonical(document: dict[str, Any]) -> bytes:
    """Returns the one spelling of a JSON document that is hashed: sorted keys, no spaces."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return (text + "\n").encode()


def write_segment(
    folder: Path,
    flight_id: str,
    number: int,
    files: Sequence[KeptFile],
    span_mono_ns: tuple[int, int],
    recovered: bool,
) -> KeptFile:
    """Closes a segment: writes its manifest durably.

    Args:
        folder: The flight folder.
        flight_id: The flight.
        number: Counts up from 0.
        files: What was kept in it.
        span_mono_ns: When it was opened and closed, host monotonic ns.
        recovered: Whether it was closed after an interruption, not by its writer.
    """
    previous = read_segment(folder, number - 1) if number else None
    document = {
        "format": FORMAT,
        "flight_id": flight_id,
        "number": number,
        "previous_sha256": sha256_of(folder / segment_path(number - 1)) if previous else "",
        "opened_mono_ns": span_mono_ns[0],
        "closed_mono_ns": span_mono_ns[1],
        "recovered": recovered,
        "files": [_entry(item) for item in files],
        "telemetry": _telemetry_range(folder, previous),
    }
    make_folder(folder / SEGMENTS)
    content = canonical(document)
    write_durably(folder / segment_path(number), content)
    digest = hashlib.sha256(content).hexdigest()
    return KeptFile(segment_path(number), digest, len(content), "segment")


def read_segment(folder: Path, number: int) -> dict[str, Any]:
    """Returns the manifest of a segment.

    Raises:
        DamagedFlightError: It is missing or no manifest.
    """
    path = folder / segment_path(number)
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        if document["format"] != FORMAT or document["number"] != number:
            raise DamagedFlightError(f"{path} is not the manifest of segment {number}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedFlightError(f"{path} cannot be read: {error}") from error
    return document


def segment_numbers(folder: Path) -> list[int]:
    """Returns the numbers of the closed segments."""
    return sorted(int(path.stem) for path in (folder / SEGMENTS).glob("[0-9]*.json"))


def verify_segments(folder: Path) -> list[str]:
    """Returns what is wrong with the chain and the files it names; empty if nothing is."""
    problems = []
    previous = ""
    for expected, number in enumerate(segment_numbers(folder)):
        document = read_segment(folder, number)
        if number != expected:
            problems.append(f"segment {expected} is missing")
        if document["previous_sha256"] != previous:
            problems.append(f"segment {number} does not follow the one before")
        for item in document["files"]:
            problems += _check(folder / item["path"], item["sha256"])
        span = document["telemetry"]
        if span:
            path = folder / span["path"]
            problems += _check(path, span["sha256"], span["start"], span["stop"])
        previous = sha256_of(folder / segment_path(number))
    return problems


def write_final_manifest(folder: Path, flight_id: str) -> bytes:
    """Writes ``manifest.json``, the list of all files of a closed flight; returns its bytes."""
    files = [
        {"path": path, "sha256": sha256_of(folder / path), "size_bytes": size}
        for path, size in flight_files(folder)
    ]
    content = canonical({"format": FINAL_FORMAT, "flight_id": flight_id, "files": files})
    write_durably(folder / MANIFEST, content)
    return content


def flight_files(folder: Path) -> list[tuple[str, int]]:
    """Returns path and size of every file of a flight, without the final manifest and scratch.

    Files with names that the ground would not take (put there by hand) are left out, and logged.
    """
    scratch = {MANIFEST, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal"}
    found = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in relative.split("/"))
        passing = hidden or relative in scratch or relative.endswith(TEMP_SUFFIX)
        if not path.is_file() or passing:
            continue
        if is_safe(relative):
            found.append((relative, path.stat().st_size))
        else:
            log.warning("file_left_out flight=%s path=%r", folder.name, relative)
    return found


def _entry(item: KeptFile) -> dict[str, object]:
    return {"path": item.path, "sha256": item.sha256, "size_bytes": item.size_bytes}


def _telemetry_range(folder: Path, previous: dict[str, Any] | None) -> dict[str, object] | None:
    """Returns the bytes that the telemetry log gained since the previous segment."""
    path = folder / TELEMETRY
    if not path.is_file():
        return None
    start = ((previous or {}).get("telemetry") or {}).get("stop", 0)
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        stop = path.stat().st_size
    digest = sha256_of(path, start, stop)
    return {"path": TELEMETRY, "start": start, "stop": stop, "sha256": digest}


def _check(path: Path, expected: str, start: int = 0, stop: int | None = None) -> list[str]:
    if not path.is_file():
        return [f"{path.name} is missing"]
    if stop is not None and path.stat().st_size < stop:
        return [f"{path.name} is shorter than it was"]
    return [] if sha256_of(path, start, stop) == expected else [f"{path.name} was changed"]
