"""Source pixels by each output pixel's own height: a pinhole's fractions, and a table of the lens.

A pinhole sees map x, y and height z at fractions of linear functions of them, so that along rows
and columns little is left to compute. What the lens bends is tabled over the pinhole's pixels;
what the Earth's curvature and the rows' own poses add is interpolated between the nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.camera import Camera
from onboard.place.grid import Grid
from onboard.place.ortho_view import FrameView
from onboard.place.post_surface import CubicLines

Float32s = NDArray[np.float32]

OUTSIDE_PX = -1.0e4
"""Stands for "no source pixel" in interpolated maps: far outside any frame."""
STEPS_PER_FOCAL = 250.0
"""Entries of the lens table to a focal length: a strong lens (k1 = −0.3) then errs by 0.002 px."""
TABLE_MARGIN = 0.1
"""The lens is tabled this share of the frame's size beyond where its border lies."""
BESIDE_PX = -1.0e6
"""In the table: the lens sees nothing there."""


@dataclass(frozen=True)
class DirectMap:
    """The map of a frame whose rows and columns are those of a grid.

    Attributes:
        lines: The surface's heights at the pixels.
        column: (3, width) what a column adds to fx·right, fy·down and forward, metres.
        row: (3, height) what a row adds.
        rise: (3,) what a metre of height adds.
        centre: (2,) principal point.
        table: (rows, columns, 3) what the lens adds to the pinhole's pixels, and a 0: with one,
            three or four channels OpenCV interpolates exactly, with two in steps of 1/32.
        corner: (2,) pinhole pixel of its first entry.
        step_px: Pinhole pixels between entries.
    """

    lines: CubicLines
    column: Float32s
    row: Float32s
    rise: Float32s
    centre: Float32s
    table: Float32s
    corner: Float32s
    step_px: float

    @classmethod
    def of(cls, view: FrameView, grid: Grid, lines: CubicLines) -> DirectMap | None:
        """Returns the map of a view, or ``None`` where its camera is no pinhole with a lens."""
        camera = view.camera
        if camera.model != "opencv":
            return None
        table = _lens(camera)
        if table is None:
            return None
        origin = np.array([grid.x0_m, grid.y0_m, lines.base_m])
        steps = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float64) * _reach(view)
        at = origin + steps
        ned = view.ned_from_centre(at[:, 0], at[:, 1], np.full(4, lines.base_m))
        ned[3, 2] -= steps[3, 2]  # the growth of the scale with height is left to the nodes
        scaled = ned @ view.r_cam_ned.T * (camera.fx_px, camera.fy_px, 1.0)
        by_x, by_y, by_z = (scaled[1:] - scaled[0]) / _reach(view)
        x = grid.gsd_m * np.arange(grid.width)
        y = -grid.gsd_m * np.arange(grid.height)
        centre = np.array([camera.cx_px, camera.cy_px])
        return cls(
            lines,
            (by_x[:, None] * x).astype(np.float32),
            (scaled[0][:, None] + by_y[:, None] * y).astype(np.float32),
            by_z.astype(np.float32),
            centre.astype(np.float32),
            *table,
        )

    def strip(self, rows: slice, cols: slice) -> Float32s:
        """Returns (rows, cols, 2) source pixels."""
        z = self.lines.between(rows, cols)
        return self.at(self.row[:, rows, None], self.column[:, None, cols], z)

    def at(self, row: Float32s, column: Float32s, z: Float32s) -> Float32s:
        """Returns (..., 2) source pixels of heights z above the lines' base."""
        depth = z * self.rise[2]
        depth += row[2] + column[2]
        ahead = depth > 0
        pinhole: list[Float32s] = []
        with np.errstate(divide="ignore", invalid="ignore"):
            for k in (0, 1):
                part = z * self.rise[k]
                part += row[k] + column[k]
                part /= depth
                part += self.centre[k]
                pinhole.append(part)
        entry_x, entry_y = (
            (part - low) * np.float32(1.0 / self.step_px)
            for part, low in zip(pinhole, self.corner, strict=True)
        )
        bent = cv2.remap(
            self.table, entry_x, entry_y, cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT, borderValue=(BESIDE_PX,) * 3,
        )  # fmt: skip
        out = np.empty((*z.shape, 2), np.float32)
        for k, part in enumerate(pinhole):
            np.add(part, bent[..., k], out=out[..., k])
        lost = ~(ahead & (out[..., 0] > OUTSIDE_PX))
        if lost.any():
            out[lost] = OUTSIDE_PX
        return out


def _reach(view: FrameView) -> float:
    """Returns how far apart the points are from which linear functions are taken, metres."""
    return max(1.0, abs(float(view.centre_m[2]) - float(view.terrain.z_range[0])))


def _lens(camera: Camera) -> tuple[Float32s, Float32s, float] | None:
    """Returns what the lens adds to a pinhole's pixels, tabled, its first pixel and its step."""
    w, h = camera.width_px, camera.height_px
    step = camera.fx_px / STEPS_PER_FOCAL
    u, v = np.meshgrid(np.linspace(0, w - 1.0, 33), np.linspace(0, h - 1.0, 33))
    rays = camera.unproject(np.column_stack([u.ravel(), v.ravel()]))
    rays = rays[np.isfinite(rays).all(axis=1) & (rays[:, 2] > 0)]
    if not len(rays):
        return None
    flat = rays[:, :2] / rays[:, 2:] * (camera.fx_px, camera.fy_px) + (camera.cx_px, camera.cy_px)
    low = flat.min(axis=0) - TABLE_MARGIN * np.array([w, h])
    high = flat.max(axis=0) + TABLE_MARGIN * np.array([w, h])
    x, y = (np.arange(a, b + step, step) for a, b in zip(low, high, strict=True))
    px, py = np.meshgrid(x, y)
    pinhole = np.column_stack([px.ravel(), py.ravel()])
    toward = (pinhole - (camera.cx_px, camera.cy_px)) / (camera.fx_px, camera.fy_px)
    seen = camera.project(np.column_stack([toward, np.ones(len(toward))]))
    added = np.zeros((len(y), len(x), 3), np.float32)
    added[..., :2] = np.where(np.isfinite(seen), seen - pinhole, BESIDE_PX).reshape(*px.shape, 2)
    return added, low.astype(np.float32), step
