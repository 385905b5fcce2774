"""The uplink: order, resumption, receipts, refusals, and what it says about itself."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import random
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from nacl.signing import SigningKey
from starlette.applications import Starlette
from starlette.routing import Mount

from groundsync.receive import live_rows, routes
from groundsync.tokens import Tokens
from onboard.keep.errors import FlightBusyError
from onboard.keep.files import keep_chip, keep_frame
from onboard.keep.flight import FlightHeader, create_flight
from onboard.keep.read import FlightReader
from onboard.keep.receipt import Receipt, holds
from onboard.keep.rows import WIRE_KINDS, record_of
from onboard.keep.segments import flight_files, verify_segments
from onboard.keep.store import FlightStore
from onboard.keep.uplink import UplinkTask, read_status, run_uplink
from onboard.keep.uplink_db import Parcel, UplinkDatabase
from onboard.records import Alert, ClockTie, Footprint, Frame, FrameRecord

Hook = Callable[[httpx.Request], httpx.Response | None]


class Wire(httpx.BaseTransport):
    """Carries requests to an ASGI application; a hook may answer, cut or record them."""

    def __init__(self, app: Starlette, hook: Hook | None = None) -> None:
        self._inner = httpx.ASGITransport(app)
        self.hook = hook
        self.seen: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        content = request.read()
        self.seen.append(f"{request.method} {request.url.path.removeprefix('/sync/')}")
        if self.hook and (answer := self.hook(request)) is not None:
            return answer

        async def carried() -> httpx.Response:
            copy = httpx.Request(
                request.method, request.url, headers=request.headers, content=content
            )
            answer = await self._inner.handle_async_request(copy)
            return httpx.Response(
                answer.status_code, headers=answer.headers, content=await answer.aread()
            )

        return asyncio.run(carried())


class Survey:
    """A drone's flights, a ground, and the uplink between them."""

    def __init__(self, tmp: Path) -> None:
        self.root = tmp / "drone"
        self.project = tmp / "ground"
        self.root.mkdir()
        token = Tokens(self.project / "keys").create("hexa")
        self.wire = Wire(Starlette(routes=[Mount("/sync", routes=routes(self.project))]))
        self.task = UplinkTask(
            self.root, self.root / "uplink", "http://ground", token, poll_s=0.01, max_backoff_s=0.05
        )

    def fly(self, flight_id: str = "f1", frames: int = 4) -> FlightStore:
        folder = create_flight(self.root, FlightHeader(flight_id), {"rig.toml": b"r = 1\n"})
        store = FlightStore(folder)
        for i in range(frames):
            path, digest = keep_frame(folder, f"{i}.jpg", hashlib.sha512(b"%d" % i).digest() * 500)
            frame = Frame(f"{i}.jpg", i)
            alerts = (Alert(0, 0, 1, 4, "look"),) if i == 1 else ()
            store.commit_frame(
                FrameRecord(frame, None, path, digest, alerts=alerts),
                [keep_chip(folder, i, b"chip%d" % i)],
            )
        store.add_ties([ClockTie(1, 2.0)])
        (folder / "telemetry.tlog").write_bytes(b"\xfd" * 5000)
        return store

    def sync(self, **more: Any) -> dict[str, Any]:
        return run_uplink(
            self.task, threading.Event(), until_done=True, transport=self.wire, **more
        )

    def compare(self, flight_id: str = "f1") -> None:
        drone, ground = self.root / flight_id, self.project / "flights" / flight_id
        names = [path for path, _ in flight_files(drone)] + ["manifest.json"]
        for name in names:
            assert (ground / name).read_bytes() == (drone / name).read_bytes(), name
        assert verify_segments(ground) == []


@pytest.fixture
def survey(tmp_path: Path) -> Survey:
    return Survey(tmp_path)


def test_a_closed_flight_arrives_whole_and_equal(survey: Survey) -> None:
    survey.fly().close()
    status = survey.sync()
    assert status["done"]
    assert status["pending"]["objects"] == status["failed"]["objects"] == 0
    survey.compare()
    with FlightReader(survey.project / "flights/f1") as flight:
        assert len(flight.frames()) == 4
    assert read_status(survey.task.state_dir)["done"]


def test_twice_is_once(survey: Survey) -> None:
    survey.fly().close()
    survey.sync()
    before = len(survey.wire.seen)
    assert survey.sync()["done"]
    assert len(survey.wire.seen) == before


def test_order_is_alerts_rows_chips_frames_rest_database_manifest(survey: Survey) -> None:
    survey.fly().close()
    survey.sync()
    folder = survey.project / "flights/f1"
    name_of = {hashlib.sha256(p.read_bytes()).hexdigest(): p for p in folder.rglob("*.*")}
    sent = [name_of[s[8:]].relative_to(folder).as_posix() for s in survey.wire.seen if "PATCH" in s]
    order = list(dict.fromkeys(path.split("/")[0] for path in sent))
    assert order[:4] == ["flight.toml", "rows", "chips", "frames"]
    assert order[-1] == "flight.db"
    assert survey.wire.seen[-1] == "POST flights/f1/manifest"
    kinds = [kind for _, kind, _ in live_rows(survey.project, "f1")]
    assert kinds[0] == "alert"
    assert kinds.count("frame") == 4


