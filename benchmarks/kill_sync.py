"""Kills the recorder, the uplink and the ground server at seeded times, and counts what is lost.

    python benchmarks/kill_sync.py [--kills 20] [--seed 1] [--dir DIR]

Three processes as in a survey: one records frames, rows and alerts into a flight; one sends them;
one receives them. Each is killed (SIGKILL) so many times and started again. Nothing that was ever
acknowledged may be missing: a frame or alert that the store had committed, an object that the
ground had signed for, compared by hash. At the end the flight is closed, the sync must complete,
and both folders must be equal. Prints one JSON object; exits 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

FLIGHT = "kills"
ROLES = ("recorder", "uplink", "ground")


def picture(seq: int) -> bytes:
    """Returns frame ``seq``: the same bytes whenever it is made, 64 to 450 kB."""
    block = hashlib.sha512(b"frame %d" % seq).digest()
    return block * (1000 + 1000 * (seq * 7 % 7))


def record(folder: Path) -> None:
    """Records until a file named ``stop`` appears, then closes; says each durable thing."""
    from onboard.keep.files import keep_chip, keep_frame
    from onboard.keep.flight import FlightHeader, create_flight
    from onboard.keep.store import FlightStore
    from onboard.records import Alert, ClockTie, Frame, FrameRecord

    flight = folder / "drone" / FLIGHT
    if not (flight / "flight.toml").exists():
        create_flight(folder / "drone", FlightHeader(FLIGHT))
    store = FlightStore(flight)
    print("mended" if store.recovery.interrupted else "began", json.dumps([]), flush=True)
    while not (folder / "stop").exists():
        seq = store.next_ids().seq
        path, digest = keep_frame(flight, f"{seq:06d}.jpg", picture(seq))
        chips = [keep_chip(flight, seq, b"chip %d" % seq)] if seq % 3 == 0 else []
        alerts = (Alert(seq, seq, 1, 4, f"alert {seq}"),) if seq % 5 == 0 else ()
        frame = Frame(f"{seq:06d}.jpg", seq)
        told = store.commit_frame(FrameRecord(frame, None, path, digest, alerts=alerts), chips)
        print("frame", json.dumps([seq, path, digest]), flush=True)
        for alert in told:
            print("told", json.dumps([alert.alert_id]), flush=True)
            store.mark_told(alert.alert_id, 1)
        with (flight / "telemetry.tlog").open("ab") as stream:
            stream.write(b"\xfd" * 300)
        store.add_ties([ClockTie(seq, float(seq))])
        time.sleep(0.1)
    store.close()


def send(folder: Path, url: str) -> None:
    """Sends over a narrow line, so that kills meet objects half-way; after landing a wide one."""
    from onboard.keep.uplink import UplinkTask, run_uplink

    token = (folder / "token").read_text()
    state = folder / "drone" / "uplink"
    wide = UplinkTask(folder / "drone", state, url, token, poll_s=0.1, max_backoff_s=0.5)
    landed = threading.Event()

    def watch() -> None:
        while not (folder / "stop").exists():
            time.sleep(0.1)
        landed.set()

    threading.Thread(target=watch, daemon=True).start()
    run_uplink(replace(wide, max_kbit_s=3_000.0), landed)
    run_uplink(wide, threading.Event(), until_done=True)


def receive(folder: Path, port: int) -> None:
    """Serves the sync endpoint."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from groundsync.receive import routes

    app = Starlette(routes=[Mount("/sync", routes=routes(folder / "ground"))])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


