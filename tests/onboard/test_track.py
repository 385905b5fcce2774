"""Tracks: association under drift, confirmation, misses, merging and the remedy."""

from __future__ import annotations

import numpy as np
import pytest
from pyproj import CRS

from calibration.geodesy import MapFrame
from onboard.records import Detections, Footprint, GroundPoints
from onboard.track import Tracker, TrackSettings

MAP = MapFrame(CRS.from_epsg(32632))
X, Y = 500000.0, 5200000.0
BIAS = ("rig/a/boresight_right", "flight/f/east")


def seen(
    frame: str,
    xy: list[tuple[float, float]],
    *,
    sigma: float = 0.5,
    s: np.ndarray | None = None,
    kind: str = "iron_oxide",
    p: float = 0.8,
    area: float = 1.0,
    inside: bool = True,
    names: tuple[str, ...] = BIAS,
) -> Detections:
    n = len(xy)
    at = np.add(np.array(xy, float).reshape(n, 2), (X, Y))
    lat, lon = MAP.to_geographic(at[:, 0], at[:, 1])
    sens = np.zeros((2, len(names))) if s is None else s
    ground = GroundPoints(
        lat, lon, np.full(n, 300.0), "ellipsoid", at[:, 0], at[:, 1],
        np.tile(np.eye(2) * sigma**2, (n, 1, 1)), np.tile(sens, (n, 1, 1)), names,
        ("all",), np.ones((n, 1)), ((),) * n,
    )  # fmt: skip
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    return Detections(
        frame, (kind,) * n, np.full(n, p), True, np.zeros(n, bool), np.full(n, area),
        (square,) * n, np.zeros((n, 2)), ground, (square,) * n, "m", np.full(n, inside),
    )  # fmt: skip


def footprint(frame: str, half: float = 50.0, **kind: object) -> Footprint:
    ring = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half + (X, Y)
    return Footprint(frame, ring, (), 0.05, scanned=True, **kind)  # type: ignore[arg-type]


def test_two_looks_make_one_confirmed_track() -> None:
    tracker = Tracker(MAP)
    (first,) = tracker.update(seen("a", [(0, 0)]))
    assert (first.state, first.looks) == ("tentative", 1)
    (second,) = tracker.update(seen("b", [(0.6, 0.2)]))
    assert (second.track_id, second.state, second.looks) == (first.track_id, "confirmed", 2)
    assert second.x_m - X == pytest.approx(0.3, abs=0.01)
    assert second.probability > 0.8
    assert second.cov_total_m2[0, 0] == pytest.approx(0.125, rel=1e-3)
    assert (second.first_frame, second.last_frame) == ("a", "b")


def test_a_sure_single_look_confirms() -> None:
    assert Tracker(MAP).update(seen("a", [(0, 0)], p=0.99))[0].state == "confirmed"
    assert Tracker(MAP).update(seen("a", [(0, 0)], p=0.99, inside=False))[0].state == "tentative"
    settings = TrackSettings(confirm_looks=3)
    tracker = Tracker(MAP, settings)
    states = [tracker.update(seen(str(i), [(0, 0)]))[0].state for i in range(3)]
    assert states == ["tentative", "tentative", "confirmed"]


def test_shared_bias_does_not_loosen_the_gate() -> None:
    """Two things 6 m apart, a heading bias of 20 m in both looks: they stay two."""
    big = np.array([[20.0, 0.0], [0.0, 20.0]])
    tracker = Tracker(MAP)
    tracker.update(seen("a", [(0, 0), (6, 0)], sigma=0.7, s=big))
    tracker.update(seen("b", [(6.3, 0), (0.2, 0)], sigma=0.7, s=big))
    assert len(tracker.tracks) == 2
    assert {t.looks for t in tracker.tracks} == {2}
    # but a bias that turned its sign between the looks does
    tracker = Tracker(MAP)
    tracker.update(seen("a", [(0, 0)], sigma=0.7, s=big))
    tracker.update(seen("b", [(25, 0)], sigma=0.7, s=-big))
    assert len(tracker.tracks) == 1


def test_association_holds_under_drift() -> None:
    """A slowly drifting position error: ten things on a 8 m lattice keep their own tracks."""
    rng = np.random.default_rng(4)
    truth = [(8.0 * i, 8.0 * j) for i in range(5) for j in range(2)]
    tracker = Tracker(MAP)
    for k in range(12):
        drift = np.array([0.12 * k, -0.08 * k])
        noise = rng.normal(size=(10, 2)) * 0.4
        order = rng.permutation(10)
        places = [tuple(np.array(truth[i]) + drift + noise[i]) for i in order]
        tracker.update(seen(f"f{k}", places, sigma=0.6))
    assert len(tracker.tracks) == 10
    assert all(t.looks == 12 for t in tracker.tracks)


