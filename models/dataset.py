"""The dataset folder: frames with masks or chip sheets, their places, and splits by place."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gossan.settings import Settings, load_settings
from models.errors import DatasetError, FormatNotBuilt
from models.labels import IGNORE

Pixels = NDArray[np.uint8]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
CHIP_PX = 48


class DatasetSettings(Settings):
    """``dataset.toml``: what the folder cannot say by itself.

    Attributes:
        name: A short name.
        classes: Class names in the order of the mask's values; empty means the model's.
        bands: Band names of the images.
        gsd_m: Ground sample distance, or ``None`` where it is not known.
        licence: Under which the images may be used.
        head: The model's head that these masks belong to.
        simulated: True where the images are rendered.
        place_pattern: Regular expression whose first group is the place in a file's stem.
        places: Place by stem, for names that carry none.
        note: Anything else a reader should know.
    """

    name: str = ""
    classes: tuple[str, ...] = ()
    bands: tuple[str, ...] = ("red", "green", "blue")
    gsd_m: float | None = None
    licence: str = ""
    head: str = ""
    place: str = ""
    simulated: bool = False
    place_pattern: str = ""
    places: dict[str, str] = Field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its mask, or one chip with its label.

    Attributes:
        name: The image's stem, or ``sheet:row:col``.
        place: Where it was taken; splits never cut a place.
        image: The image or sheet.
        mask: The mask, ``None`` for chips.
        label: The chip's class index; −1 for masks.
        cell: Row and column of the chip on its sheet.
        part: The index's ``part`` column; empty where there is none.
    """

    name: str
    place: str
    image: Path
    mask: Path | None = None
    label: int = -1
    cell: tuple[int, int] = (0, 0)
    part: str = ""

    def pixels(self) -> Pixels:
        """Returns the image, RGB uint8 (h, w, 3)."""
        if self.mask is not None:
            return read_image(self.image)
        y, x = CHIP_PX * self.cell[0], CHIP_PX * self.cell[1]
        chip = _sheet(self.image)[y : y + CHIP_PX, x : x + CHIP_PX]
        if chip.shape[:2] != (CHIP_PX, CHIP_PX):
            raise DatasetError(
                f"{self.image.name} has no cell row {self.cell[0]}, column {self.cell[1]}",
                "correct index.csv",
            )
        return chip

    def indices(self, n_classes: int, shape: tuple[int, int]) -> Pixels:
        """Returns the mask (h, w): class indices below ``n_classes``, or 255.

        Raises:
            DatasetError: It is unreadable, of another size than the image (``shape``), or holds
                an unknown class.
        """
        if self.mask is None:
            raise DatasetError(f"{self.name} is a chip; it has a label, not a mask")
        mask = cv2.imread(str(self.mask), cv2.IMREAD_UNCHANGED)
        if mask is None or mask.ndim != 2:
            raise DatasetError(
                f"{self.mask} is not a readable one-band mask", "save class indices as 8-bit PNG"
            )
        if mask.shape != shape:
            raise DatasetError(
                f"{self.mask.name} is {mask.shape[1]}×{mask.shape[0]} px, its image "
                f"{shape[1]}×{shape[0]} px"
            )
        unknown = np.setdiff1d(np.unique(mask), [*range(n_classes), IGNORE])
        if unknown.size:
            raise DatasetError(
                f"{self.mask.name} holds class {int(unknown[0])}; known are 0 to {n_classes - 1} "
                f"and {IGNORE} (ignored)",
                "name the classes in dataset.toml, or mend the mask",
            )
        return mask.astype(np.uint8)


