"""The commands of ``gossan calibration``: board and resect."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click
import numpy as np

from calibration.board import BoardCalibration, calibrate
from calibration.board_plot import draw_residuals
from calibration.camera import INTRINSICS, ModelName
from calibration.control_points import LocalFrame, pose_cells, read_gcps, write_resected
from calibration.errors import BoardError
from calibration.geodesy import HEIGHT_DATUMS, MapModel, parse_crs
from calibration.resect import CHI2_2_P90, ResectedPose, Resection, free_names
from calibration.resect import resect as solve_resection
from calibration.rig import Mount, Rig, load_rig, write_rig
from calibration.rotations import r_from_ypr
from calibration.views import Pattern, PatternType, View, find_view
from gossan.console import emit, json_option, progress, say, table

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"}
FILE = click.Path(path_type=Path)


@click.command()
@click.argument("images", nargs=-1, required=True, type=FILE, metavar="IMAGES…")
@click.option("--pattern", required=True, metavar="COLSxROWS", help="Inner corners, e.g. 9x6.")
@click.option("--square", required=True, type=click.FloatRange(min=0, min_open=True), metavar="M",
              help="Side of a square (distance of circles), metres.")  # fmt: skip
@click.option("--type", "kind", default="chess", show_default=True,
              type=click.Choice(["chess", "charuco", "circles"]))  # fmt: skip
@click.option("--model", default="opencv", show_default=True,
              type=click.Choice(["opencv", "fisheye"]))  # fmt: skip
@click.option("--dictionary", default="DICT_4X4_50", show_default=True, help="ArUco, for charuco.")
@click.option("--marker", default=0.0, metavar="M", help="Side of a marker; ¾ of a square if 0.")
@click.option("--out", required=True, type=FILE, metavar="RIG.toml",
              help="Rig to write; mount, clock, defaults of one that exists stay.")  # fmt: skip
@click.option("--plot", type=FILE, metavar="PNG", help="Draw the residuals into this file.")
@json_option
def board(
    images: tuple[Path, ...],
    pattern: str,
    square: float,
    kind: str,
    model: str,
    dictionary: str,
    marker: float,
    out: Path,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Camera model from photos of a flat pattern (files, or folders of them)."""
    cols, rows = _cols_rows(pattern)
    shape = Pattern(cols, rows, square, cast("PatternType", kind), dictionary, marker)
    views, size, unseen = _views(_files(images), shape)
    found = calibrate(views, *size, cast("ModelName", model))
    found = replace(found, dropped={**unseen, **found.dropped})
    write_rig(out, _rig(found, out))
    if plot is not None:
        draw_residuals(plot, found)
    payload = _board_payload(found, out)
    emit(payload, as_json, lambda: _tell_board(found, out))


def _cols_rows(text: str) -> tuple[int, int]:
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) >= 2 for part in parts):
        raise click.UsageError(f"--pattern {text!r}: inner corners as COLSxROWS, for example 9x6")
    return int(parts[0]), int(parts[1])


def _files(images: tuple[Path, ...]) -> list[Path]:
    out: list[Path] = []
    for path in images:
        if path.is_dir():
            out += sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        else:
            out.append(path)
    missing = [path for path in out if not path.is_file()]
    if missing or not out:
        raise BoardError(
            f"no image at {missing[0]}" if missing else "no images given", "check the paths"
        )
    return out


def _views(
    files: list[Path], pattern: Pattern
) -> tuple[list[View], tuple[int, int], dict[str, str]]:
    """Returns the views of the commonest image size, that size, and what was left out."""
    seen: list[tuple[View, tuple[int, int]]] = []
    unseen: dict[str, str] = {}
    for path in progress(files, "looking for the pattern"):
        view, size = find_view(path, pattern)
        if view is None:
            unseen[path.name] = "the pattern was not found in it"
        else:
            seen.append((view, size))
    if not seen:
        raise BoardError(
            f"no {pattern.kind} pattern of {pattern.cols}×{pattern.rows} in {len(files)} images",
            "--pattern counts inner corners, not squares",
        )
    common = Counter(size for _, size in seen).most_common(1)[0][0]
    for view, size in seen:
        if size != common:
            unseen[view.name] = f"{size[0]}×{size[1]} px, the others {common[0]}×{common[1]}"
    return [view for view, size in seen if size == common], common, unseen


