"""Writes docs/pictures/*.svg with what the code itself computes; a test keeps them up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.camera import Camera
from calibration.geodesy import MapFrame, geoid_m
from calibration.rig import Clock, Mount, Rig
from calibration.rotations import (
    quat_from_r,
    r_from_quat,
    r_from_ypr,
    r_ned_cam_from_ypr,
    rot_log,
)
from onboard.place.ellipses import ce90_m
from onboard.place.geotag import CAUSES, geotag
from onboard.place.hermite import hermite_attitude
from onboard.place.surface import PlaneTerrain
from onboard.records import Poses

Floats = NDArray[np.float64]
FOLDER = Path(__file__).parent / "pictures"
INK, SOFT, RED, GREEN, BLUE = "#222", "#999", "#c0392b", "#2e8b57", "#2563a8"
SHADES = (
    "#b5482a",
    "#e0915a",
    "#efc58a",
    "#7a8f5a",
    "#4b7f8c",
    "#2f5d8a",
    "#7b5ea7",
    "#999",
    "#444",
)
END = 'marker-end="url(#head)"'
BOTH_ENDS = f'{END} marker-start="url(#head)"'
LAT, LON = 46.1, 7.4


# ---- drawing


def text(
    x: float, y: float, words: str, size: int = 13, colour: str = INK, anchor: str = "start"
) -> str:
    """Returns a word at a place."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


def line(a: Iterable[float], b: Iterable[float], colour: str = INK, more: str = "") -> str:
    """Returns a straight line."""
    (x1, y1), (x2, y2) = a, b
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="1.8" {more}/>'
    )


def arrow(a: Floats, b: Floats, colour: str, label: str) -> str:
    """Returns an arrow with its name at the tip."""
    away = (b - a) / max(float(np.hypot(*(b - a))), 1e-9)
    tip = b + 15.0 * away
    return line(a, b, colour, END) + text(
        float(tip[0]), float(tip[1]) + 4, label, 12, colour, "middle"
    )


def box(x: float, y: float, width: float, height: float, fill: str) -> str:
    """Returns a filled rectangle."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"/>'
    )


def sheet(width: int, height: int, title: str, *parts: str) -> str:
    """Returns a whole picture."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" role="img" aria-label="{escape(title)}">'
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        'markerHeight="7" orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" '
        'fill="context-stroke"/></marker></defs>'
        f"{box(0, 0, width, height, '#fff')}{text(16, 26, title, 16)}{''.join(parts)}</svg>\n"
    )


# ---- the pictures


def axes() -> str:
    """Four camera attitudes: where right, down and forward point, seen from the south-east."""
    views = [
        ((0, 0, 0), "yaw 0, pitch 0, roll 0"),
        ((90, -45, 0), "yaw 90, pitch −45, roll 0"),
        ((0, -90, 0), "yaw 0, pitch −90: nadir"),
        ((0, 0, 30), "yaw 0, pitch 0, roll 30"),
    ]
    parts: list[str] = []
    for i, (angles, words) in enumerate(views):
        origin = np.array([115.0 + 215.0 * i, 160.0])
        parts += [
            arrow(origin, origin + _flat(np.eye(3)[k]) * 62, SOFT, "NED"[k]) for k in range(3)
        ]
        r = r_ned_cam_from_ypr(*np.radians(angles))
        for k, (name, colour) in enumerate((("right", RED), ("down", GREEN), ("forward", BLUE))):
            parts.append(arrow(origin, origin + _flat(r[:, k]) * 88, colour, name))
        parts.append(text(float(origin[0]), 290, words, 13, INK, "middle"))
    parts.append(text(16, 318, "grey: north, east, down; coloured: the camera's axes", 12, SOFT))
    return sheet(880, 332, "Camera axes in the world", *parts)


def _flat(ned: Floats) -> Floats:
    """Returns a world vector on the sheet, seen from the south-east and above."""
    north, east, down = ned
    return np.array([0.86 * east + 0.42 * north, 0.30 * east - 0.52 * north + 0.80 * down])


