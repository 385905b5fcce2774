"""Low disk: the stated order, the counts, and a really full 20 MB disk."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from onboard.keep.errors import DiskFullError
from onboard.keep.files import keep_frame
from onboard.keep.flight import FlightHeader, create_flight
from onboard.keep.read import FlightReader
from onboard.keep.segments import verify_segments
from onboard.keep.space import MB, Room, SpaceGuard
from onboard.keep.store import FlightStore
from onboard.records import Alert, Frame, FrameRecord

EMPTY, UNSCANNED, SEEN = (True, 0), (False, 0), (True, 2)


@pytest.mark.parametrize(
    ("free_mb", "room", "kept"),
    [
        (3000, Room.AMPLE, [EMPTY, UNSCANNED, SEEN]),
        (1500, Room.LOW, [UNSCANNED, SEEN]),
        (1000, Room.LOWER, [SEEN]),
        (100, Room.CRITICAL, []),
    ],
)
def test_what_is_kept(
    tmp_path: Path, free_mb: int, room: Room, kept: list[tuple[bool, int]]
) -> None:
    guard = SpaceGuard(tmp_path, reserve_mb=0, free_bytes=lambda _: free_mb * MB)
    guard.look()
    assert guard.room == room
    assert [kind for kind in (EMPTY, UNSCANNED, SEEN) if guard.keeps(*kind)] == kept
    assert sum(guard.not_kept.values()) == 3 - len(kept)


def test_changes_are_told_once_and_the_sum_at_the_end(tmp_path: Path) -> None:
    free = [3000]
    guard = SpaceGuard(tmp_path, reserve_mb=0, free_bytes=lambda _: free[0] * MB, now_ns=lambda: 7)
    assert guard.look() is None
    assert guard.summary() is None
    free[0] = 1500
    event = guard.look()
    assert event is not None
    assert (event.code, event.level, event.t_mono_ns) == ("disk_low", "warning", 7)
    assert guard.look() is None
    assert not guard.keeps(*EMPTY)
    free[0] = 4000
    event = guard.look()
    assert event is not None
    assert event.code == "disk_ample"
    summary = guard.summary()
    assert summary is not None
    assert (summary.text, summary.count) == ("empty=1", 1)


def test_watermarks_must_be_ordered(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="low must be higher"):
        SpaceGuard(tmp_path, low_mb=1, critical_mb=2)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.root
@pytest.mark.parametrize("critical_mb", [4.0, 0.0], ids=["watermarks", "reserve only"])
def test_full_disk_stops_frames_and_not_rows(small_disk: Path, critical_mb: float) -> None:
    folder = create_flight(small_disk, FlightHeader("f1"))
    guard = SpaceGuard(
        folder, low_mb=8.0 if critical_mb else 0.0, critical_mb=critical_mb, reserve_mb=3.0
    )
    picture = os.urandom(500_000)
    codes: list[str] = []
    kept = 0
    with FlightStore(folder, give_room=guard.release_reserve) as store:
        for i in range(80):
            if event := guard.look():
                codes.append(event.code)
                store.add_health(event)
            path = digest = ""
            if guard.keeps(scanned=True, detections=1):
                try:
                    path, digest = keep_frame(folder, f"{i}.jpg", picture)
                    kept += 1
                except DiskFullError:
                    event = guard.failed()
                    codes.append(event.code)
                    store.add_health(event)
            alert = Alert(i, 0, i, 4, "still told")
            told = store.commit_frame(
                FrameRecord(Frame(f"{i}.jpg", i), None, path, digest, alerts=(alert,))
            )
            assert told == (alert,)
            store.mark_told(i, i)
        summary = guard.summary()
        assert summary is not None
        store.add_health(summary)
    assert 20 < kept < 80
    assert kept + summary.count == 80
    assert "disk_critical" in codes
    assert verify_segments(folder) == []
    with FlightReader(folder) as flight:
        assert len(flight.frames()) == 80
        assert all(alert.told is not None for alert in flight.alerts())
        assert sum(bool(record.kept_path) for record in flight.frames()) == kept
        assert {event.code for event in flight.health()} >= {*codes, "frames_not_kept"}


@pytest.mark.root
def test_rows_that_find_no_room_are_refused_whole_and_writing_goes_on(small_disk: Path) -> None:
    folder = create_flight(small_disk, FlightHeader("f1"))
    store = FlightStore(folder)
    store.commit_frame(FrameRecord(Frame("first", 0)))
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x" * 65536)
    committed = ["first"]
    with contextlib.suppress(DiskFullError):
        for i in range(1, 10_000):
            store.commit_frame(FrameRecord(Frame(f"{i}" * 200, i)))
            committed.append(f"{i}" * 200)
    assert len(committed) < 1000
    filler.unlink()
    store.commit_frame(FrameRecord(Frame("after", 10**6)))
    store.close()
    with FlightReader(folder) as flight:
        assert [r.frame.name for r in flight.frames()] == [*committed, "after"]
