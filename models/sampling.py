"""Training batches: crops of labelled folders and of composed ground, drawn by step number."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.augment import crop, recolour, weather
from models.composite import ground, plant_patches
from models.dataset import Pixels, Sample
from models.errors import DatasetError

Ints = NDArray[np.int64]

AHEAD = 4
"""How many batches are made ahead of the step that takes them."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Crops of one head.

    Attributes:
        pixels: (n, size, size, 3) uint8.
        masks: (n, size, size) uint8, class indices and 255.
    """

    pixels: Pixels
    masks: Pixels


class Labelled:
    """Crops of a labelled folder's samples, decoded once and kept in memory.

    Args:
        samples: Frames with masks.
        n_classes: Number of classes of the head.
        rare: Whether two crops of three are centred on a planted thing or a likely look-alike.
        recoloured: Whether the ground (class 0) gets other colours than the things on it.
        scale: Magnification interval of the crops.
    """

    def __init__(
        self,
        samples: tuple[Sample, ...],
        n_classes: int,
        *,
        rare: bool = False,
        recoloured: bool = False,
        scale: tuple[float, float] = (0.7, 1.5),
    ) -> None:
        if not samples:
            raise DatasetError("no samples are left to train on", "hold out fewer places")
        self.images = [sample.pixels() for sample in samples]
        self.masks = [
            sample.indices(n_classes, image.shape[:2])
            for sample, image in zip(samples, self.images, strict=True)
        ]
        self.recoloured, self.scale = recoloured, scale
        pairs = zip(self.images, self.masks, strict=True)
        self.spots = [_spots(image, mask, n_classes) for image, mask in pairs] if rare else []
        self.with_spots = [i for i, spots in enumerate(self.spots) if len(spots)]

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Pixels, Pixels]:
        """Returns one augmented crop and its mask."""
        if self.with_spots and rng.random() < 0.66:
            i = self.with_spots[int(rng.integers(len(self.with_spots)))]
            spots = self.spots[i]
            spot = spots[int(rng.integers(len(spots)))] + rng.uniform(-0.4 * size, 0.4 * size, 2)
            centre: tuple[float, float] | None = (float(spot[0]), float(spot[1]))
        else:
            i, centre = int(rng.integers(len(self.images))), None
        image, mask = crop(
            self.images[i], self.masks[i], rng, size, centre=centre, scale=self.scale
        )
        if self.recoloured and rng.random() < 0.5:
            image = recolour(image, mask != 0, rng)
        return weather(image, rng), mask


class Composed:
    """Mineral patches on composed ground and on the textures of unlabelled frames.

    Args:
        textures: Frames that lend their texture; what is on them is taken as no mineral, but
            what is as pale as quartz is ignored.
    """

    def __init__(self, textures: tuple[Sample, ...]) -> None:
        self.images = [sample.pixels() for sample in textures]

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Pixels, Pixels]:
        """Returns one augmented crop and its mask."""
        if self.images and rng.random() < 0.35:
            image = self.images[int(rng.integers(len(self.images)))]
            nothing = np.zeros(image.shape[:2], np.uint8)
            under, mask = crop(image, nothing, rng, size)
            under = recolour(under, mask != 0, rng)
        else:
            under, mask = ground(rng, size), np.zeros((size, size), np.uint8)
        image, mask = plant_patches(under, mask, rng, int(rng.integers(0, 6)))
        return weather(image, rng), mask


@dataclass(frozen=True, slots=True)
class Stream:
    """Where a head's crops come from: sources with how many crops each gives to a batch."""

    head: str
    sources: tuple[tuple[Labelled | Composed, int], ...]

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Returns one batch of this head."""
        drawn = [source.draw(rng, size) for source, count in self.sources for _ in range(count)]
        return Batch(np.stack([d[0] for d in drawn]), np.stack([d[1] for d in drawn]))


def batches(
    streams: tuple[Stream, ...], seed: int, first: int, last: int, size: int
) -> Iterator[dict[str, Batch]]:
    """Yields one batch per head for each step from ``first`` to ``last``.

    A step's batch depends on the seed and the step's number only, so that a resumed run sees
    what an uninterrupted one would have seen.
    """

    def make(step: int) -> dict[str, Batch]:
        rng = np.random.default_rng([seed, step])
        return {stream.head: stream.batch(rng, size) for stream in streams}

    with ThreadPoolExecutor(1, "batches") as maker:
        waiting: list[Future[dict[str, Batch]]] = []
        for step in range(first, last):
            while len(waiting) < AHEAD and step + len(waiting) < last:
                waiting.append(maker.submit(make, step + len(waiting)))
            yield waiting.pop(0).result()


def cells(masks: Pixels, stride: int, n_classes: int) -> Ints:
    """Returns (n, h/stride, w/stride) labels of output cells, 255 where they are undecided.

    A cell takes a class other than 0 that covers at least a fifth of it (small things must not
    vanish), 0 where at least 95 % is 0, and is ignored in between; at least half must be known.
    """
    n, height, width = masks.shape
    blocks = masks.reshape(n, height // stride, stride, width // stride, stride)
    share = np.stack([(blocks == k).mean(axis=(2, 4)) for k in range(n_classes)], axis=-1)
    best = 1 + share[..., 1:].argmax(axis=-1)
    most = share[..., 1:].max(axis=-1)
    out = np.full(most.shape, 255, np.int64)
    out[share[..., 0] >= 0.95 * share.sum(axis=-1)] = 0
    out[most >= 0.2] = best[most >= 0.2]
    out[share.sum(axis=-1) < 0.5] = 255
    return out


def centres(masks: Pixels, stride: int) -> Ints:
    """Returns (n, h/stride, w/stride) the masks' values at the middle of each output cell."""
    return masks[:, stride // 2 :: stride, stride // 2 :: stride].astype(np.int64)


def _spots(image: Pixels, mask: Pixels, n_classes: int) -> NDArray[np.int64]:
    """Returns pixels (x, y) worth looking at: planted things, and the ground most like them.

    About 130 per class that is not 0, and as many of class 0 among the palest, the darkest and
    the reddest of the frame.
    """
    found = [_some(mask == k) for k in range(1, n_classes)]
    channels = image.astype(np.float32)
    for cue in (channels.min(axis=2), -channels.max(axis=2), channels[..., 0] - channels[..., 2]):
        ground = mask == 0
        if ground.any():
            found.append(_some(ground & (cue >= np.quantile(cue[ground], 0.997))))
    return np.concatenate(found).astype(np.int64)


def _some(where: NDArray[np.bool_]) -> NDArray[np.int64]:
    y, x = np.nonzero(where)
    step = max(1, len(x) // 130)
    return np.column_stack([x[::step], y[::step]])


def stream_for(
    head: str, samples: tuple[Sample, ...], textures: tuple[Sample, ...], n_classes: int
) -> Stream:
    """Returns a head's stream: labelled crops, for ``anomaly`` also composed ground.

    Args:
        head: Name of the head.
        samples: Labelled frames; may be empty for ``anomaly``, which then learns from composed
            ground only.
        textures: Frames whose texture composed ground may borrow.
        n_classes: Number of classes of the head.
    """
    if head != "anomaly":
        return Stream(head, ((Labelled(samples, n_classes, scale=(0.5, 1.5)), 2),))
    composed = Composed(textures)
    if not samples:
        return Stream(head, ((composed, 4),))
    labelled = Labelled(samples, n_classes, rare=True, recoloured=True, scale=(0.8, 1.3))
    return Stream(head, ((labelled, 4), (composed, 1)))