def test_live_rows_arrive_in_flight_and_read_as_records(survey: Survey) -> None:
    store = survey.fly()
    stop = threading.Event()
    thread = threading.Thread(target=run_uplink, args=(survey.task, stop, False, survey.wire))
    thread.start()
    try:
        found = wait_for(lambda: list(live_rows(survey.project, "f1")))
        assert {kind for _, kind, _ in found} <= set(WIRE_KINDS)
        records = [record_of(kind, row) for _, kind, row in found]
        assert Alert(0, 0, 1, 4, "look") in records
        later = Alert(1, 0, 5, 4, "again")
        store.commit_frame(FrameRecord(Frame("9.jpg", 9), alerts=(later,)))
        wait_for(lambda: later in [record_of(k, r) for _, k, r in live_rows(survey.project, "f1")])
        assert read_status(survey.task.state_dir)["done"] is False
        assert not (survey.project / "flights/f1/manifest.json").exists()
        store.close()
        wait_for(lambda: (survey.project / "flights/f1/manifest.json").exists())
    finally:
        stop.set()
        thread.join(10)
    survey.compare()


def wait_for(what: Callable[[], Any]) -> Any:
    for _ in range(1000):
        if found := what():
            return found
        threading.Event().wait(0.02)
    raise AssertionError("it never came")


def test_an_alert_overtakes_a_big_frame(survey: Survey) -> None:
    store = survey.fly(frames=1)
    big = hashlib.sha512(b"big").digest() * 20000
    path, digest = keep_frame(store.folder, "big.jpg", big)
    store.commit_frame(FrameRecord(Frame("big.jpg", 5), None, path, digest))
    name = hashlib.sha256(big).hexdigest()
    pieces = 0

    def interject(request: httpx.Request) -> None:
        nonlocal pieces
        if request.url.path.endswith(name):
            pieces += 1
            if pieces == 3:
                folder = store.folder
                store.close(final=False)
                again = FlightStore(folder)
                again.commit_frame(
                    FrameRecord(Frame("a.jpg", 6), alerts=(Alert(7, 0, 1, 4, "hot"),))
                )
                again.close()

    survey.wire.hook = interject
    assert survey.sync()["done"]
    first_piece = survey.wire.seen.index(f"PATCH o/{name}")
    bundle = next(
        p.read_bytes()
        for p in sorted((survey.project / "flights/f1/rows").iterdir())
        if b'"hot"' in p.read_bytes()
    )
    alert_at = survey.wire.seen.index(f"PATCH o/{hashlib.sha256(bundle).hexdigest()}")
    last_piece = len(survey.wire.seen) - 1 - survey.wire.seen[::-1].index(f"PATCH o/{name}")
    assert first_piece < alert_at < last_piece
    survey.compare()


@pytest.mark.parametrize("seed", range(4))
def test_a_line_that_breaks_at_any_time_loses_nothing(survey: Survey, seed: int) -> None:
    survey.fly().close()
    rng = random.Random(seed)

    def break_sometimes(request: httpx.Request) -> httpx.Response | None:
        if rng.random() < 0.3:
            raise httpx.ConnectError("cut", request=request)
        if rng.random() < 0.1:
            return httpx.Response(503, text="down for a moment")
        return None

    survey.wire.hook = break_sometimes
    status = survey.sync()
    assert status["done"]
    assert status["failures"] > 0
    survey.compare()


