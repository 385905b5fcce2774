"""Orthocorrection: one frame, its pose and the ground in; a north-up image and its masks out."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from shapely.geometry import Polygon

from calibration.geodesy import MapFrame
from calibration.rig import Rig
from gossan.errors import UserError
from onboard.place import ortho_gpu
from onboard.place.backward_map import BackwardMap
from onboard.place.grid import Grid
from onboard.place.ortho_nodes import build_map
from onboard.place.ortho_resample import ImageResampling, blank, resample, shrink
from onboard.place.ortho_view import FrameView
from onboard.place.post_surface import DemResampling
from onboard.place.surface import Terrain
from onboard.records import Bools, Floats, Footprint, Image, Poses

EDGE_SAMPLES = 32
"""Rays along each side of the frame that make the outline of its footprint."""
REACH_HEIGHTS = 20.0
"""Ground farther than this many heights above it is left out (the horizon of oblique frames)."""
FOOTPRINT_PX = 384
"""Pixels along the longer side of the grid on which holes of a footprint are found."""
HOLE_PX = 4.0
"""Holes smaller than this many pixels of that grid are left out."""


@dataclass(frozen=True)
class Ortho:
    """One orthocorrected frame.

    Attributes:
        image: (h, w, bands) or (h, w) in the source's dtype, 0 where not seen.
        mask: (h, w) True where the frame saw the ground.
        grid: Where the pixels lie.
        map: The backward map that made it.
        occluded: (h, w) True where the ground in between hides the ground.
    """

    image: Image
    mask: Bools
    grid: Grid
    map: BackwardMap
    occluded: Bools


def backward_map(
    pose: Poses,
    rig: Rig,
    terrain: Terrain,
    map_frame: MapFrame,
    grid: Grid,
    *,
    dem_resampling: DemResampling = "linear",
) -> BackwardMap:
    """Returns which source pixel each pixel of a grid shows.

    Args:
        pose: A set of one pose.
        rig: Camera and clock (the rows' times).
        terrain: The ground.
        map_frame: The map; its CRS is the grid's.
        grid: The output grid.
        dem_resampling: The surface between posts: ``linear``, or Keys' ``cubic`` as in GDAL.
    """
    return build_map(FrameView.of(pose, rig, terrain, map_frame), grid, dem_resampling)


def orthorectify(
    pixels: Image,
    pose: Poses,
    rig: Rig,
    terrain: Terrain,
    map_frame: MapFrame,
    grid: Grid,
    *,
    resampling: ImageResampling = "linear",
    dem_resampling: DemResampling = "linear",
    antialias: bool = False,
) -> Ortho:
    """Returns a frame orthocorrected onto a grid.

    Args:
        pixels: (h, w, bands) or (h, w), as the camera wrote them.
        pose: A set of one pose.
        rig: Camera and clock.
        terrain: The ground.
        map_frame: The map.
        grid: The output grid.
        resampling: Between source pixels: ``linear`` or ``cubic``.
        dem_resampling: Between DEM posts: ``linear`` or ``cubic``.
        antialias: Averages source pixels first where the grid is coarser than they are.

    Raises:
        UserError: The image's size is not the rig's.
    """
    camera = rig.camera
    if pixels.shape[:2] != (camera.height_px, camera.width_px):
        raise UserError(
            f"the image has {pixels.shape[1]} x {pixels.shape[0]} pixels, the rig's camera "
            f"{camera.width_px} x {camera.height_px}",
            "use the rig of this camera and image size",
        )
    backward = backward_map(pose, rig, terrain, map_frame, grid, dem_resampling=dem_resampling)
    return apply_map(pixels, backward, resampling=resampling, antialias=antialias)


def apply_map(
    pixels: Image,
    backward: BackwardMap,
    *,
    resampling: ImageResampling = "linear",
    antialias: bool = False,
) -> Ortho:
    """Returns the ortho of an image through a map that is at hand.

    On a GPU where CuPy finds one, else on the CPU; the two differ by at most 1 DN.
    """
    grid = backward.grid
    factor = int(grid.gsd_m / max(backward.view.gsd_m(), 1e-9)) if antialias else 1
    source, scale, shift = shrink(pixels, factor)
    if backward.direct is None and ortho_gpu.ready() and ortho_gpu.serves(source):
        return _on_gpu(source, backward, resampling, scale, shift)
    image = np.zeros((grid.height, grid.width, *pixels.shape[2:]), pixels.dtype)
    mask = np.zeros((grid.height, grid.width), np.bool_)
    hidden = backward.occluded()
    occluded = np.zeros_like(mask) if hidden is None else hidden
    for rows, cols, strip in backward.strips():
        seen = backward.inside(strip)
        occluded[rows, cols] &= seen
        seen &= ~occluded[rows, cols]
        if seen.any():
            uv = strip if factor < 2 else strip * scale + shift
            resample(source, uv, resampling, image[rows, cols])
            blank(image[rows, cols], seen)
            mask[rows, cols] = seen
    return Ortho(image, mask, grid, backward, occluded)


def _on_gpu(
    source: Image, backward: BackwardMap, resampling: ImageResampling, scale: float, shift: float
) -> Ortho:
    hidden = backward.occluded()
    image, mask = ortho_gpu.render(source, backward, resampling, scale, shift)
    if hidden is None:
        return Ortho(image, mask, backward.grid, backward, np.zeros_like(mask))
    occluded = hidden & mask
    image[occluded] = 0
    return Ortho(image, mask & ~occluded, backward.grid, backward, occluded)


def frame_outline(view: FrameView) -> Floats:
    """Returns the (n, 2) map outline of what the frame's border sees; NaN where no ground is."""
    uv = border_px(view.camera.width_px, view.camera.height_px)
    xy = view.to_ground(uv)[:, :2]
    far = np.hypot(*(xy - view.centre_m[:2]).T) > _reach_m(view)
    xy[far] = np.nan
    return xy


def border_px(width_px: int, height_px: int, samples: int = EDGE_SAMPLES) -> Floats:
    """Returns (4 · samples, 2) pixels around the border of an image, in order."""
    t = np.arange(samples) / samples
    w, h = width_px - 1.0, height_px - 1.0
    zero, one = np.zeros(samples), np.ones(samples)
    sides = [(t * w, zero), (w * one, t * h), ((1 - t) * w, h * one), (zero, (1 - t) * h)]
    return np.concatenate([np.stack(side, axis=1) for side in sides])


def frame_grid(
    pose: Poses, rig: Rig, terrain: Terrain, map_frame: MapFrame, gsd_m: float | None = None
) -> Grid:
    """Returns the grid over all that a frame sees.

    Args:
        pose: A set of one pose.
        rig: Its camera.
        terrain: The ground.
        map_frame: The map.
        gsd_m: Pixel size; the frame's own median ground sample distance by default.

    Raises:
        UserError: The frame sees no ground.
    """
    return view_grid(FrameView.of(pose, rig, terrain, map_frame), gsd_m)


def view_grid(view: FrameView, gsd_m: float | None = None) -> Grid:
    """Returns the grid over all that a view sees, as `frame_grid` does."""
    camera = view.camera
    u, v = np.meshgrid(
        np.linspace(0, camera.width_px - 1.0, 12), np.linspace(0, camera.height_px - 1.0, 12)
    )
    inner = view.to_ground(np.stack([u, v], -1).reshape(-1, 2))[:, :2]
    inner[np.hypot(*(inner - view.centre_m[:2]).T) > _reach_m(view)] = np.nan
    xy = np.concatenate([frame_outline(view), inner])
    xy = xy[np.isfinite(xy).all(axis=1)]
    if not len(xy):
        raise UserError(
            "the frame sees no ground",
            "check that the DEM covers the flight, and the datums of DEM and poses",
        )
    if gsd_m is None:
        gsd_m = _rounded(view.gsd_m())
    return Grid.from_footprint(view.map_frame.crs, xy, gsd_m)


def footprint(pose: Poses, rig: Rig, terrain: Terrain, map_frame: MapFrame) -> Footprint:
    """Returns what a frame really imaged: outline, holes, ground sample distance.

    A frame that sees no ground has an empty outline.
    """
    view = FrameView.of(pose, rig, terrain, map_frame)
    nothing = Footprint(pose.frame[0], np.zeros((0, 2)), (), float("nan"), "no_ground")
    try:
        grid = view_grid(view)
    except UserError:
        return nothing
    gsd = grid.gsd_m
    coarse = grid.coarser(max(1.0, max(grid.width, grid.height) / FOOTPRINT_PX))
    backward = build_map(view, coarse, "linear")
    mask = np.zeros((coarse.height, coarse.width), np.bool_)
    for rows, cols, strip in backward.strips():
        mask[rows, cols] = backward.inside(strip)
    hidden = backward.occluded()
    if hidden is not None:
        mask &= ~hidden
    return footprint_of(pose.frame[0], view, mask, coarse, gsd) or nothing


def footprint_of(
    frame: str,
    view: FrameView,
    mask: Bools,
    grid: Grid,
    gsd_m: float,
    quality: str = "good",
    scanned: bool = False,
) -> Footprint | None:
    """Returns the footprint of a frame from the mask of what it saw; ``None`` where that is empty.

    The outline comes from rays through the frame's border where all of them meet the ground, else
    from the mask; holes always come from the mask.
    """
    polygons = mask_polygons(mask, grid)
    if not polygons:
        return None
    seen = max(polygons, key=lambda p: p.area)
    outline = frame_outline(view)
    exact = Polygon(outline) if np.isfinite(outline).all() else Polygon()
    if exact.is_valid and not exact.is_empty:
        inner = exact.buffer(-1.5 * grid.gsd_m)
        missing = inner.difference(shapely.union_all(polygons))
        hole_m2 = HOLE_PX * grid.gsd_m**2
        holes = tuple(
            np.asarray(p.exterior.coords)[:-1]
            for p in shapely.get_parts(missing)
            if p.geom_type == "Polygon" and p.area >= hole_m2
        )
        return Footprint(frame, outline, holes, gsd_m, quality, scanned)
    holes = tuple(np.asarray(ring.coords)[:-1] for ring in seen.interiors)
    return Footprint(frame, np.asarray(seen.exterior.coords)[:-1], holes, gsd_m, quality, scanned)


def mask_polygons(mask: Bools, grid: Grid, simplify_px: float = 0.75) -> list[Polygon]:
    """Returns the polygons of a mask in map metres, along pixel edges, simplified."""
    padded = np.pad(mask.astype(np.uint8), 1)
    big = cv2.resize(padded, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, tree = cv2.findContours(big, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return []
    rings = [_ring_to_map(np.asarray(c[:, 0, :], np.float64), grid) for c in contours]
    inner: dict[int, list[Floats]] = {}
    for ring, (_, _, _, parent) in zip(rings, tree[0], strict=True):
        if parent >= 0 and len(ring) >= 3:
            inner.setdefault(int(parent), []).append(ring)
    polygons: list[Polygon] = []
    for i, (ring, (_, _, _, parent)) in enumerate(zip(rings, tree[0], strict=True)):
        if parent >= 0 or len(ring) < 3:
            continue
        shape = Polygon(ring, inner.get(i, [])).simplify(simplify_px * grid.gsd_m)
        parts = shapely.get_parts(shapely.make_valid(shape))
        polygons += [p for p in parts if p.geom_type == "Polygon" and p.area > 0]
    return polygons


def _ring_to_map(ring: Floats, grid: Grid) -> Floats:
    """Returns contour points of the doubled, padded mask as map x, y."""
    return grid.to_map((ring - 2.5) / 2.0)


def _reach_m(view: FrameView) -> float:
    low, _ = view.terrain.z_range
    return float(REACH_HEIGHTS * max(view.centre_m[2] - low, 10.0))


def _rounded(gsd_m: float) -> float:
    """Returns a pixel size rounded to three significant digits, so that frames share grids."""
    if not np.isfinite(gsd_m):
        raise UserError("the frame's ground sample distance is unknown", "give --gsd")
    return float(f"{gsd_m:.3g}")
