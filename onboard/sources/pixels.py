"""Pixels of image files, as stored: never turned by EXIF Orientation, RGB order, 8 or 16 bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from onboard.records import Frame, Image
from onboard.sources.errors import DamagedFrame

# Unknown TIFF tags are no news for people.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)

READ = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_ANYDEPTH
READ_BGR = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_ANYDEPTH
START_OF_SCAN, END_OF_IMAGE = 0xDA, b"\xff\xd9"
TIFF = (".tif", ".tiff")
"""OpenCV 5.0 spoils 16-bit TIFF files that are asked for in RGB order: they are read as BGR."""
GRAY = cv2.IMREAD_IGNORE_ORIENTATION
REDUCED_GRAY = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def load_pixels(frame: Frame) -> Frame:
    """Returns the frame with its pixels, (h, w, 3) RGB as stored.

    Raises:
        DamagedFrame: There is no file, or it cannot be decoded.
    """
    if frame.pixels is not None:
        return frame
    if frame.path is None:
        raise DamagedFrame(f"frame {frame.name} has no file", "give the folder of its frames")
    return replace(frame, pixels=read_image(frame.path))


def read_image(path: Path) -> Image:
    """Returns an image's pixels, (h, w, 3) RGB uint8 or uint16.

    Raises:
        DamagedFrame: It cannot be decoded.
    """
    try:
        if path.suffix.lower() in TIFF:
            bgr = cv2.imread(str(path), READ_BGR)
            pixels = None if bgr is None else cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        else:
            pixels = cv2.imdecode(np.frombuffer(_whole_file(path), np.uint8), READ)
    except cv2.error as error:
        raise _damaged(path, str(error).strip()) from error
    if pixels is None or pixels.size == 0:
        raise _damaged(path, "no image in it")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise _damaged(path, f"its values are {pixels.dtype}, not 8 or 16 bit")
    return cast(Image, pixels)


def read_gray(path: Path, reduce: int = 1) -> Image:
    """Returns an image's (h, w) grey values at 1/``reduce`` of its size (1, 2, 4 or 8).

    Raises:
        DamagedFrame: It cannot be decoded.
    """
    try:
        if path.suffix.lower() in TIFF:
            pixels = cv2.imread(str(path), REDUCED_GRAY[reduce] | GRAY)
        else:
            data = np.frombuffer(_whole_file(path), np.uint8)
            pixels = cv2.imdecode(data, REDUCED_GRAY[reduce] | GRAY)
    except cv2.error as error:
        raise _damaged(path, str(error).strip()) from error
    if pixels is None or pixels.size == 0:
        raise _damaged(path, "no image in it")
    return cast(Image, pixels)


def is_cut_short(data: bytes) -> bool:
    """Returns whether a JPEG file ends before its image does (decoders fill the rest with grey).

    Thumbnails inside its segments have ends of their own, so the search begins at the first scan.
    """
    at = 2
    while data[:2] == b"\xff\xd8" and at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == START_OF_SCAN:
            return data.find(END_OF_IMAGE, at) < 0
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[:2] == b"\xff\xd8"


def _whole_file(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _damaged(path, str(error.strerror)) from error
    if not data:
        raise _damaged(path, "the file is empty")
    if is_cut_short(data):
        raise _damaged(path, "the file ends before the image does")
    return data


def _damaged(path: Path, why: str) -> DamagedFrame:
    return DamagedFrame(f"cannot decode {path}: {why}", "copy it again from the card")