def _rig(found: BoardCalibration, out: Path) -> Rig:
    about = {
        "source": "gossan calibration board",
        "rms_px": round(found.rms_px, 4),
        "views": list(found.used),
        "warnings": list(found.warnings),
    }
    if out.exists():
        base = load_rig(out)
    else:
        mount = Mount("fixed", r_from_ypr(0.0, -np.pi / 2, 0.0), np.radians([2.0, 2.0, 2.0]))
        base = Rig(found.camera, mount)
        about["mount"] = "looking straight down, image top to the nose, to 2 degrees: not measured"
    return replace(
        base,
        camera=found.camera,
        sigma_px=base.sigma_px or round(found.rms_px, 3),
        covariance=found.covariance,
        covariance_order=found.covariance_order,
        about={**base.about, **about},
    )


def _board_payload(found: BoardCalibration, out: Path) -> dict[str, Any]:
    camera = found.camera
    sigma = np.sqrt(np.diag(found.covariance))
    return {
        "rms_px": found.rms_px,
        **{name: getattr(camera, name) for name in INTRINSICS},
        "distortion": dict(zip(camera.terms, camera.distortion, strict=True)),
        "sigma": dict(zip(found.covariance_order, sigma, strict=True)),
        "width_px": camera.width_px,
        "height_px": camera.height_px,
        "views_used": list(found.used),
        "views_dropped": list(found.dropped),
        "dropped_because": found.dropped,
        "view_rms_px": dict(zip(found.used, found.rms_by_view, strict=True)),
        "coverage": found.coverage,
        "warnings": list(found.warnings),
        "out": str(out),
    }


def _tell_board(found: BoardCalibration, out: Path) -> None:
    camera = found.camera
    sigma = dict(zip(found.covariance_order, np.sqrt(np.diag(found.covariance)), strict=True))
    rows = [[n, f"{getattr(camera, n):.2f} ± {sigma[n]:.2f}"] for n in INTRINSICS]
    rows += [
        [name, f"{value:.5f} ± {sigma.get(name, 0.0):.5f}"]
        for name, value in zip(camera.terms, camera.distortion, strict=True)
        if value or name in sigma
    ]
    rows.append(["RMS", f"{found.rms_px:.3f} px over {len(found.used)} views"])
    rows.append(["corners in", f"{100 * found.coverage:.0f} % of the image"])
    table(f"{camera.model} camera {camera.width_px}×{camera.height_px}", ["", ""], rows)
    table("views", ["view", "RMS px"], zip(found.used, found.rms_by_view, strict=True))
    for name, why in found.dropped.items():
        say(f"left out {name}: {why}")
    for warning in found.warnings:
        say(f"warning: {warning}")
    say(f"written {out}")


@click.command("resect")
@click.argument("gcps", type=FILE, metavar="GCPS.csv")
@click.option("--rig", required=True, type=FILE, help="Rig TOML of the camera.")
@click.option("--free", default="", metavar="f,k1", help="Intrinsics to find as well.")
@click.option("--crs", help="CRS of x_m, y_m.")
@click.option("--alt-datum", type=click.Choice(HEIGHT_DATUMS),
              help="What heights that do not say so are above.")  # fmt: skip
@click.option("--map", "map_model", type=click.Choice(["earth", "plane"]), default="earth",
              show_default=True, help="plane: take the map itself for a flat world.")  # fmt: skip
@click.option("--rig-out", type=FILE, metavar="RIG.toml", help="Rig to write with what was found.")
@click.option("--out", required=True, type=FILE, metavar="POSES.csv", help="POSES table to write.")
@json_option
def resect(
    gcps: Path,
    rig: Path,
    free: str,
    crs: str | None,
    alt_datum: str | None,
    map_model: str,
    rig_out: Path | None,
    out: Path,
    as_json: bool,
) -> None:
    """Pose of frames from control points, optionally with focal length and distortion."""
    camera = load_rig(rig)
    names = free_names(free, camera.camera)
    if names and rig_out is None:
        raise click.UsageError("--free changes the rig: say where to write it with --rig-out")
    points, local = read_gcps(
        gcps,
        camera.sigma_px,
        parse_crs(crs) if crs else None,
        alt_datum,
        cast("MapModel", map_model),
    )
    found = solve_resection(points, camera.camera, names)
    write_resected(out, found, local)
    if rig_out is not None:
        write_rig(rig_out, _freed(camera, found))
    payload = _resect_payload(found, local, out, rig_out)
    emit(payload, as_json, lambda: _tell_resect(payload))


