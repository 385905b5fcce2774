"""The report's map: inline SVG of belief, coverage, gaps and targets, north up."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from io import BytesIO
from math import floor, log10

import numpy as np
from PIL import Image
from shapely.geometry.base import BaseGeometry

from calibration.geodesy import MapFrame
from groundsync.export.rows import ellipse_polygon
from groundsync.export.styles import colour_of
from groundsync.grid import Floats
from groundsync.rank import RankedTarget
from groundsync.view import BeliefView, ProjectView

WIDTH = 960.0
MIN_HEIGHT, MAX_HEIGHT = 260.0, 720.0
MARGIN_SHARE = 0.06
SHADES = ((250, 246, 238), (243, 217, 160), (226, 160, 88), (188, 92, 40), (120, 40, 20))


@dataclass(frozen=True, slots=True)
class Frame:
    """The part of the map that is drawn: map metres to SVG units.

    Attributes:
        left: Map x of the left edge.
        top: Map y of the upper edge.
        scale: SVG units per metre.
        height: SVG height.
    """

    left: float
    top: float
    scale: float
    height: float

    def xy(self, x_m: float, y_m: float) -> tuple[float, float]:
        """Returns SVG coordinates of a map point."""
        return (x_m - self.left) * self.scale, (self.top - y_m) * self.scale


def map_svg(view: ProjectView) -> str:
    """Returns the map as an SVG element; empty where there is nothing to draw."""
    frame = _frame(view)
    if frame is None:
        return ""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {frame.height:.0f}" '
        'role="img" aria-label="Map of targets, coverage and gaps">',
        '<defs><pattern id="gap" width="8" height="8" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><rect width="8" height="8" fill="#fbe3df"/>'
        '<line x1="0" y1="0" x2="0" y2="8" stroke="#d73027" stroke-width="3"/></pattern></defs>',
        f'<rect width="{WIDTH:.0f}" height="{frame.height:.0f}" fill="#faf8f4"/>',
    ]
    if view.belief is not None and not view.belief.assumed:
        parts.append(_belief(view.belief, frame))
    parts += [_path(c.geometry, frame, "seen" if c.scanned else "kept") for c in view.coverage]
    parts += [_path(g.geometry, frame, "gap") for g in view.gaps]
    if view.planned is not None:
        parts.append(_path(view.planned, frame, "plan"))
    parts += _targets(view, frame)
    parts += [_scale_bar(frame), _north(), "</svg>"]
    return "\n".join(part for part in parts if part)


def legend(view: ProjectView) -> list[tuple[str, str]]:
    """Returns (colour, label) of the classes drawn."""
    classes = sorted({one.target.class_name for one in view.targets})
    return [(colour_of(name), name.replace("_", " ")) for name in classes]


def _frame(view: ProjectView) -> Frame | None:
    """Returns what is drawn: plan, coverage and targets with some margin."""
    bounds = [c.geometry.bounds for c in view.coverage if not c.geometry.is_empty]
    bounds += [g.geometry.bounds for g in view.gaps if not g.geometry.is_empty]
    bounds += [(t.x_m, t.y_m, t.x_m, t.y_m) for t in (one.target for one in view.targets)]
    if view.planned is not None and not view.planned.is_empty:
        bounds.append(view.planned.bounds)
    if not bounds:
        return None
    corners = np.array(bounds)
    left, bottom = corners[:, :2].min(axis=0)
    right, top = corners[:, 2:].max(axis=0)
    side = max(right - left, top - bottom, 20.0)
    margin = MARGIN_SHARE * side
    wide, high = right - left + 2 * margin, top - bottom + 2 * margin
    scale = min(WIDTH / wide, MAX_HEIGHT / high)
    height = max(high * scale, MIN_HEIGHT)
    left -= margin + (WIDTH / scale - wide) / 2
    top += margin + (height / scale - high) / 2
    return Frame(float(left), float(top), float(scale), float(height))


def _path(shape: BaseGeometry, frame: Frame, css: str) -> str:
    """Returns polygons as one SVG path, holes left open."""
    rings = []
    for part in getattr(shape, "geoms", [shape]):
        if part.geom_type == "Polygon":
            rings += [part.exterior, *part.interiors]
    data = []
    for ring in rings:
        points = [frame.xy(x, y) for x, y in np.asarray(ring.coords)[:, :2]]
        data.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points[:-1]) + "Z")
    return f'<path class="{css}" d="{"".join(data)}"/>' if data else ""


def _targets(view: ProjectView, frame: Frame) -> list[str]:
    """Returns ellipses and numbered marks, the first rank on top."""
    map_frame = MapFrame(view.crs)
    parts = [_path(ellipse_polygon(one, map_frame), frame, "ellipse") for one in view.targets]
    return parts + [_mark(one, frame) for one in view.targets[::-1]]


def _mark(one: RankedTarget, frame: Frame) -> str:
    x, y = frame.xy(one.target.x_m, one.target.y_m)
    name = escape(f"{one.rank}. {one.target.class_name.replace('_', ' ')}")
    dash = "" if one.target.calibrated else ' stroke-dasharray="3 2"'
    colour = colour_of(one.target.class_name)
    return (
        f'<g><title>{name}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="11" fill="{colour}" '
        f'stroke="#fff" stroke-width="2"{dash}/><text x="{x:.1f}" y="{y + 4:.1f}" '
        f'class="rank">{one.rank}</text></g>'
    )


def _belief(belief: BeliefView, frame: Frame) -> str:
    """Returns the posterior as an embedded picture, one pixel per cell."""
    grid = belief.grid
    bottom = frame.top - frame.height / frame.scale
    window = grid.window_of((frame.left, bottom, frame.left + WIDTH / frame.scale, frame.top))
    if window is None:
        return ""
    step = max(1, int(np.ceil(max(window.shape) / 800)))
    p = np.asarray(belief.posterior[window.slices], dtype=np.float64)[::step, ::step]
    known = np.isfinite(p)
    if not known.any():
        return ""
    low, high = shown_range(p)
    share = np.clip((p - low) / max(high - low, 1e-30), 0.0, 1.0)
    stops = np.linspace(0.0, 1.0, len(SHADES))
    bands = [np.interp(np.nan_to_num(share), stops, [s[i] for s in SHADES]) for i in range(3)]
    rgba = np.dstack([*bands, np.where(known, 255.0, 0.0)]).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(rgba).save(file, "PNG")
    x, y = frame.xy(grid.x0 + window.col0 * grid.cell_m, grid.y0 - window.row0 * grid.cell_m)
    rows, cols = p.shape
    size = grid.cell_m * step * frame.scale
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<image x="{x:.1f}" y="{y:.1f}" width="{cols * size:.1f}" height="{rows * size:.1f}" '
        'preserveAspectRatio="none" opacity="0.6" style="image-rendering:pixelated" '
        f'href="data:image/png;base64,{data}"/>'
    )


def shown_range(probability: Floats) -> tuple[float, float]:
    """Returns the probabilities drawn palest and darkest: the middle 96 %, at least a factor 2."""
    low, high = np.quantile(probability[np.isfinite(probability)], [0.02, 0.98])
    return float(low), float(max(high, 2.0 * low))


def _scale_bar(frame: Frame) -> str:
    """Returns a bar of a round length, about a sixth of the map's width."""
    wanted = WIDTH / 6.0 / frame.scale
    unit = 10.0 ** floor(log10(wanted))
    metres = max(m * unit for m in (1.0, 2.0, 5.0) if m * unit <= wanted)
    x, y, length = 20.0, frame.height - 18.0, metres * frame.scale
    words = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    return (
        f'<g><path d="M{x:.1f} {y - 5:.1f}v5h{length:.1f}v-5" class="bar"/>'
        f'<text x="{x + length / 2:.1f}" y="{y - 7:.1f}" class="bar-text">{words}</text></g>'
    )


def _north() -> str:
    x = WIDTH - 28.0
    return (
        f'<g><path d="M{x} 16l8 24-8-6-8 6z" fill="#231e1c"/>'
        f'<text x="{x}" y="54" class="bar-text">grid N</text></g>'
    )
