"""priors.toml as one validated object: study area, occurrences, layers, surface expression."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gossan.settings import Settings, load_settings

Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
LayerKind = Literal["categorical", "continuous", "distance"]


class Area(Settings):
    """The study area and its cells."""

    crs: str | None = None
    cell_m: float | None = Field(default=None, gt=0)
    bounds_m: tuple[float, float, float, float] | None = None
    like: Path | None = None
    mask: bool = False
    polygon: Path | None = None
    unit_cell_km2: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        named = self.crs is not None and self.cell_m is not None
        bounded = self.bounds_m is not None or self.polygon is not None
        if self.like is None and not (named and bounded):
            raise ValueError("give 'like', or 'crs' and 'cell_m' with 'bounds_m' or 'polygon'")
        if self.like is not None and (named or self.bounds_m is not None):
            raise ValueError("'like' already says CRS, cell and bounds: drop those keys")
        return self


class Occurrences(Settings):
    """Known deposits and occurrences to learn from."""

    path: Path
    layer: str | None = None
    crs: str | None = None
    date: str = ""
    licence: str = ""


class Layer(Settings):
    """One map layer."""

    name: str = Field(min_length=1)
    path: Path
    kind: LayerKind
    band: int = Field(default=1, ge=1)
    layer: str | None = None
    attribute: str | None = None
    where: str | None = None
    edges: tuple[float, ...] | None = None
    bins: int = Field(default=8, ge=2, le=1000)
    nodata: float | None = None
    crs: str | None = None
    datum: str = ""
    date: str = ""
    licence: str = ""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.edges is not None and list(self.edges) != sorted(set(self.edges)):
            raise ValueError("'edges' must rise")
        if self.edges is not None and (self.kind == "categorical" or not self.edges):
            raise ValueError("'edges' cut a continuous or distance layer into at least two bins")
        return self


class Surface(Settings):
    """What a deposit shows at the surface, for one class of the network."""

    class_name: str = Field(alias="class", min_length=1)
    p_given_deposit: Probability
    p_given_barren: Probability
    source: str = ""

    @model_validator(mode="after")
    def _informative(self) -> Self:
        if self.p_given_barren >= self.p_given_deposit:
            raise ValueError("'p_given_barren' must be below 'p_given_deposit'")
        return self


class Model(Settings):
    """How the layers are weighed and checked."""

    folds: int = Field(default=5, ge=2, le=50)
    block_km: float = Field(default=20.0, gt=0)
    seed: int = Field(default=1, ge=0)
    merge_rare: bool = True


class Priors(Settings):
    """priors.toml."""

    name: str = ""
    area: Area
    occurrences: Occurrences
    layers: tuple[Layer, ...] = Field(min_length=1)
    surface: tuple[Surface, ...] = ()
    model: Model = Model()

    @model_validator(mode="after")
    def _unique(self) -> Self:
        for names in ([la.name for la in self.layers], [s.class_name for s in self.surface]):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"named twice: {', '.join(sorted(twice))}")
        return self


def load_priors(path: Path) -> Priors:
    """Returns the settings of a priors.toml; its relative paths still lie beside the file.

    Raises:
        SettingsError: The file, a key or a value is refused.
    """
    return load_settings(path, Priors)