def _freed(rig: Rig, found: Resection) -> Rig:
    """Returns the rig with what was freed, and its covariance."""
    if not found.free:
        return rig
    order: list[str] = []
    spread = np.zeros((0, len(found.free)))
    for i, name in enumerate(found.free):
        long = ("fx_px", "fy_px") if name == "f" else (name,)
        for part in long:
            row = np.zeros((1, len(found.free)))
            ratio = found.camera.fy_px / found.camera.fx_px
            row[0, i] = ratio if name == "f" and part == "fy_px" else 1.0
            order.append(part)
            spread = np.vstack([spread, row])
    covariance = spread @ found.free_covariance @ spread.T
    about = {**rig.about, "resected": f"{','.join(found.free)}, RMS {found.rms_px:.2f} px"}
    return replace(
        rig, camera=found.camera, covariance=covariance, covariance_order=tuple(order), about=about
    )


def _resect_payload(
    found: Resection, local: LocalFrame, out: Path, rig_out: Path | None
) -> dict[str, Any]:
    frames = {}
    for pose in found.poses:
        size = np.linalg.norm(pose.residual_px, axis=1)
        cells = pose_cells(pose, local)
        frames[pose.frame] = {
            "points": len(size),
            "lat_deg": float(cells[1]),
            "lon_deg": float(cells[2]),
            "alt_m": float(cells[3]),
            "yaw_deg": float(cells[4]),
            "pitch_deg": float(cells[5]),
            "roll_deg": float(cells[6]),
            "rms_px": float(np.sqrt((size**2).mean())),
            "median_px": float(np.median(size)),
            "median_m": float(np.median(pose.miss_m)),
            "residual_px": pose.residual_px,
            "miss_m": pose.miss_m,
            "leave_one_out": _left_out(pose),
            "covariance": pose.covariance,
        }
    camera = found.camera
    sigma = np.sqrt(np.diag(found.free_covariance))
    return {
        "rms_px": found.rms_px,
        "median_px": float(np.median(np.concatenate([np.linalg.norm(p.residual_px, axis=1)
                                                     for p in found.poses]))),
        "median_m": float(np.median(np.concatenate([p.miss_m for p in found.poses]))),
        **{name: getattr(camera, name) for name in INTRINSICS},
        "distortion": dict(zip(camera.terms, camera.distortion, strict=True)),
        "free_sigma": dict(zip(found.free, sigma, strict=True)),
        "height_datum": local.datum,
        "frames": frames,
        "out": str(out),
        "rig_out": str(rig_out) if rig_out else None,
    }  # fmt: skip


def _told_left_out(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    inside = f"{found['inside_90']} of {found['points']} in 90 %"
    return f"{found['median_m']:.2f} ({inside})"


def _left_out(pose: ResectedPose) -> dict[str, Any] | None:
    """Returns how well points are met that had no part in the solution."""
    known = np.isfinite(pose.left_out_m)
    if not known.any():
        return None
    return {
        "points": int(known.sum()),
        "median_m": float(np.median(pose.left_out_m[known])),
        "p90_m": float(np.quantile(pose.left_out_m[known], 0.9)),
        "inside_90": int((pose.left_out_chi2[known] <= CHI2_2_P90).sum()),
        "miss_m": pose.left_out_m,
        "chi2": pose.left_out_chi2,
    }


def _tell_resect(payload: dict[str, Any]) -> None:
    rows = [
        [
            name,
            frame["points"],
            f"{frame['median_px']:.2f}",
            f"{frame['median_m']:.2f}",
            _told_left_out(frame["leave_one_out"]),
            f"{frame['lat_deg']:.7f} {frame['lon_deg']:.7f} {frame['alt_m']:.2f}",
            f"{frame['yaw_deg']:.3f} {frame['pitch_deg']:.3f} {frame['roll_deg']:.3f}",
        ]
        for name, frame in payload["frames"].items()
    ]
    columns = [
        "frame",
        "points",
        "median px",
        "median m",
        "left out m",
        "lat lon alt",
        "yaw pitch roll °",
    ]
    table("resected", columns, rows)
    if payload["free_sigma"]:
        say(
            f"fx {payload['fx_px']:.2f} px, distortion "
            + " ".join(f"{k}={v:.5f}" for k, v in payload["distortion"].items() if v)
        )
    say(f"written {payload['out']}")
