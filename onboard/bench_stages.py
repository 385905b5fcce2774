"""The stages that ``gossan bench`` times, each with the floor it can never beat."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from pyproj import CRS

from calibration.camera import Camera
from calibration.geodesy import MapFrame
from calibration.rig import Mount, Rig
from calibration.rotations import A_BODY_CAM, r_from_ypr
from onboard.records import Floats, Image, Poses

WIDTH, HEIGHT = 2400, 1800
AGL_M = 80.0
TILE_PX = 1024
POINTS = 20_000
JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage, ready to run again and again.

    Attributes:
        work: What the software does.
        floor: The least that any software would do.
        floor_name: What that is, for people.
        about: How much work it is.
    """

    work: Callable[[], object]
    floor: Callable[[], object]
    floor_name: str
    about: str


@dataclass(frozen=True)
class World:
    """A frame over rough ground."""

    pixels: Image
    pose: Poses
    rig: Rig
    terrain: Any
    map_frame: MapFrame


def make_world() -> World:
    """Returns a 4 Mpx frame 80 m above rough ground, 3° off nadir, posts every metre."""
    from onboard.place.terrain import GridTerrain

    rng = np.random.default_rng(7)
    small = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8)
    smooth = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    grain = rng.integers(-12, 13, smooth.shape, dtype=np.int16)
    pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
    map_frame = MapFrame(CRS.from_epsg(32632))
    x, y, ground = 500_000.0, 5_200_000.0, 400.0
    lat, lon = map_frame.to_geographic([x], [y])
    i, j = np.mgrid[:401, :401]
    z = ground + 3 * np.sin(i / 9.0) * np.cos(j / 13.0) + rng.normal(0, 0.15, i.shape)
    none, zero = np.full((1, 3), np.nan), np.zeros((1, 3))
    pose = Poses(
        ("bench.jpg",), lat, lon, np.array([ground + AGL_M]), "ellipsoid",
        (r_from_ypr(0.6, np.radians(-87.0), 0.02) @ A_BODY_CAM)[None], np.full((1, 3, 3), np.nan),
        none, none, zero + 0.5, np.full(1, 0.01), np.full(1, 0.02), zero + 1.0, np.full(1, 0.02),
        np.full(1, np.nan), ((),),
    )  # fmt: skip
    camera = Camera(
        "opencv", WIDTH, HEIGHT, 1900.0, 1900.0, 1199.5, 899.5, (-0.05, 0.02, 0.0005, -0.0005)
    )
    rig = Rig(camera=camera, mount=Mount("fixed", r_from_ypr(0.0, -np.pi / 2, 0.0)), sigma_px=0.5)
    return World(pixels, pose, rig, GridTerrain(z, x - 200, y + 200, 1.0, -1.0), map_frame)


def memory_copy(stack: ExitStack, folder: Path, model: str) -> Stage:
    """A frame copied by numpy, against one pass of memory."""
    del stack, folder, model
    pixels = make_world().pixels
    target = np.empty_like(pixels)
    return Stage(
        lambda: pixels.copy(),
        lambda: np.copyto(target, pixels),
        "copy into memory at hand",
        f"{pixels.nbytes / 2**20:.0f} MiB",
    )


def jpeg_decode(stack: ExitStack, folder: Path, model: str) -> Stage:
    """A frame read from its file as the sources do, against decoding bytes at hand."""
    del stack, model
    from onboard.sources.pixels import read_image

    path = folder / "frame.jpg"
    data = _jpeg(make_world().pixels)
    path.write_bytes(data.tobytes())
    return Stage(
        lambda: read_image(path),
        lambda: cv2.imdecode(data, cv2.IMREAD_COLOR_RGB),
        "cv2.imdecode",
        _megapixels(),
    )


def jpeg_encode(stack: ExitStack, folder: Path, model: str) -> Stage:
    """A frame encoded and kept durably, against encoding alone."""
    del stack, model
    from onboard.keep.files import write_durably

    pixels = make_world().pixels
    path = folder / "frame.jpg"
    return Stage(
        lambda: write_durably(path, _jpeg(pixels).tobytes()),
        lambda: _jpeg(pixels),
        "cv2.imencode",
        _megapixels(),
    )


def ortho(stack: ExitStack, folder: Path, model: str) -> Stage:
    """A frame orthocorrected at its own pixel size, against ``cv2.remap`` with maps at hand."""
    del stack, folder, model
    return _ortho_stage("linear")


def ortho_cubic(stack: ExitStack, folder: Path, model: str) -> Stage:
    """The same with Keys' surface and cubic sampling."""
    del stack, folder, model
    return _ortho_stage("cubic")


def _ortho_stage(kind: Any) -> Stage:
    from onboard.place.ortho import backward_map, frame_grid, orthorectify

    w = make_world()
    scene = (w.rig, w.terrain, w.map_frame)
    grid = frame_grid(w.pose, *scene)
    x, y = backward_map(w.pose, *scene, grid, dem_resampling=kind).maps(slice(None))
    flag = cv2.INTER_LINEAR if kind == "linear" else cv2.INTER_CUBIC
    out = np.empty((grid.height, grid.width, 3), np.uint8)
    return Stage(
        lambda: orthorectify(w.pixels, w.pose, *scene, grid, resampling=kind, dem_resampling=kind),
        lambda: cv2.remap(w.pixels, x, y, flag, dst=out, borderMode=cv2.BORDER_REPLICATE),
        f"cv2.remap {kind}",
        f"{grid.width * grid.height / 1e6:.1f} Mpx out",
    )