def test_answers_lost_after_the_ground_has_acted_lose_nothing(survey: Survey) -> None:
    survey.fly().close()
    wire, turn = survey.wire, 0

    class LosesAnswers(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal turn
            turn += 1
            answer = wire.handle_request(request)
            if turn % 3 == 0:
                raise httpx.ReadError("the answer was lost", request=request)
            return answer

    status = run_uplink(survey.task, threading.Event(), until_done=True, transport=LosesAnswers())
    assert status["done"]
    survey.compare()


def stop_after(survey: Survey, requests: int) -> threading.Event:
    """Returns a stop event that is set by so many requests."""
    stop, hook = threading.Event(), survey.wire.hook

    def counted(request: httpx.Request) -> httpx.Response | None:
        if len(survey.wire.seen) >= requests:
            stop.set()
        return hook(request) if hook else None

    survey.wire.hook = counted
    return stop


def forged(request: httpx.Request) -> httpx.Response | None:
    """Answers like the ground, with receipts that another key has signed."""
    if request.method != "PATCH":
        return None
    name = request.url.path.rsplit("/", 1)[-1]
    plain = Receipt("object", "f1", name, 1, 0.0)
    signature = SigningKey.generate().sign(plain.signed_bytes()).signature.hex()
    receipt = {**plain.to_json(), "signature": signature}
    return httpx.Response(200, json={"receipts": [receipt]}, headers={"Upload-Offset": "1"})


def test_forged_receipts_acknowledge_nothing(survey: Survey) -> None:
    survey.fly().close()
    survey.wire.hook = forged
    stop = stop_after(survey, 6)
    status = run_uplink(survey.task, stop, transport=survey.wire)
    assert status["acknowledged"]["objects"] == 0
    assert status["bad_receipts"] > 0
    assert "not signed by the ground's key" in status["last_error"]


def test_wrong_token_is_said_and_never_logged(
    survey: Survey, caplog: pytest.LogCaptureFixture
) -> None:
    survey.fly().close()
    task = dataclasses.replace(survey.task, token="quite-secret-token")
    stop = stop_after(survey, 6)
    with caplog.at_level("DEBUG"):
        status = run_uplink(task, stop, transport=survey.wire)
    assert status["acknowledged"]["objects"] == 0
    assert "refuses this drone" in status["last_error"]
    assert "quite-secret-token" not in caplog.text + json.dumps(status)


def test_pinned_key_of_another_ground_is_refused(survey: Survey) -> None:
    survey.fly().close()
    task = dataclasses.replace(survey.task, server_key="11" * 32)
    stop = stop_after(survey, 6)
    status = run_uplink(task, stop, transport=survey.wire)
    assert status["acknowledged"]["objects"] == 0


def test_file_changed_on_board_is_not_acknowledged_as_what_it_was(survey: Survey) -> None:
    survey.fly().close()
    (survey.root / "f1/frames/2.jpg").write_bytes(b"bit rot")
    status = survey.sync()
    assert not status["done"]
    assert status["failed"]["objects"] == 2  # the file, and the manifest that names it
    assert any("frames/2.jpg: the file on board is not" in said for said in status["errors"])
    assert not (survey.project / "flights/f1/manifest.json").exists()
    assert (survey.project / "flights/f1/frames/1.jpg").exists()


def test_what_the_ground_refuses_does_not_hold_up_the_rest(survey: Survey) -> None:
    store = survey.fly()
    (store.folder / "notes of mine.txt").write_text("left out: the ground takes no such name")
    store.close()

    def refuse_one(request: httpx.Request) -> httpx.Response | None:
        if b"frames/2.jpg" in request.content and request.url.path.endswith("want"):
            return httpx.Response(400, json={"error": "I do not like it", "hint": ""})
        return None

    survey.wire.hook = refuse_one
    status = survey.sync()
    assert "frames/2.jpg: I do not like it" in status["errors"]
    assert (survey.project / "flights/f1/frames/3.jpg").exists()
    assert (survey.project / "flights/f1/flight.db").exists()
    survey.wire.hook = None
    assert survey.sync()["done"]
    survey.compare()


def test_reopened_flight_is_sent_anew(survey: Survey) -> None:
    survey.fly().close()
    survey.sync()
    store = FlightStore(survey.root / "f1")
    square = Footprint("8.jpg", np.zeros((3, 2)), (), 0.1)
    store.commit_frame(FrameRecord(Frame("8.jpg", 8), footprint=square))
    store.close()
    assert survey.sync()["done"]
    survey.compare()


def test_a_disk_that_refuses_receipts_for_a_while_loses_nothing(
    survey: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey.fly().close()
    real, left = UplinkDatabase.acknowledge, [3]

    def full(db: UplinkDatabase, parcel: Parcel, receipt: Receipt) -> None:
        if parcel.priority > 1 and left[0]:
            left[0] -= 1
            raise sqlite3.OperationalError("database or disk is full")
        real(db, parcel, receipt)

    monkeypatch.setattr(UplinkDatabase, "acknowledge", full)
    status = survey.sync()
    assert status["done"]
    assert status["failures"] == 3
    survey.compare()


def test_second_uplink_is_refused(survey: Survey) -> None:
    survey.fly().close()

    def nested(request: httpx.Request) -> None:
        with pytest.raises(FlightBusyError):
            run_uplink(survey.task, threading.Event())
        survey.wire.hook = None

    survey.wire.hook = nested
    survey.sync()
    assert survey.wire.hook is None


def test_bandwidth_cap_is_kept(survey: Survey) -> None:
    waits: list[float] = []

    class Watch(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return False

    survey.fly().close()
    task = dataclasses.replace(survey.task, max_kbit_s=1000.0)
    status = run_uplink(task, Watch(), until_done=True, transport=survey.wire)
    assert status["done"]
    assert sum(waits) > 0.5 * status["sent_bytes"] * 8 / 1e6


def test_only_the_ground_s_own_word_on_this_object_holds() -> None:
    key, stranger = SigningKey(b"k" * 32), SigningKey(b"s" * 32)
    public = bytes(key.verify_key)
    said = Receipt("object", "f1", "ab" * 32, 7, 1.0)
    good = dataclasses.replace(said, signature=key.sign(said.signed_bytes()).signature.hex())
    assert holds(good, public, "object", "f1", "ab" * 32)
    assert not holds(good, public, "object", "f1", "cd" * 32)
    assert not holds(good, bytes(stranger.verify_key), "object", "f1", "ab" * 32)
    for spoilt in (
        dataclasses.replace(good, size_bytes=8),
        dataclasses.replace(good, signature="zz"),
        said,
    ):
        assert not holds(spoilt, public, "object", "f1", "ab" * 32)
    assert not holds(good, b"", "object", "f1", "ab" * 32)
