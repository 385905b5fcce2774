"""Kills daemon, uplink and ground server during simulated surveys, and counts what is lost.

    python benchmarks/kill_survey.py [--kills 20] [--seed 1] [--lines 3] [--out DIR]

One simulated aircraft flies; the daemon, the uplink and the ground server are each killed
(SIGKILL) so many times at seeded times and started again. Watched from outside all the while: every
frame and alert that a reader saw committed, every object that the uplink noted as receipted. At the
end none of them may be missing, by hash, and drone and ground must hold equal flights. Prints one
JSON object; exits 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from groundsync.demo import LEAD_S, Stage, open_office, prepare_flight
from groundsync.demo_fleet import Fleet, free_port
from onboard.keep.flight import MANIFEST, is_closed, list_flights

FLIGHT_S = 900.0
SYNC_S = 300.0
PAUSE_S = (2.0, 9.0)


@dataclass
class Witness(threading.Thread):
    """Sees what is committed and receipted, from outside.

    Attributes:
        stage: Where everything lies.
        frames: (flight, frame) to the hash of the kept file, as a reader saw them committed.
        alerts: (flight, alert number) to the text.
        objects: Hashes that the uplink noted as receipted.
    """

    stage: Stage
    frames: dict[tuple[str, str], str] = field(default_factory=dict)
    alerts: dict[tuple[str, int], str] = field(default_factory=dict)
    objects: set[str] = field(default_factory=set)
    done: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Looks twice a second until told to stop."""
        while not self.done.wait(0.5):
            self.look()

    def look(self) -> None:
        """Takes in what stands now."""
        for folder in list_flights(self.stage.out / "drone"):
            for name, sha256 in rows(folder / "flight.db", "SELECT name, kept_sha256 FROM frames"):
                self.frames[folder.name, str(name)] = str(sha256)
            for number, text in rows(folder / "flight.db", "SELECT alert_id, text FROM alerts"):
                self.alerts[folder.name, int(str(number))] = str(text)
        uplink = self.stage.out / "drone" / ".uplink" / "uplink.db"
        sql = "SELECT sha256 FROM objects WHERE state = 'acknowledged'"
        self.objects |= {str(sha256) for (sha256,) in rows(uplink, sql)}


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    """Returns the rows of a query that only reads; none while the file is not there yet."""
    if not path.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)) as db:
            return list(db.execute(sql))
    except sqlite3.OperationalError:
        return []


class Killer(threading.Thread):
    """Kills one process so many times at seeded times, and starts it again."""

    def __init__(self, fleet: Fleet, name: str, start: tuple[object, ...], kills: int, seed: int):
        super().__init__(daemon=True)
        self.fleet = fleet
        self.process = name
        self.command = start
        self.left = kills
        self.killed = 0
        self.random = random.Random(f"{seed}-{name}")
        self.done = threading.Event()

    def run(self) -> None:
        """Kills until all kills are spent or the flight is over."""
        while self.left and not self.done.wait(self.random.uniform(*PAUSE_S)):
            process = self.fleet.running.get(self.process)
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
                self.killed += 1
                self.left -= 1
            if not self.done.is_set():
                self.fleet.start(self.process, *self.command)


def fly(out: Path, seed: int, lines: int, kills: int) -> dict[str, object]:
    """Returns what was lost in one survey with so many kills of each process."""
    stage = Stage(
        out,
        seed,
        free_port(socket.SOCK_STREAM),
        free_port(socket.SOCK_DGRAM),
        free_port(socket.SOCK_DGRAM),
        lambda text: print(text, file=sys.stderr),
    )
    serve = ("groundsync", "serve", "--data", stage.project, "--port", stage.ground_port)
    daemon = ("onboard", "run", "--once", "--config", stage.settings)
    uplink = ("onboard", "uplink", "--config", stage.settings)
    with Fleet(out / "logs") as fleet:
        open_office(stage, fleet)
        prepare_flight(stage, fleet, lines)
        fleet.start("daemon", *daemon)
        fleet.start("uplink", *uplink)
        witness = Witness(stage)
        witness.start()
        time.sleep(LEAD_S * 0.7)
        killers = [
            Killer(fleet, "daemon", daemon, kills, seed),
            Killer(fleet, "uplink", uplink, kills, seed),
            Killer(fleet, "ground", serve, kills, seed),
        ]
        for killer in killers:
            killer.start()
        fleet.wait("simulator", FLIGHT_S)
        for killer in killers:
            killer.done.set()
            killer.join()
        ends = time.monotonic() + FLIGHT_S
        while fleet.running["daemon"].poll() is None and time.monotonic() < ends:
            time.sleep(0.5)
        fleet.end("uplink")
        fleet.start("sync", "onboard", "uplink", "--once", "--config", stage.settings)
        synced = fleet.wait("sync", SYNC_S) == 0
        witness.done.set()
        witness.join()
        witness.look()
    return {
        "kills": {killer.process: killer.killed for killer in killers},
        "frames": len(witness.frames),
        "alerts": len(witness.alerts),
        "objects": len(witness.objects),
        "synced": synced,
        **losses(stage, witness),
    }


def losses(stage: Stage, witness: Witness) -> dict[str, object]:
    """Returns what is missing of what was once seen as committed or receipted."""
    drone, ground = stage.out / "drone", stage.project / "flights"
    lost_frames = [
        key
        for key, sha256 in witness.frames.items()
        if sha256 and not any(digest(p) == sha256 for p in (drone / key[0]).rglob(f"{key[1]}*"))
    ]
    told = {
        (folder.name, number): text
        for folder in list_flights(drone)
        for number, text in rows(folder / "flight.db", "SELECT alert_id, text FROM alerts")
    }
    lost_alerts = [key for key, text in witness.alerts.items() if told.get(key) != text]
    objects = [p for p in (stage.project / "objects").rglob("*") if len(p.name) == 64]
    lost_objects = sorted(witness.objects - {p.name for p in objects if digest(p) == p.name})
    flights = list_flights(drone)
    unequal = [
        folder.name
        for folder in flights
        if not is_closed(folder)
        or not is_closed(ground / folder.name)
        or digest(folder / MANIFEST) != digest(ground / folder.name / MANIFEST)
    ]
    return {
        "flights": len(flights),
        "lost_frames": lost_frames,
        "lost_alerts": lost_alerts,
        "lost_objects": lost_objects,
        "unequal_flights": unequal,
    }


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    """Flies and prints what was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lines", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="gossan-kills-"))
    outcome = fly(out, options.seed, options.lines, options.kills)
    print(json.dumps(outcome, indent=2, default=str))
    lost = any(outcome[key] for key in outcome if key.startswith(("lost", "unequal")))
    return 1 if lost or not outcome["synced"] else 0


if __name__ == "__main__":
    sys.exit(main())
