"""Frames whose pixels the rig's radiometry corrects; files of one capture become one frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from calibration.band_align import band_map
from calibration.band_profile import RadiometryTable
from calibration.band_tags import capture_of, read_exposure
from calibration.camera import Camera
from calibration.errors import RadiometryError
from calibration.radiometry import Counts, Exposure, corrected
from calibration.radiometry_profile import read_pixels
from calibration.rig import Rig
from onboard.errors import SizeDiffersError
from onboard.records import Frame, Image, Poses
from onboard.sources.errors import DamagedFrame
from onboard.sources.source import Flag, Source


@dataclass
class BandedSource:
    """A source whose frames' pixels are corrected as the rig's ``[radiometry]`` says.

    Where every band has a file of its own, the reference band's file is the frame, and its pixels
    are all bands, corrected and laid over the reference: (h, w, bands) in the profile's order.

    Attributes:
        inner: The source of the files.
        rig: The rig with its profile.
    """

    inner: Source
    rig: Rig

    def __post_init__(self) -> None:
        assert self.rig.radiometry is not None  # noqa: S101 - made by ``radiometric`` only
        self.profile: RadiometryTable = self.rig.radiometry
        self._maps: dict[int, tuple[Any, Any]] = {}
        self.name = self.inner.name
        self.kind = self.inner.kind
        self.has_telemetry = self.inner.has_telemetry
        self.telemetry = self.inner.telemetry
        self.notes = self.inner.notes
        note = f"pixels corrected by the rig's [radiometry]: {self.profile.unit}"
        if self.profile.in_files:
            names = ", ".join(band.name for band in self.profile.band)
            note += f"; a capture's files are one frame of {names}"
        self.notes.append(note)

    @property
    def flagged(self) -> list[Flag]:
        """What looks wrong with single frames; other bands' files are no frames."""
        return [flag for flag in self.inner.flagged if self._is_frame(flag.frame)]

    @flagged.setter
    def flagged(self, flags: list[Flag]) -> None:
        self.inner.flagged = flags

    def frames(self) -> Iterator[Frame]:
        """Yields the frames in order: of a capture's files, the reference band's."""
        mine = (frame for frame in self.inner.frames() if self._is_frame(frame.name))
        yield from (replace(frame, seq=seq) for seq, frame in enumerate(mine))

    def poses(self, rig: Rig | None) -> Poses:
        """Returns the poses of the frames."""
        found = self.inner.poses(rig)
        return found.take([i for i, name in enumerate(found.frame) if self._is_frame(name)])

    def load_pixels(self, frame: Frame) -> Frame:
        """Returns the frame with its corrected pixels.

        Raises:
            DamagedFrame: A band's file is missing or cannot be decoded.
        """
        if not self.profile.in_files:
            return corrected_frame(self.inner.load_pixels(frame), self.rig)
        return replace(frame, pixels=self._capture(frame))

    def _is_frame(self, name: str) -> bool:
        if not self.profile.in_files:
            return True
        return capture_of(Path(name))[1] == self.profile.reference_band.file_suffix

    def _capture(self, frame: Frame) -> Image:
        if frame.path is None:
            raise DamagedFrame(f"frame {frame.name} has no file", "give the folder of its frames")
        capture, _ = capture_of(frame.path)
        camera = self.rig.camera
        cube: Image | None = None
        for i, band in enumerate(self.profile.band):
            path = frame.path.with_name(f"{capture}{band.file_suffix}{frame.path.suffix}")
            pixels = _band(path, camera)
            even = corrected(self.profile, i, pixels, read_exposure(path))
            if cube is None:
                cube = cast(Image, np.zeros((*even.shape, len(self.profile.band)), even.dtype))
            cube[..., i] = self._laid(i, even)
        assert cube is not None  # noqa: S101 - a profile has a band
        return cube

    def _laid(self, i: int, pixels: Counts) -> Counts:
        """Returns a band on the reference's pixels; the reference itself is left as it is."""
        if self.profile.band[i].name == self.profile.reference:
            return pixels
        if i not in self._maps:
            self._maps[i] = cv2.convertMaps(
                *band_map(self.profile, i, self.rig.camera), cv2.CV_16SC2
            )
        x, y = self._maps[i]
        return cast(Counts, cv2.remap(pixels, x, y, cv2.INTER_LINEAR))


def radiometric(source: Source, rig: Rig | None) -> Source:
    """Returns the source with its pixels corrected, where the rig has a ``[radiometry]``."""
    if rig is None or rig.radiometry is None:
        return source
    return BandedSource(source, rig)


def unwrapped(source: Source) -> Source:
    """Returns the source of the files themselves."""
    return source.inner if isinstance(source, BandedSource) else source


def corrected_frame(frame: Frame, rig: Rig) -> Frame:
    """Returns a frame with pixels corrected channel by channel, where the rig says how.

    A rig whose bands have files of their own leaves single frames as they are, as does one that
    knows another number of channels.
    """
    profile = rig.radiometry
    pixels = frame.pixels
    if profile is None or profile.in_files or pixels is None:
        return frame
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if max(band.channel for band in profile.band) >= channels:
        return frame
    exposure = Exposure() if frame.path is None else read_exposure(frame.path)
    out = pixels.copy()
    for i, band in enumerate(profile.band):
        plane = out if out.ndim == 2 else out[..., band.channel]
        plane[...] = corrected(profile, i, cast(Counts, np.ascontiguousarray(plane)), exposure)
    return replace(frame, pixels=out)


def _band(path: Path, camera: Camera) -> Counts:
    if not path.is_file():
        raise DamagedFrame(f"no file {path.name} beside its capture's others", "copy it again")
    try:
        pixels = read_pixels(path)
    except RadiometryError as error:
        raise DamagedFrame(str(error), "copy it again from the card") from error
    if pixels.shape != (camera.height_px, camera.width_px):
        raise SizeDiffersError(
            f"{path.name} has {pixels.shape[1]} x {pixels.shape[0]} pixels, the rig's camera "
            f"{camera.width_px} x {camera.height_px}",
            "use the rig of this camera and image size",
        )
    return pixels
