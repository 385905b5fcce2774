"""A folder of photos (or one photo) that carry their pose in EXIF and XMP."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from calibration.errors import DatumError
from calibration.geodesy import to_ellipsoid_m
from calibration.rig import Rig
from onboard.records import Floats, Frame, HeightDatum, Poses
from onboard.sources.errors import DamagedFrame
from onboard.sources.exif import PhotoFacts, read_facts, utc_of_name
from onboard.sources.pixels import load_pixels
from onboard.sources.source import Flag, Placement, flag, placed

PHOTO_PROGRAMS = re.compile(
    r"photo ?viewer|photo gallery|microsoft.*photos|windows photo|irfanview|picasa|xnview|"
    r"faststone|acdsee|photoscape|gimp|photoshop|lightroom|paint|snapseed|preview|gwenview|gthumb",
    re.IGNORECASE,
)
FOCAL_DISAGREES = 0.05
"""The 35-mm equivalent is a whole number: at 20 mm and more it is good to 2.5 %."""


class PhotoSource:
    """Photos that carry their own poses.

    Args:
        files: The image files, in order.
        name: What the source is called.
        alt_datum: What the absolute heights are above, where the photos do not say it.

    Raises:
        DatumError: On ``poses``, where no datum is said.
    """

    kind = "photos with EXIF/XMP poses"
    has_telemetry = False
    telemetry: Path | None = None

    def __init__(
        self, files: Sequence[Path], name: str, alt_datum: HeightDatum | None = None
    ) -> None:
        self.name = name
        self.notes: list[str] = []
        self.flagged: list[Flag] = []
        self.alt_datum = alt_datum
        self._files = list(files)
        self.facts: dict[str, PhotoFacts] = {}
        for path in self._files:
            self._read(path)
        self._flag_repeated()
        self._count_notes()

    def frames(self) -> Iterator[Frame]:
        """Yields the photos in order; unreadable ones, too (the reader of pixels meets that)."""
        for seq, path in enumerate(self._files):
            mine = tuple(f.reason for f in self.flagged if f.frame == path.name)
            yield Frame(path.name, seq, path=path, flags=mine)

    def load_pixels(self, frame: Frame) -> Frame:
        """Returns the frame with its pixels."""
        return load_pixels(frame)

    def datum(self) -> HeightDatum | None:
        """Returns what the heights are above: as given, else as all photos say; else ``None``."""
        if self.alt_datum:
            return self.alt_datum
        said = {facts.alt_datum for facts in self.facts.values() if math.isfinite(facts.lat_deg)}
        return cast(HeightDatum, said.pop()) if len(said) == 1 and "" not in said else None

    def capture_times(self) -> Floats:
        """Returns the (n,) capture times of the frames as the photos say them; NaN where not."""
        return np.array([self._time(path.name) for path in self._files])

    def utc_times(self) -> dict[str, float]:
        """Returns UNIX times by name, of photos that know UTC and parts of a second."""
        said = {n: f.t_utc_s for n, f in self.facts.items() if f.utc_known and f.subsecond}
        return {p.name: said.get(p.name, utc_of_name(p.name)) for p in self._files}

    def poses(self, rig: Rig | None) -> Poses:
        """Returns the poses of the photos that say where they are and where they look."""
        names = [p.name for p in self._files if self._usable(p.name)]
        datum = self.datum() if names else "same"
        if datum is None:
            raise DatumError(
                f"{self.name}: the photos do not say what their heights are above",
                "give --alt-datum ellipsoid|egm96|takeoff, or same (with --dem-datum same) where "
                "DEM and photos share one unnamed datum",
            )
        facts = [self.facts[name] for name in names]
        lat, lon = np.array([f.lat_deg for f in facts]), np.array([f.lon_deg for f in facts])
        alt_m = np.array([f.alt_m_takeoff if datum == "takeoff" else f.alt_m for f in facts])
        if datum in ("egm96", "egm2008") and len(names):
            alt_m, datum = to_ellipsoid_m(alt_m, datum, lat, lon), "ellipsoid"
        if rig is not None:
            alt_m = alt_m + np.array([0.0 if f.final else rig.mount.height_bias_m for f in facts])
        r_ned_cam = np.array([self._attitude(f, rig) for f in facts]).reshape(-1, 3, 3)
        none = np.full((3, 3), np.nan)
        bodies = np.array([none if f.r_ned_body is None else f.r_ned_body for f in facts])
        sigma = np.array([f.sigma_enu_m for f in facts]).reshape(-1, 3)
        flags = tuple(tuple(x.reason for x in self.flagged if x.frame == n) for n in names)
        at = Placement(
            tuple(names), lat, lon, alt_m, datum, r_ned_cam, bodies.reshape(-1, 3, 3), sigma,
            flags=flags,
        )  # fmt: skip
        return placed(at, rig)

    def _attitude(self, facts: PhotoFacts, rig: Rig | None) -> Floats:
        """Returns the camera's attitude: a gimbal's mount applies, to a final attitude nothing."""
        assert facts.r_ned_cam is not None  # noqa: S101 - only usable photos come here
        if rig is None or facts.final:
            return facts.r_ned_cam
        if rig.mount.type == "gimbal":
            return np.asarray(rig.mount.r_ned_cam(facts.r_ned_cam[None])[0])
        self._note("photos say the camera's attitude: the rig's fixed mount is not applied")
        return facts.r_ned_cam

    def _usable(self, name: str) -> bool:
        facts = self.facts.get(name)
        if facts is None or facts.r_ned_cam is None or _void(facts):
            return False
        takeoff = self.alt_datum == "takeoff"
        return math.isfinite(facts.alt_m_takeoff if takeoff else facts.alt_m)

    def _read(self, path: Path) -> None:
        try:
            facts = read_facts(path)
        except DamagedFrame:
            self._flag(path.name, "unreadable")
            return
        self.facts[path.name] = facts
        for reason in _doubts(facts, self.alt_datum):
            self._flag(path.name, reason)

    def _flag_repeated(self) -> None:
        """Flags later frames that repeat a fix although they were taken at another time."""
        seen: dict[tuple[float, float, float], float] = {}
        for path in self._files:
            facts = self.facts.get(path.name)
            if facts is None or not math.isfinite(facts.lat_deg) or _void(facts):
                continue
            fix = (round(facts.lat_deg, 9), round(facts.lon_deg, 9), round(facts.alt_m, 3))
            t_s = self._time(path.name)
            if fix in seen and t_s != seen[fix]:
                self._flag(path.name, "repeated_fix")
            seen.setdefault(fix, t_s)

    def _time(self, name: str) -> float:
        facts = self.facts.get(name)
        said = facts.t_utc_s if facts else math.nan
        return said if math.isfinite(said) else utc_of_name(name)

    def _count_notes(self) -> None:
        texts = [text for facts in self.facts.values() for text in facts.notes]
        for text in dict.fromkeys(texts):
            self._note(f"{text} ({texts.count(text)} photos)")
        if self.alt_datum is None and any(f.alt_datum == "ellipsoid" for f in self.facts.values()):
            self._note("RTK or Pix4D tags say that heights are above the ellipsoid")

    def _flag(self, name: str, reason: str) -> None:
        self.flagged.append(flag(name, reason))

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _void(facts: PhotoFacts) -> bool:
    lat, lon = facts.lat_deg, facts.lon_deg
    known = math.isfinite(lat) and math.isfinite(lon)
    return facts.void or not known or (lat == 0 and lon == 0) or abs(lat) > 90 or abs(lon) > 180


def _doubts(facts: PhotoFacts, alt_datum: str | None) -> Iterator[str]:
    """Yields the codes of what looks wrong with one photo by what it says about itself."""
    if not math.isfinite(facts.lat_deg) or not math.isfinite(facts.lon_deg):
        yield "no_gps"
    elif _void(facts):
        yield "gps_void"
    elif facts.r_ned_cam is None:
        yield "no_attitude"
    elif not math.isfinite(facts.alt_m_takeoff if alt_datum == "takeoff" else facts.alt_m):
        yield "no_height"
    if facts.orientation not in (0, 1):
        yield "exif_rotated"
    if PHOTO_PROGRAMS.search(facts.software):
        yield "resaved"
    if _stale_focal(facts):
        yield "stale_focal"


def _stale_focal(facts: PhotoFacts) -> bool:
    """Returns whether the focal plane resolution belongs to another image size.

    It does where EXIF's own width is not the image's, or where the focal length it gives differs
    from the 35-mm equivalent's (reckoned over the diagonal or the width).
    """
    if not math.isfinite(facts.focal_px):
        return False
    if facts.exif_width_px and facts.exif_width_px != facts.width_px:
        return True
    if not math.isfinite(facts.focal35_px):
        return False
    diagonal = math.hypot(facts.width_px, facts.height_px)
    by_width = facts.focal35_px * 43.27 / diagonal / 36.0 * max(facts.width_px, facts.height_px)
    ratios = (facts.focal_px / facts.focal35_px, facts.focal_px / by_width)
    return all(abs(ratio - 1.0) > FOCAL_DISAGREES for ratio in ratios)
