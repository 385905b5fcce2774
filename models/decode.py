"""From logits on a grid to regions: components, probability, outline, edge and doubt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from models.manifest import Head
from models.trust import energy, softmax

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]

OUTLINE_PX = 0.75
"""How far a simplified outline may leave the true one."""


@dataclass(frozen=True, slots=True)
class Regions:
    """n things seen in one image, as parallel arrays; pixel (0, 0) is the first pixel's centre.

    Attributes:
        class_name: n class names.
        head: n head names.
        probability: (n,) mean probability of the region's cells.
        calibrated: Whether that probability was calibrated on held-out data (all heads).
        centroid_px: (n, 2) x, y, weighted by probability.
        bbox_px: (n, 4) x0, y0, x1, y1: outer edges.
        area_px: (n,) area of the outline in pixels.
        polygon_px: n arrays (m, 2) of x, y, closed implicitly.
        ood: (n,) True where the energy gate doubts it.
        touches_edge: (n,) True where it meets the image's edge or unseen pixels.
    """

    class_name: tuple[str, ...]
    head: tuple[str, ...]
    probability: Doubles
    calibrated: bool
    centroid_px: Doubles
    bbox_px: Doubles
    area_px: Doubles
    polygon_px: tuple[Doubles, ...]
    ood: Bools
    touches_edge: Bools

    def __post_init__(self) -> None:
        n = len(self.class_name)
        shapes = {"centroid_px": (n, 2), "bbox_px": (n, 4)}
        for name in ("probability", "centroid_px", "bbox_px", "area_px", "ood", "touches_edge"):
            shape = getattr(self, name).shape
            if shape != shapes.get(name, (n,)):
                raise ValueError(f"Regions.{name} has shape {shape} for {n} regions")
        if len(self.head) != n or len(self.polygon_px) != n:
            raise ValueError(f"Regions has {len(self.polygon_px)} outlines for {n} regions")

    def __len__(self) -> int:
        return len(self.class_name)

    @classmethod
    def from_rows(cls, rows: list[Region], calibrated: bool) -> Self:
        """Returns the regions as parallel arrays."""
        return cls(
            class_name=tuple(row.class_name for row in rows),
            head=tuple(row.head for row in rows),
            probability=np.array([row.probability for row in rows], float),
            calibrated=calibrated,
            centroid_px=np.array([row.centroid for row in rows], float).reshape(-1, 2),
            bbox_px=np.array([row.bbox for row in rows], float).reshape(-1, 4),
            area_px=np.array([row.area for row in rows], float),
            polygon_px=tuple(row.polygon for row in rows),
            ood=np.array([row.ood for row in rows], bool),
            touches_edge=np.array([row.touches_edge for row in rows], bool),
        )


@dataclass(frozen=True, slots=True)
class Region:
    """One row of Regions, before they are laid in arrays."""

    class_name: str
    head: str
    probability: float
    centroid: tuple[float, float]
    bbox: tuple[float, float, float, float]
    area: float
    polygon: Doubles
    ood: bool
    touches_edge: bool


@dataclass(frozen=True, slots=True)
class Grid:
    """Which output cells look at ground.

    Attributes:
        stride: Pixels per cell.
        width: The image's columns.
        height: Its rows.
        seen: (rows, cols) True where any pixel of the cell shows ground.
        rim: (rows, cols) True at the image's edge and beside or over unseen pixels.
    """

    stride: int
    width: int
    height: int
    seen: Bools
    rim: Bools


def grid_of(seen: Bools, stride: int) -> Grid:
    """Returns the output grid of an image whose seen pixels are given (h, w)."""
    height, width = seen.shape
    rows, cols = -(-height // stride), -(-width // stride)
    padded = np.zeros((rows * stride, cols * stride), bool)
    padded[:height, :width] = seen
    if seen.all():
        some = np.ones((rows, cols), bool)
        full = np.ones((rows, cols), np.uint8)
    else:
        blocks = padded.reshape(rows, stride, cols, stride)
        some = np.asarray(blocks.any(axis=(1, 3)))
        full = np.asarray(blocks.all(axis=(1, 3)), np.uint8)
        full[height // stride :] |= some[height // stride :]
        full[:, width // stride :] |= some[:, width // stride :]
    inner = cv2.erode(full, np.ones((3, 3), np.uint8), borderValue=(0.0,) * 4)
    return Grid(stride, width, height, some, np.asarray(inner == 0))


def probabilities(logits: Floats, head: Head, grid: Grid) -> Floats:
    """Returns (rows, cols, classes) calibrated probabilities, 0 where nothing was seen."""
    p = softmax(logits, head.temperature)
    if not grid.seen.all():
        p[~grid.seen] = 0
    return p


def regions_of(name: str, head: Head, logits: Floats, p: Floats, grid: Grid) -> list[Region]:
    """Returns the regions of a head's reported classes.

    A region is an 8-connected component of cells above the class's threshold, at least
    ``min_cells`` large, whose mean probability reaches the class's ``least_probability``.
    """
    found: list[Region] = []
    for kind in head.report:
        layer = np.ascontiguousarray(p[..., head.classes.index(kind)])
        level = head.threshold.get(kind, 0.5)
        above = (layer >= level).astype(np.uint8)
        if not above.any():
            continue
        count, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
        for k in range(1, count):
            x, y, w, h, cells = (int(v) for v in stats[k])
            box = (slice(y, y + h), slice(x, x + w))
            own = labels[box] == k
            mean = float(layer[box][own].mean())
            if cells < head.min_cells or mean < head.least_probability.get(kind, 0.0):
                continue
            doubt = head.energy_max is not None and _energy_in(logits[box][own], head)
            bounds = (x, y, w, h)
            where = np.asarray(labels, np.int32)
            found.append(_region(name, kind, layer, where, k, bounds, level, grid, doubt))
    return found


def _energy_in(logits: Floats, head: Head) -> bool:
    assert head.energy_max is not None  # noqa: S101 (asked by the caller)
    return float(np.median(energy(logits, head.temperature))) > head.energy_max


def _region(
    name: str,
    kind: str,
    layer: Floats,
    labels: NDArray[np.int32],
    k: int,
    box: tuple[int, int, int, int],
    level: float,
    grid: Grid,
    ood: bool,
) -> Region:
    x, y, w, h = box
    s = grid.stride
    own = labels[y : y + h, x : x + w] == k
    weight = np.where(own, layer[y : y + h, x : x + w], 0).astype(np.float64)
    total = weight.sum()
    middle = (s - 1) / 2
    cx = float((weight.sum(axis=0) @ np.arange(x, x + w)) / total * s + middle)
    cy = float((weight.sum(axis=1) @ np.arange(y, y + h)) / total * s + middle)
    polygon, area = _outline(layer, labels, k, box, level, grid)
    low, high = polygon.min(axis=0) - 0.5, polygon.max(axis=0) + 0.5
    return Region(
        class_name=kind,
        head=name,
        probability=float(total / own.sum()),
        centroid=(min(cx, grid.width - 1.0), min(cy, grid.height - 1.0)),
        bbox=(float(low[0]), float(low[1]), float(high[0]), float(high[1])),
        area=area,
        polygon=polygon,
        ood=ood,
        touches_edge=bool((grid.rim[y : y + h, x : x + w] & own).any()),
    )


def _outline(
    layer: Floats,
    labels: NDArray[np.int32],
    k: int,
    box: tuple[int, int, int, int],
    level: float,
    grid: Grid,
) -> tuple[Doubles, float]:
    """Returns the outline (m, 2) and area of a region, at the level of the interpolated layer."""
    x, y, w, h = box
    s = grid.stride
    y0, x0 = max(y - 1, 0), max(x - 1, 0)
    part = (slice(y0, y + h + 1), slice(x0, x + w + 1))
    own = (labels[part] == k).astype(np.uint8)
    size = (own.shape[1] * s, own.shape[0] * s)
    fine = cv2.resize(layer[part], size, interpolation=cv2.INTER_LINEAR)
    near = cv2.resize(
        cv2.dilate(own, np.ones((3, 3), np.uint8)), size, interpolation=cv2.INTER_NEAREST
    )
    mask = ((fine >= level) & (near > 0)).astype(np.uint8)
    mask[max(0, grid.height - y0 * s) :] = 0
    mask[:, max(0, grid.width - x0 * s) :] = 0
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        mask = cv2.resize(own, size, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    longest = max(contours, key=len)
    line = cv2.approxPolyDP(longest, OUTLINE_PX, closed=True).reshape(-1, 2)
    return line + np.array([x0 * s, y0 * s], float), float(np.count_nonzero(mask))
