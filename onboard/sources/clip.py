"""Frames of a video file, decoded at steps of time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from onboard.records import Floats, Frame, Image
from onboard.sources.errors import DamagedFrame
from onboard.sources.source import Flag


class Clip:
    """The frames of a video file at steps of time, decoded forwards.

    Raises:
        DamagedFrame: The file cannot be opened as a video.
    """

    def __init__(self, path: Path, step_s: float) -> None:
        self.path = path
        self._capture = cv2.VideoCapture(str(path))
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if not self._capture.isOpened() or not self.fps > 0 or count <= 0:
            raise DamagedFrame(f"cannot open {path} as a video", "copy it again from the card")
        every = max(round(step_s * self.fps), 1)
        self.index = list(range(0, count, every))
        self.names = [f"{path.stem}_{i:06d}.jpg" for i in self.index]
        self._next = 0

    def times_s(self) -> Floats:
        """Returns the (n,) times of the frames in the video."""
        return np.array(self.index) / self.fps

    def read(self, index: int) -> Image:
        """Returns a frame's RGB pixels; going back reopens the file."""
        if index < self._next:
            self._capture.release()
            self._capture = cv2.VideoCapture(str(self.path))
            self._next = 0
        while self._next < index and self._capture.grab():
            self._next += 1
        ok, pixels = self._capture.read()
        self._next += 1
        if not ok or pixels is None:
            raise DamagedFrame(f"{self.path}: frame {index} cannot be decoded", "copy it again")
        rgb: Image = np.ascontiguousarray(pixels[:, :, ::-1]).astype(np.uint8, copy=False)
        return rgb


class ClipSource:
    """What videos with any telemetry share."""

    has_telemetry = True

    def __init__(self, name: str, clip: Clip | None, telemetry: Path) -> None:
        self.name = name
        self.telemetry: Path | None = telemetry
        self.notes: list[str] = []
        self.flagged: list[Flag] = []
        self._clip = clip

    def load_pixels(self, frame: Frame) -> Frame:
        """Returns the frame with its pixels."""
        if self._clip is None or frame.name not in self._clip.names:
            raise DamagedFrame(f"frame {frame.name} has no video", "lay the video beside it")
        index = self._clip.index[self._clip.names.index(frame.name)]
        return replace(frame, pixels=self._clip.read(index))
