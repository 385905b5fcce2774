"""Ellipses on rough ground hold the truth as often as they say; a small run of the benchmark."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from onboard.place.aim import Aim, on_ground
from onboard.place.geotag import geotag

BENCH = Path(__file__).parents[2] / "benchmarks" / "ellipse_coverage.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("ellipse_coverage", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["ellipse_coverage"] = module
    spec.loader.exec_module(module)
    return module


def test_ninety_percent_ellipses_hold_ninety_percent_and_are_no_larger_than_sampled(bench):
    rows = [bench._one(1000 + seed, 150, 100, 33.0) for seed in range(30)]
    off, inside, ratio, rough = (np.concatenate(column) for column in zip(*rows, strict=True))
    assert len(off) > 4000
    # 24 % of a flight's variance is shared by its points: 4,500 are worth some hundreds.
    assert 0.86 < inside.mean() < 0.93
    assert inside[off > 40].mean() > 0.84
    assert np.nanmedian(ratio) == pytest.approx(1.0, abs=0.1)
    assert rough[off < 10].mean() < 0.05, "near nadir the tangent plane does"
    assert rough[off > 50].mean() > 0.7, "far off nadir it does not"


def test_on_flat_ground_no_sigma_points_are_needed(bench):
    flight = bench.draw(7, 60, 0.0)
    found = geotag(
        flight.told, np.arange(60), flight.uv, None, bench.RIG, flight.ground, bench.MAP, "f"
    )
    assert not any("rough" in flags for flags in found.flags)


def test_a_shift_of_the_ray_is_what_each_way_of_shifting_it_says():
    rng = np.random.default_rng(2)
    n = 40
    rays = rng.normal(size=(n, 3)) * [0.5, 0.5, 0.1] - [0.0, 0.0, 1.0]
    far = rng.uniform(50, 200, n)
    normal = np.vstack([rng.normal(0, 0.3, (2, n)), np.ones(n)])
    aim = Aim.of(rays, far, normal)
    unit = (rays / np.linalg.norm(rays, axis=1)[:, None]).T
    assert np.abs((aim.first * unit).sum(axis=0)).max() < 1e-12
    assert np.cross(aim.first.T, aim.second.T) == pytest.approx(unit.T, abs=1e-12)
    projector = np.eye(3)[:, :, None] - unit[:, None] * normal[None] / (normal * unit).sum(axis=0)
    move, turn = rng.normal(size=(3, n)), 1e-3 * rng.normal(size=(3, n))
    bend, lift = 1e-3 * rng.normal(size=(3, n)), rng.normal(size=n)

    def by_hand(vector):
        return np.einsum("abn,bn->an", projector, vector)[:2]

    swung = far * np.cross(turn.T, unit.T).T
    bent = bend * (far / np.linalg.norm(rays, axis=1))
    raised = unit[:2] * lift / (normal * unit).sum(axis=0)
    for shift, expected in (
        (aim.move(move), by_hand(move)),
        (aim.turn(turn), by_hand(swung)),
        (aim.bend(bend), by_hand(bent)),
        (aim.lift(lift), raised),
        (aim.along(1, lift), by_hand(np.vstack([0 * lift, lift, 0 * lift]))),
        (aim.about(2, lift), by_hand(far * np.cross([0.0, 0.0, 1.0], unit.T).T * lift)),
    ):
        assert aim.moved(shift) == pytest.approx(
            expected, abs=1e-9 * max(1, np.abs(expected).max())
        )
        assert on_ground(aim.ground, shift) == pytest.approx(aim.moved(shift))
