"""Image in, regions out: the one door through which the drone uses a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.decode import Bools, Floats, Grid, Region, Regions, grid_of, probabilities, regions_of
from models.errors import ModelError
from models.manifest import Manifest
from models.registry import DEFAULT, open_model
from models.runtime import Runtime
from models.tiles import tiled


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        regions: What it reports, over all heads.
        heads: Probabilities (h/stride, w/stride, classes) per head; 0 where nothing was seen.
    """

    regions: Regions
    heads: dict[str, Floats]


class Predictor:
    """A model, ready to look at images.

    Example:
        >>> predictor = Predictor.open("surface-rgb", threads=1)  # doctest: +SKIP
        >>> predictor.predict(image).regions.class_name  # doctest: +SKIP
        ('iron_oxide',)
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    @classmethod
    def open(
        cls, model: str | Path = DEFAULT, threads: int | None = None, provider: str = "auto"
    ) -> Predictor:
        """Returns the predictor of a model folder or zoo name, its files verified.

        Raises:
            ModelError: There is no such model, or it is not what its manifest says.
            DamagedModelError: A file's hash is wrong.
            EngineMissing: ONNX Runtime is not installed.
            ProviderError: The provider that was asked for fails its probe.
        """
        return cls(Runtime(open_model(model), provider, threads))

    @property
    def manifest(self) -> Manifest:
        """The model's manifest."""
        return self.runtime.model.manifest

    @property
    def hash(self) -> str:
        """SHA-256 of the model's manifest."""
        return self.runtime.model.hash

    @property
    def provider(self) -> str:
        """The provider in use: ``tensorrt``, ``cuda`` or ``cpu``."""
        return self.runtime.provider

    def warm_up(self, height: int, width: int) -> None:
        """Makes the session for this image size, so that the first frame does not wait for it."""
        self.logits(np.zeros((height, width, len(self.manifest.bands)), np.uint8))

    def logits(
        self, image: NDArray[np.uint8], seen: NDArray[np.bool_] | None = None
    ) -> dict[str, Floats]:
        """Returns raw logits (h/stride, w/stride, classes) per head.

        Args:
            image: (h, w, bands) uint8 at the model's GSD.
            seen: (h, w) True where the image shows ground; everywhere if ``None``.

        Raises:
            ModelError: The image has another type or number of bands.
        """
        bands = len(self.manifest.bands)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != bands:
            raise ModelError(
                f"the image is {image.dtype} of shape {image.shape}; {self.manifest.name} takes "
                f"uint8 (h, w, {bands})",
                f"bring it to the bands {', '.join(self.manifest.bands)} at 8 bits",
            )
        strides = {name: head.stride for name, head in self.manifest.heads.items()}
        out = tiled(image, seen, self.manifest.tiling, self.runtime.run, strides)
        for name, head in self.manifest.heads.items():
            if name not in out:
                rows, cols = (-(-n // head.stride) for n in image.shape[:2])
                out[name] = np.zeros((rows, cols, len(head.classes)), np.float32)
        return out

    def predict(
        self, image: NDArray[np.uint8], seen: NDArray[np.bool_] | None = None
    ) -> Prediction:
        """Returns regions and probabilities of one image.

        Args:
            image: (h, w, bands) uint8 at the model's GSD, north up or not.
            seen: (h, w) True where the image shows ground; everywhere if ``None``.
        """
        mask: Bools = np.ones(image.shape[:2], bool) if seen is None else np.asarray(seen, bool)
        logits = self.logits(image, mask)
        grids: dict[int, Grid] = {}
        heads: dict[str, Floats] = {}
        rows: list[Region] = []
        for name, head in self.manifest.heads.items():
            grid = grids.setdefault(head.stride, grid_of(mask, head.stride))
            heads[name] = probabilities(logits[name], head, grid)
            rows += regions_of(name, head, logits[name], heads[name], grid)
        told = [head for head in self.manifest.heads.values() if head.report]
        return Prediction(Regions.from_rows(rows, all(head.calibrated for head in told)), heads)
