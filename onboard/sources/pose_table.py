"""The POSES table: camera poses as CSV, read and written (docs/formats/poses.md)."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from calibration.csv_table import COLUMN_OF_DATUM, CsvTable, height_column, read_csv
from calibration.errors import TableError
from calibration.geodesy import offset_enu
from calibration.rig import Rig
from calibration.rotations import (
    ENU_FROM_NED,
    r_from_ypr,
    r_ned_cam_from_ypr,
    ypr_from_r_ned_cam,
)
from onboard.records import Floats, HeightDatum, Ints, Poses

CAMERA_ANGLES = ("yaw_deg", "pitch_deg", "roll_deg")
BODY_ANGLES = ("body_yaw_deg", "body_pitch_deg", "body_roll_deg")
SIGMAS = ("sigma_e_m", "sigma_n_m", "sigma_u_m", "sigma_tilt_deg", "sigma_heading_deg")
BIASES = ("bias_e_m", "bias_n_m", "bias_u_m", "bias_heading_deg")
VELOCITY = ("v_n_mps", "v_e_mps", "v_d_mps")
RATES = ("omega_n_rps", "omega_e_rps", "omega_d_rps")


def read_poses(path: str | Path, rig: Rig, alt_datum: str | None = None) -> Poses:
    """Returns the camera poses of a POSES table.

    Columns ``yaw_deg, pitch_deg, roll_deg`` are the camera's own attitude; with ``body_…`` instead,
    position and attitude are the vehicle's, and the rig's mount, heading bias and lever arm apply.
    σ columns that are absent, or cells that are empty, take the rig's defaults, and with them what
    the whole flight shares; a σ that is given is the whole of it.

    Args:
        path: The CSV file.
        rig: Mount and default σ.
        alt_datum: What heights in a column ``alt_m`` (or ``alt_m_same``) are above.

    Raises:
        TableError: The table cannot be used; the message names line and value.
    """
    table = read_csv(path)
    frames = table.text("frame")
    _check_names(table, frames)
    lat = table.required("lat_deg", -90.0, 90.0)
    lon = table.required("lon_deg", -180.0, 360.0)
    column, datum = height_column(table, "alt_m", alt_datum)
    alt = table.required(column)
    r_ned_cam, r_ned_body = _attitudes(table, rig)
    if not set(CAMERA_ANGLES) <= set(table.columns):
        enu = np.einsum("ij,njk,k->ni", ENU_FROM_NED, r_ned_body, rig.mount.lever_arm_m)
        enu[:, 2] += rig.mount.height_bias_m
        if np.any(enu):
            lat, lon, alt = offset_enu(lat, lon, alt, enu)
    sigma, bias = _sigmas(table, rig)
    return Poses(
        frame=frames,
        lat_deg=lat,
        lon_deg=lon,
        alt_m=alt,
        height_datum=cast("HeightDatum", datum),
        r_ned_cam=r_ned_cam,
        r_ned_body=r_ned_body,
        v_ned_mps=np.stack([table.numbers(name) for name in VELOCITY], axis=1),
        omega_ned_rps=np.stack([table.numbers(name) for name in RATES], axis=1),
        sigma_enu_m=sigma[:, :3],
        sigma_tilt_rad=np.radians(sigma[:, 3]),
        sigma_heading_rad=np.radians(sigma[:, 4]),
        bias_enu_m=bias[:, :3],
        bias_heading_rad=np.radians(bias[:, 3]),
        t_boot_s=table.numbers("t_boot_s"),
        flags=_flags(table),
    )


def sigmas_in(path: str | Path) -> tuple[str, ...]:
    """Returns the σ columns that a POSES table gives."""
    return tuple(name for name in SIGMAS if name in read_csv(path).columns)


def _check_names(table: CsvTable, frames: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for name, line in zip(frames, table.lines, strict=True):
        if not name or name in seen:
            what = f"'{name}' already stands on line {seen[name]}" if name else "no frame name"
            raise TableError(f"{table.path}, line {line}: {what}", "one row for each frame")
        seen[name] = line


def _attitudes(table: CsvTable, rig: Rig) -> tuple[Floats, Floats]:
    """Returns camera → NED and body → NED (NaN where not known)."""
    has_body = set(BODY_ANGLES) <= set(table.columns)
    body = np.full((len(table), 3, 3), np.nan)
    if has_body:
        angles = np.radians([table.required(name) for name in BODY_ANGLES])
        body = rig.mount.level(r_from_ypr(*angles))
    if set(CAMERA_ANGLES) <= set(table.columns) or not has_body:
        angles = np.radians([table.required(name) for name in CAMERA_ANGLES])
        return r_ned_cam_from_ypr(*angles), body
    if rig.mount.type == "gimbal":
        raise TableError(
            f"{table.path} gives the body's attitude, the rig has a gimbal",
            "give the gimbal's camera attitude (yaw_deg, pitch_deg, roll_deg), or a fixed mount",
        )
    unlevelled = r_from_ypr(*np.radians([table.required(name) for name in BODY_ANGLES]))
    return rig.mount.r_ned_cam(unlevelled), body


def _sigmas(table: CsvTable, rig: Rig) -> tuple[Floats, Floats]:
    """Returns σ (n, 5) and shared σ (n, 4), in the table's units."""
    sigma, bias = [], []
    shared_with = {"bias_e_m": 0, "bias_n_m": 1, "bias_u_m": 2, "bias_heading_deg": 4}
    for name in SIGMAS:
        given = table.numbers(name, 0.0)
        sigma.append(given)
    for name in BIASES:
        given = table.numbers(name, 0.0)
        whole = np.isfinite(sigma[shared_with[name]])
        fallback = np.where(whole, 0.0, getattr(rig.defaults, name))
        bias.append(np.where(np.isnan(given), fallback, given))
    defaults = [getattr(rig.defaults, name) for name in SIGMAS]
    filled = [np.where(np.isnan(s), d, s) for s, d in zip(sigma, defaults, strict=True)]
    return np.stack(filled, axis=1), np.stack(bias, axis=1)


