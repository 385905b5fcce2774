"""What was really imaged, at which ground sample distance, and where nobody has looked yet."""

from __future__ import annotations

from collections import Counter

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from calibration.geodesy import MapFrame
from onboard.records import Floats, Footprint

SLIVER_M = 0.5
"""Gaps narrower than this are left out: they are the outline's own inaccuracy."""

PENDING = 32
"""Footprints that are collected before they are melted into the union."""


def footprint_polygon(footprint: Footprint) -> BaseGeometry:
    """Returns what a frame saw as a valid shapely geometry in map metres, holes cut out."""
    if len(footprint.polygon_map_m) < 3:
        return Polygon()
    outline = shapely.make_valid(Polygon(footprint.polygon_map_m))
    holes = [shapely.make_valid(Polygon(h)) for h in footprint.holes_map_m if len(h) >= 3]
    return _areas_only(outline.difference(shapely.union_all(holes)) if holes else outline)


class Coverage:
    """The union of all footprints of good quality, against the planned area.

    Attributes:
        map_frame: The map that the footprints lie in.
        planned_area: What was to be imaged, map metres; ``None`` where no plan is known.
        counted: Number of footprints in the union.
        not_counted: Why footprints do not count as looks, and how many.
    """

    def __init__(self, map_frame: MapFrame, planned_area: BaseGeometry | None = None) -> None:
        self.map_frame = map_frame
        self.planned_area = None if planned_area is None else shapely.make_valid(planned_area)
        self.counted = 0
        self.not_counted: Counter[str] = Counter()
        self._shapes: list[BaseGeometry] = []
        self._gsd_m: list[float] = []
        self._union: BaseGeometry = MultiPolygon()
        self._melted = 0

    def add(self, footprint: Footprint) -> bool:
        """Adds what a frame imaged; returns whether it counts as a look."""
        shape = footprint_polygon(footprint)
        reason = footprint.quality if footprint.quality != "good" else ""
        if not reason and shape.is_empty:
            reason = "empty"
        if reason:
            self.not_counted[reason] += 1
            return False
        self._shapes.append(shape)
        self._gsd_m.append(footprint.gsd_m)
        self.counted += 1
        if len(self._shapes) - self._melted >= PENDING:
            self.union()
        return True

    def union(self) -> BaseGeometry:
        """Returns all that was imaged, map metres."""
        fresh = self._shapes[self._melted :]
        if fresh:
            self._union = _areas_only(shapely.union_all([self._union, *fresh]))
            self._melted = len(self._shapes)
        return self._union

    def area_m2(self) -> float:
        """Returns the area that was imaged at least once."""
        return float(self.union().area)

    def percent(self) -> float:
        """Returns the imaged share of the planned area; NaN where no plan is known."""
        if self.planned_area is None or self.planned_area.area <= 0:
            return float("nan")
        return (
            100.0
            * float(self.union().intersection(self.planned_area).area)
            / float(self.planned_area.area)
        )

    def gaps(self, sliver_m: float = SLIVER_M) -> list[Polygon]:
        """Returns the parts of the planned area that nobody has looked at, largest first.

        Args:
            sliver_m: Parts narrower than this are left out.
        """
        if self.planned_area is None:
            return []
        missing = _areas_only(self.planned_area.difference(self.union()))
        wide = [p for p in _polygons(missing) if not p.buffer(-sliver_m / 2).is_empty]
        return sorted(wide, key=lambda p: -p.area)

    def fraction(self, x_m: Floats, y_m: Floats, cell_m: float) -> Floats:
        """Returns the imaged fraction of square cells, exactly.

        Args:
            x_m: Map x of the cells' centres, any shape.
            y_m: Map y of the cells' centres, the same shape.
            cell_m: Side of a cell.

        Returns:
            Fractions 0-1 in the shape of ``x_m``; exactly 0 where nothing was imaged.
        """
        return cell_fractions(self.union(), x_m, y_m, cell_m)

    def finest_gsd_m(self, x_m: Floats, y_m: Floats) -> Floats:
        """Returns the finest ground sample distance at points; NaN where nothing was imaged."""
        best = np.full(np.shape(x_m), np.inf).ravel()
        if self._shapes:
            tree = shapely.STRtree(self._shapes)
            points = shapely.points(np.ravel(x_m), np.ravel(y_m))
            point, shape = tree.query(points, predicate="intersects")
            np.minimum.at(best, point, np.asarray(self._gsd_m)[shape])
        best[np.isinf(best)] = np.nan
        return best.reshape(np.shape(x_m))

    def looks(self, x_m: Floats, y_m: Floats) -> Floats:
        """Returns how many frames imaged each point."""
        count = np.zeros(np.size(x_m))
        if self._shapes:
            tree = shapely.STRtree(self._shapes)
            point, _ = tree.query(shapely.points(np.ravel(x_m), np.ravel(y_m)), "intersects")
            np.add.at(count, point, 1.0)
        return count.reshape(np.shape(x_m))

    def area_by_gsd_m2(self, limits_m: tuple[float, ...]) -> dict[float, float]:
        """Returns the area imaged at each limit's ground sample distance or finer."""
        gsd = np.asarray(self._gsd_m)
        shapes = np.asarray(self._shapes, dtype=object)
        return {m: float(shapely.union_all(shapes[gsd <= m]).area) for m in limits_m}


def cell_fractions(area: BaseGeometry, x_m: Floats, y_m: Floats, cell_m: float) -> Floats:
    """Returns which fraction of each square cell an area covers, exactly.

    Args:
        area: Map metres.
        x_m: Map x of the cells' centres, any shape.
        y_m: Map y of the cells' centres, the same shape.
        cell_m: Side of a cell.
    """
    out = np.zeros(np.size(x_m))
    if not area.is_empty:
        left, bottom, right, top = area.bounds
        x, y, h = np.ravel(x_m), np.ravel(y_m), cell_m / 2
        near = (x + h > left) & (x - h < right) & (y + h > bottom) & (y - h < top)
        cells = shapely.box(x[near] - h, y[near] - h, x[near] + h, y[near] + h)
        shapely.prepare(area)
        share = shapely.covers(area, cells).astype(float)
        edge = (share == 0) & shapely.intersects(area, cells)
        share[edge] = shapely.area(shapely.intersection(area, cells[edge])) / cell_m**2
        out[near] = np.clip(share, 0.0, 1.0)
    return out.reshape(np.shape(x_m))


def _polygons(shape: BaseGeometry) -> list[Polygon]:
    return [p for p in shapely.get_parts(shape) if p.geom_type == "Polygon"]


def _areas_only(shape: BaseGeometry) -> BaseGeometry:
    """Returns the polygons of a geometry: the lines and points of a mended outline are dropped."""
    if shape.geom_type in ("Polygon", "MultiPolygon"):
        return shape
    return shapely.union_all(_polygons(shape))