def test_one_frame_never_gives_one_track_two_looks() -> None:
    tracker = Tracker(MAP)
    tracker.update(seen("a", [(0, 0)]))
    tracker.update(seen("b", [(0.1, 0), (0.4, 0)]))
    assert [t.looks for t in tracker.tracks] == [2, 1]


def test_classes_do_not_mix() -> None:
    tracker = Tracker(MAP)
    tracker.update(seen("a", [(0, 0)]))
    tracker.update(seen("b", [(0, 0)], kind="bleached_quartz"))
    assert len(tracker.tracks) == 2


def test_tracks_that_turn_out_to_be_one_are_merged() -> None:
    tracker = Tracker(MAP)
    tracker.update(seen("a", [(0, 0)], sigma=0.4))
    tracker.update(seen("b", [(2.4, 0)], sigma=0.4))
    assert len(tracker.tracks) == 2
    for name, x in (("c", 1.1), ("d", 1.1), ("e", 1.3)):
        assert not tracker.merged
        changed = tracker.update(seen(name, [(x, 0)], sigma=0.4))
    (track,) = tracker.tracks
    assert tracker.merged == {2: 1}
    assert [t.track_id for t in changed] == [1]
    assert (track.looks, track.track_id) == (5, 1)
    assert track.x_m - X == pytest.approx(5.9 / 5, abs=0.01)
    assert tracker.counts["merged"] == 1


def test_misses_are_counted_only_where_a_good_look_covers_the_place() -> None:
    tracker = Tracker(MAP)
    tracker.update(seen("a", [(0, 0)]))
    nothing = seen("b", [])
    assert tracker.update(nothing, footprint("b"))[0].misses == 1
    assert tracker.update(nothing, footprint("c", quality="blurred")) == []
    assert tracker.update(nothing, footprint("d", half=0.3)) == []
    assert tracker.update(None, Footprint("e", footprint("e").polygon_map_m, (), 0.05)) == []
    assert tracker.update(seen("f", [(0, 0)]), footprint("f"))[0].misses == 1


def test_what_could_not_be_placed_is_counted_not_tracked() -> None:
    tracker = Tracker(MAP)
    assert tracker.update(seen("a", [(np.nan, 0)])) == []
    assert tracker.counts["not_placed"] == 1


def test_remedy_names_the_reverse_pass_where_it_helps() -> None:
    boresight = np.array([[2.0, 0.0], [0.0, 0.0]])
    (track,) = Tracker(MAP).update(seen("a", [(0, 0)], s=boresight))
    assert track.remedy.startswith("one reverse pass: 3.4 -> ")
    after = float(track.remedy.split("-> ")[1].split()[0])
    assert after < 1.0
    gnss = np.array([[0.0, 2.0], [0.0, 0.0]])
    assert Tracker(MAP).update(seen("a", [(0, 0)], s=gnss))[0].remedy == ""
    # once both directions are flown there is nothing left to gain
    tracker = Tracker(MAP)
    tracker.update(seen("a", [(0, 0)], s=boresight))
    (track,) = tracker.update(seen("b", [(0, 0)], s=-boresight))
    assert track.remedy == ""


def test_a_long_series_keeps_its_bias_when_old_looks_melt() -> None:
    s = np.array([[1.0, 0.0], [0.0, 0.0]])
    tracker = Tracker(MAP, TrackSettings(max_looks=6))
    for i in range(40):
        tracker.update(seen(str(i), [(0, 0)], s=s))
    (track,) = tracker.tracks
    assert track.looks == 40
    assert track.cov_total_m2[0, 0] == pytest.approx(1.0 + 0.25 / 40, rel=0.01)


def test_covariances_are_told_in_true_east_north() -> None:
    """6° of longitude from the central meridian the map's north is 4.6° off: it is turned back."""
    lat, lon = np.array([50.0]), np.array([15.0])
    x, y = MAP.to_map(lat, lon)
    one = seen("a", [(float(x[0]) - X, float(y[0]) - Y)])
    cov = np.array([[9.0, 0.0], [0.0, 0.01]])
    ground = one.ground
    object.__setattr__(ground, "cov_random_m2", cov[None])
    (track,) = Tracker(MAP).update(one)
    assert np.allclose(track.cov_random_m2, cov, atol=1e-9)
    assert track.lat_deg == pytest.approx(50.0, abs=1e-7)
