"""A power cut under the recorder: what it said was safe is there after the file system's repair.

The disk is an ext4 image that is shut down without flushing its journal (EXT4_IOC_SHUTDOWN), then
mounted again. A recorder that skips its syncs must lose rows in the same test.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from onboard.keep.errors import DamagedFlightError, FlightNotFoundError
from onboard.keep.read import FlightReader
from onboard.keep.store import recover

SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2

RECORDER = """
import json, os, sys
from pathlib import Path
root, careless = Path(sys.argv[1]), sys.argv[2] == "careless"
from onboard.keep import database, files
from onboard.keep.flight import FlightHeader, create_flight
from onboard.keep.store import FlightStore
from onboard.records import Alert, Frame, FrameRecord
if careless:
    os.fsync = lambda descriptor: None
    was = database.FlightDatabase.__init__
    def without(self, path):
        was(self, path)
        self._connection.execute("PRAGMA synchronous=OFF")
    database.FlightDatabase.__init__ = without
if not (root / "f1/flight.toml").exists():
    create_flight(root, FlightHeader("f1"))
store = FlightStore(root / "f1")
while True:
    n = store.next_ids().seq
    path, digest = files.keep_frame(root / "f1", f"{n}.jpg", b"%d" % n * 9000)
    record = FrameRecord(Frame(f"{n}.jpg", n), None, path, digest, alerts=(Alert(n, 0, 1, 4, "x"),))
    store.commit_frame(record)
    print(json.dumps([path, digest, n]), flush=True)
"""


class Disk:
    """A small disk whose power can be cut."""

    def __init__(self, folder: Path) -> None:
        self.image, self.mount = folder / "disk.img", folder / "disk"
        self.mount.mkdir()
        with self.image.open("wb") as stream:
            stream.truncate(48 << 20)
        subprocess.run(["mkfs.ext4", "-q", str(self.image)], check=True, capture_output=True)

    def on(self) -> bool:
        command = ["mount", "-o", "loop", str(self.image), str(self.mount)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def cut(self) -> None:
        descriptor = os.open(self.mount, os.O_RDONLY)
        fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        os.close(descriptor)

    def off(self) -> None:
        for _ in range(50):
            done = subprocess.run(["umount", str(self.mount)], capture_output=True, check=False)
            if done.returncode == 0:
                return
            time.sleep(0.1)
        subprocess.run(["umount", "-l", str(self.mount)], check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("cutting the power of a disk image needs root")
    try:
        made = Disk(tmp_path)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no ext4 image can be made here: {error}")
    if not made.on():
        pytest.skip("this machine does not let us mount a disk image")
    yield made
    subprocess.run(["umount", "-l", str(made.mount)], capture_output=True, check=False)


def record_until_cut(disk: Disk, how: str, frames: int) -> list[tuple[str, str, int]]:
    """Records, cuts the power, and returns what the recorder had said was safe."""
    command = [sys.executable, "-c", RECORDER, str(disk.mount), how]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    said: list[tuple[str, str, int]] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            path, digest, number = json.loads(line)
            said.append((path, digest, number))
            if len(said) == frames:
                disk.cut()
        process.kill()
    disk.off()
    assert disk.on()
    return said


def lost_of(disk: Disk, said: list[tuple[str, str, int]]) -> list[str]:
    """Returns what was safe and is not there."""
    folder = disk.mount / "f1"
    try:
        recover(folder)
        with FlightReader(folder) as flight:
            rows = {record.kept_path: record.kept_sha256 for record in flight.frames()}
            alerts = {alert.alert_id for alert in flight.alerts()}
    except (FlightNotFoundError, DamagedFlightError) as error:
        return [str(error)]
    lost = [f"alert {number}" for _, _, number in said if number not in alerts]
    for path, digest, _ in said:
        kept = folder / path
        whole = kept.is_file() and hashlib.sha256(kept.read_bytes()).hexdigest() == digest
        if rows.get(path) != digest or not whole:
            lost.append(path)
    return lost


@pytest.mark.root
def test_nothing_that_was_committed_is_lost(disk: Disk) -> None:
    said: list[tuple[str, str, int]] = []
    for frames in (7, 1, 23):
        said += record_until_cut(disk, "careful", frames)
        assert lost_of(disk, said) == []
    assert len(said) >= 31


@pytest.mark.root
def test_the_cut_is_real(disk: Disk) -> None:
    said = record_until_cut(disk, "careless", 20)
    assert lost_of(disk, said)
