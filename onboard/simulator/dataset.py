"""The training set: labelled nadir orthos of many random worlds, rendered without a flight."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import tomlkit
from numpy.typing import NDArray

from onboard.simulator.family import CLASSES, IGNORE
from onboard.simulator.ground_cover import Painted
from onboard.simulator.noise import Window
from onboard.simulator.sensor import Image8, auto_exposure, draw_sensor, expose, jpeg
from onboard.simulator.world import World

GSD_M = 0.10
TILE_PX = 512
TILES_PER_WORLD = 3
FIRST_TRAINING_SEED = 1_000_000
"""World seeds of training sets start here; flights and tests take smaller ones."""

_CLEAR, _PRESENT = 0.18, 0.5
"""Opacity below which a pixel shows no anomaly, and above which it shows one."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One labelled ortho.

    Attributes:
        stem: File name without its ending.
        image: (512, 512, 3) RGB.
        mask: (512, 512) class index, 255 where it is ambiguous.
    """

    stem: str
    image: Image8
    mask: Image8


def tiles(count: int, seed: int = 0, family: str = "train") -> Iterator[Tile]:
    """Yields labelled orthos of random worlds, three of each world."""
    for first in range(0, count, TILES_PER_WORLD):
        yield from world_tiles(range(first, min(first + TILES_PER_WORLD, count)), seed, family)


def world_tiles(numbers: range, seed: int, family: str) -> Iterator[Tile]:
    """Yields the tiles of one world, by their numbers in the whole set."""
    world_seed = FIRST_TRAINING_SEED + seed * 100_000 + numbers[0] // TILES_PER_WORLD
    world = World(
        world_seed,
        family,
        size_m=256.0,
        planted_m=(190.0, 70.0),
        anomalies_per_ha=22.0,
        look_alikes_per_ha=22.0,
    )
    for number in numbers:
        part = number % TILES_PER_WORLD
        yield _tile(world, part, np.random.default_rng([world_seed, part]))


def write_dataset(
    folder: Path,
    count: int,
    seed: int = 0,
    family: str = "train",
    note: Callable[[int], None] | None = None,
    jobs: int = 1,
) -> dict[str, int]:
    """Writes a dataset folder (frames/, masks/, dataset.toml); returns pixels per class.

    Args:
        folder: Where to write.
        count: Number of tiles.
        seed: Which worlds.
        family: Of which family.
        note: Called with the number of tiles done.
        jobs: Processes that render, a world at a time; the files are the same with any number.
    """
    for name in ("frames", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(256, dtype=np.int64)
    firsts = range(0, count, TILES_PER_WORLD)
    worlds = [range(k, min(k + TILES_PER_WORLD, count)) for k in firsts]
    write = partial(_write_world, folder, seed, family)
    done = 0
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for world, found in zip(
            worlds, (pool.map if jobs > 1 else map)(write, worlds), strict=True
        ):
            pixels += found
            done += len(world)
            if note:
                note(done)
    settings = {
        "name": f"simulated-{family}-{seed}",
        "simulated": True,
        "classes": list(CLASSES),
        "bands": ["red", "green", "blue"],
        "gsd_m": GSD_M,
        "licence": "Apache-2.0 (simulated)",
        "place_pattern": r"^(w\d+)_",
    }
    (folder / "dataset.toml").write_text(tomlkit.dumps(settings), encoding="utf-8")
    named = {name: int(pixels[i]) for i, name in enumerate(CLASSES)}
    return {**named, "ignored": int(pixels[IGNORE])}


def _write_world(folder: Path, seed: int, family: str, numbers: range) -> NDArray[np.int64]:
    """Writes the numbered tiles of one world; returns pixels per class (256,)."""
    pixels = np.zeros(256, dtype=np.int64)
    for tile in world_tiles(numbers, seed, family):
        _write(folder / "frames" / f"{tile.stem}.png", tile.image[..., ::-1])
        _write(folder / "masks" / f"{tile.stem}.png", tile.mask)
        pixels += np.bincount(tile.mask.ravel(), minlength=256)
    return pixels


def _write(path: Path, image: NDArray[np.uint8]) -> None:
    if not cv2.imwrite(str(path), np.ascontiguousarray(image)):
        raise OSError(f"cannot write {path}")


def _tile(world: World, part: int, rng: np.random.Generator) -> Tile:
    """Returns one of the world's tiles as a camera at a random height would give it."""
    side_m = TILE_PX * GSD_M
    west = world.centre_xy_m[0] + (part - 1.5) * 58.0 + rng.uniform(0, 6)
    north = world.centre_xy_m[1] + side_m / 2 + rng.uniform(-6, 6)
    camera_gsd_m = float(rng.uniform(0.055, 0.098))
    pixels = int(np.ceil((side_m + 1.0) / camera_gsd_m))
    window = Window(west - 0.5, north + 0.5, camera_gsd_m, pixels, pixels)
    painted = world.paint(window)
    image = _photograph(painted, rng)
    u = ((west - window.x0_m) + GSD_M * np.arange(TILE_PX)) / camera_gsd_m
    v = ((window.y0_m - north) + GSD_M * np.arange(TILE_PX)) / camera_gsd_m
    map_x, map_y = np.meshgrid(u.astype(np.float32), v.astype(np.float32))
    ortho = np.asarray(cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR), dtype=np.uint8)
    return Tile(f"w{world.seed}_{part}", ortho, mask_of(painted, map_x, map_y))


def _photograph(painted: Painted, rng: np.random.Generator) -> Image8:
    """Returns the frame of a random camera with random light, JPEG losses included."""
    warmth = np.array([1 + rng.normal(0, 0.04), 1, 1 + rng.normal(0, 0.04)], dtype=np.float32)
    radiance = painted.radiance * warmth
    sensor = draw_sensor(rng, auto_exposure(float(radiance.mean())))
    h, w = painted.label.shape
    y, x = np.linspace(-1, 1, h)[:, None], np.linspace(-1, 1, w)[None, :]
    corner = rng.uniform(-0.7, 0.7, 2)
    fall = sensor.vignette * 0.25 * ((x + corner[0]) ** 2 + (y + corner[1]) ** 2)
    image = expose(radiance, sensor, (1 - fall).astype(np.float32), rng)
    data = np.frombuffer(jpeg(image, sensor.jpeg_quality), dtype=np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), dtype=np.uint8)


def mask_of(
    painted: Painted, map_x: NDArray[np.float32], map_y: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Returns the class mask on a grid given by source pixels, 255 at ambiguous edges."""
    seen = cv2.GaussianBlur(painted.opacity * (1 - painted.hidden), (0, 0), 0.6)
    planted = cv2.remap(painted.opacity, map_x, map_y, cv2.INTER_LINEAR)
    visible = cv2.remap(seen, map_x, map_y, cv2.INTER_LINEAR)
    label = cv2.remap(painted.label, map_x, map_y, cv2.INTER_NEAREST)
    mask = np.where(visible >= _PRESENT, label, 0).astype(np.uint8)
    mask[(visible < _PRESENT) & (planted > _CLEAR)] = IGNORE
    mask[(visible >= _PRESENT) & (label == 0)] = IGNORE
    return mask
