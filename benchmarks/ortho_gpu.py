"""The ortho on the GPU beside the CPU path and `cv2.remap` alone, one run, medians.

    python benchmarks/ortho_gpu.py [--repeats N]

Arrays to arrays, transfers included, on a rough synthetic terrain; the backward map's nodes are
common to both and timed apart. Says so where CuPy finds no device.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np
from pyproj import CRS

from calibration.camera import Camera
from calibration.geodesy import MapFrame
from calibration.rig import Mount, Rig
from calibration.rotations import A_BODY_CAM, r_from_ypr
from onboard.place import ortho_gpu
from onboard.place.ortho import apply_map, backward_map, frame_grid
from onboard.place.terrain import GridTerrain
from onboard.records import Poses

MAP = MapFrame(CRS.from_epsg(32615))
X0, Y0, GROUND = 576700.0, 5188160.0, 300.0
CAMERA = Camera("opencv", 5472, 3648, 4000.0, 4000.0, 2735.5, 1823.5, (-0.05, 0.02, 0.0, 0.0, 0.0))
RIG = Rig(camera=CAMERA, mount=Mount("fixed", r_from_ypr(0.0, -np.pi / 2, 0.0)))


def main() -> int:
    """Prints the table; returns 1 where the two differ by more than 1 DN."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    if not ortho_gpu.ready():
        print("CuPy finds no device here: nothing to compare")
        return 0
    import cupy

    card = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    print(
        f"{platform.machine()}, {cv2.getNumThreads()} CPU threads, OpenCV {cv2.__version__}, {card}"
    )
    pose, terrain = _pose(), _rough()
    grid = frame_grid(pose, RIG, terrain, MAP)
    rng = np.random.default_rng(1)
    small = rng.integers(0, 256, (CAMERA.height_px // 4, CAMERA.width_px // 4, 3), dtype=np.uint8)
    pixels = cv2.resize(small, (CAMERA.width_px, CAMERA.height_px), interpolation=cv2.INTER_CUBIC)
    print(f"frame {CAMERA.width_px} x {CAMERA.height_px}, ortho {grid.width} x {grid.height}")
    backward = backward_map(pose, RIG, terrain, MAP, grid)
    nodes_ms = _median_ms(lambda: backward_map(pose, RIG, terrain, MAP, grid), repeats)
    print(f"nodes (CPU, both)        {nodes_ms:8.1f} ms")
    worst = 0
    for way in ("linear", "cubic"):
        gpu = apply_map(pixels, backward, resampling=way)
        gpu_ms = _median_ms(lambda w=way: apply_map(pixels, backward, resampling=w), repeats)
        kept, ortho_gpu.ready = ortho_gpu.ready, lambda: False
        cpu = apply_map(pixels, backward, resampling=way)
        cpu_ms = _median_ms(lambda w=way: apply_map(pixels, backward, resampling=w), repeats)
        ortho_gpu.ready = kept
        uv = np.stack(backward.maps(slice(None)), -1)
        flag = cv2.INTER_LINEAR if way == "linear" else cv2.INTER_CUBIC
        floor_ms = _median_ms(lambda f=flag, m=uv: cv2.remap(pixels, m, None, f), repeats)
        both = gpu.mask & cpu.mask
        apart = np.abs(gpu.image.astype(int) - cpu.image)[both]
        worst = max(worst, int(apart.max()))
        print(
            f"{way:7} GPU {gpu_ms:8.1f} ms, CPU {cpu_ms:8.1f} ms, remap alone {floor_ms:8.1f} ms; "
            f"GPU/CPU {gpu_ms / cpu_ms:.2f}; worst difference {apart.max()} DN, "
            f"{(gpu.mask != cpu.mask).sum()} mask pixels apart"
        )
    return int(worst > 1)


def _median_ms(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times) * 1e3)


def _pose() -> Poses:
    lat, lon = MAP.to_geographic([X0], [Y0])
    r = r_from_ypr(*np.radians([[25.0], [-85.0], [2.0]])) @ A_BODY_CAM
    nan3, zero = np.full((1, 3), np.nan), np.zeros((1, 3))
    return Poses(
        ("f.jpg",), lat, lon, np.array([GROUND + 100.0]), "ellipsoid", r,
        np.full((1, 3, 3), np.nan), nan3, nan3, zero, np.zeros(1), np.zeros(1), zero, np.zeros(1),
        np.array([np.nan]), ((),),
    )  # fmt: skip


def _rough() -> GridTerrain:
    rng = np.random.default_rng(3)
    z = cv2.GaussianBlur(rng.normal(0, 30, (401, 401)), (0, 0), 8) + GROUND
    return GridTerrain(z, X0 - 200.0, Y0 + 200.0, 1.0, -1.0)


if __name__ == "__main__":
    sys.exit(main())
