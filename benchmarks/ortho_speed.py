"""CPU time and memory of the ortho beside orthority and `cv2.remap`, one run, medians.

    python benchmarks/ortho_speed.py SHARED_DATA [--gsd M] [--repeats N] [--oty PROGRAM]

Brighton 0031 (9 MP) on its own DSM at native GSD, plane map, cubic DEM and image for the
comparison with orthority (`oty` on PATH or by --oty; left out where there is none). *Arrays* are
decoded pixels and posts in, ortho out: for orthority its process without its start-up and without
reading and writing the same files, each measured by itself. *Files* are whole processes, start-up
included, same codec, once with the overviews that both write by default. The flight's own ortho
stage (bilinear) stands beside `cv2.remap` alone with a map that is at hand, on the scene of `gossan
bench` and on this DSM of fine posts.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import rasterio
from ortho_exactness import READ, Case, brighton, pose_on_map
from pyproj import CRS

from calibration.geodesy import MapFrame
from calibration.rig import Mount, Rig, write_rig
from onboard.bench_stages import ortho
from onboard.place.ortho import apply_map, backward_map, frame_grid, orthorectify
from onboard.place.terrain import open_dem
from onboard.sources.pose_table import write_poses

BARS = {"arrays": 0.10, "files": 0.25, "files, default": 0.35, "stage": 1.3}


def main() -> int:
    """Prints the table; returns 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--gsd", type=float, default=0.017)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--oty", default=shutil.which("oty"))
    given = parser.parse_args()
    cv2.setNumThreads(1)
    case = brighton(given.data)
    print(f"{platform.machine()}, OpenCV {cv2.__version__}, one thread; CPU seconds, medians")
    fine = _flight_stage(given.repeats)
    _stage(case, given.gsd, given.repeats)
    if not given.oty:
        print("no orthority (oty) at hand: nothing to compare with")
        return int(not fine)
    with tempfile.TemporaryDirectory() as folder:
        fine &= _files(case, given.data, given.gsd, given.repeats, given.oty, Path(folder))
    return int(not fine)


def _flight_stage(repeats: int) -> bool:
    """Prints the ortho stage on the scene of ``gossan bench``: 9 MP over posts of 1 m."""
    with ExitStack() as stack:
        stage = ortho(stack, Path(), "none")
        pairs = [(_cpu(stage.work), _cpu(stage.floor)) for _ in range(max(repeats, 9))]
    whole, floor = (median(times) for times in zip(*pairs, strict=True))
    print(f"stage in flight     {whole:6.3f}   remap alone {floor:6.3f}   {stage.about}")
    return _told("stage", whole / floor)


def _stage(case: Case, gsd_m: float, repeats: int) -> None:
    """Prints the same on a DSM of fine posts, where nodes are many."""
    pixels, scene, grid = _scene(case, gsd_m)
    backward = backward_map(*scene, grid)
    uv = np.stack(backward.maps(slice(None)), -1)
    whole, floor = [], []
    for _ in range(max(repeats, 5)):
        whole.append(_cpu(lambda: apply_map(pixels, backward_map(*scene, grid))))
        floor.append(_cpu(lambda: cv2.remap(pixels, uv, None, cv2.INTER_LINEAR)))  # type: ignore[call-overload]
    size = f"{grid.width * grid.height / 1e6:.1f} MP ortho, {median(whole) / median(floor):.1f} ×"
    print(f"stage, 0.25 m posts {median(whole):6.3f}   remap alone {median(floor):6.3f}   {size}")


