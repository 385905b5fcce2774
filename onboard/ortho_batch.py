"""Orthocorrects all frames of a source into COGs; one bad frame never stops the batch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray

from calibration.geodesy import MapFrame
from calibration.rig import Rig
from gossan.errors import DamagedDataError, GossanError, UserError
from onboard.place.geotag import geotag
from onboard.place.grid import Grid
from onboard.place.ortho import Ortho, apply_map, view_grid
from onboard.place.ortho_nodes import build_map
from onboard.place.ortho_resample import ImageResampling
from onboard.place.ortho_view import FrameView
from onboard.place.post_surface import DemResampling
from onboard.place.terrain import Terrain
from onboard.records import Floats, Frame, Image, Poses
from onboard.sources.bands import BandedSource
from onboard.sources.source import Source
from onboard.write_cog import Codec, write_cog

log = logging.getLogger(__name__)

GSD_FRAMES = 25
SIGMA_STEP_PX = 48
SIGMA_LEAST = 9
REMEDIES = {
    "no_pose": "see the source's own flags; give --poses",
    "no_ground": "check that the DEM covers the frame, and the datums of DEM and poses",
    "nothing_seen": "the grid (--like) and the frame do not overlap, or all of it is hidden",
    "name_taken": "give the frames different stems: one ortho per stem is written",
}


@dataclass(frozen=True)
class OrthoJob:
    """What all frames of a batch share.

    Attributes:
        rig: The camera.
        terrain: The ground.
        map_frame: The map.
        out: The folder to write to.
        gsd_m: Pixel size; ``None`` takes the frames' own median.
        like: The one grid of all orthos, or ``None`` for one grid per frame.
        resampling: Between source pixels.
        dem_resampling: Between DEM posts.
        extras: Whether σ and masks are written too.
        pose_source: Where the poses come from, for provenance.
        codec: Lossless codec.
        overviews: Whether smaller copies for fast viewing go into the files.
    """

    rig: Rig
    terrain: Terrain
    map_frame: MapFrame
    out: Path
    gsd_m: float | None = None
    like: Grid | None = None
    resampling: ImageResampling = "linear"
    dem_resampling: DemResampling = "linear"
    extras: bool = False
    pose_source: str = ""
    codec: Codec = "deflate"
    overviews: bool = True


@dataclass
class BatchReport:
    """What became of a batch.

    Attributes:
        frames: Number of frames in the source.
        placed: Number of frames with a pose.
        written: The files.
        seen_share: Mean share of the orthos' pixels that were seen.
        flagged: Frame, reason and remedy of what went wrong.
        first_error: The first failure, raised if nothing could be written.
    """

    frames: int = 0
    placed: int = 0
    written: list[Path] = field(default_factory=list)
    seen_share: list[float] = field(default_factory=list)
    flagged: list[tuple[str, str, str]] = field(default_factory=list)
    first_error: GossanError | None = None

    def fail(self, frame: str, reason: str, error: GossanError | None = None) -> None:
        """Notes that a frame was left out."""
        remedy = REMEDIES.get(reason, error.hint if error else "")
        self.flagged.append((frame, reason, remedy))
        if error and self.first_error is None:
            self.first_error = error
        log.warning("ortho_left_out frame=%s reason=%s", frame, reason)


def ortho_batch(
    source: Source,
    poses: Poses,
    job: OrthoJob,
    watch: Callable[[Iterable[Frame]], Iterator[Frame]] = iter,
) -> BatchReport:
    """Writes one COG per placed frame.

    Args:
        source: Frames.
        poses: Their poses; frames without one are flagged.
        job: How.
        watch: Wraps the frames, for progress.

    Raises:
        GossanError: Not a single ortho could be written; the first reason is raised.
    """
    job.out.mkdir(parents=True, exist_ok=True)
    report = BatchReport()
    row = {name: i for i, name in enumerate(poses.frame)}
    gsd = job.gsd_m if job.like is None else job.like.gsd_m
    if gsd is None:
        gsd = common_gsd_m(poses, job)
    known = {flag.frame for flag in source.flagged}
    taken: set[str] = set()
    for frame in watch(list(source.frames())):
        report.frames += 1
        if frame.name not in row:
            if frame.name not in known:
                report.fail(frame.name, "no_pose")
            continue
        report.placed += 1
        stem = Path(frame.name).stem
        if stem.lower() in taken:
            report.fail(frame.name, "name_taken")
            continue
        taken.add(stem.lower())
        _one(source, frame, poses.take([row[frame.name]]), gsd, job, report)
    _refuse_nothing(source, report)
    return report


def common_gsd_m(poses: Poses, job: OrthoJob) -> float | None:
    """Returns the median ground sample distance of the frames, to three digits."""
    some = np.unique(np.linspace(0, len(poses) - 1, min(len(poses), GSD_FRAMES)).astype(int))
    found = [
        FrameView.of(poses.take([i]), job.rig, job.terrain, job.map_frame).gsd_m() for i in some
    ]
    middle = float(np.nanmedian(found)) if np.isfinite(found).any() else float("nan")
    return float(f"{middle:.3g}") if np.isfinite(middle) else None


def _one(
    source: Source, frame: Frame, pose: Poses, gsd: float | None, job: OrthoJob, report: BatchReport
) -> None:
    """Writes the ortho of one frame, or flags it."""
    try:
        view = FrameView.of(pose, job.rig, job.terrain, job.map_frame)
        grid = job.like or view_grid(view, gsd)
    except UserError as error:
        report.fail(frame.name, "no_ground", error)
        return
    try:
        ortho = _ortho(source, frame, view, grid, job)
        if not ortho.mask.any():
            report.fail(frame.name, "nothing_seen")
            return
        path = job.out / f"{Path(frame.name).stem}.tif"
        write_cog(
            path, ortho.image, ortho.mask, grid, tags=_tags(pose, job), codec=job.codec,
            overviews=job.overviews,
            band_names=_band_names(job.rig),
        )  # fmt: skip
        if job.extras:
            write_extras(job.out / "extras", path.stem, ortho, pose, job)
    except DamagedDataError as error:
        report.fail(frame.name, "unreadable", error)
        return
    except UserError as error:
        report.fail(frame.name, "size_differs", error)
        return
    report.written.append(path)
    report.seen_share.append(float(ortho.mask.mean()))


def _ortho(source: Source, frame: Frame, view: FrameView, grid: Grid, job: OrthoJob) -> Ortho:
    as_stored = _is_tiff(frame) and not isinstance(source, BandedSource)
    pixels = read_bands(frame.path) if as_stored else source.load_pixels(frame).pixels
    assert pixels is not None  # noqa: S101
    camera = job.rig.camera
    if pixels.shape[:2] != (camera.height_px, camera.width_px):
        raise UserError(
            f"{frame.name} has {pixels.shape[1]} x {pixels.shape[0]} pixels, the rig's camera "
            f"{camera.width_px} x {camera.height_px}",
            "use the rig of this camera and image size",
        )
    backward = build_map(view, grid, job.dem_resampling)
    return apply_map(pixels, backward, resampling=job.resampling)


def read_bands(path: Path | None) -> Image:
    """Returns all bands of a TIFF, (h, w, bands), as GDAL decodes them.

    OpenCV's TIFF reader halves the colour resolution of JPEG-compressed TIFFs.

    Raises:
        DamagedDataError: It cannot be decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path) as raster:
                bands = np.moveaxis(raster.read(), 0, -1)
    except rasterio.errors.RasterioError as error:
        raise DamagedDataError(f"cannot decode {path}: {error}", "copy it again") from error
    if bands.dtype not in (np.uint8, np.uint16):
        raise DamagedDataError(f"{path} holds {bands.dtype}, not 8 or 16 bits", "convert it")
    return np.ascontiguousarray(bands)