def inference(stack: ExitStack, folder: Path, model: str) -> Stage:
    """Tiles, network and regions of an ortho, against the bare session run on as many tiles."""
    del stack, folder
    from models.predict import Predictor

    predictor = Predictor.open(model)
    image = make_world().pixels[:TILE_PX, :TILE_PX].astype(np.uint8)
    seen = np.ones(image.shape[:2], np.bool_)
    tile = np.ascontiguousarray(image)
    session = predictor.runtime.session(TILE_PX)
    outputs = [head.output for head in predictor.manifest.heads.values()]
    return Stage(
        lambda: predictor.predict(image, seen),
        lambda: session.run(outputs, {"pixels": tile[None]}),
        "bare session run",
        f"{TILE_PX} x {TILE_PX} px, {predictor.provider}",
    )


def geotag_points(stack: ExitStack, folder: Path, model: str) -> Stage:
    """Pixels placed with their covariance, against the rays' meeting with the ground alone."""
    del stack, folder, model
    from onboard.place.geotag import geotag
    from onboard.place.ortho_view import FrameView

    w = make_world()
    rng = np.random.default_rng(3)
    uv: Floats = rng.uniform((0, 0), (WIDTH - 1, HEIGHT - 1), (POINTS, 2))
    view = FrameView.of(w.pose, w.rig, w.terrain, w.map_frame)
    index = np.zeros(POINTS, np.int64)
    return Stage(
        lambda: geotag(w.pose, index, uv, None, w.rig, w.terrain, w.map_frame, "bench"),
        lambda: view.to_ground(uv),
        "first ground hit",
        f"{POINTS} points",
    )


def cog(stack: ExitStack, folder: Path, model: str) -> Stage:
    """A COG with mask and overviews, against a plain tiled GeoTIFF of the same codec."""
    del stack, model
    from onboard.place.grid import Grid
    from onboard.write_cog import write_cog

    w = make_world()
    grid = Grid(w.map_frame.crs, 500_000.0, 5_200_000.0, 0.05, WIDTH, HEIGHT)
    mask = np.ones((HEIGHT, WIDTH), np.bool_)
    mask[:200, :300] = False
    profile = {
        "driver": "GTiff", "width": WIDTH, "height": HEIGHT, "count": 3, "dtype": "uint8",
        "crs": rasterio.CRS.from_wkt(grid.crs.to_wkt()), "transform": grid.transform,
        "compress": "DEFLATE", "zlevel": 1, "predictor": 2, "tiled": True, "interleave": "pixel",
        "blockxsize": 512, "blockysize": 512,
    }  # fmt: skip
    bands = np.moveaxis(w.pixels, -1, 0)

    def plain() -> None:
        with rasterio.open(folder / "plain.tif", "w", **profile) as raster:
            raster.write(bands)

    return Stage(
        lambda: write_cog(folder / "cog.tif", w.pixels, mask, grid),
        plain,
        "plain GeoTIFF, no mask, no overviews",
        _megapixels(),
    )


def store_commit(stack: ExitStack, folder: Path, model: str) -> Stage:
    """One frame's rows committed by the flight store, against a raw SQLite commit."""
    del model
    from onboard.keep.flight import FlightHeader, create_flight
    from onboard.keep.store import FlightStore
    from onboard.records import Frame, FrameRecord

    flight = create_flight(folder, FlightHeader("bench"))
    store = stack.enter_context(FlightStore(flight))
    raw = sqlite3.connect(folder / "raw.db", isolation_level=None)
    stack.callback(raw.close)
    raw.execute("PRAGMA journal_mode=WAL")
    raw.execute("PRAGMA synchronous=FULL")
    raw.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB)")
    pose, numbers = make_world().pose, count()
    body = os.urandom(600)

    def commit() -> None:
        n = next(numbers)
        store.commit_frame(FrameRecord(Frame(f"cam_{n}.jpg", n, t_mono_ns=n), pose=pose))

    def raw_commit() -> None:
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("INSERT INTO rows (body) VALUES (?)", (body,))
        raw.execute("COMMIT")

    return Stage(commit, raw_commit, "raw SQLite commit, WAL, FULL", "1 frame")


def track_update(stack: ExitStack, folder: Path, model: str) -> Stage:
    """One frame of twenty detections tracked, against as many 2 × 2 systems solved."""
    del stack, folder, model
    from onboard.place.geotag import geotag
    from onboard.records import Detections
    from onboard.track import Tracker

    w = make_world()
    n = 20
    uv = np.random.default_rng(5).uniform((50, 50), (WIDTH - 50, HEIGHT - 50), (n, 2))
    ground = geotag(w.pose, np.zeros(n, np.int64), uv, None, w.rig, w.terrain, w.map_frame, "bench")
    tracker, numbers = Tracker(w.map_frame), count()

    def update() -> None:
        tracker.update(
            Detections(
                f"f{next(numbers)}", ("iron_oxide",) * n, np.full(n, 0.8), True,
                np.zeros(n, np.bool_), np.full(n, 2.0), (uv[:3],) * n, uv, ground, (uv[:3],) * n,
                "m", np.ones(n, np.bool_),
            )
        )  # fmt: skip

    cov = ground.cov_total_m2 + np.eye(2)
    return Stage(update, lambda: np.linalg.solve(cov, cov), "numpy solves of 2 x 2", f"{n} things")


STAGES: dict[str, Callable[[ExitStack, Path, str], Stage]] = {
    "memory copy": memory_copy,
    "jpeg decode": jpeg_decode,
    "jpeg encode": jpeg_encode,
    "ortho": ortho,
    "ortho cubic": ortho_cubic,
    "inference": inference,
    "geotag": geotag_points,
    "track": track_update,
    "store commit": store_commit,
    "cog": cog,
}
"""What is timed, in the order of the flow."""


def _jpeg(pixels: Image) -> Any:
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]


def _megapixels() -> str:
    return f"{WIDTH * HEIGHT / 1e6:.1f} Mpx"
