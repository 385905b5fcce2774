"""The flight store: what is committed reads back equal, in order, and survives interruptions."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlite_utils
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyproj import CRS

from calibration.rotations import r_from_ypr
from onboard.keep.errors import (
    DamagedFlightError,
    DiskFullError,
    FlightBusyError,
    FlightExistsError,
    FlightNameError,
    FlightNotFoundError,
    NewerSchemaError,
    StoreError,
)
from onboard.keep.files import keep_chip, keep_frame, own_temp_suffix
from onboard.keep.flight import (
    FlightHeader,
    amend_header,
    create_flight,
    is_closed,
    list_flights,
    read_header,
)
from onboard.keep.health import HealthEvent
from onboard.keep.read import FlightReader
from onboard.keep.schema import MIGRATION_SET
from onboard.keep.segments import read_segment, verify_segments
from onboard.keep.store import FlightStore, recover
from onboard.records import (
    Alert,
    ClockTie,
    Detections,
    Footprint,
    Frame,
    FrameRecord,
    GroundPoints,
    Poses,
    Track,
    UtcQuality,
)

HEADER = FlightHeader("f1", crs_wkt="", rig_hash="a" * 64, vehicle="hexa")


def same(a: Any, b: Any) -> bool:
    """Whether two records are equal, NaN equal to NaN, arrays by value and type."""
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(
            same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a)
        )
    if isinstance(a, np.ndarray):
        nan = a.dtype != np.bool_
        return a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=nan))
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b or (a != a and b != b)


def pose(name: str, rng: np.random.Generator | None = None, datum: str = "ellipsoid") -> Poses:
    rng = rng or np.random.default_rng(1)
    return Poses(
        frame=(name,),
        lat_deg=np.array([-33.5]),
        lon_deg=np.array([138.25]),
        alt_m=rng.normal(300, 5, 1),
        height_datum=datum,
        r_ned_cam=r_from_ypr(*rng.normal(size=(3, 1))),
        r_ned_body=np.full((1, 3, 3), np.nan),
        v_ned_mps=rng.normal(size=(1, 3)),
        omega_ned_rps=np.full((1, 3), np.nan),
        sigma_enu_m=np.ones((1, 3)),
        sigma_tilt_rad=np.array([0.01]),
        sigma_heading_rad=np.array([0.03]),
        bias_enu_m=np.zeros((1, 3)),
        bias_heading_rad=np.array([0.0]),
        t_boot_s=np.array([np.nan]),
        flags=(("extrapolated",),),
    )


def detections(name: str, n: int, k: int = 3, rng: np.random.Generator | None = None) -> Detections:
    rng = rng or np.random.default_rng(n)
    ground = GroundPoints(
        lat_deg=rng.normal(size=n),
        lon_deg=rng.normal(size=n),
        alt_m=np.full(n, np.nan),
        height_datum="ellipsoid",
        x_m=rng.normal(5e5, 1e3, n),
        y_m=rng.normal(6e6, 1e3, n),
        cov_random_m2=rng.normal(size=(n, 2, 2)),
        sensitivity_m=rng.normal(size=(n, 2, k)),
        bias_names=tuple(f"rig/abcd/b{i}" for i in range(k)),
        cause_names=("position", "attitude"),
        cause_share=rng.random((n, 2)),
        flags=tuple(() for _ in range(n)),
    )
    return Detections(
        frame=name,
        class_name=tuple("iron_oxide" for _ in range(n)),
        probability=rng.random(n),
        calibrated=True,
        ood=rng.random(n) > 0.5,
        area_m2=rng.random(n),
        polygon_px=tuple(rng.normal(size=(3 + i, 2)) for i in range(n)),
        centroid_px=rng.normal(size=(n, 2)),
        ground=ground,
        polygon_map_m=tuple(rng.normal(size=(3 + i, 2)) for i in range(n)),
        model_hash="b" * 64,
        inside=rng.random(n) > 0.5,
    )


def track(track_id: int, looks: int = 3) -> Track:
    return Track(
        track_id=track_id,
        class_name="iron_oxide",
        state="confirmed",
        looks=looks,
        misses=0,
        probability=0.9,
        lat_deg=-33.5,
        lon_deg=138.25,
        alt_m=float("nan"),
        height_datum="same",
        x_m=1.0,
        y_m=2.0,
        cov_random_m2=np.eye(2),
        sensitivity_m=np.array([[0.1, 0.2], [0.3, 0.4]]),
        bias_names=("rig/a/clock", "dem/b/level"),
        area_m2=4.5,
        first_frame="a.jpg",
        last_frame="b.jpg",
        best_frame="b.jpg",
        ood=True,
        remedy="one reverse pass",
    )


def record(i: int, n: int = 2, **more: Any) -> FrameRecord:
    name = f"f{i:04d}.jpg"
    values: dict[str, Any] = {
        "frame": Frame(name, i, 10**18 + i, 12.5 + i, Path("/x") / name, flags=("dark",)),
        "pose": pose(name, np.random.default_rng(i)),
        "footprint": Footprint(
            name, np.array([[0.0, 0], [1, 0], [1, 1.5]]), (np.zeros((3, 2)),), 0.05, "good", True
        ),
        "detections": detections(name, n),
        "stage_ms": {"scan": 12.25, "ortho": float("nan")},
        "dropped": ("scan: late",),
    }
    return FrameRecord(**{**values, **more})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return create_flight(tmp_path, HEADER)


def test_records_read_back_equal(folder: Path) -> None:
    records = [record(0), record(1, n=0), record(2, pose=None, footprint=None, detections=None)]
    alert = Alert(4, 7, 99, 4, "IRON OXIDE 34 m N", None)
    tie = ClockTie(5, 1.5, 1, float("nan"), 1.7e9, UtcQuality.GPS)
    event = HealthEvent(9, "scan", "warning", "late", "x", 3)
    with FlightStore(folder) as store:
        for item in records:
            store.commit_frame(item)
        store.commit_frame(dataclasses.replace(records[0], tracks=(track(7),), alerts=(alert,)))
        store.add_ties([tie])
        store.add_health(event)
    with FlightReader(folder) as flight:
        assert same(flight.frames(), records)
        assert same(flight.tracks(), [track(7)])
        assert flight.alerts() == [alert]
        assert same(flight.ties(), [tie])
        assert event in flight.health()
        assert len(flight.poses()) == 2
        assert [len(found) for found in flight.detections()] == [2, 0]


floats = st.floats(allow_nan=True, allow_infinity=True, width=64)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    array=hnp.arrays(np.float64, st.integers(0, 9).map(lambda n: (n, 2)), elements=floats),
    number=floats,
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
)
def test_any_numbers_and_words_read_back(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, number: float, text: str
) -> None:
    folder = create_flight(tmp_path_factory.mktemp("flights"), HEADER)
    written = FrameRecord(
        frame=Frame("a.jpg", 0, None, number, flags=(text,)),
        footprint=Footprint("a.jpg", array, (array,), number, text, False),
        stage_ms={text: number},
    )
    store = FlightStore(folder)
    store.commit_frame(written)
    store.close(final=False)
    with FlightReader(folder) as flight:
        assert same(flight.frames(), [written])


def test_reader_sees_commits_while_writing(folder: Path) -> None:
    store = FlightStore(folder)
    with FlightReader(folder) as flight:
        for i in range(3):
            store.commit_frame(record(i))
            assert flight.counts()["frames"] == i + 1
    store.close()


def test_alert_is_told_only_after_its_row_is_committed(folder: Path) -> None:
    store = FlightStore(folder)
    alert = Alert(0, 1, 5, 4, "x")
    with pytest.raises(StoreError, match="alert 0 is not stored"):
        store.mark_told(0, 6)
    assert store.commit_frame(record(0, alerts=(alert,))) == (alert,)
    with FlightReader(folder) as flight:
        assert flight.alerts() == [alert]
    store.mark_told(0, 6)
    store.mark_told(0, 8)
    assert store.commit_frame(record(0, alerts=(alert,))) == ()
    assert store.untold_alerts() == ()
    store.close()
    with FlightReader(folder) as flight:
        assert flight.alerts() == [dataclasses.replace(alert, told=6)]


def test_failed_commit_leaves_nothing_and_the_store_goes_on(folder: Path) -> None:
    store = FlightStore(folder)
    bad = record(0, frame=Frame("bad.jpg", 2**70))
    with pytest.raises((StoreError, OverflowError)):
        store.commit_frame(bad)
    store.commit_frame(record(1))
    store.close()
    with FlightReader(folder) as flight:
        assert [item.frame.seq for item in flight.frames()] == [1]


def test_a_frame_that_comes_again_adds_and_never_takes_away(folder: Path) -> None:
    kept, digest = keep_frame(folder, "f0000.jpg", b"not really a jpeg")
    unscanned = record(0, detections=None, kept_path=kept, kept_sha256=digest)
    scanned = record(0, n=4, pose=None)
    with FlightStore(folder) as store:
        store.commit_frame(unscanned)
        store.commit_frame(scanned)
        store.commit_frame(scanned)
    with FlightReader(folder) as flight:
        (found,) = flight.frames()
    assert found.kept_path == kept
    assert same(found.pose, unscanned.pose)
    assert same(found.detections, scanned.detections)


def test_second_writer_is_refused_and_kill_frees_the_lock(folder: Path) -> None:
    store = FlightStore(folder)
    with pytest.raises(FlightBusyError, match="another process"):
        FlightStore(folder)
    store.close(final=False)
    FlightStore(folder).close(final=False)


def test_store_belongs_to_the_thread_that_made_it(folder: Path) -> None:
    store = FlightStore(folder)
    problems: list[Exception] = []

    def elsewhere() -> None:
        try:
            store.set_meta("a", "b")
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "thread" in str(problems[0])
    store.close(final=False)


def test_database_is_wal_and_full_and_one_file_after_closing(folder: Path) -> None:
    store = FlightStore(folder)
    assert store._db.value("PRAGMA journal_mode") == "wal"
    assert store._db.value("PRAGMA synchronous") == 2
    store.commit_frame(record(0))
    store.close()
    assert {p.name for p in folder.glob("flight.db*")} == {"flight.db"}
    with sqlite3.connect(folder / "flight.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_closed_database_is_whole_although_a_reader_stays(folder: Path, tmp_path: Path) -> None:
    store = FlightStore(folder)
    store.commit_frame(record(0))
    with FlightReader(folder):
        store.commit_frame(record(1))
        store.close()
        copy = tmp_path / "copy"
        copy.mkdir()
        for name in ("flight.toml", "flight.db"):
            shutil.copy(folder / name, copy / name)
    with FlightReader(copy) as flight:
        assert flight.counts()["frames"] == 2


def test_closing_waits_for_a_query_and_refuses_to_leave_rows_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FlightStore(folder)
    store.commit_frame(record(0))
    reader = sqlite3.connect(folder / "flight.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM frames").fetchall()
    store.commit_frame(record(1))
    fold = store._db.fold
    monkeypatch.setattr(store._db, "fold", lambda: fold(0.3))
    with pytest.raises(StoreError, match="a reader holds it"):
        store.close()
    assert not is_closed(folder)
    reader.execute("COMMIT")
    reader.close()
    FlightStore(folder).close()
    assert is_closed(folder)
    assert {path.name for path in folder.glob("flight.db*")} == {"flight.db"}


def test_newer_schema_is_refused_by_name(folder: Path) -> None:
    db = sqlite_utils.Database(folder / "flight.db")
    with db.conn:
        db["_sqlite_migrations"].insert(
            {"migration_set": MIGRATION_SET, "name": "m999_seals", "applied_at": "x"}
        )
    db.close()
    for opener in (FlightStore, FlightReader):
        with pytest.raises(NewerSchemaError, match="m999_seals"):
            opener(folder)


def test_header_round_trip_and_refusals(tmp_path: Path) -> None:
    header = FlightHeader(
        "f2", "WKT", "r", "m", "surface-rgb", "plane", "2026-01-02T03:04:05Z", UtcQuality.GPS,
        "v", "0.1", "replay", ((-33.5, 138.25), (-33.6, 138.5), (1 / 3, 2.0)), ("a",),
    )  # fmt: skip
    folder = create_flight(tmp_path, header, {"rig.toml": b"x = 1\n"})
    assert read_header(folder) == header
    assert (folder / "rig.toml").read_bytes() == b"x = 1\n"
    assert amend_header(folder, crs_wkt="other").crs_wkt == "other"
    assert read_header(folder).crs_wkt == "other"
    shutil.copytree(folder, tmp_path / ".f2.part")
    assert list_flights(tmp_path) == [folder]
    with pytest.raises(FlightExistsError):
        create_flight(tmp_path, header)
    with pytest.raises(FlightNameError, match=r"\.\./x"):
        create_flight(tmp_path, FlightHeader("../x"))
    with pytest.raises(FlightNotFoundError):
        FlightReader(tmp_path / "none")
    (folder / "flight.toml").write_text("format = 99\nflight_id='f2'\n")
    with pytest.raises(NewerSchemaError, match="99"):
        read_header(folder)
    (folder / "flight.toml").write_text("= garbage")
    with pytest.raises(DamagedFlightError):
        read_header(folder)


def test_mixed_height_datums_are_named(folder: Path) -> None:
    with FlightStore(folder) as store:
        store.commit_frame(record(0))
        store.commit_frame(record(1, pose=pose("f0001.jpg", datum="takeoff")))
    with (
        FlightReader(folder) as flight,
        pytest.raises(DamagedFlightError, match="ellipsoid and take"),
    ):
        flight.poses()


def keep(folder: Path, i: int, **more: Any) -> FrameRecord:
    path, digest = keep_frame(folder, f"f{i:04d}.jpg", bytes([i]) * 100)
    return record(i, kept_path=path, kept_sha256=digest, **more)


def test_segments_close_each_minute_and_form_a_chain(folder: Path) -> None:
    clock = [0]
    store = FlightStore(folder, now_ns=lambda: clock[0])
    tlog = folder / "telemetry.tlog"
    for minute in range(3):
        with tlog.open("ab") as stream:
            stream.write(b"x" * 10)
        store.commit_frame(keep(folder, minute), [keep_chip(folder, minute, b"c%d" % minute)])
        clock[0] += 61 * 10**9
        store.tick()
    store.close()
    assert verify_segments(folder) == []
    first, second = read_segment(folder, 0), read_segment(folder, 1)
    chip, frame = (f["path"] for f in first["files"])
    assert chip.startswith("chips/000000_")
    assert frame == "frames/f0000.jpg"
    assert second["telemetry"]["start"] == 10
    assert second["telemetry"]["stop"] == 20
    assert not first["recovered"]
    assert is_closed(folder)
    (folder / "frames/f0001.jpg").write_bytes(b"changed")
    assert verify_segments(folder) == ["f0001.jpg was changed"]
    (folder / "segments/000001.json").unlink()
    assert "segment 1 is missing" in verify_segments(folder)


def test_rows_go_on_while_the_disk_refuses_a_segment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0]
    store = FlightStore(folder, now_ns=lambda: clock[0])
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise DiskFullError("no room")

        patch.setattr("onboard.keep.store.write_segment", refuse)
        for i in range(3):
            clock[0] += 61 * 10**9
            alert = Alert(i, 0, 1, 4, "x")
            assert store.commit_frame(keep(folder, i, alerts=(alert,))) == (alert,)
        assert store.segment_failures == 3
    clock[0] += 6 * 10**9
    store.tick()
    assert len(read_segment(folder, 0)["files"]) == 3
    store.close()
    assert verify_segments(folder) == []


def test_pose_table_is_written_at_closing_and_reads_back(folder: Path) -> None:
    with FlightStore(folder) as store:
        for i in range(3):
            store.commit_frame(record(i))
    table = (folder / "poses.csv").read_text().splitlines()
    assert len(table) == 4
    assert table[1].startswith("f0000.jpg,-33.5")
    with FlightReader(folder) as flight:
        assert "landing_table_failed" not in [event.code for event in flight.health()]


def test_interrupted_flight_is_mended_and_says_what_it_found(folder: Path) -> None:
    store = FlightStore(folder)
    store.commit_frame(keep(folder, 0))
    keep_frame(folder, "orphan.jpg", b"kept, its row never committed")
    (folder / "frames" / "torn.jpg.part").write_bytes(b"half")
    store._db.close()  # as a kill would: nothing else is done
    store._lock.release()

    found = recover(folder)
    assert found.interrupted
    assert found.frames == 1
    assert found.temp_removed == ("frames/torn.jpg.part",)
    assert found.adopted == ("frames/orphan.jpg",)
    assert found.segment == 0
    assert read_segment(folder, 0)["recovered"] is True
    assert {f["path"] for f in read_segment(folder, 0)["files"]} == {
        "frames/f0000.jpg",
        "frames/orphan.jpg",
    }
    with FlightReader(folder) as flight:
        assert "flight_recovered" in [event.code for event in flight.health()]
    again = recover(folder)
    assert not again.interrupted
    assert again.adopted == ()
    with FlightStore(folder) as resumed:
        assert resumed.next_ids().seq == 1
        resumed.commit_frame(keep(folder, 1))
    assert verify_segments(folder) == []


def test_segment_written_but_not_listed_is_listed_after_a_kill(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FlightStore(folder)
    store.commit_frame(keep(folder, 0))
    with monkeypatch.context() as patch:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("onboard.keep.store.put_segment", killed)
        with pytest.raises(KeyboardInterrupt):
            store._close_segment(recovered=False)
    store._db.close()
    store._lock.release()
    with FlightStore(folder) as resumed:
        resumed.commit_frame(keep(folder, 1))
    assert verify_segments(folder) == []
    assert [f["path"] for f in read_segment(folder, 1)["files"]] == ["frames/f0001.jpg"]


def test_missing_file_of_a_committed_row_is_reported(folder: Path) -> None:
    with FlightStore(folder) as store:
        store.commit_frame(keep(folder, 0))
    (folder / "frames/f0000.jpg").unlink()
    assert recover(folder).missing == ("frames/f0000.jpg",)


def test_closing_twice_gives_the_same_manifest(folder: Path) -> None:
    with FlightStore(folder) as store:
        store.commit_frame(keep(folder, 0))
    first = (folder / "manifest.json").read_bytes()
    reopened = FlightStore(folder)
    assert not reopened.recovery.interrupted
    assert not is_closed(folder)
    reopened.close()

    def paths(content: bytes) -> dict[str, str]:
        return {f["path"]: f["sha256"] for f in json.loads(content)["files"]}

    before, after = paths(first), paths((folder / "manifest.json").read_bytes())
    before.pop("flight.db"), after.pop("flight.db")
    assert before == after


def test_coverage_geojson_is_written_at_landing(tmp_path: Path) -> None:
    folder = create_flight(tmp_path, FlightHeader("f", CRS.from_epsg(32754).to_wkt()))
    with FlightStore(folder) as store:
        square = np.array([[5e5, 6.3e6], [5e5 + 10, 6.3e6], [5e5 + 10, 6.3e6 + 10]])
        store.commit_frame(record(0, footprint=Footprint("f0000.jpg", square, (), 0.05)))
        store.set_landed(5)
    (feature,) = json.loads((folder / "coverage.geojson").read_text())["features"]
    assert feature["properties"]["frame"] == "f0000.jpg"
    lon, lat = feature["geometry"]["coordinates"][0][0]
    assert lon == pytest.approx(141.0, abs=1e-6)
    assert -34 < lat < -33
    with FlightReader(folder) as flight:
        assert flight.meta()["landed_mono_ns"] == "5"


def test_a_repair_leaves_alone_what_this_process_is_writing(tmp_path: Path) -> None:
    folder = create_flight(tmp_path, HEADER)
    own = folder / f"flight.toml{own_temp_suffix()}"
    other = folder / "flight.toml.1.part"
    own.write_bytes(b"being written")
    other.write_bytes(b"left by a kill")
    with FlightStore(folder) as store:
        assert store.recovery.temp_removed == ("flight.toml.1.part",)
    assert own.exists()
    assert not other.exists()
