"""Live cameras: OpenCV by device, RTSP or pipeline string, and a folder that frames appear in."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from gossan.errors import HardwareError, SettingsError
from onboard.records import Frame, Image
from onboard.sources.pixels import READ

log = logging.getLogger(__name__)

STAMPED = re.compile(r"cam_(\d{1,19})\.(jpe?g|png)", re.IGNORECASE)
POLL_S = 0.03
REOPEN_S = 1.0
SETTLED_S = 0.2


@dataclass(frozen=True, slots=True)
class Captured:
    """One exposure as the camera gave it.

    Attributes:
        frame: With ``path`` where the camera wrote a file, else with ``pixels``.
        encoded: The file's bytes where the camera gave them.
    """

    frame: Frame
    encoded: bytes | None = None


class LiveCamera(Protocol):
    """A camera that is read in its own thread."""

    failures: int

    def captures(
        self, stop: threading.Event, beat: Callable[[], None] = lambda: None
    ) -> Iterator[Captured]:
        """Yields exposures until ``stop``, calling ``beat`` at least once a second."""


def open_camera(source: str, rate_hz: float = 0.0, latency_s: float = 0.0) -> LiveCamera:
    """Returns the camera behind a settings string; it is opened when it is read.

    Args:
        source: ``folder:PATH``, ``/dev/video0``, a device number, an address such as ``rtsp://…``,
            or a GStreamer pipeline with ``!`` in it.
        rate_hz: At most so many frames a second; 0 takes all.
        latency_s: From the middle row's exposure to the frame's arrival (not for folders).

    Raises:
        SettingsError: The string is empty.
    """
    if not source:
        raise SettingsError(
            "[camera] source is empty", "name a device, an rtsp:// address or folder:PATH"
        )
    if source.startswith("folder:"):
        return FolderCamera(Path(source.removeprefix("folder:")), rate_hz)
    return OpenCvCamera(source, rate_hz, latency_s)


class FolderCamera:
    """Takes files named cam_<t_mono_ns>.jpg in the order of their times, each once.

    The writer renames a finished file into the folder; names that do not match are left alone.

    Args:
        folder: It may appear later.
        rate_hz: At most so many frames a second, by their own times; 0 takes all.
    """

    def __init__(self, folder: Path, rate_hz: float = 0.0) -> None:
        self.folder = folder
        self.failures = 0
        self.skipped = 0
        self._gap_ns = int(1e9 / rate_hz * 0.9) if rate_hz > 0 else 0
        self._last_ns = -(1 << 62)
        self._seen: set[str] = set()
        self._mtime_ns = -1
        self._changed_s = float("-inf")

    def captures(
        self, stop: threading.Event, beat: Callable[[], None] = lambda: None
    ) -> Iterator[Captured]:
        """Yields frames with their path and bytes."""
        while not stop.is_set():
            beat()
            fresh = self._fresh()
            for t_mono_ns, path in fresh:
                captured = self._read(t_mono_ns, path)
                if captured is not None:
                    yield captured
                beat()
                if stop.is_set():
                    return
            if not fresh:
                stop.wait(POLL_S)

    def skip_present(self) -> int:
        """Leaves out what is in the folder now (frames from before the start)."""
        present = self._fresh()
        return len(present)

    def _fresh(self) -> list[tuple[int, Path]]:
        try:
            if not self._has_changed(self.folder.stat().st_mtime_ns):
                return []
            names = [entry.name for entry in os.scandir(self.folder)]
        except OSError:
            return []
        found = []
        for name in names:
            match = STAMPED.fullmatch(name)
            if match and name not in self._seen:
                self._seen.add(name)
                found.append((int(match.group(1)), self.folder / name))
        return sorted(found)

    def _has_changed(self, mtime_ns: int) -> bool:
        """Whether the folder may hold something new: thousands of names are not listed in vain.

        Clocks of file systems are coarse: for a moment after a change it is listed again.
        """
        now_s = time.monotonic()
        if mtime_ns != self._mtime_ns:
            self._mtime_ns, self._changed_s = mtime_ns, now_s
        return now_s - self._changed_s < SETTLED_S

    def _read(self, t_mono_ns: int, path: Path) -> Captured | None:
        if t_mono_ns - self._last_ns < self._gap_ns:
            self.skipped += 1
            return None
        try:
            encoded = path.read_bytes()
        except OSError as error:
            self.failures += 1
            log.warning("frame_unreadable path=%s error=%s", path, error)
            return None
        self._last_ns = t_mono_ns
        return Captured(Frame(path.name, 0, t_mono_ns, path=path), encoded)


class OpenCvCamera:
    """A camera that OpenCV opens; it is opened again, forever, when it fails.

    Args:
        source: Device, number, address or pipeline.
        rate_hz: At most so many frames a second are decoded; 0 decodes all.
        latency_s: From the middle row's exposure to the frame's arrival.
    """

    def __init__(self, source: str, rate_hz: float = 0.0, latency_s: float = 0.0) -> None:
        self.source = source
        self.failures = 0
        self._gap_ns = int(1e9 / rate_hz * 0.9) if rate_hz > 0 else 0
        self._latency_ns = int(latency_s * 1e9)

    def captures(
        self, stop: threading.Event, beat: Callable[[], None] = lambda: None
    ) -> Iterator[Captured]:
        """Yields frames with pixels, RGB."""
        while not stop.is_set():
            beat()
            device = _open_device(self.source)
            if device is None:
                self.failures += 1
                stop.wait(REOPEN_S)
                continue
            try:
                yield from self._read(device, stop, beat)
            finally:
                device.release()
            self.failures += 1
            log.warning("camera_lost source=%s", self.source)
            stop.wait(REOPEN_S)

    def _read(
        self, device: cv2.VideoCapture, stop: threading.Event, beat: Callable[[], None]
    ) -> Iterator[Captured]:
        last_ns = -(1 << 62)
        while not stop.is_set():
            if not device.grab():
                return
            t_mono_ns = time.monotonic_ns() - self._latency_ns
            beat()
            if t_mono_ns - last_ns < self._gap_ns:
                continue
            good, bgr = device.retrieve()
            if not good or bgr is None:
                self.failures += 1
                continue
            last_ns = t_mono_ns
            pixels = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)
            yield Captured(Frame(f"cam_{t_mono_ns}.jpg", 0, t_mono_ns, pixels=pixels))


def encoded(captured: Captured, quality: int) -> bytes:
    """Returns the file that is kept of an exposure: the camera's own, else a new JPEG.

    Raises:
        HardwareError: The pixels cannot be encoded.
    """
    if captured.encoded is not None:
        return captured.encoded
    pixels = captured.frame.pixels
    if pixels is None:
        raise HardwareError(f"{captured.frame.name} has no pixels", "check the camera")
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    good, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not good:
        raise HardwareError(f"{captured.frame.name} cannot be encoded", "check the camera")
    return bytes(data.tobytes())


def pixels_of(captured: Captured) -> Image:
    """Returns the exposure's pixels, RGB, decoded if need be.

    Raises:
        HardwareError: They cannot be decoded.
    """
    if captured.frame.pixels is not None:
        return captured.frame.pixels
    pixels = decoded(captured.encoded or b"")
    if pixels is None:
        raise HardwareError(f"{captured.frame.name} cannot be decoded", "check the camera")
    return pixels


def decoded(content: bytes) -> Image | None:
    """Returns the pixels of a file's bytes, RGB, or ``None`` where they cannot be decoded."""
    if not content:
        return None
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), READ)
    if pixels is None:
        return None
    if pixels.dtype == np.uint16:
        return np.asarray(pixels, np.uint16)
    return np.asarray(pixels, np.uint8)


def numbered(captured: Captured, seq: int) -> Captured:
    """Returns the exposure with its number in the flight."""
    return replace(captured, frame=replace(captured.frame, seq=seq))


def _open_device(source: str) -> cv2.VideoCapture | None:
    if "!" in source:
        device = cv2.VideoCapture(source, cv2.CAP_GSTREAMER)
    else:
        device = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if device.isOpened():
        device.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return device
    device.release()
    return None