def datums() -> str:
    """One camera's height above each datum, at the place of the examples."""
    n_m = float(geoid_m(np.array([LAT]), np.array([LON]))[0])
    levels = [
        (70.0, "camera", ""),
        (170.0, "take-off place", "alt_m_takeoff: above where the vehicle was armed"),
        (225.0, "geoid (mean sea level)", "alt_m_geoid: above EGM96"),
        (285.0, "ellipsoid (WGS84)", "alt_m_ellipsoid: what is used inside"),
    ]
    parts = []
    for i, (y, name, column) in enumerate(levels):
        parts += [line((40, y), (560, y), INK if i else RED), text(48, y - 7, name)]
        if i:
            x = 600.0 + 12 * i
            parts += [
                line((x, 70), (x, y), BLUE, BOTH_ENDS),
                text(655, y - 7, column, 12, BLUE),
            ]
    words = f"N = {n_m:.1f} m at {LAT}° N, {LON}° E: h = H + N"
    parts.append(text(230, 260, words, 13, GREEN))
    parts.append(line((215, 228), (215, 282), GREEN, BOTH_ENDS))
    parts.append(text(40, 318, "same: DEM and poses share a datum that nobody names", 12, SOFT))
    return sheet(980, 334, "What a height is above", *parts)


def clocks() -> str:
    """Host, autopilot and camera clocks, what ties them, and the exposure of a row."""
    rows = [(80, "host, monotonic"), (150, "autopilot, since boot"), (220, "camera")]
    parts = [line((170, y), (860, y)) for y, _ in rows]
    parts += [text(16, y + 4, name) for y, name in rows]
    parts += [line((x, 80), (x + 22, 150), BLUE) for x in range(230, 831, 100)]
    parts.append(
        text(240, 66, "TIMESYNC: the exchange with the shortest round trip ties", 12, BLUE)
    )
    stamp, middle = 440.0, 560.0
    parts += [
        line((stamp, 210), (stamp, 230), RED), text(stamp, 250, "stamp", 12, RED, "middle"),
        line((stamp, 226), (middle, 226), RED, END),
        text((stamp + middle) / 2, 205, "offset_s", 12, RED, "middle"),
        box(middle - 50, 262, 100, 16, "#efc58a"), line((middle, 218), (middle, 278), GREEN),
        text(middle, 296, "rows over readout_s, the middle one at stamp + offset_s", 12, GREEN,
             "middle"),
        line((middle, 218), (middle, 152), GREEN, f'stroke-dasharray="4 4" {END}'),
        text(middle + 8, 190, "pose: Hermite between the messages around", 12, GREEN),
    ]  # fmt: skip
    return sheet(900, 320, "Which clock says when a row was exposed", *parts)


def interpolation() -> str:
    """RMS error of a 4 Hz attitude between its samples: hold, linear, Hermite."""
    t = np.arange(0.0, 60.0, 0.25)
    fine = np.arange(5.0, 55.0, 0.01)
    r, rates = _wobble(t)
    truth, _ = _wobble(fine)
    q = quat_from_r(r)
    held = r[np.searchsorted(t, fine, side="right") - 1]
    straight, _ = hermite_attitude(q, np.full((len(t), 3), np.nan), t, fine)
    smooth, _ = hermite_attitude(q, rates, t, fine)
    ways = [
        ("newest message", held),
        ("straight between two", r_from_quat(straight)),
        ("Hermite, with rates", r_from_quat(smooth)),
    ]
    parts = []
    for i, (name, found) in enumerate(ways):
        turn = rot_log(np.swapaxes(truth, 1, 2) @ found)
        off_deg = float(np.degrees(np.sqrt((turn**2).sum(axis=1).mean())))
        y = 56.0 + 44 * i
        parts += [
            text(16, y + 18, name), box(200, y, max(1.5, 320.0 * off_deg), 26, SHADES[i]),
            text(212 + 320.0 * off_deg, y + 18, f"{off_deg:.3f}°"),
        ]  # fmt: skip
    words = "a vehicle that wobbles by 4° at 0.3 Hz; 0.1° is 17 cm on the ground from 100 m"
    parts.append(text(16, 206, words, 12, SOFT))
    return sheet(760, 222, "Attitude between 4 Hz samples, RMS error", *parts)


