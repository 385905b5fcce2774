"""The settings of a project folder: ``project.toml``, all of it optional."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from gossan.settings import Settings, load_settings


class TerrainSettings(Settings):
    """The DEM that mosaics and re-geotagging drape on; a plane at the take-off height without."""

    dem: Path | None = None
    datum: Literal["ellipsoid", "egm96", "egm2008", "same"] | None = None
    sigma_m: float | None = Field(default=None, ge=0)


class MosaicSettings(Settings):
    """The picture of each flight."""

    gsd_m: float = Field(default=0.15, gt=0)
    make: bool = True


class EvidenceSettings(Settings):
    """How a look changes what is believed; see docs/groundsync.md for the meaning of each."""

    cell_m: float = Field(default=5.0, gt=0)
    prior_per_km2: float = Field(default=0.05, gt=0)


class ProjectSettings(Settings):
    """All of ``project.toml``."""

    name: str = ""
    terrain: TerrainSettings = TerrainSettings()
    mosaic: MosaicSettings = MosaicSettings()
    evidence: EvidenceSettings = EvidenceSettings()


def load_project(project: Path) -> ProjectSettings:
    """Returns the settings of a project folder; paths in them are relative to it."""
    path = project / "project.toml"
    settings = load_settings(path, ProjectSettings) if path.is_file() else ProjectSettings()
    dem = settings.terrain.dem
    if dem is None or dem.is_absolute():
        return settings
    terrain = settings.terrain.model_copy(update={"dem": project / dem})
    return settings.model_copy(update={"terrain": terrain})
