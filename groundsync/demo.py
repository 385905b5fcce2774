"""``gossan demo``: a simulated survey end to end on this machine, told as a crew would live it.

Simulator, daemon, uplink and ground server are processes of their own that share sockets and frame
files only; the planted truth is read at the very end, by the scorer.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import shapely
import tomlkit
from pyproj import CRS

from calibration.geodesy import MapFrame
from gossan.console import emit, json_option
from gossan.errors import GossanError, UserError
from groundsync.bench_survey import score_against_truth
from groundsync.catalogue import SqliteCatalogue
from groundsync.demo_fleet import Fleet, GroundStation, free_port, run_gossan
from groundsync.fuse import fuse
from groundsync.score import Score
from groundsync.settings import load_project
from groundsync.tokens import Tokens

LEAD_S = 60.0
FLIGHT_TIMEOUT_S = 900.0
SYNC_TIMEOUT_S = 300.0
MIN_RECALL = 0.5
"""One flight over a dozen planted things shows that all parts work together. How well the network
finds things is for many flights to say: `gossan bench survey` holds it to 90 %."""
MAX_FALSE_ALARMS = 2
MIN_INSIDE_90 = 0.6


@dataclass(frozen=True)
class Stage:
    """Where everything of one demo lies.

    Attributes:
        out: The demo's folder.
        seed: Which world and flight.
        ground_port: The office's port.
        vehicle_port: The companion's MAVLink port.
        crew_port: The ground station's MAVLink port.
        tell: Says a line of the story.
    """

    out: Path
    seed: int
    ground_port: int
    vehicle_port: int
    crew_port: int
    tell: Callable[[str], None]

    @property
    def world(self) -> Path:
        """What the aircraft is given (and the truth, which only the scorer opens)."""
        return self.out / "world"

    @property
    def project(self) -> Path:
        """The office's project folder."""
        return self.out / "project"

    @property
    def settings(self) -> Path:
        """The daemon's settings."""
        return self.out / "onboard.toml"

    @property
    def url(self) -> str:
        """The office's address."""
        return f"http://127.0.0.1:{self.ground_port}"


@click.command()
@click.option("--headless", is_flag=True, help="End after the story, as without a terminal.")
@click.option("--seed", default=7, show_default=True, help="Which world and which flight.")
@click.option("--lines", default=3, show_default=True, help="Survey lines.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder; a temporary one without.")
@json_option
def demo(headless: bool, seed: int, lines: int, out: Path | None, as_json: bool) -> None:
    """A simulated survey end to end on this machine.

    Doctor, flight over UDP with live sync, fusion with prior geology, ranked targets; then the
    check against what was planted. Exits 1 where the check fails or an object was not acknowledged.
    """
    folder = out or Path(tempfile.mkdtemp(prefix="gossan-demo-"))
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty", "give a new folder with --out")
    stage = Stage(
        folder,
        seed,
        free_port(socket.SOCK_STREAM),
        free_port(socket.SOCK_DGRAM),
        free_port(socket.SOCK_DGRAM),
        lambda text: click.echo(text, err=as_json),
    )
    with Fleet(folder / "logs") as fleet:
        outcome = _story(stage, fleet, lines)
        emit(outcome, as_json, lambda: None)
        if not headless and sys.stdout.isatty():
            stage.tell(f"The map is at {stage.url}/ (Ctrl-C ends).")
            _wait_for_interrupt()
    if not outcome["passed"]:
        sys.exit(1)


def _story(stage: Stage, fleet: Fleet, lines: int) -> dict[str, Any]:
    stage.tell("\n== The office opens ==")
    open_office(stage, fleet)
    stage.tell("\n== At the vehicle ==")
    prepare_flight(stage, fleet, lines)
    ready = _see_the_doctor(stage)
    stage.tell("\n== In the air: what the crew hears ==")
    heard = _fly(stage, fleet)
    stage.tell("\n== Landed ==")
    synced = _sync(stage, fleet)
    stage.tell("\n== In the office ==")
    fused = _fuse(stage)
    stage.tell("\n== Against what was planted ==")
    checks = [
        _check(stage, "the doctor found the drone ready", ready),
        _check(stage, "the crew heard an alert", any(severity <= 4 for severity, _ in heard)),
        *_check_sync(stage, synced),
        *_check_truth(stage),
    ]
    return {
        "out": stage.out,
        "alerts": [text for _, text in heard],
        "sync": synced,
        "targets": len(fused["targets"]),
        "checks": [{"name": name, "passed": passed} for name, passed in checks],
        "passed": all(passed for _, passed in checks),
    }