@dataclass(frozen=True)
class Dataset:
    """A folder of labelled images.

    Attributes:
        path: The folder.
        kind: ``masks`` or ``chips``.
        settings: Its ``dataset.toml``, or the defaults.
        samples: What lies in it, by name.
    """

    path: Path
    kind: str
    settings: DatasetSettings
    samples: tuple[Sample, ...]

    @cached_property
    def places(self) -> tuple[str, ...]:
        """The places, sorted."""
        return tuple(sorted({sample.place for sample in self.samples}))

    def at(self, places: set[str] | frozenset[str]) -> tuple[Sample, ...]:
        """Returns the samples at these places.

        Raises:
            DatasetError: A place is not in the dataset.
        """
        missing = sorted(set(places) - set(self.places))
        if missing:
            raise DatasetError(
                f"{self.path.name} has no place '{missing[0]}'", f"it has {', '.join(self.places)}"
            )
        return tuple(sample for sample in self.samples if sample.place in places)

    def elsewhere(self, places: set[str] | frozenset[str]) -> tuple[Sample, ...]:
        """Returns the samples at all other places."""
        return tuple(sample for sample in self.samples if sample.place not in places)


def open_dataset(path: Path) -> Dataset:
    """Returns the dataset in a folder.

    Raises:
        DatasetError: The folder holds no dataset, or one that cannot be used.
        FormatNotBuilt: It is a COCO or YOLO dataset.
    """
    if not path.is_dir():
        raise DatasetError(f"there is no dataset folder {path}", "check the path")
    file = path / "dataset.toml"
    settings = load_settings(file, DatasetSettings) if file.exists() else DatasetSettings()
    if (path / "frames").is_dir():
        return Dataset(path, "masks", settings, _frames(path, settings))
    if (path / "index.csv").exists():
        return Dataset(path, "chips", settings, _chips(path))
    if (path / "labels").is_dir() or list(path.glob("*.json")):
        raise FormatNotBuilt(
            f"{path} looks like a COCO or YOLO dataset, which is not read yet",
            "draw the labels as masks: frames/<name>.jpg with masks/<name>.png",
        )
    raise DatasetError(
        f"{path} has neither frames/ nor index.csv",
        "lay it out as frames/*.jpg|png|tif with masks/*.png, or chip sheets with index.csv",
    )


def read_image(path: Path) -> Pixels:
    """Returns an image as RGB uint8 (h, w, 3), never turned by EXIF Orientation."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise DatasetError(f"cannot read the image {path}")
    return np.asarray(image, dtype=np.uint8)


def place_of(stem: str, settings: DatasetSettings) -> str:
    """Returns the place in a stem: named, matched, or its leading date (else word)."""
    if stem in settings.places:
        return settings.places[stem]
    if settings.place_pattern:
        found = re.search(settings.place_pattern, stem)
        if found and found.groups():
            return found.group(1)
    if settings.place:
        return settings.place
    date = re.match(r"((?:19|20)\d\d)[-_]?(\d\d)[-_]?(\d\d)(?!\d)", stem)
    return "".join(date.groups()) if date else re.split(r"[-_.]", stem, maxsplit=1)[0]


def _frames(path: Path, settings: DatasetSettings) -> tuple[Sample, ...]:
    images = sorted(p for p in (path / "frames").iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise DatasetError(f"{path / 'frames'} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    samples = []
    for image in images:
        options = [path / "masks" / f"{image.stem}{tail}.png" for tail in ("", "_mask")]
        mask = next((option for option in options if option.exists()), None)
        if mask is None:
            raise DatasetError(
                f"{image.name} has no mask", f"add masks/{image.stem}.png, or take the frame out"
            )
        samples.append(Sample(image.stem, place_of(image.stem, settings), image, mask))
    return tuple(samples)


def _chips(path: Path) -> tuple[Sample, ...]:
    with (path / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        return tuple(_chip(path, row) for row in rows)
    except (KeyError, ValueError) as error:
        raise DatasetError(
            f"{path / 'index.csv'} has no usable column {error}",
            "it needs sheet,row,col,label",
        ) from error


def _chip(path: Path, row: dict[str, str]) -> Sample:
    cell = int(row["row"]), int(row["col"])
    name = f"{row['sheet']}:{cell[0]}:{cell[1]}"
    place = row.get("place") or row.get("source_gallery") or row["sheet"]
    return Sample(
        name, place, path / row["sheet"], None, int(row["label"]), cell, row.get("part", "")
    )


@lru_cache(maxsize=8)
def _sheet(path: Path) -> Pixels:
    return read_image(path)
