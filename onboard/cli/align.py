"""``gossan calibration align`` and ``gossan onboard refine``: a flight set right by overlaps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import click
import numpy as np

from calibration.rig import Rig, load_rig, write_rig
from calibration.rotations import ypr_from_r
from gossan.console import Metres, emit, json_option, progress, say, table
from onboard.drape import SHARED
from onboard.records import Frame, HeightDatum

if TYPE_CHECKING:
    from calibration.clock_match import Offset
    from onboard.align import Alignment
    from onboard.fit_flight import Fit, Flight
    from onboard.refine import Refinement

PATH = click.Path(path_type=Path)
DATUMS = click.Choice(get_args(HeightDatum))


def flight_options(command: Any) -> Any:
    """Adds the options that say which flight, and on which ground."""
    for option in reversed(
        (
            click.option("--rig", type=PATH, required=True, help="The rig as it is known so far."),
            click.option("--poses", type=PATH, help="A pose table in place of the source's poses."),
            click.option("--dem", type=PATH, help="The ground; else a plane at take-off height."),
            click.option("--dem-datum", type=DATUMS, help="What the DEM's heights are above."),
            click.option("--dem-sigma", type=Metres(0.0), help="σ of the DEM's heights, metres."),
            click.option("--alt-datum", type=DATUMS, help="What unnamed heights are above."),
        )
    ):
        command = option(command)
    return command


@click.command("align")
@click.argument("source", type=PATH)
@flight_options
@click.option("--free", default="", metavar="focal", help="Find the focal length as well.")
@click.option("--last", type=click.IntRange(2), metavar="N", help="Only the last N placed frames.")
@click.option("--out", type=PATH, required=True, metavar="RIG.toml", help="The rig to write.")
@json_option
def align_command(
    source: Path,
    rig: Path,
    poses: Path | None,
    dem: Path | None,
    dem_datum: HeightDatum | None,
    dem_sigma: float | None,
    alt_datum: HeightDatum | None,
    free: str,
    last: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Boresight and clock of a flight, from its own overlaps over a DEM.

    SOURCE is photos with a gimbal's attitude, frames or a video with a log, or a flight folder.
    Totals and σ go into [mount] and [clock]; --free focal finds the focal length, too. What the
    flight could not tell, and what flying would, is said.
    """
    from onboard.align import align

    if free not in ("", "focal"):
        raise click.UsageError(f"--free {free}: only 'focal' can be freed")
    flight, notes = _open(source, rig, poses, dem, dem_datum, dem_sigma, alt_datum)
    if last is not None:
        recent = np.arange(len(flight.poses))[-last:]
        flight = replace(flight, poses=flight.poses.take(recent))
    found = align(flight, free == "focal", _bar)
    about = {**flight.rig.about, "aligned": f"from {flight.source.name}, {found.fit.ties} ties"}
    written = write_rig(out, replace(found.rig, about=about))
    payload = _align_payload(found, flight, written, [*notes, *found.notes], out)
    emit(payload, as_json, lambda: _tell_align(payload))


@click.command("refine")
@click.argument("source", type=PATH)
@flight_options
@click.option("--out", type=PATH, required=True, metavar="POSES.csv", help="Table to write.")
@json_option
def refine_command(
    source: Path,
    rig: Path,
    poses: Path | None,
    dem: Path | None,
    dem_datum: HeightDatum | None,
    dem_sigma: float | None,
    alt_datum: HeightDatum | None,
    out: Path,
    as_json: bool,
) -> None:
    """Better poses for reprocessing, from the flight's own overlaps over a DEM.

    Each frame gets its own small correction, the telemetry as prior. The table holds the camera's
    final poses with their σ; give it to replay, ortho and geotag as --poses.
    """
    from onboard.refine import refine
    from onboard.sources.pose_table import write_poses

    flight, notes = _open(source, rig, poses, dem, dem_datum, dem_sigma, alt_datum)
    found = refine(flight, _bar)
    write_poses(out, found.poses)
    payload = _refine_payload(found, [*notes, *found.notes], out)
    emit(payload, as_json, lambda: _tell_refine(payload))


def _open(
    source: Path,
    rig: Path,
    poses: Path | None,
    dem: Path | None,
    dem_datum: HeightDatum | None,
    dem_sigma: float | None,
    alt_datum: HeightDatum | None,
) -> tuple[Flight, list[str]]:
    from onboard.fit_flight import Flight
    from onboard.replay_ground import open_with_ground
    from onboard.survey_scene import Ground

    camera = load_rig(rig)
    ground = Ground(dem, dem_datum, dem_sigma)
    frames, placed, scene = open_with_ground(source, camera, poses, ground, alt_datum)
    flight = Flight(frames, camera, placed, scene.terrain, scene.map_frame)
    return flight, [*frames.notes, *scene.notes]


