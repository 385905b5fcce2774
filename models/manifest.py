"""The manifest of a model folder: what the network takes, answers, and is known to do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tomlkit
from pydantic import Field

from gossan.settings import Settings, load_settings
from models.errors import ModelError

DECODERS = ("dense",)
"""Decoders that are built: ``dense`` is logits per class on a grid of ``stride`` pixels."""


class FileEntry(Settings):
    """One file of the folder.

    Attributes:
        sha256: Its hash.
        role: ``cpu`` (INT8 QDQ for the CPU provider), ``float`` (any provider), ``golden``.
    """

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    role: Literal["cpu", "float", "golden"]


class Head(Settings):
    """One output of the network.

    Attributes:
        output: Name of the graph's output.
        decoder: How it is read.
        stride: Pixels per output cell.
        classes: Class names in the order of the output's channels.
        report: Classes that become detections.
        threshold: Probability above which a cell counts, per reported class.
        least_probability: What a region must reach, the mean of its cells, per reported class.
        min_cells: Smallest region, in output cells.
        temperature: What logits are divided by before softmax.
        calibrated: Whether the temperature was fitted on held-out places.
        energy_max: Free energy above which a cell is doubted as out of distribution.
        experimental: True where the labels are simulated.
        gsd_m: Ground sample distance it was made for, or ``None`` where that is not known.
    """

    output: str
    decoder: str = "dense"
    stride: int = Field(default=8, ge=1)
    classes: tuple[str, ...] = Field(min_length=2)
    report: tuple[str, ...] = ()
    threshold: dict[str, float] = Field(default_factory=dict)
    least_probability: dict[str, float] = Field(default_factory=dict)
    min_cells: int = Field(default=1, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    calibrated: bool = False
    energy_max: float | None = None
    experimental: bool = False
    gsd_m: float | None = None


class Tiling(Settings):
    """How images are cut for the network.

    Attributes:
        sizes_px: Fixed edges of the tiles, divisible by 32; the smallest that suffices is taken.
        halo_px: Rim of a tile that is seen and not answered for.
    """

    sizes_px: tuple[int, ...] = (256, 512, 1024)
    halo_px: int = Field(default=32, ge=0)


class Golden(Settings):
    """The answer by which an inference provider is judged before it is trusted.

    Attributes:
        file: Archive with ``pixels`` and the logits of each head.
        mean_abs_max: Largest mean absolute difference of logits.
        agreement_min: Smallest share of cells with the same best class.
    """

    file: str = "golden.npz"
    mean_abs_max: float = Field(default=0.25, gt=0)
    agreement_min: float = Field(default=0.98, ge=0, le=1)


class Detectability(Settings):
    """What flights over known ground say about one class.

    Attributes:
        p_detect: Share of planted things of at least 15 pixels found in one look.
        p_detect_by_size_m2: The same by lower edge of the size's bin.
        false_alarms_per_km2: Wrong regions per km² of ground in one look.
        source: Where the numbers come from.
    """

    p_detect: float = Field(ge=0, le=1)
    p_detect_by_size_m2: dict[str, float] = Field(default_factory=dict)
    false_alarms_per_km2: float
    source: str


class Manifest(Settings):
    """``manifest.toml``.

    Attributes:
        schema_version: Version of this format.
        name: The model's name.
        version: Its version.
        bands: What the image's bands must be, in order.
        gsd_m: Ground sample distance that images are brought to.
        heads: The outputs by head name.
        tiling: How images are cut.
        golden: How providers are judged.
        files: The folder's files by name, with their hashes.
        detectability: Per reported class.
        trained_on: Data, places held out, and licences, one line each.
        not_for: What it must not be used for, one line each.
        licence: Under which the weights may be used.
    """

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    version: str
    bands: tuple[str, ...] = ("red", "green", "blue")
    gsd_m: float = Field(gt=0)
    heads: dict[str, Head] = Field(min_length=1)
    tiling: Tiling = Tiling()
    golden: Golden = Golden()
    files: dict[str, FileEntry] = Field(min_length=1)
    detectability: dict[str, Detectability] = Field(default_factory=dict)
    trained_on: tuple[str, ...] = ()
    not_for: tuple[str, ...] = ()
    licence: str = ""

    @property
    def report_classes(self) -> tuple[str, ...]:
        """Classes that become detections, over all heads."""
        return tuple(name for head in self.heads.values() for name in head.report)

    def file_of(self, role: str) -> str | None:
        """Returns the name of the file with this role, if there is one."""
        return next((name for name, entry in self.files.items() if entry.role == role), None)


def load_manifest(path: Path) -> Manifest:
    """Returns the validated manifest of a file.

    Raises:
        SettingsError: A key or value is refused.
        ModelError: It is well formed, but asks for what cannot be run.
    """
    manifest = load_settings(path, Manifest)
    for name, head in manifest.heads.items():
        _check_head(path, name, head)
    for size in manifest.tiling.sizes_px:
        if size % 32 or manifest.tiling.halo_px % 32 or size <= 2 * manifest.tiling.halo_px:
            raise ModelError(
                f"{path}: a tile of {size} px does not go with a halo of "
                f"{manifest.tiling.halo_px} px: both divide by 32, the tile is over twice the halo"
            )
    for name in manifest.files:
        if Path(name).name != name:
            raise ModelError(f"{path}: file '{name}' is not a plain name in the model's folder")
    return manifest


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes a manifest as TOML."""
    table = manifest.model_dump(mode="json", exclude_none=True)
    path.write_text(tomlkit.dumps(table), encoding="utf-8")


def _check_head(path: Path, name: str, head: Head) -> None:
    if head.decoder not in DECODERS:
        raise ModelError(
            f"{path}: head '{name}' asks for the decoder '{head.decoder}', which is not built",
            f"built: {', '.join(DECODERS)} (class logits on a grid); export detectors as a "
            "per-pixel class map, or wait for box decoders",
        )
    for key in ("threshold", "least_probability"):
        given = getattr(head, key)
        unknown = sorted(set(given) - set(head.report))
        if unknown:
            raise ModelError(
                f"{path}: head '{name}' has a {key} for '{unknown[0]}', which it does not report"
            )
    unknown = sorted(set(head.report) - set(head.classes))
    if unknown:
        raise ModelError(
            f"{path}: head '{name}' reports '{unknown[0]}', which is none of its classes",
            f"its classes are {', '.join(head.classes)}",
        )