def _flags(table: CsvTable) -> tuple[tuple[str, ...], ...]:
    if "flags" not in table.columns:
        return ((),) * len(table)
    return tuple(tuple(code for code in cell.split(";") if code) for cell in table.text("flags"))


def write_poses(path: str | Path, poses: Poses) -> None:
    """Writes poses as a POSES table: the camera's attitude and projection centre, with all σ."""
    yaw, pitch, roll = (np.degrees(a) for a in ypr_from_r_ned_cam(poses.r_ned_cam))
    columns: dict[str, Iterable[str]] = {
        "frame": poses.frame,
        "lat_deg": _cells(poses.lat_deg, 10),
        "lon_deg": _cells(poses.lon_deg, 10),
        COLUMN_OF_DATUM[poses.height_datum]: _cells(poses.alt_m, 4),
        "yaw_deg": _cells(yaw % 360.0, 8),
        "pitch_deg": _cells(pitch, 8),
        "roll_deg": _cells(roll, 8),
    }
    sigma = [*poses.sigma_enu_m.T, *np.degrees([poses.sigma_tilt_rad, poses.sigma_heading_rad])]
    columns |= {name: _cells(s, 6) for name, s in zip(SIGMAS, sigma, strict=True)}
    bias = [*poses.bias_enu_m.T, np.degrees(poses.bias_heading_rad)]
    columns |= {name: _cells(b, 6) for name, b in zip(BIASES, bias, strict=True)}
    motion = dict(
        zip((*VELOCITY, *RATES), (*poses.v_ned_mps.T, *poses.omega_ned_rps.T), strict=True)
    )
    if np.isfinite([*motion.values()]).any():
        columns |= {name: _cells(values, 6) for name, values in motion.items()}
    if np.isfinite(poses.t_boot_s).any():
        columns["t_boot_s"] = _cells(poses.t_boot_s, 6)
    if any(poses.flags):
        columns["flags"] = [";".join(flags) for flags in poses.flags]
    with Path(path).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _cells(values: Floats, decimals: int) -> list[str]:
    return ["" if np.isnan(v) else f"{v:.{decimals}f}" for v in values]


def pose_index(poses: Poses, names: Sequence[str]) -> Ints:
    """Returns the (n,) rows of frames' poses, by file name, then by stem; −1 where there is none.

    A stem that several frames share matches none of them.
    """
    by_name = {name: i for i, name in enumerate(poses.frame)}
    by_stem: dict[str, int] = {}
    for i, name in enumerate(poses.frame):
        stem = Path(name).stem
        by_stem[stem] = -1 if stem in by_stem else i
    found: dict[str, int] = {}
    for name in set(names):
        file = Path(name).name
        row = by_name.get(name, by_name.get(file))
        found[name] = by_stem.get(Path(file).stem, -1) if row is None else row
    return np.array([found[name] for name in names], dtype=np.int64)