def _files(case: Case, data: Path, gsd_m: float, repeats: int, oty: str, out: Path) -> bool:
    pixels, scene, grid = _scene(case, gsd_m)
    arrays = median(
        _cpu(lambda: orthorectify(pixels, *scene, grid, resampling="cubic", dem_resampling="cubic"))
        for _ in range(repeats)
    )
    reference = data / "imagery/brighton_beach/orthority_ref"
    theirs = [
        oty, "frame", "-d", case.dem, "-ip", reference / "int_param.yaml", "-ep",
        reference / "ext_opk.csv", "-c", "EPSG:32615", "-r", gsd_m, "--compress", "deflate", "-o",
        "--out-dir", out, case.image,
    ]  # fmt: skip
    rig, poses = out / "rig.toml", out / "poses.csv"
    write_rig(rig, scene[1])
    write_poses(poses, scene[0])
    ours = [
        sys.executable, "-m", "gossan", "onboard", "ortho", case.image, "--rig", rig, "--poses",
        poses, "--dem", case.dem, "--dem-datum", "same", "--map", "plane", "--gsd", gsd_m,
        "--resampling", "cubic", "--dem-resampling", "cubic", "--crs", "EPSG:32615",
    ]  # fmt: skip
    peer = [_process(theirs) for _ in range(repeats)]
    mine = [_process([*ours, "--out", out / "a"]) for _ in range(repeats)]
    plain_peer = [_process([*theirs, "-nbo"]) for _ in range(repeats)]
    plain_mine = [_process([*ours, "--no-overviews", "--out", out / "b"]) for _ in range(repeats)]
    start = median(_process([oty, "frame", "--help"])[0] for _ in range(repeats))
    written = next(out.glob("DJI_0031_ORTHO.tif"))
    io = median(_cpu(lambda: _read_and_write(case, written, out)) for _ in range(repeats))
    peer_s, peer_mb = median(p[0] for p in peer), max(p[1] for p in peer)
    mine_s, mine_mb = median(m[0] for m in mine), max(m[1] for m in mine)
    print(
        f"orthority           {peer_s:6.2f}   {peer_mb:5.0f} MB   start {start:.2f}, files {io:.2f}"
    )
    print(f"ours, files         {mine_s:6.2f}   {mine_mb:5.0f} MB")
    print(f"ours, arrays        {arrays:6.2f}")
    fine = _told("arrays", arrays / max(peer_s - start - io, 1e-9))
    plain_s, plain_peer_s = (median(p[0] for p in runs) for runs in (plain_mine, plain_peer))
    print(f"files, no overviews {plain_s:6.2f}   orthority {plain_peer_s:.2f}")
    fine &= _told("files", plain_s / plain_peer_s)
    fine &= _told("files, default", mine_s / peer_s)
    return fine and mine_mb <= peer_mb


def _told(name: str, ratio: float) -> bool:
    print(f"  {name}: {ratio:.2f} × (bar {BARS[name]:.2f})")
    return ratio <= BARS[name]


def _scene(case: Case, gsd_m: float):  # type: ignore[no-untyped-def]
    """Returns pixels, what `orthorectify` takes between them and the grid, and the grid."""
    with rasterio.open(case.reference) as raster:
        map_frame = MapFrame(CRS.from_wkt(raster.crs.to_wkt()), "plane")
    terrain = open_dem(case.dem, map_frame, "same")
    rig = Rig(camera=case.camera, mount=Mount("gimbal", np.eye(3)))
    pose = pose_on_map(case, map_frame)
    grid = frame_grid(pose, rig, terrain, map_frame, gsd_m)
    pixels = cv2.imread(str(case.image), READ)
    return pixels, (pose, rig, terrain, map_frame), grid


def _read_and_write(case: Case, written: Path, out: Path) -> None:
    """Reads image and DEM, and writes an ortho of the same content and profile, by GDAL."""
    with rasterio.open(case.image) as raster:
        raster.read()
    with rasterio.open(case.dem) as raster:
        raster.read()
    with rasterio.open(written) as raster:
        image, profile = raster.read(), raster.profile
    with rasterio.open(out / "again.tif", "w", **profile) as raster:
        raster.write(image)
        raster.build_overviews([2, 4, 8, 16])


def _cpu(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _process(command: list[object]) -> tuple[float, float]:
    """Returns CPU seconds and peak megabytes of a process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GDAL_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [str(part) for part in command], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stderr is not None
    said = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(said.decode(errors="replace")[-2000:])
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
