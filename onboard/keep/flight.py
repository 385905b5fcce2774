"""The flight folder: its identity in ``flight.toml``, how it is made, found and taken up again."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import tomlkit

from onboard.keep.errors import (
    DamagedFlightError,
    FlightExistsError,
    FlightNameError,
    FlightNotFoundError,
    NewerSchemaError,
)
from onboard.keep.files import CHIPS, FRAMES, make_folder, safe_relative, write_durably
from onboard.keep.schema import migrate
from onboard.records import UtcQuality

FORMAT = 1
HEADER = "flight.toml"
DATABASE = "flight.db"
TELEMETRY = "telemetry.tlog"
POSES = "poses.csv"
COVERAGE = "coverage.geojson"
SEGMENTS = "segments"
MANIFEST = "manifest.json"
RIG = "rig.toml"

_FLIGHT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class FlightHeader:
    """Whose flight it is and what it was flown with.

    Attributes:
        flight_id: Its name, also the folder's: letters, digits, ``_.-``, at most 64.
        crs_wkt: Projected CRS of all map coordinates; empty until the first position.
        rig_hash: SHA-256 of the rig.
        model_hash: SHA-256 of the model's manifest; empty without one.
        model_name: Its name.
        dem_label: Label of the DEM, ``plane`` without one.
        started_utc: ISO 8601; empty where unknown.
        utc_quality: How far that can be trusted.
        vehicle: What flew.
        software: Version that recorded it.
        source: ``flight``, ``replay`` or ``simulation``.
        planned_area_deg: Outline of what should be flown, (lat, lon) pairs; empty if unknown.
        notes: What concerns the whole flight.
    """

    flight_id: str
    crs_wkt: str = ""
    rig_hash: str = ""
    model_hash: str = ""
    model_name: str = ""
    dem_label: str = ""
    started_utc: str = ""
    utc_quality: UtcQuality = UtcQuality.NONE
    vehicle: str = ""
    software: str = ""
    source: str = "flight"
    planned_area_deg: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = ()


def create_flight(
    root: Path, header: FlightHeader, extra_files: Mapping[str, bytes] | None = None
) -> Path:
    """Makes a flight folder and returns its path.

    Args:
        root: The folder that holds flights.
        header: Its identity.
        extra_files: Further small files, ``{"rig.toml": …}``.

    Raises:
        FlightExistsError: There is a flight of that name.
        FlightNameError: The name cannot be a folder's.
    """
    folder = root / safe_flight_id(header.flight_id)
    if (folder / HEADER).exists():
        raise FlightExistsError(f"{folder} already holds a flight", "resume it or choose a name")
    for part in (folder, folder / FRAMES, folder / CHIPS, folder / SEGMENTS):
        make_folder(part)
    migrate(folder / DATABASE)
    for name, content in (extra_files or {}).items():
        write_durably(folder / safe_relative(name), content)
    write_durably(folder / HEADER, header_toml(header).encode())
    return folder


def amend_header(folder: Path, **changes: Any) -> FlightHeader:
    """Changes fields of ``flight.toml`` durably, the CRS after the first position for example."""
    header = replace(read_header(folder), **changes)
    write_durably(folder / HEADER, header_toml(header).encode())
    return header


def read_header(folder: Path) -> FlightHeader:
    """Returns the identity of a flight.

    Raises:
        FlightNotFoundError: There is no flight folder.
        NewerSchemaError: A newer version wrote it.
        DamagedFlightError: ``flight.toml`` cannot be read.
    """
    path = folder / HEADER
    if not path.is_file():
        raise FlightNotFoundError(f"{folder} is no flight folder: it has no {HEADER}")
    try:
        return header_of(path.read_text(encoding="utf-8"), str(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise DamagedFlightError(f"{path} cannot be read: {error}") from error


def header_toml(header: FlightHeader) -> str:
    """Returns the text of ``flight.toml``."""
    document = tomlkit.document()
    document.add("format", tomlkit.item(FORMAT))
    for item in fields(header):
        value = getattr(header, item.name)
        plain = json.loads(json.dumps(value))
        document.add(item.name, tomlkit.item(plain))
    return tomlkit.dumps(document)


def header_of(text: str, where: str = HEADER) -> FlightHeader:
    """Returns the header in the text of a ``flight.toml``; keys of later versions are left out."""
    table = tomllib.loads(text)
    if int(table["format"]) > FORMAT:
        raise NewerSchemaError(
            f"{where} has format {table['format']}, this version reads {FORMAT}",
            "update this installation",
        )
    known = {item.name: table[item.name] for item in fields(FlightHeader) if item.name in table}
    known["utc_quality"] = UtcQuality(known.get("utc_quality", "none"))
    area = known.get("planned_area_deg", ())
    known["planned_area_deg"] = tuple((float(lat), float(lon)) for lat, lon in area)
    known["notes"] = tuple(known.get("notes", ()))
    safe_flight_id(known["flight_id"])
    return FlightHeader(**known)


def safe_flight_id(text: str) -> str:
    """Returns the flight's name if it can be a folder's, else raises FlightNameError."""
    if not _FLIGHT_ID.fullmatch(text):
        raise FlightNameError(
            f"{text!r} cannot be the name of a flight",
            "use letters, digits and _.- (at most 64), a letter or digit first",
        )
    return text


def list_flights(root: Path) -> list[Path]:
    """Returns the flight folders directly under ``root``, by name; hidden ones are not ready."""
    return sorted(path.parent for path in root.glob(f"[!.]*/{HEADER}"))


def is_closed(folder: Path) -> bool:
    """Returns whether the flight was closed: its final manifest is there."""
    return (folder / MANIFEST).is_file()
