"""``gossan onboard simulate``: a flight, or a training set, of known truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gossan.console import Metres, emit, json_option, log_to_stderr, say
from gossan.errors import UserError

if TYPE_CHECKING:
    from onboard.simulator.flight_plan import FlightPlan

ABOVE_0 = Metres(0.0, min_open=True)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the flight.")
@click.option("--seed", default=1, show_default=True, help="Which world and which flight.")
@click.option(
    "--family",
    type=click.Choice(["train", "test"]),
    default=None,
    help="Which worlds; flights: test, training sets: train.",
)
@click.option("--lines", type=int, default=None, help="Survey lines (3).")
@click.option("--size", "line_m", type=ABOVE_0, default=200.0, help="Length of a line, metres.")
@click.option("--minutes", type=ABOVE_0, default=None, help="As many lines as fit in this time.")
@click.option("--height", "height_m", type=ABOVE_0, default=80.0, help="Metres above the ground.")
@click.option("--dataset", type=click.Path(path_type=Path), help="Write a training set here.")
@click.option("--count", default=300, show_default=True, help="Tiles of the training set.")
@click.option("--jobs", default=1, show_default=True, help="Processes that render the tiles.")
@click.option("--live", is_flag=True, help="Fly in real time over UDP.")
@click.option("--mavlink", default="udp:127.0.0.1:14550", help="Live: the companion's link.")
@click.option("--gcs", default="", help="Live: the ground station's link, udp:HOST:PORT.")
@click.option("--frames", type=click.Path(path_type=Path), help="Live: where frames appear.")
@click.option(
    "--lead", "lead_s", type=Metres(0.0), default=20.0, help="Seconds on the ground before arming."
)
@click.option("--linger", "linger_s", default=10.0, help="Live: seconds of speech after landing.")
@click.option(
    "--stop-telemetry-at",
    type=float,
    default=None,
    help="Live: seconds after boot from which the companion hears nothing.",
)
@click.option("--feedback-pin", is_flag=True, help="CAMERA_FEEDBACK in boot time, as with a pin.")
@json_option
def simulate(
    out: Path | None,
    seed: int,
    family: str | None,
    lines: int | None,
    line_m: float,
    minutes: float | None,
    height_m: float,
    dataset: Path | None,
    count: int,
    jobs: int,
    live: bool,
    mavlink: str,
    gcs: str,
    frames: Path | None,
    lead_s: float,
    linger_s: float,
    stop_telemetry_at: float | None,
    feedback_pin: bool,
    as_json: bool,
) -> None:
    """A flight or training set of known truth."""
    if dataset is not None:
        emit(_write_dataset(dataset, count, seed, family or "train", jobs), as_json)
        return
    if out is None:
        raise UserError("nothing to simulate", "give --out FLIGHT or --dataset DIR")
    plan = _plan(lines, line_m, minutes, height_m)
    if not live:
        from onboard.simulator.flight import simulate_flight

        emit(simulate_flight(out, seed, family or "test", plan, feedback_pin, say), as_json)
        return
    from onboard.simulator.live import LiveSettings, fly_live

    log_to_stderr()
    settings = LiveSettings(
        out=out,
        frames=frames or out / "frames",
        seed=seed,
        family=family or "test",
        plan=plan,
        companion=mavlink,
        ground=gcs,
        lead_s=lead_s,
        linger_s=linger_s,
        stop_telemetry_at_s=stop_telemetry_at,
        feedback_pin=feedback_pin,
    )
    emit(fly_live(settings, say), as_json)


def _plan(lines: int | None, line_m: float, minutes: float | None, height_m: float) -> FlightPlan:
    from onboard.simulator.flight_plan import FlightPlan, plan_for_minutes
    from onboard.simulator.world import centre_xy_m

    if minutes is not None and lines is None:
        return plan_for_minutes(centre_xy_m(), minutes, line_m=line_m, height_m=height_m)
    return FlightPlan(
        centre_xy_m(), lines=3 if lines is None else lines, line_m=line_m, height_m=height_m
    )


def _write_dataset(folder: Path, count: int, seed: int, family: str, jobs: int) -> dict[str, Any]:
    from onboard.simulator.dataset import write_dataset

    def note(done: int) -> None:
        if done % 20 == 0:
            say(f"{done} of {count} tiles")

    pixels = write_dataset(folder, count, seed, family, note, jobs)
    return {"dataset": str(folder), "tiles": count, "pixels": pixels}
