"""The ortho's map on fractal ground stays within its tolerance of the exact one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "benchmarks" / "map_deviation.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("map_deviation", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["map_deviation"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("hurst", [0.5])
def test_maps_of_rough_ground_stray_less_than_half_a_pixel(bench, hurst):
    blind, linear, cubic = bench._one(hurst, 1)
    assert blind > 4.0, "the ground is rough enough to tell"
    assert linear < 0.3
    assert cubic < 0.05
