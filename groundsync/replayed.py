"""Sources that are no flights yet: replayed into one by the code that flies, then ingested."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from gossan.errors import UserError
from groundsync.settings import ProjectSettings
from onboard.records import HeightDatum
from onboard.replay import ReplayOptions, replay
from onboard.survey_scene import Ground

INCOMING = "incoming"


def replay_source(
    source: Path,
    project: Path,
    settings: ProjectSettings,
    rig: Path | None,
    model: str,
    alt_datum: str | None,
) -> Path:
    """Returns the flight folder that a source was replayed into, in the project's ``incoming/``.

    Args:
        source: Photos, frames with a log, a video with its log or subtitles, a pose table's frames.
        project: The project folder.
        settings: Its settings; the ground is their DEM.
        rig: The camera's rig.
        model: What looks at the frames.
        alt_datum: Datum of heights that do not say theirs.

    Raises:
        UserError: There is no rig, or replay refuses the source.
    """
    if rig is None:
        raise UserError(f"{source} is no flight folder: it needs --rig", "give the camera's rig")
    terrain = settings.terrain
    out = project / INCOMING / source.resolve().name
    options = ReplayOptions(
        source=source,
        rig=rig,
        out=out,
        ground=Ground(terrain.dem, cast(HeightDatum | None, terrain.datum), terrain.sigma_m),
        alt_datum=cast(HeightDatum | None, alt_datum),
        model=model,
        orthos=False,
        misfit=False,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    replay(options)
    return out
