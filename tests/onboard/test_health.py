"""Stage pulses, counters, events, the status file, systemd's socket, the watchdog."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from gossan.notify import sd_notify, watchdog_s
from onboard.daemon import PROCESSES, Watchdog
from onboard.health import Health, read_status, write_status
from onboard.stages import BoundedQueue, StageThread


def test_a_stage_without_a_beat_is_stuck():
    health = Health()
    health.add_stage("scan", 0.05)
    health.add_stage("keep", 60.0)
    assert health.stuck() == []
    time.sleep(0.08)
    assert health.stuck() == ["scan"]
    health.beat("scan", output=True)
    assert health.stuck() == []
    assert health.snapshot()["stages"]["scan"]["done"] == 1


def test_repeated_events_are_counted_not_flooded():
    health = Health()
    for _ in range(50):
        health.event("scan", "error", "scan_failed", "x")
    events = health.take_events()
    assert [(e.code, e.count) for e in events] == [("scan_failed", 1)]
    key = ("scan", "scan_failed")
    health._pending[key].written_ns -= int(60e9)
    health.event("scan", "error", "scan_failed", "x")
    assert [e.count for e in health.take_events()] == [50]


def test_degraded_is_said_once_and_ends():
    health = Health()
    for _ in range(3):
        health.degrade("scan", "no_dem", "missing")
    assert health.snapshot()["degraded"] == {"no_dem": "missing"}
    health.restore("scan", "no_dem")
    health.restore("scan", "no_dem")
    assert [e.code for e in health.take_events()] == ["no_dem", "no_dem_over"]
    assert health.snapshot()["degraded"] == {}


def test_status_file_is_whole_and_json(tmp_path):
    path = tmp_path / "status.json"
    write_status(path, {"coverage": float("nan"), "n": 1})
    assert json.loads(path.read_text()) == {"coverage": None, "n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]
    assert read_status(tmp_path / "none.json") == {}


@pytest.mark.parametrize(
    ("overflow", "kept", "dropped"),
    [("drop_oldest", [2, 3], [0, 1]), ("refuse_newest", [0, 1], [2, 3])],
)
def test_overflow_policies_count_what_they_drop(overflow, kept, dropped):
    health, gone = Health(), []
    queue = BoundedQueue("q", 2, overflow, health, gone.append)
    for i in range(4):
        queue.put(i)
    assert gone == dropped
    assert health.counts["q.dropped"] == 2
    assert [queue.get(0), queue.get(0)] == kept
    assert queue.get(0) is None


def test_a_waiting_queue_waits_for_room():
    queue = BoundedQueue("q", 1, "wait", Health())
    queue.put(1)
    threading.Timer(0.1, lambda: queue.get(0)).start()
    begun = time.monotonic()
    assert queue.put(2)
    assert time.monotonic() - begun < 4.0
    assert queue.get(0) == 2


def test_a_failing_stage_is_started_again():
    health, stop, calls = Health(), threading.Event(), []

    def loop(event):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("once")
        event.wait()

    stage = StageThread("scan", loop, stop, health, 60.0)
    stage.start()
    deadline = time.monotonic() + 10
    while len(calls) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    stop.set()
    assert stage.join(5.0)
    assert len(calls) == 2
    assert health.counts["scan.failures"] == 1
    assert [e.code for e in health.take_events()] == ["stage_failed"]


def test_notify_socket(tmp_path, monkeypatch):
    address = str(tmp_path / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(address)
        ear.settimeout(5.0)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "20000000")
        assert sd_notify("READY=1", "STATUS=x")
        assert ear.recv(100) == b"READY=1\nSTATUS=x"
        assert watchdog_s() == 20.0
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not sd_notify("READY=1")


def test_the_watchdog_starves_while_a_stage_is_stuck():
    sent, stuck, now = [], [], [0.0]
    dog = Watchdog(lambda: stuck, lambda: "ok", 3.0, lambda: now[0], lambda *a: sent.append(a[0]))
    dog.turn()
    stuck.append("scan")
    now[0] = 2.0
    dog.turn()
    stuck.clear()
    now[0] = 4.0
    dog.turn()
    assert sent == ["WATCHDOG=1", "STATUS=stuck: scan", "WATCHDOG=1"]


def test_the_process_table_has_two_lines():
    assert list(PROCESSES) == ["pipeline", "uplink"]