class Survey:
    """The three processes, what they acknowledged, and what was found missing."""

    def __init__(self, folder: Path) -> None:
        from groundsync.tokens import Tokens

        self.folder = folder
        self.drone, self.ground = folder / "drone", folder / "ground"
        self.drone.mkdir(parents=True)
        (folder / "token").write_text(Tokens(self.ground / "keys").create("drone"))
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.marks: dict[str, int] = {}
        self.running: dict[str, subprocess.Popen[str]] = {}
        self.kills = dict.fromkeys(ROLES, 0)
        self.frames: dict[str, str] = {}
        self.told: set[int] = set()
        self.mended = self.partial = self.checked = 0
        self.lost: list[str] = []
        self._readers: list[threading.Thread] = []

    def start(self, role: str) -> None:
        """Starts a process."""
        where = {
            "recorder": "",
            "uplink": f"http://127.0.0.1:{self.port}",
            "ground": str(self.port),
        }
        command = [sys.executable, __file__, "--role", role, "--dir", str(self.folder)]
        command += ["--where", where[role]]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.running[role] = process
        self.marks[role] = self.mark(role)
        reader = threading.Thread(target=self._listen, args=(process,), daemon=True)
        reader.start()
        self._readers.append(reader)

    def kill(self, role: str) -> None:
        """Kills a process, looks at what it leaves, and starts it again."""
        process = self.running[role]
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            self.kills[role] += 1
        process.wait()
        self.partial += self.half_way()
        if role != "recorder":
            self.check_objects()
        self.start(role)

    def mark(self, role: str) -> int:
        """Returns a number that grows while a process does its work."""
        if role == "recorder":
            return len(self.frames)
        if role == "uplink":
            return len(self.receipted())
        return sum(p.stat().st_size for p in (self.ground / "objects").rglob("*") if p.is_file())

    def at_work(self, role: str) -> bool:
        """Returns whether a process has done something since it was started."""
        try:
            return self.mark(role) != self.marks[role]
        except OSError:  # a file went while it was looked at
            return False

    def half_way(self) -> bool:
        """Returns whether an object has arrived in part."""
        return any((self.ground / "objects" / "unfinished").glob("*"))

    def receipted(self) -> list[tuple[str, str]]:
        """Returns path and hash of every object that the drone holds a receipt for."""
        database = self.drone / "uplink" / "uplink.db"
        if not database.exists():
            return []
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            try:
                sql = "SELECT path, sha256 FROM objects WHERE state='acknowledged'"
                return list(db.execute(sql))
            except sqlite3.OperationalError:
                return []

    def check_objects(self) -> None:
        """Compares every object that the drone holds a receipt for with the ground's, by hash."""
        receipted = self.receipted()
        for path, digest in receipted:
            blob = self.ground / "objects" / digest[:2] / digest
            if not blob.exists() or hashlib.sha256(blob.read_bytes()).hexdigest() != digest:
                self.lost.append(f"receipted object {path}")
        self.checked += len(receipted)

    def check_flight(self) -> None:
        """Compares what the store had committed with both folders, and the folders by hash."""
        from onboard.keep.read import FlightReader
        from onboard.keep.segments import flight_files, verify_segments

        here, there = self.drone / FLIGHT, self.ground / "flights" / FLIGHT
        for path, _ in [*flight_files(here), ("manifest.json", 0)]:
            if not (there / path).is_file() or digest_of(here / path) != digest_of(there / path):
                self.lost.append(f"file {path} differs on the ground")
        for folder in (here, there):
            self.lost += verify_segments(folder)
            with FlightReader(folder) as flight:
                rows = {r.kept_path: r.kept_sha256 for r in flight.frames()}
                alerts = {alert.alert_id for alert in flight.alerts()}
            self.lost += [f"told alert {number}" for number in sorted(self.told - alerts)]
            for path, digest in self.frames.items():
                if rows.get(path) != digest or digest_of(folder / path) != digest:
                    self.lost.append(f"committed frame {path}")

    def finish(self, timeout_s: float) -> bool:
        """Lets the flight close and the sync complete; returns whether both did."""
        (self.folder / "stop").touch()
        try:
            for role in ("recorder", "uplink"):
                code = self.running[role].wait(timeout_s)
                if code:
                    self.lost.append(f"{role} ended with {code}")
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """Ends what still runs."""
        for process in self.running.values():
            process.kill()
            process.wait()
        for reader in self._readers:
            reader.join(5)
        for process in self.running.values():
            if process.stdout:
                process.stdout.close()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                word, _, rest = line.partition(" ")
                if not line.endswith("\n"):
                    return  # cut by the kill: it was not acknowledged
                values = json.loads(rest)
                if word == "frame":
                    self.frames[values[1]] = values[2]
                elif word == "told":
                    self.told.add(values[0])
                self.mended += word == "mended"


def digest_of(path: Path) -> str:
    """Returns the SHA-256 of a file, empty where it is missing."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def wait_until(ready: Callable[[], bool], timeout_s: float) -> bool:
    """Waits for something to become true; returns whether it did."""
    until = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def await_moment(survey: Survey, role: str, rng: random.Random) -> None:
    """Waits for the moment of a kill: at work, half-way through an object, or while starting."""
    moment = rng.choice(("starting", "at work", "half-way", "half-way"))
    if moment != "starting":
        wait_until(lambda: survey.at_work(role), 30.0)
    if moment == "half-way" and role != "recorder":
        wait_until(survey.half_way, 30.0)
        time.sleep(rng.uniform(0.0, 0.05))
    else:
        time.sleep(rng.uniform(0.0, 0.7))


def run(folder: Path, kills: int, seed: int) -> dict[str, object]:
    """Runs a survey with so many kills of each process; returns the account."""
    rng = random.Random(seed)
    survey = Survey(folder)
    try:
        for role in ("ground", "recorder", "uplink"):
            survey.start(role)
        plan = [role for role in ROLES for _ in range(kills)]
        rng.shuffle(plan)
        database = survey.drone / "uplink" / "uplink.db"
        wait_until(lambda: len(survey.frames) > 3 and database.exists(), 60.0)
        for role in plan:
            await_moment(survey, role, rng)
            before = survey.kills[role]
            while survey.kills[role] == before:
                survey.kill(role)
        complete = survey.finish(timeout_s=180.0)
        survey.check_objects()
        if complete:
            survey.check_flight()
        else:
            survey.lost.append("the sync did not complete")
    finally:
        survey.stop()
    return {
        "seed": seed,
        "kills": survey.kills,
        "frames_committed": len(survey.frames),
        "alerts_told": len(survey.told),
        "flights_mended": survey.mended,
        "kills_with_unfinished_objects": survey.partial,
        "receipts_checked": survey.checked,
        "complete": complete,
        "lost": sorted(set(survey.lost)),
    }


def main() -> int:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--role", choices=ROLES)
    parser.add_argument("--where", default="")
    given = parser.parse_args()
    if given.role == "recorder":
        record(given.dir)
    elif given.role == "uplink":
        send(given.dir, given.where)
    elif given.role == "ground":
        receive(given.dir, int(given.where))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            account = run(given.dir or Path(scratch) / "kills", given.kills, given.seed)
        print(json.dumps(account, indent=2))
        return 1 if account["lost"] else 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
