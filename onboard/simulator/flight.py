"""A whole simulated flight, offline: the folder that a companion computer would bring home."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import calibration
from calibration.geodesy import MapFrame
from calibration.rig import Rig, load_rig, write_rig
from onboard.simulator.camera import TrueCamera
from onboard.simulator.errors_of_flight import STAMP_JITTER_S, FlightErrors, draw_errors
from onboard.simulator.flight_plan import FlightPlan, plan_geojson
from onboard.simulator.given_dem import survey_dem, write_dem
from onboard.simulator.motion import TAIL_S, Motion, fly
from onboard.simulator.noise import Window
from onboard.simulator.prior_layers import write_priors
from onboard.simulator.raster import GroundRaster, paint_raster
from onboard.simulator.sensor import Sensor, auto_exposure, draw_sensor, jpeg
from onboard.simulator.telemetry import Telemetry
from onboard.simulator.tlog import write_tlog
from onboard.simulator.truth import look_at_truth, write_true_poses, write_truth
from onboard.simulator.world import CENTRE_LAT_DEG, CENTRE_LON_DEG, World, centre_xy_m

Floats = NDArray[np.float64]
Note = Callable[[str], None]

T0_UNIX_S = 1_780_000_000.0
LEAD_S = 20.0
MARGIN_M = 12.0
"""The painted ground reaches this far beyond the true footprints."""


@dataclass(frozen=True, slots=True)
class Staged:
    """All that is drawn and computed before the first frame is rendered.

    Attributes:
        seed: Of everything.
        world: The ground.
        map_frame: Its map.
        plan: The survey.
        rig: The stated rig.
        motion: The true motion.
        errors: The true errors.
        telemetry: What the autopilot says.
        camera: The true camera, over the painted ground.
        stamps_s: (m,) boot times that the camera's clock gives its exposures.
        outlines_m: True footprints' outlines on the map.
    """

    seed: int
    world: World
    map_frame: MapFrame
    plan: FlightPlan
    rig: Rig
    motion: Motion
    errors: FlightErrors
    telemetry: Telemetry
    camera: TrueCamera
    stamps_s: Floats
    outlines_m: list[Floats]


def sim_rig() -> Rig:
    """Returns the rig that simulated aircraft carry, as it is stated."""
    return load_rig(Path(calibration.__file__).parent / "rigs" / "sim.toml")


def stage_flight(
    seed: int,
    family: str = "test",
    plan: FlightPlan | None = None,
    raster_path: Path | None = None,
    feedback_pin: bool = False,
    lead_s: float = LEAD_S,
    tail_s: float = TAIL_S,
    note: Note = lambda _: None,
    painted: bool = True,
) -> Staged:
    """Returns a flight with its ground painted, ready to be rendered or flown live.

    Args:
        seed: Which world, motion and errors.
        family: Of the world.
        plan: The survey; by default three lines of 200 m.
        raster_path: Where the painted ground is kept; in memory by default.
        feedback_pin: See Telemetry.
        lead_s: Time on the ground between boot and arming.
        tail_s: Time on the ground after landing.
        note: Told what is going on.
        painted: Whether the ground is painted; without, frames are black and all else stands.
    """
    plan = plan or FlightPlan(centre_xy_m())
    west, south, east, north = plan.area_m
    side = max(east - west, north - south)
    world = World(seed, family, side + 320.0, (east - west, north - south))
    map_frame = MapFrame.utm(CENTRE_LAT_DEG, CENTRE_LON_DEG)
    rng = np.random.default_rng([seed, 0xF11])
    rig = sim_rig()
    motion = fly(world, plan, map_frame, rng, lead_s, tail_s)
    errors = draw_errors(rig, motion, rng)
    telemetry = Telemetry(motion, errors, T0_UNIX_S + 3600.0 * (seed % 5000), seed, feedback_pin)

    def see(ground: GroundRaster, sensor: Sensor) -> TrueCamera:
        readout_s = rig.clock.readout_s
        return TrueCamera(
            world, map_frame, motion, errors.camera, errors.mount, readout_s, ground, sensor
        )

    camera = see(_unpainted(world), Sensor())
    outlines = [camera.outline_m(float(t)) for t in motion.exposures_s]
    if painted:
        note("painting the ground")
        ground = paint_raster(world, _bounds(outlines), raster_path)
        camera = see(ground, draw_sensor(rng, auto_exposure(ground.mean_radiance)))
    jitter = STAMP_JITTER_S * rng.standard_normal(len(motion.exposures_s))
    stamps = motion.exposures_s - errors.clock_offset_s + jitter
    return Staged(
        seed, world, map_frame, plan, rig, motion, errors, telemetry, camera, stamps, outlines
    )


def simulate_flight(
    out: Path,
    seed: int = 1,
    family: str = "test",
    plan: FlightPlan | None = None,
    feedback_pin: bool = False,
    note: Note = lambda _: None,
) -> dict[str, Any]:
    """Writes a simulated flight as a SOURCE folder with its truth; returns what it holds.

    The folder: ``frames/``, ``times.csv``, ``flight.tlog``, ``dem.tif``, ``rig.toml``,
    ``plan.geojson``, ``priors/`` and, for scorers alone, ``truth/``.
    """
    (out / "frames").mkdir(parents=True, exist_ok=True)
    staged = stage_flight(seed, family, plan, feedback_pin=feedback_pin, note=note)
    names = write_frames(out, staged, note)
    messages = write_tlog(out / "flight.tlog", staged.telemetry, np.random.default_rng([seed, 7]))
    write_givens(out, staged)
    planted = write_flight_truth(out, staged, names)
    return {
        "out": str(out),
        "seed": seed,
        "family": family,
        "frames": len(names),
        "messages": messages,
        "planted": planted,
    }


def write_frames(out: Path, staged: Staged, note: Note) -> list[str]:
    """Renders and writes the frames and ``times.csv``; returns their names."""
    rng = np.random.default_rng([staged.seed, 0xCA])
    names = [f"frame_{k:04d}.jpg" for k in range(1, len(staged.stamps_s) + 1)]
    with (out / "times.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["frame", "t_boot_s"])
        for name, stamp in zip(names, staged.stamps_s, strict=True):
            table.writerow([name, f"{stamp:.6f}"])
    for k, (name, t) in enumerate(zip(names, staged.motion.exposures_s, strict=True), start=1):
        image = staged.camera.render(float(t), rng)
        (out / "frames" / name).write_bytes(jpeg(image, staged.camera.sensor.jpeg_quality))
        if k % 10 == 0:
            note(f"{k} of {len(names)} frames")
    return names


def write_givens(out: Path, staged: Staged) -> None:
    """Writes what the aircraft is given before take-off: DEM, rig, plan, prior geology."""
    rng = np.random.default_rng([staged.seed, 0xDE])
    said = staged.rig.defaults
    dem = survey_dem(
        staged.world, said.sigma_dem_m, staged.errors.dem_level_m, said.dem_level_m, rng
    )
    write_dem(out / "dem.tif", dem)
    write_rig(out / "rig.toml", staged.rig)
    plan = plan_geojson(staged.plan, staged.map_frame)
    (out / "plan.geojson").write_text(json.dumps(plan, indent=1), encoding="utf-8")
    write_priors(out / "priors", staged.world, staged.map_frame, staged.plan.area_m, rng)


def write_flight_truth(out: Path, staged: Staged, names: list[str]) -> int:
    """Writes ``truth/``, which only scorers read; returns how many anomalies are planted."""
    planted = look_at_truth(staged.world, staged.map_frame, staged.outlines_m)
    errors = staged.errors
    turn = errors.mount.r_mount @ staged.rig.mount.r_mount.T
    about = {
        "seed": staged.seed,
        "family": staged.world.family.name,
        "bias_enu_m": errors.bias_enu_m.tolist(),
        "bias_heading_deg": float(np.degrees(errors.bias_heading_rad)),
        "clock_offset_s": errors.clock_offset_s,
        "dem_level_m": errors.dem_level_m,
        "mount_error_deg": float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))),
        "fx_px": float(errors.camera.fx_px),
        "look_alikes": [
            {"material": p.material, "x_m": p.x_m, "y_m": p.y_m, "radius_m": p.radius_m}
            for p in staged.world.patches
            if not p.is_anomaly
        ],
    }
    write_truth(out, planted, staged.map_frame, about)
    poses = [staged.camera.pose(float(t)) for t in staged.motion.exposures_s]
    write_true_poses(out, names, poses)
    return len(planted)


def _unpainted(world: World) -> GroundRaster:
    return GroundRaster(Window(*world.centre_xy_m, 1.0, 1, 1), np.zeros((1, 1, 3), np.uint8))


def _bounds(outlines_m: list[Floats]) -> tuple[float, float, float, float]:
    points = np.concatenate(outlines_m)
    west, south = points.min(axis=0) - MARGIN_M
    east, north = points.max(axis=0) + MARGIN_M
    return float(west), float(south), float(east), float(north)
