"""The GCPS table in, resected poses as a POSES table out (docs/formats/gcps.md)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS

from calibration.csv_table import COLUMN_OF_DATUM, height_column, read_csv
from calibration.errors import ControlPointError
from calibration.geodesy import (
    MapFrame,
    MapModel,
    ecef_from_geodetic,
    geodetic_from_ecef,
    r_ecef_enu,
    to_ellipsoid_m,
)
from calibration.resect import ControlPoints, ResectedPose, Resection
from calibration.rotations import ENU_FROM_NED, r_from_ypr, ypr_from_r_ned_cam

Floats = NDArray[np.float64]

DEFAULT_SIGMA_PX = 1.0
POSE_COLUMNS = ("yaw_deg", "pitch_deg", "roll_deg", "sigma_e_m", "sigma_n_m", "sigma_u_m",
                "sigma_tilt_deg", "sigma_heading_deg")  # fmt: skip


@dataclass(frozen=True, slots=True)
class LocalFrame:
    """A local east-north-up frame and the way back from it.

    Attributes:
        origin: Latitude, longitude (°) and height of its origin.
        map_frame: With a plane map: the frame is the map's, turned to true north by nothing.
        datum: What heights are above.
    """

    origin: tuple[float, float, float]
    map_frame: MapFrame | None
    datum: str

    def enu(self, lat: Floats, lon: Floats, alt: Floats) -> Floats:
        """Returns (n, 3) local east, north, up of positions."""
        if self.map_frame is not None:
            x, y = self.map_frame.to_map(lat, lon)
            x0, y0 = self.map_frame.to_map(self.origin[0], self.origin[1])
            local = self.map_frame.local(*self.origin[:2])
            to_true = self.map_frame.enu_from_map_rotation(local)[0]
            flat = np.stack([x - x0, y - y0], axis=1) @ to_true.T
            return np.column_stack([flat, alt - self.origin[2]])
        off = ecef_from_geodetic(lat, lon, alt) - ecef_from_geodetic(*self.origin)
        return np.asarray(off @ r_ecef_enu(*self.origin[:2]))

    def place(self, enu: Floats, r_enu_cam: Floats) -> tuple[Floats, Floats]:
        """Returns (lat, lon, alt) of a point, and the camera's rotation in its own local NED."""
        if self.map_frame is not None:
            local = self.map_frame.local(*self.origin[:2])
            to_true = self.map_frame.enu_from_map_rotation(local)[0]
            dx, dy = to_true.T @ enu[:2]
            x0, y0 = self.map_frame.to_map(self.origin[0], self.origin[1])
            lat, lon = self.map_frame.to_geographic(x0 + dx, y0 + dy)
            there = self.map_frame.local(lat, lon).convergence_rad[0]
            turn = r_from_ypr(there - local.convergence_rad[0], 0.0, 0.0)
            return np.array([lat, lon, enu[2] + self.origin[2]]), turn @ ENU_FROM_NED @ r_enu_cam
        turn = r_ecef_enu(*self.origin[:2])
        lat, lon, alt = geodetic_from_ecef(ecef_from_geodetic(*self.origin) + turn @ enu)
        r_here = r_ecef_enu(lat, lon)
        return np.array([lat, lon, alt]), np.asarray(ENU_FROM_NED @ r_here.T @ turn @ r_enu_cam)


def read_gcps(
    path: str | Path,
    sigma_px: float,
    crs: CRS | None = None,
    alt_datum: str | None = None,
    map_model: MapModel = "earth",
) -> tuple[list[ControlPoints], LocalFrame]:
    """Returns control points frame by frame, and the local frame they are given in.

    Args:
        path: The GCPS table: ``frame,x_px,y_px`` with ``lat_deg,lon_deg`` or ``x_m,y_m``, a height
            column and optionally ``sigma_px``.
        sigma_px: σ of pixels where the table gives none; 0 counts as one pixel.
        crs: CRS of ``x_m, y_m``.
        alt_datum: What heights that do not say so are above.
        map_model: ``plane`` takes the map itself for the local frame.

    Raises:
        TableError: The table cannot be used.
        ControlPointError: ``x_m, y_m`` without a CRS.
    """
    table = read_csv(path)
    frames = table.text("frame")
    if not frames:
        raise ControlPointError(f"{path} has no control points", "one row for each point")
    uv = np.stack([table.required("x_px"), table.required("y_px")], axis=1)
    sigma = np.nan_to_num(table.numbers("sigma_px", 0.0), nan=sigma_px)
    sigma = np.where(sigma > 0, sigma, DEFAULT_SIGMA_PX)
    column, datum = height_column(table, "alt_m", alt_datum)
    alt = table.required(column)
    if "lat_deg" in table.columns:
        lat, lon = table.required("lat_deg", -90.0, 90.0), table.required("lon_deg", -180.0, 360.0)
    elif crs is None:
        raise ControlPointError(
            f"{path} gives x_m, y_m without saying in which CRS", "name it: --crs EPSG:32632"
        )
    else:
        lat, lon = MapFrame(crs).to_geographic(table.required("x_m"), table.required("y_m"))
    if datum in ("egm96", "egm2008"):
        alt, datum = to_ellipsoid_m(alt, datum, lat, lon), "ellipsoid"
    origin = (float(lat.mean()), float(lon.mean()), float(alt.mean()))
    frame_map = None
    if map_model == "plane":
        frame_map = MapFrame(crs, "plane") if crs else MapFrame.utm(origin[0], origin[1], "plane")
    local = LocalFrame(origin, frame_map, datum)
    enu = local.enu(lat, lon, alt)
    out = []
    for name in dict.fromkeys(frames):
        rows = np.flatnonzero([frame == name for frame in frames])
        out.append(ControlPoints(name, enu[rows], uv[rows], sigma[rows]))
    return out, local


def pose_cells(pose: ResectedPose, local: LocalFrame) -> list[str]:
    """Returns one row of the POSES table: position, attitude and their σ."""
    position, r_ned_cam = local.place(pose.centre_m, pose.r_enu_cam)
    angles = np.degrees([float(a) for a in ypr_from_r_ned_cam(r_ned_cam)])
    sigma = np.sqrt(np.diag(pose.covariance))
    tilt = float(np.sqrt((sigma[3] ** 2 + sigma[4] ** 2) / 2.0))
    cells = [pose.frame, f"{position[0]:.10f}", f"{position[1]:.10f}", f"{position[2]:.4f}"]
    cells += [f"{angle:.8f}" for angle in (angles[0] % 360.0, angles[1], angles[2])]
    return cells + [f"{s:.6f}" for s in (*sigma[:3], np.degrees(tilt), np.degrees(sigma[5]))]


def write_resected(path: str | Path, found: Resection, local: LocalFrame) -> None:
    """Writes resected poses as a POSES table."""
    with Path(path).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        height = COLUMN_OF_DATUM[local.datum]
        writer.writerow(["frame", "lat_deg", "lon_deg", height, *POSE_COLUMNS])
        for pose in found.poses:
            writer.writerow(pose_cells(pose, local))
