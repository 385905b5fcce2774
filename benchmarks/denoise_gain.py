"""Does denoising before the network help? Simulated orthos, noise added, with and without it.

    python benchmarks/denoise_gain.py [--tiles 12] [--seed 77]

Tiles of worlds of the family `test` get shot and read noise of a camera at high gain, in linear
light. Printed per full well (electrons at full scale; fewer = higher gain): average precision of
"some anomaly here" over the network's cells, and the share of the clean tile's fine detail
(gradients between neighbours) that the filter at that strength leaves; and what it costs.
"""

from __future__ import annotations

import argparse
import os
import platform
import time

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.radiometry import linear_to_srgb, srgb_to_linear
from models.predict import Predictor
from onboard.denoise import denoised, sigma_of
from onboard.simulator.dataset import tiles
from onboard.simulator.family import IGNORE

WELLS = (0, 1600, 400, 100, 50)
READ_E = 2.0
Image8 = NDArray[np.uint8]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiles", type=int, default=12)
    parser.add_argument("--seed", type=int, default=77)
    args = parser.parse_args()
    world = list(tiles(args.tiles, args.seed, "test"))
    predictor = Predictor.open("surface-rgb", 1)
    spent: list[float] = []
    print(f"{os.cpu_count()} {platform.machine()} cores; {len(world)} tiles of 512 x 512")
    print(
        f"{'full well e-':>14}{'σ DN':>8}{'AP as it is':>14}{'AP denoised':>14}{'detail left':>14}"
    )
    for well in WELLS:
        rng = np.random.default_rng(args.seed)
        truth, plain, filtered, left, sigma = [], [], [], [], []
        for tile in world:
            noisy = with_noise(tile.image, well, rng)
            start = time.perf_counter()
            smooth = denoised(noisy)
            sigma.append(sigma_of(noisy))
            spent.append(time.perf_counter() - start)
            label, known = cells(tile.mask)
            truth.append(label[known])
            plain.append(scores(predictor, noisy)[known])
            filtered.append(scores(predictor, smooth)[known])
            left.append(detail(denoised_like(tile.image, noisy)) / detail(tile.image))
        y = np.concatenate(truth)
        row = [average_precision(y, np.concatenate(s)) for s in (plain, filtered)]
        told = f"{row[0]:14.4f}{row[1]:14.4f}{np.median(left):14.3f}"
        print(f"{well or 'as drawn':>14}{np.median(sigma):8.1f}{told}")
    print(f"filter: {1e3 * float(np.median(spent)):.1f} ms a tile, median")


def with_noise(image: Image8, well_e: int, rng: np.random.Generator) -> Image8:
    """Returns an sRGB image with the noise of a sensor whose full scale is ``well_e`` electrons."""
    if not well_e:
        return image
    light = srgb_to_linear(image / 255.0).astype(np.float32)
    sigma = np.sqrt(light / well_e + (READ_E / well_e) ** 2)
    seen = np.clip(light + sigma * rng.standard_normal(light.shape, np.float32), 0, 1)
    return np.rint(linear_to_srgb(seen.astype(np.float32)) * 255).astype(np.uint8)


def denoised_like(clean: Image8, noisy: Image8) -> Image8:
    """Returns the clean image through the filter as strong as the noisy one asks for."""
    return denoised(clean, sigma_of(noisy))


def cells(mask: Image8) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns per 4 x 4 cell whether it shows an anomaly, and whether that is not ambiguous."""
    blocks = mask.reshape(mask.shape[0] // 4, 4, mask.shape[1] // 4, 4)
    some = (blocks != 0) & (blocks != IGNORE)
    share = some.mean(axis=(1, 3))
    return share > 0.5, ((share == 0) | (share > 0.5)) & ~(blocks == IGNORE).any(axis=(1, 3))


def scores(predictor: Predictor, image: Image8) -> NDArray[np.float64]:
    """Returns per cell the probability of any anomaly."""
    return np.asarray(1.0 - predictor.predict(image).heads["anomaly"][..., 0], np.float64)


def detail(image: Image8) -> float:
    """Returns the mean gradient between neighbours."""
    grey = image.mean(axis=2)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def average_precision(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """Returns the area under precision over recall, step by step."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(truth[order])
    precision = hits / np.arange(1, len(hits) + 1)
    return float(precision[truth[order]].mean())


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main()