def _wobble(t: Floats) -> tuple[Floats, Floats]:
    """Returns (n, 3, 3) body → NED and (n, 3) body rates of a rolling, pitching vehicle."""
    w = 2.0 * np.pi * np.array([0.3, 0.27])
    amplitude = np.radians(4.0)
    roll, pitch = amplitude * np.sin(w[0] * t), amplitude * np.sin(w[1] * t + 1.0)
    d_roll, d_pitch = amplitude * w[0] * np.cos(w[0] * t), amplitude * w[1] * np.cos(w[1] * t + 1.0)
    rates = np.stack([d_roll, d_pitch * np.cos(roll), -d_pitch * np.sin(roll)], axis=1)
    return r_from_ypr(0.0 * t, pitch, roll), rates


def error_budget() -> str:
    """Each cause's share of a ground point's variance, at five angles off nadir."""
    parts = []
    for i, off_deg in enumerate((0, 15, 30, 45, 60)):
        ce90, shares = _budget(float(off_deg))
        y, x = 52.0 + 40 * i, 130.0
        parts.append(text(16, y + 18, f"{off_deg}° off nadir"))
        for k, share in enumerate(shares):
            if share >= 0.005:
                parts.append(box(x, y, 560.0 * share, 26, SHADES[k]))
            x += 560.0 * share
        parts.append(text(702, y + 18, f"90 % within {ce90:.1f} m"))
    used = [k for k in range(len(CAUSES)) if CAUSES[k] != "lever arm"]
    for j, k in enumerate(used):
        x, y = 130.0 + 92.0 * j, 262.0
        parts += [box(x, y, 12, 12, SHADES[k]), text(x + 17, y + 11, CAUSES[k], 12)]
    words = (
        "100 m above flat ground; position 1.2/2 m, attitude 0.7°, heading 2°, boresight 0.3°, "
        "clock 30 ms at 15 m/s, ground 1 m, 1 px of 1000"
    )
    parts.append(text(16, 304, words, 12, SOFT))
    return sheet(860, 320, "What a ground point's error consists of", *parts)


def _budget(off_nadir_deg: float) -> tuple[float, Floats]:
    camera = Camera("opencv", 2001, 1501, 1000.0, 1000.0, 1000.0, 750.0)
    mount = Mount("fixed", r_from_ypr(0.0, -np.pi / 2, 0.0), np.radians([0.3, 0.3, 0.3]))
    rig = replace(Rig(camera, mount, Clock(sigma_s=0.03)), sigma_px=1.0)
    r = r_ned_cam_from_ypr(*np.radians([0.0, off_nadir_deg - 90.0, 0.0]))
    pose = Poses(
        ("a",), np.array([LAT]), np.array([LON]), np.array([100.0]), "ellipsoid", r[None],
        np.full((1, 3, 3), np.nan), np.array([[15.0, 0.0, 0.0]]), np.zeros((1, 3)),
        np.array([[1.2, 1.2, 2.0]]), np.radians([0.7]), np.radians([2.0]), np.zeros((1, 3)),
        np.zeros(1), np.zeros(1), ((),),
    )  # fmt: skip
    out = geotag(
        pose, np.zeros(1, np.int64), np.array([[1000.0, 750.0]]), 1.0, rig,
        PlaneTerrain(0.0, sigma_m=1.0), MapFrame.utm(LAT, LON),
    )  # fmt: skip
    return float(ce90_m(out.cov_total_m2)[0]), out.cause_share[0]


PICTURES: dict[str, Callable[[], str]] = {
    "axes": axes,
    "datums": datums,
    "clocks": clocks,
    "interpolation": interpolation,
    "error-budget": error_budget,
}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw(), encoding="utf-8")
