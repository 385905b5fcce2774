"""Training batches: crops of labelled folders and of composed ground, drawn by step number."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.augment import crop, recolour, weather
from models.composite import ground, plant_patches
from models.dataset import Pixels, Sample
from models.errors import DatasetError

Ints = NDArray[np.int64]

RARE_STRIDE = 4
"""Output stride of heads that look for small rare things."""

AHEAD = 4
"""How many batches are made ahead of the step that takes them, per maker."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Crops of one head.

    Attributes:
        pixels: (n, size, size, 3) uint8.
        labels: (n, size/stride, size/stride) class indices and 255, of the head's output cells.
    """

    pixels: Pixels
    labels: Ints


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
        with ThreadPoolExecutor() as pool:
            self.images = list(pool.map(lambda sample: sample.pixels(), samples))
            shapes = [image.shape[:2] for image in self.images]
            self.masks = list(
                pool.map(lambda sample, shape: sample.indices(n_classes, shape), samples, shapes)
            )
            spots = pool.map(lambda i, m: _spots(i, m, n_classes), self.images, self.masks)
            self.spots = list(spots) if rare else []
        self.recoloured, self.scale = recoloured, scale
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
    """Where a head's crops come from, and how its output cells are labelled.

    Attributes:
        head: Name of the head.
        sources: Sources with how many crops each gives to a batch.
        stride: Output stride of the head. Stride-4 heads look for small rare things: a cell
            that is a fifth covered counts. Others compare the middle of each cell.
        n_classes: Number of classes of the head.
    """

    head: str
    sources: tuple[tuple[Labelled | Composed, int], ...]
    stride: int
    n_classes: int

    def batch(self, rng: np.random.Generator, size: int, fold: int = 1) -> Batch:
        """Returns one batch of this head, ``fold`` times as many crops as the sources give."""
        drawn = [
            source.draw(rng, size) for source, count in self.sources for _ in range(count * fold)
        ]
        masks = np.stack([d[1] for d in drawn])
        small = self.stride == RARE_STRIDE
        labels = cells(masks, self.stride, self.n_classes) if small else centres(masks, self.stride)
        return Batch(np.stack([d[0] for d in drawn]), labels)


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes the batch of any step: it depends on the seed and the step's number only.

    Attributes:
        streams: One per head.
        seed: Of all batches.
        size: Edge of the crops.
        fold: How many times a stream's own number of crops a batch holds.
    """

    streams: tuple[Stream, ...]
    seed: int
    size: int
    fold: int = 1

    def make(self, step: int) -> dict[str, Batch]:
        """Returns one batch per head."""
        rng = np.random.default_rng([self.seed, step])
        return {stream.head: stream.batch(rng, self.size, self.fold) for stream in self.streams}


def batches(maker: Maker, first: int, last: int, workers: int = 0) -> Iterator[dict[str, Batch]]:
    """Yields one batch per head for each step from ``first`` to ``last``.

    A resumed run sees what an uninterrupted one would have seen, with any number of workers.

    Args:
        maker: Makes a step's batch.
        first: First step.
        last: One past the last step.
        workers: Processes that make batches, each with its own copy of all frames in memory; 0
            makes them in a thread of this one.
    """
    ahead = AHEAD * max(1, workers)
    with _makers(maker, workers) as pool:
        make: Callable[[int], dict[str, Batch]] = _make if workers else maker.make
        waiting: list[Future[dict[str, Batch]]] = []
        for step in range(first, last):
            while len(waiting) < ahead and step + len(waiting) < last:
                waiting.append(pool.submit(make, step + len(waiting)))
            yield waiting.pop(0).result()


_HERE: list[Maker] = []
"""The maker of a worker process: its own copy of all frames."""


def _makers(maker: Maker, workers: int) -> Executor:
    if not workers:
        return ThreadPoolExecutor(1, "batches")
    fresh = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, fresh, initializer=_settle_in, initargs=(maker,))


def _settle_in(maker: Maker) -> None:
    cv2.setNumThreads(1)
    _HERE[:] = [maker]


def _make(step: int) -> dict[str, Batch]:
    return _HERE[0].make(step)


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
    head: str,
    samples: tuple[Sample, ...],
    textures: tuple[Sample, ...],
    stride: int,
    n_classes: int,
) -> Stream:
    """Returns a head's stream: labelled crops, for ``anomaly`` also composed ground.

    Args:
        head: Name of the head.
        samples: Labelled frames; may be empty for ``anomaly``, which then learns from composed
            ground only.
        textures: Frames whose texture composed ground may borrow.
        stride: Output stride of the head.
        n_classes: Number of classes of the head.
    """
    if head != "anomaly":
        plain = Labelled(samples, n_classes, scale=(0.5, 1.5))
        return Stream(head, ((plain, 2),), stride, n_classes)
    composed = Composed(textures)
    if not samples:
        return Stream(head, ((composed, 4),), stride, n_classes)
    labelled = Labelled(samples, n_classes, rare=True, recoloured=True, scale=(0.8, 1.3))
    return Stream(head, ((labelled, 4), (composed, 1)), stride, n_classes)
