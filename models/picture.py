"""What ``gossan models predict`` writes: regions as records and one mask per head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.dataset import read_image
from models.decode import Regions
from models.errors import DatasetError
from models.evaluate import enlarge
from models.labels import IGNORE
from models.manifest import Manifest
from models.predict import Prediction, Predictor


def answer_of(
    predictor: Predictor, path: Path
) -> tuple[dict[str, Any], Prediction, tuple[int, int]]:
    """Returns the regions of an image file as a record, the prediction, and the image's shape.

    Pixels that are exactly black are taken as unseen, as in orthos.
    """
    image = read_image(path)
    prediction = predictor.predict(image, np.asarray(image.any(axis=2)))
    record = {"image": path.name, "regions": records(prediction.regions)}
    return record, prediction, (image.shape[0], image.shape[1])


def records(regions: Regions) -> list[dict[str, Any]]:
    """Returns one plain record per region."""
    return [
        {
            "class": regions.class_name[i],
            "head": regions.head[i],
            "probability": float(regions.probability[i]),
            "calibrated": regions.calibrated,
            "centroid_px": regions.centroid_px[i].tolist(),
            "bbox_px": regions.bbox_px[i].tolist(),
            "area_px": float(regions.area_px[i]),
            "polygon_px": regions.polygon_px[i].tolist(),
            "ood": bool(regions.ood[i]),
            "touches_edge": bool(regions.touches_edge[i]),
        }
        for i in range(len(regions))
    ]


def write_masks(
    manifest: Manifest, prediction: Prediction, stem: str, shape: tuple[int, int], out: Path
) -> list[str]:
    """Writes ``<stem>_<head>.png`` per head: best class per pixel, 255 where nothing was seen."""
    out.mkdir(parents=True, exist_ok=True)
    names = []
    for name, p in prediction.heads.items():
        full = enlarge(p, manifest.heads[name].stride, shape)
        mask = full.argmax(axis=2).astype(np.uint8)
        mask[full.sum(axis=2) < 0.5] = IGNORE
        file = out / f"{stem}_{name}.png"
        if not cv2.imwrite(str(file), mask):
            raise DatasetError(f"cannot write {file}", "check the folder's permissions and space")
        names.append(file.name)
    return names