def open_office(stage: Stage, fleet: Fleet) -> None:
    """Starts the ground server on a new project, with a token for the drone."""
    stage.project.mkdir(parents=True)
    token = Tokens(stage.project / "keys").create("demo-drone")
    token_file = stage.out / "drone.token"
    token_file.touch(0o600)
    token_file.write_text(token)
    fleet.start(
        "ground", "groundsync", "serve", "--data", stage.project, "--port", stage.ground_port
    )
    fleet.wait_until("ground", lambda: _answers(stage.ground_port), 60)
    stage.tell(f"Map and sync at {stage.url}/")


def prepare_flight(stage: Stage, fleet: Fleet, lines: int) -> None:
    """Starts the simulated aircraft, waits for what it is given, writes the daemon's settings."""
    fleet.start(
        *("simulator", "onboard", "simulate", "--live", "--out", stage.world, "--seed", stage.seed),
        *("--lines", lines, "--lead", LEAD_S, "--frames", stage.out / "frames"),
        *("--mavlink", f"udp:127.0.0.1:{stage.vehicle_port}"),
        *("--gcs", f"udp:127.0.0.1:{stage.crew_port}"),
    )
    given = [stage.world / name for name in ("dem.tif", "rig.toml", "plan.geojson")]
    fleet.wait_until("simulator", lambda: all(path.is_file() for path in given), 180)
    _write_settings(stage)
    project = {"name": f"Demo survey, world {stage.seed}", "terrain": {"dem": str(given[0])}}
    (stage.project / "project.toml").write_text(tomlkit.dumps(project))
    stage.tell(
        f"A simulated aircraft with {lines} survey lines to fly; settings in {stage.settings}"
    )


def _write_settings(stage: Stage) -> None:
    settings = {
        "vehicle": {"link": f"udpin:127.0.0.1:{stage.vehicle_port}", "name": "demo"},
        "camera": {"source": f"folder:{stage.out / 'frames'}"},
        "rig": {"file": str(stage.world / "rig.toml")},
        "terrain": {"dem": str(stage.world / "dem.tif")},
        "model": {"name": "surface-rgb", "threads": 1},
        "survey": {"plan": str(stage.world / "plan.geojson")},
        "storage": {"root": str(stage.out / "drone")},
        "uplink": {"url": f"{stage.url}/sync", "token_file": str(stage.out / "drone.token")},
    }
    stage.settings.write_text(tomlkit.dumps(settings))


def _see_the_doctor(stage: Stage) -> bool:
    done = run_gossan("onboard", "doctor", "--config", stage.settings, "--json")
    try:
        checks = json.loads(done.stdout)["checks"]
    except ValueError:
        stage.tell(done.stderr)
        return False
    for check in checks:
        remedy = f"  -> {check['todo']}" if check["level"] != "ok" else ""
        stage.tell(f"  {check['level']:4}  {check['name']}: {check['detail']}{remedy}")
    return done.returncode == 0


def _fly(stage: Stage, fleet: Fleet) -> list[tuple[int, str]]:
    begun = time.monotonic()

    def hear(severity: int, text: str) -> None:
        stage.tell(f"  {time.monotonic() - begun:4.0f} s  {'!' if severity <= 4 else ' '} {text}")

    crew = GroundStation(stage.crew_port, hear)
    crew.start()
    fleet.start("daemon", "onboard", "run", "--once", "--config", stage.settings)
    fleet.start("uplink", "onboard", "uplink", "--config", stage.settings)
    try:
        fleet.wait("simulator", FLIGHT_TIMEOUT_S)
        fleet.wait("daemon", FLIGHT_TIMEOUT_S)
    finally:
        crew.stop()
    return crew.texts


def _sync(stage: Stage, fleet: Fleet) -> dict[str, Any]:
    status = _json(run_gossan("onboard", "status", "--root", stage.out / "drone", "--json").stdout)
    flight = status.get("last_flight") or status.get("flight") or {}
    stage.tell(
        f"{flight.get('frames', 0)} frames recorded, {flight.get('placed', 0)} placed, "
        f"{flight.get('scanned', 0)} scanned, {flight.get('detections', 0)} detections, "
        f"{flight.get('alerts', 0)} alerts; {flight.get('coverage_percent', 0)} % of the plan seen"
    )
    fleet.end("uplink")
    fleet.start("sync", "onboard", "uplink", "--once", "--config", stage.settings)
    code = fleet.wait("sync", SYNC_TIMEOUT_S)
    sent = _uplink_state(stage.out / "drone")
    stage.tell(f"Sync: {sent['acknowledged']} objects acknowledged, {sent['pending']} waiting")
    return {"exit_code": code, **sent}