def _bar(frames: Iterable[Frame]) -> Iterator[Frame]:
    return iter(progress(list(frames), "matching frames"))


def _fit_payload(fit: Fit) -> dict[str, Any]:
    return {
        "ties": fit.ties,
        "misfit_m": {"before": fit.before_m, "shared": fit.shared_m, "after": fit.after_m},
        "growth": dict(zip(("position", "height", "tilt", "heading"), fit.growth, strict=True)),
        "settled": fit.settled,
    }


def _align_payload(
    found: Alignment, flight: Flight, rig: Rig, notes: list[str], out: Path
) -> dict[str, Any]:
    from onboard.align_advice import unseparated, untold

    fit = found.fit
    free = tuple(name for i, name in enumerate(SHARED) if fit.prior_covariance[i, i] > 0)
    yaw, pitch, roll = (float(np.degrees(a)) for a in ypr_from_r(rig.mount.r_mount))
    sigma = np.sqrt(np.diag(fit.covariance))
    up = SHARED.index("up")
    return {
        "frames": len(flight.poses),
        **_fit_payload(fit),
        "mount": {
            "yaw_deg": yaw,
            "pitch_deg": pitch,
            "roll_deg": roll,
            "sigma_deg": np.degrees(rig.mount.sigma_rad).tolist(),
            "turned_deg": np.degrees(fit.shared[:3]).tolist(),
            "height_bias_m": rig.mount.height_bias_m,
        },
        "clock": {"offset_s": rig.clock.offset_s, "sigma_s": rig.clock.sigma_s},
        "height_m": {"up": float(fit.shared[up]), "sigma": float(sigma[up])},
        "fx_px": rig.camera.fx_px,
        "rotation_clock": _offset(found.clock),
        "windows": [_offset(window) for window in found.windows],
        "untold": untold(fit, free),
        "unseparated": [
            {"pair": [one, two], "correlation": correlation}
            for one, two, correlation in unseparated(fit, free)
        ],
        "left_out": list(found.left_out),
        "notes": list(dict.fromkeys(notes)),
        "out": str(out),
    }


def _offset(found: Offset | None) -> dict[str, Any] | None:
    if found is None or not np.isfinite(found.offset_s):
        return None
    return {
        "offset_s": found.offset_s,
        "sigma_s": found.sigma_s,
        "pairs": found.pairs,
        "at_s": found.at_s,
    }


def _tell_align(payload: dict[str, Any]) -> None:
    mount, clock, gaps = payload["mount"], payload["clock"], payload["misfit_m"]
    sigma = ", ".join(f"{value:.2f}" for value in mount["sigma_deg"])
    angles = ", ".join(f"{mount[name]:.3f}" for name in ("yaw_deg", "pitch_deg", "roll_deg"))
    rows = [
        ("frames, ties", f"{payload['frames']}, {payload['ties']}"),
        ("mount yaw, pitch, roll °", angles),
        ("σ about right, down, forward °", sigma),
        ("clock offset s", f"{clock['offset_s']:+.3f} ± {clock['sigma_s']:.3f}"),
        ("height m", f"{payload['height_m']['up']:+.2f} ± {payload['height_m']['sigma']:.2f}"),
        ("ties apart m", f"{gaps['before']:.2f} before, {gaps['shared']:.2f} after"),
    ]
    turned = cast("dict[str, Any] | None", payload["rotation_clock"])
    if turned is not None:
        told = f"{turned['offset_s']:+.3f} ± {turned['sigma_s']:.3f} of {turned['pairs']} pairs"
        rows.append(("clock by rotation alone s", told))
    table("alignment", ("", ""), rows)
    _tell_rest(payload)


def _refine_payload(found: Refinement, notes: list[str], out: Path) -> dict[str, Any]:
    return {
        "frames": len(found.poses),
        **_fit_payload(found.fit),
        "left_out": list(found.left_out),
        "notes": list(dict.fromkeys(notes)),
        "out": str(out),
    }


def _tell_refine(payload: dict[str, Any]) -> None:
    gaps = payload["misfit_m"]
    apart = f"{gaps['before']:.2f} before, {gaps['after']:.3f} after"
    rows = [("frames, ties", f"{payload['frames']}, {payload['ties']}"), ("ties apart m", apart)]
    table("refinement", ("", ""), rows)
    _tell_rest(payload)


def _tell_rest(payload: dict[str, Any]) -> None:
    for name in payload["left_out"]:
        say(f"left out {name}: it contradicts all its neighbours")
    for note in payload["notes"]:
        say(f"note: {note}")
    say(f"written {payload['out']}")
