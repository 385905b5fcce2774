"""Between source pixels: bilinear and cubic sampling of strips, and shrinking against aliasing."""

from __future__ import annotations

from typing import Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from onboard.records import Bools, Image

ImageResampling = Literal["linear", "cubic"]
MAX_CHANNELS = 4
NO_SECOND_MAP = cast(NDArray[np.float32], None)
"""OpenCV takes None for "no second map"; its stubs do not, and an empty array it misreads."""


def shrink(pixels: Image, factor: int) -> tuple[Image, float, float]:
    """Returns the image averaged over factor × factor pixels, and scale and shift of coordinates.

    Args:
        pixels: (h, w, bands) or (h, w).
        factor: 1 or less leaves the image as it is.

    Returns:
        The image; a source coordinate c lies at c · scale + shift in it.
    """
    if factor < 2:
        return pixels, 1.0, 0.0
    h, w = pixels.shape[:2]
    rows, cols = -(-h // factor) * factor - h, -(-w // factor) * factor - w
    padded = cv2.copyMakeBorder(pixels, 0, rows, 0, cols, cv2.BORDER_REPLICATE)
    size = (padded.shape[1] // factor, padded.shape[0] // factor)
    small = cast(Image, cv2.resize(padded, size, interpolation=cv2.INTER_AREA))
    return small, 1.0 / factor, 0.5 / factor - 0.5


def resample(
    source: Image, uv: NDArray[np.float32], resampling: ImageResampling, out: Image
) -> None:
    """Writes a strip of the ortho.

    Args:
        source: (h, w, bands) or (h, w).
        uv: (rows, width, 2) source pixels.
        resampling: ``linear`` or ``cubic``.
        out: (rows, width, bands) or (rows, width), a window of the ortho.
    """
    flag = cv2.INTER_LINEAR if resampling == "linear" else cv2.INTER_CUBIC
    bands = 1 if source.ndim == 2 else source.shape[2]
    for first in range(0, bands, MAX_CHANNELS):
        some = np.s_[...] if bands <= MAX_CHANNELS else np.s_[..., first : first + MAX_CHANNELS]
        part = cast(Image, np.ascontiguousarray(source[some]))
        target = out if bands <= MAX_CHANNELS else None
        seen = cv2.remap(part, uv, NO_SECOND_MAP, flag, dst=target, borderMode=cv2.BORDER_REPLICATE)
        if not np.may_share_memory(seen, out):
            out[some] = seen.reshape(out[some].shape)


def blank(image: Image, mask: Bools) -> None:
    """Sets the pixels of an image (rows, width[, bands]) to 0 where the mask is False, in place."""
    if mask.all():
        return
    bands = 1 if image.ndim == 2 else image.shape[2]
    if bands > MAX_CHANNELS:
        image[~mask] = 0
        return
    full = np.iinfo(image.dtype).max
    plane = np.multiply(mask, full, dtype=image.dtype)
    cover = plane.reshape(image.shape) if bands == 1 else cv2.merge([plane] * bands)
    np.bitwise_and(image, cover, out=image)