def _uplink_state(root: Path) -> dict[str, int]:
    """Returns what the uplink says of itself: objects acknowledged, and not yet."""
    state = _json((root / ".uplink" / "status.json").read_text(encoding="utf-8"))
    waiting = [state.get(name, {}).get("objects", 0) for name in ("pending", "failed")]
    return {
        "acknowledged": state.get("acknowledged", {}).get("objects", 0),
        "pending": sum(waiting),
    }


def _fuse(stage: Stage) -> dict[str, Any]:
    data = stage.project
    priors = stage.world / "priors" / "priors.toml"
    _gossan("groundsync", "prior", priors, "--out", data / "prior")
    fused = _json(_gossan("groundsync", "fuse", "--data", data, "--json"))
    exported = _json(_gossan("groundsync", "export", "--data", data, "--json"))
    report = _json(_gossan("groundsync", "report", "--data", data, "--json"))
    stage.tell(fused["summary"])
    for target in fused["targets"]:
        known = "" if target["calibrated"] else ", uncalibrated"
        stage.tell(
            f"  {target['rank']:2}. {target['class_name'].replace('_', ' ')} at "
            f"{target['lat_deg']:.6f}, {target['lon_deg']:.6f} ± {target['ce90_m']:.1f} m, "
            f"seen {target['probability']:.0%}{known}, deposit {target['posterior']:.2%}"
        )
        stage.tell(f"      {target['before_next']}" if target["before_next"] else "")
    for note in fused["notes"]:
        stage.tell(f"  note: {note}")
    stage.tell(f"Map         {stage.url}/")
    stage.tell(f"GeoPackage  {exported['files'][0]}")
    stage.tell(f"Report      {report['report']}")
    return fused


def _check_sync(stage: Stage, synced: dict[str, Any]) -> list[tuple[str, bool]]:
    whole = synced["exit_code"] == 0 and synced["pending"] == 0 and synced["acknowledged"] > 0
    return [_check(stage, f"all {synced['acknowledged']} objects were acknowledged", whole)]


def _check_truth(stage: Stage) -> list[tuple[str, bool]]:
    score = _score(stage)
    stage.tell(
        f"  {score.found} of {score.due} planted found ({score.right_class} by their class), "
        f"{score.false_alarms} false alarms on {score.area_km2:.3f} km2"
    )
    for name in score.missed:
        stage.tell(f"    missed: {name}")
    if not score.found:
        return [_check(stage, "something planted was found", False)]
    inside = score.inside(0.9)
    stage.tell(
        f"  position error: median {np.median(score.error_m):.2f} m, largest "
        f"{score.error_m.max():.2f} m; claimed 90 % radius: median {np.median(score.ce90_m):.2f} m"
    )
    return [
        _check(
            stage, f"at least {MIN_RECALL:.0%} of the planted found", score.recall >= MIN_RECALL
        ),
        _check(
            stage,
            f"at most {MAX_FALSE_ALARMS} false alarms",
            score.false_alarms <= MAX_FALSE_ALARMS,
        ),
        _check(
            stage,
            f"{inside} of {score.found} truths inside their 90 % ellipse",
            inside >= MIN_INSIDE_90 * score.found,
        ),
    ]


def _score(stage: Stage) -> Score:
    catalogue = SqliteCatalogue(stage.project)
    view = fuse(stage.project, catalogue.flights(), load_project(stage.project)).view
    imaged = shapely.union_all([c.geometry for c in view.coverage if c.scanned])
    map_frame = MapFrame(CRS.from_user_input(view.crs))
    return score_against_truth(stage.world, [one.target for one in view.targets], map_frame, imaged)


def _gossan(*arguments: object) -> str:
    done = run_gossan(*arguments)
    if done.returncode != 0:
        raise GossanError(f"`gossan {' '.join(map(str, arguments))}` failed: {done.stderr.strip()}")
    return done.stdout


def _json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _check(stage: Stage, name: str, passed: bool) -> tuple[str, bool]:
    stage.tell(f"  {'passed' if passed else 'FAILED'}: {name}")
    return name, passed


def _wait_for_interrupt() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return
