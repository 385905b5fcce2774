"""Targets: tracks of all flights brought together by their relative covariance."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from calibration.geodesy import MapFrame
from groundsync.targets import FlightTracks, combined_probability, fuse_targets, pairs_of_flights
from onboard.records import Track

LAT, LON = 37.5, -117.2
FRAME = MapFrame.utm(LAT, LON)


def track(number: int, east: float, north: float, **changes: object) -> Track:
    """A confirmed track this many true metres from the origin."""
    local = FRAME.local(LAT, LON)
    dx, dy = FRAME.offset(local, east, north, 0.0)
    x0, y0 = FRAME.to_map(LAT, LON)
    x, y = float(x0 + dx[0]), float(y0 + dy[0])
    lat, lon = FRAME.to_geographic(x, y)
    fields: dict[str, object] = {
        "track_id": number,
        "class_name": "iron_oxide",
        "state": "confirmed",
        "looks": 4,
        "misses": 1,
        "probability": 0.9,
        "lat_deg": float(lat),
        "lon_deg": float(lon),
        "alt_m": 1500.0,
        "height_datum": "ellipsoid",
        "x_m": x,
        "y_m": y,
        "cov_random_m2": np.eye(2) * 0.25,
        "sensitivity_m": np.zeros((2, 0)),
        "bias_names": (),
        "area_m2": 0.0,
        "first_frame": "a.jpg",
        "last_frame": "b.jpg",
        "best_frame": "b.jpg",
    }
    return Track(**(fields | changes))  # type: ignore[arg-type]


def flight(name: str, *tracks: Track, model: str = "m", calibrated: bool = True) -> FlightTracks:
    return FlightTracks(name, model, calibrated, tracks)


def metres(lat: float, lon: float) -> tuple[float, float]:
    x, y = FRAME.to_map(lat, lon)
    x0, y0 = FRAME.to_map(LAT, LON)
    gamma = FRAME.local(LAT, LON).convergence_rad[0]
    dx, dy = float(x - x0), float(y - y0)
    return dx * np.cos(gamma) + dy * np.sin(gamma), -dx * np.sin(gamma) + dy * np.cos(gamma)


def test_two_flights_over_one_thing_are_one_target() -> None:
    fused = fuse_targets([flight("a", track(1, 0, 0)), flight("b", track(7, 1.0, 0))], FRAME)
    (target,) = fused.targets
    assert metres(target.lat_deg, target.lon_deg) == pytest.approx((0.5, 0.0), abs=1e-3)
    assert np.allclose(target.cov_total_m2, np.eye(2) * 0.125, atol=1e-6)
    assert (target.looks, target.misses, target.flights) == (8, 2, ("a", "b"))
    assert [(e.flight_id, e.track_id) for e in target.evidence] == [("a", 1), ("b", 7)]
    assert pairs_of_flights(fused.targets) == {("a", "b"): 1}


def test_the_better_track_counts_more() -> None:
    sharp = track(1, 0, 0, cov_random_m2=np.diag([0.04, 0.04]))
    blunt = track(2, 1.0, 0, cov_random_m2=np.diag([0.36, 0.36]))
    (target,) = fuse_targets([flight("a", sharp), flight("b", blunt)], FRAME).targets
    assert metres(target.lat_deg, target.lon_deg)[0] == pytest.approx(0.1, abs=1e-3)


def test_far_apart_are_two() -> None:
    fused = fuse_targets([flight("a", track(1, 0, 0)), flight("b", track(1, 5.0, 0))], FRAME)
    assert len(fused.targets) == 2


def biased(number: int, east: float, state: str) -> Track:
    s = np.array([[8.0], [0.0]])
    return track(number, east, 0, sensitivity_m=s, bias_names=(state,))


def test_a_bias_of_its_own_lets_flights_meet() -> None:
    own = [flight("a", biased(1, 0, "flight/a/east")), flight("b", biased(1, 6, "flight/b/east"))]
    assert len(fuse_targets(own, FRAME).targets) == 1


def test_a_bias_that_both_share_cancels_in_the_gate_and_stays_in_the_result() -> None:
    near = [flight("a", biased(1, 0, "rig/x/tilt")), flight("b", biased(1, 0.4, "rig/x/tilt"))]
    far = [flight("a", biased(1, 0, "rig/x/tilt")), flight("b", biased(1, 6, "rig/x/tilt"))]
    (target,) = fuse_targets(near, FRAME).targets
    assert target.cov_total_m2[0, 0] == pytest.approx(64.125, abs=1e-3)
    assert len(fuse_targets(far, FRAME).targets) == 2


def test_one_flights_tracks_stay_apart() -> None:
    fused = fuse_targets([flight("a", track(1, 0, 0), track(2, 0.2, 0))], FRAME)
    assert len(fused.targets) == 2
    three = [flight("a", track(1, 0, 0), track(2, 1.2, 0)), flight("b", track(1, 0.5, 0))]
    groups = sorted(len(t.evidence) for t in fuse_targets(three, FRAME).targets)
    assert groups == [1, 2], "the nearer of the two is joined"


def test_two_models_over_one_flight_are_joined() -> None:
    both = [flight("a", track(1, 0, 0)), flight("a", track(1, 0.3, 0), model="n")]
    assert len(fuse_targets(both, FRAME).targets) == 1


def test_another_class_is_another_target() -> None:
    other = track(1, 0, 0, class_name="bleached_quartz")
    assert len(fuse_targets([flight("a", track(1, 0, 0)), flight("b", other)], FRAME).targets) == 2


def test_no_chains() -> None:
    """Three flights in a row: the ends are too far apart to be one thing."""
    rows = [flight(n, track(1, e, 0)) for n, e in (("a", 0.0), ("b", 1.8), ("c", 3.6))]
    assert sorted(len(t.evidence) for t in fuse_targets(rows, FRAME).targets) == [1, 2]


def test_the_order_of_flights_and_tracks_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    flights = [
        flight(name, *(track(i, *rng.uniform(0, 12, 2)) for i in range(8))) for name in "abc"
    ]
    first = fuse_targets(flights, FRAME)
    for order in permutations(flights):
        shuffled = [
            FlightTracks(f.flight_id, f.model_hash, f.calibrated, f.tracks[::-1]) for f in order
        ]
        again = fuse_targets(shuffled, FRAME)
        assert [t.target_id for t in again.targets] == [t.target_id for t in first.targets]
        for one, other in zip(first.targets, again.targets, strict=True):
            assert (one.x_m, one.y_m, one.probability) == (other.x_m, other.y_m, other.probability)
            assert one.cov_random_m2.tobytes() == other.cov_random_m2.tobytes()


def test_a_later_flight_leaves_the_identifier() -> None:
    before = fuse_targets([flight("a", track(1, 0, 0))], FRAME).targets[0]
    after = fuse_targets([flight("b", track(3, 0.2, 0)), flight("a", track(1, 0, 0))], FRAME)
    assert [t.target_id for t in after.targets] == [before.target_id]


def test_what_becomes_no_target_is_counted() -> None:
    lost = track(2, 0, 0, lat_deg=float("nan"))
    fused = fuse_targets([flight("a", track(1, 0, 0, state="tentative"), lost)], FRAME)
    assert fused.targets == ()
    assert fused.left_out == {"not placed": 1, "tentative": 1}


def test_one_uncalibrated_flight_labels_the_target() -> None:
    flights = [flight("a", track(1, 0, 0)), flight("b", track(1, 0, 0), calibrated=False)]
    assert not fuse_targets(flights, FRAME).targets[0].calibrated


def test_the_same_track_twice_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="twice"):
        fuse_targets([flight("a", track(1, 0, 0)), flight("a", track(1, 0, 0))], FRAME)


@pytest.mark.parametrize(
    ("each", "together"),
    [
        pytest.param([0.9], 0.9, id="one-is-itself"),
        pytest.param([0.9, 0.9], 0.94925, id="two-count-as-four-thirds"),
        pytest.param([0.5, 0.5, 0.5], 0.5, id="nothing-known-stays-so"),
        pytest.param([0.9, 0.1], 0.5, id="against-each-other"),
    ],
)
def test_probabilities_are_combined_with_care(each: list[float], together: float) -> None:
    assert combined_probability(each) == pytest.approx(together, abs=1e-4)


def test_ninety_percent_of_fused_positions_lie_in_their_ellipse() -> None:
    """Three flights with own and shared biases over 400 things: the ellipse holds 90 %."""
    rng = np.random.default_rng(9)
    inside, n = 0, 400
    for _ in range(n):
        shared = rng.normal()
        flights = []
        for name in "abc":
            own = rng.normal()
            e, north = rng.normal(0, 0.5, 2)
            s = np.array([[0.8, 0.6], [0.3, -0.4]])
            e, north = np.array([e, north]) + s @ np.array([own, shared])
            names = (f"flight/{name}/east", "rig/x/tilt")
            flights.append(flight(name, track(1, e, north, sensitivity_m=s, bias_names=names)))
        targets = fuse_targets(flights, FRAME).targets
        best = max(targets, key=lambda t: len(t.evidence))
        d = np.array(metres(best.lat_deg, best.lon_deg))
        inside += float(d @ np.linalg.solve(best.cov_total_m2, d)) <= 4.605
    assert 0.855 < inside / n < 0.94