def _is_tiff(frame: Frame) -> bool:
    return frame.path is not None and frame.path.suffix.lower() in (".tif", ".tiff")


def write_extras(folder: Path, stem: str, ortho: Ortho, pose: Poses, job: OrthoJob) -> None:
    """Writes σ east and north (metres) and the masks (seen, occluded) of an ortho.

    Files: ``<stem>_sigma.tif`` (float32, two bands) and ``<stem>_masks.tif`` (uint8, 0 or 255).
    """
    folder.mkdir(parents=True, exist_ok=True)
    tags = _tags(pose, job)
    sigma = sigma_en_m(ortho, pose, job)
    write_cog(
        folder / f"{stem}_sigma.tif", sigma, ortho.mask, ortho.grid, tags=tags,
        band_names=("sigma_e_m", "sigma_n_m"), codec=job.codec,
    )  # fmt: skip
    masks = np.stack([ortho.mask, ortho.occluded], axis=-1).astype(np.uint8) * np.uint8(255)
    write_cog(
        folder / f"{stem}_masks.tif", masks, None, ortho.grid, tags=tags,
        band_names=("seen", "occluded"), codec=job.codec,
    )  # fmt: skip


def sigma_en_m(ortho: Ortho, pose: Poses, job: OrthoJob) -> NDArray[np.float32]:
    """Returns (h, w, 2) float32 σ of true east and north, from a lattice of geotagged pixels.

    On a lattice of 48 pixels; between its points linear; NaN where not seen.
    """
    grid = ortho.grid
    cols = np.linspace(0, grid.width - 1, max(SIGMA_LEAST, grid.width // SIGMA_STEP_PX))
    rows = np.linspace(0, grid.height - 1, max(SIGMA_LEAST, grid.height // SIGMA_STEP_PX))
    u, v = np.meshgrid(cols, rows)
    source = ortho.map.source_px(np.stack([u.ravel(), v.ravel()], axis=1))
    beside = ~job.rig.camera.inside(np.nan_to_num(source, nan=-1e9))
    source[beside] = np.nan
    points = geotag(
        pose, np.zeros(len(source), np.int64), source, None, job.rig, job.terrain, job.map_frame
    )
    var = np.diagonal(points.cov_total_m2, axis1=1, axis2=2)
    known = np.asarray(np.isfinite(var).all(axis=1))
    if not known.any():
        return np.full((grid.height, grid.width, 2), np.nan, np.float32)
    small = np.sqrt(np.where(known[:, None], var, np.nan)).reshape(len(rows), len(cols), 2)
    small = _filled(small)
    # cv2.resize puts samples in the middle of cells; the lattice has them at its ends.
    at_x = np.linspace(0, len(cols) - 1, grid.width, dtype=np.float32)
    at_y = np.linspace(0, len(rows) - 1, grid.height, dtype=np.float32)
    full = cv2.remap(
        small.astype(np.float32),
        np.broadcast_to(at_x, (grid.height, grid.width)).copy(),
        np.broadcast_to(at_y[:, None], (grid.height, grid.width)).copy(),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    full[~ortho.mask] = np.nan
    return np.asarray(full, np.float32)


def _filled(lattice: Floats) -> Floats:
    """Returns a lattice whose gaps take the value of their nearest neighbours, step by step."""
    out = lattice.copy()
    while np.isnan(out).any():
        wide = np.pad(out, ((1, 1), (1, 1), (0, 0)), constant_values=np.nan)
        around = np.stack([wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:]])
        count = np.isfinite(around).sum(axis=0)
        mean = np.nansum(around, axis=0) / np.maximum(count, 1)
        out = np.where(np.isnan(out) & (count > 0), mean, out)
    return out


def _tags(pose: Poses, job: OrthoJob) -> dict[str, str]:
    """Returns the provenance that goes into the file."""
    return {
        "GOSSAN_SOFTWARE": f"gossan {version('gossan')}",
        "GOSSAN_FRAME": pose.frame[0],
        "GOSSAN_RIG": job.rig.hash,
        "GOSSAN_DEM": job.terrain.label,
        "GOSSAN_VERTICAL_DATUM": job.terrain.datum,
        "GOSSAN_POSE_SOURCE": job.pose_source,
        "GOSSAN_POSE_FLAGS": ";".join(pose.flags[0]),
        "GOSSAN_MAP": job.map_frame.model,
        "GOSSAN_RESAMPLING": job.resampling,
        "GOSSAN_DEM_RESAMPLING": job.dem_resampling,
        **_light(job.rig),
    }


def _band_names(rig: Rig) -> tuple[str, ...]:
    profile = rig.radiometry
    return () if profile is None else tuple(band.name for band in profile.band)


def _light(rig: Rig) -> dict[str, str]:
    """Returns what the pixels' numbers mean, where the rig corrects them."""
    profile = rig.radiometry
    if profile is None:
        return {}
    tags: dict[str, str] = {"GOSSAN_RADIOMETRY": profile.unit}
    if profile.unit == "reflectance":
        tags["GOSSAN_REFLECTANCE_DN"] = f"{profile.reflectance_dn:g}"
    return tags


def _refuse_nothing(source: Source, report: BatchReport) -> None:
    if report.written:
        return
    if report.first_error is not None:
        raise report.first_error
    reasons = {f"{name}: {reason}" for name, reason, _ in report.flagged}
    reasons |= {f"{flag.frame}: {flag.reason}" for flag in source.flagged}
    why = "; ".join(sorted(reasons)[:4])
    raise UserError(
        f"none of the {report.frames} frames could be orthocorrected ({why})",
        "gossan onboard inspect SOURCE says what each frame lacks",
    )
