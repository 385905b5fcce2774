"""One placed frame looked at: orthocorrected at the model's pixel size, its regions geotagged."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from calibration.band_profile import RadiometryTable
from calibration.geodesy import MapFrame
from calibration.radiometry import display_table
from calibration.rig import Rig
from gossan.errors import DamagedDataError, UserError
from models.decode import Regions
from models.predict import Predictor
from onboard.denoise import Denoise, quieted
from onboard.errors import SizeDiffersError
from onboard.frame_quality import frame_quality
from onboard.place.geotag import geotag
from onboard.place.grid import Grid
from onboard.place.ortho import Ortho, apply_map, footprint_of, view_grid
from onboard.place.ortho_nodes import build_map
from onboard.place.ortho_view import FrameView
from onboard.place.terrain import Terrain
from onboard.records import Detections, Floats, Footprint, Frame, Image, Poses

T = TypeVar("T")

MAX_ORTHO_PX = 60_000_000
"""Larger orthos are made at a coarser pixel size (far ground of oblique frames)."""
DELINEATION_CELLS = 0.29
"""σ of a region's outline, in cells of the network's output grid (uniform within a cell)."""
DELINEATION_SHARE = 0.10
"""σ of a region's centroid as a share of its radius: where it ends is a matter of opinion."""


@dataclass(frozen=True)
class ScanResult:
    """What one frame gave.

    Attributes:
        detections: What was seen; ``None`` where no network looked.
        footprint: What was imaged; its quality says why it may not count as a look.
        ortho: The ortho at the model's pixel size; ``None`` where the frame sees no ground.
        stage_ms: Milliseconds spent in each stage.
    """

    detections: Detections | None
    footprint: Footprint
    ortho: Ortho | None
    stage_ms: dict[str, float] = field(default_factory=dict)


@dataclass
class Scanner:
    """Looks at frames with one model, or only places them.

    Attributes:
        predictor: The model; ``None`` places frames and maps what they imaged.
        gsd_m: Pixel size of the ortho; the model's by default, without a model the frame's own.
        denoise: Whether the network sees noisy frames smoothed.
    """

    predictor: Predictor | None
    gsd_m: float | None = None
    denoise: Denoise = "none"

    def __post_init__(self) -> None:
        if self.gsd_m is None and self.predictor is not None:
            self.gsd_m = self.predictor.manifest.gsd_m

    def scan(
        self,
        frame: Frame,
        pose: Poses,
        rig: Rig,
        terrain: Terrain,
        map_frame: MapFrame,
        flight_id: str = "",
    ) -> ScanResult:
        """Returns what is to be seen in a placed frame.

        Args:
            frame: With pixels.
            pose: A set of one pose.
            rig: Its camera.
            terrain: The ground.
            map_frame: The map.
            flight_id: Names the flight's bias states.

        Raises:
            DamagedDataError: The frame has no pixels.
            UserError: Its size is not the rig's.
        """
        if frame.pixels is None:
            raise DamagedDataError(f"{frame.name} has no pixels", "load them first")
        _check_size(frame.pixels, rig)
        watch = _StopWatch()
        quality = watch.time("quality", lambda: _quality(frame, rig))
        view = FrameView.of(pose, rig, terrain, map_frame)
        try:
            grid = self._grid(view)
        except UserError:
            nothing = Footprint(frame.name, np.zeros((0, 2)), (), float("nan"), "no_ground")
            return ScanResult(None, nothing, None, watch.stage_ms)
        ortho = watch.time("ortho", lambda: _ortho(frame.pixels, view, grid))
        looks = self.predictor is not None and quality != "dark"
        detections = self._look(ortho, view, pose, frame.name, flight_id, watch) if looks else None
        print_ = watch.time(
            "footprint",
            lambda: footprint_of(
                frame.name, view, ortho.mask, grid, view.gsd_m(), quality, detections is not None
            ),
        )
        empty = Footprint(frame.name, np.zeros((0, 2)), (), float("nan"), "no_ground")
        return ScanResult(detections, print_ or empty, ortho, watch.stage_ms)

    def _grid(self, view: FrameView) -> Grid:
        grid = view_grid(view, self.gsd_m)
        excess = grid.width * grid.height / MAX_ORTHO_PX
        return grid if excess <= 1.0 else grid.coarser(float(np.sqrt(excess)))

    def _look(
        self,
        ortho: Ortho,
        view: FrameView,
        pose: Poses,
        name: str,
        flight_id: str,
        watch: _StopWatch,
    ) -> Detections:
        """Returns the detections of a frame, carried back to its own pixels and geotagged."""
        predictor = self.predictor
        assert predictor is not None  # noqa: S101
        image = eight_bits(ortho.image, len(predictor.manifest.bands), view.rig.radiometry)
        if self.denoise == "guided":
            noisy = image
            image = watch.time("denoise", lambda: quieted(noisy))
        regions = watch.time("inference", lambda: predictor.predict(image, ortho.mask).regions)
        stride = max(head.stride for head in predictor.manifest.heads.values())
        return watch.time(
            "geotag",
            lambda: detections_of(
                regions, ortho, view, pose, name, flight_id, predictor.hash, stride
            ),
        )


def detections_of(
    regions: Regions,
    ortho: Ortho,
    view: FrameView,
    pose: Poses,
    name: str,
    flight_id: str,
    model_hash: str,
    stride: int,
) -> Detections:
    """Returns regions of an ortho as detections of its frame.

    Centroids and outlines go back to source pixels through the map that made the ortho, so that
    one covariance serves both.

    Args:
        regions: Found on the ortho.
        ortho: The ortho with its map.
        view: The frame.
        pose: Its pose.
        name: Its name.
        flight_id: Names the flight's bias states.
        model_hash: Of the model's manifest.
        stride: Ortho pixels to a cell of the network's output.
    """
    source = ortho.map.source_px(regions.centroid_px)
    sigma = delineation_px(regions.area_px, stride) * ortho.grid.gsd_m / view.gsd_m()
    ground = geotag(
        pose,
        np.zeros(len(regions), np.int64),
        source,
        np.hypot(sigma, view.rig.sigma_px),
        view.rig,
        view.terrain,
        view.map_frame,
        flight_id=flight_id,
    )
    outlines = [_finite(ortho.map.source_px(p)) for p in regions.polygon_px]
    return Detections(
        frame=name,
        class_name=regions.class_name,
        probability=regions.probability,
        calibrated=regions.calibrated,
        ood=regions.ood,
        area_m2=regions.area_px * ortho.grid.gsd_m**2,
        polygon_px=tuple(outlines),
        centroid_px=source,
        ground=ground,
        polygon_map_m=tuple(ortho.grid.to_map(p) for p in regions.polygon_px),
        model_hash=model_hash,
        inside=~regions.touches_edge,
    )


def delineation_px(area_px: Floats, stride: int) -> Floats:
    """Returns (n,) σ of region centroids from their delineation, ortho pixels, each axis.

    An outline uncertain by a share of a cell all around moves the centroid by that over the
    square root of the number of cells across; opinions on where the thing ends add a share of
    its radius.

    Args:
        area_px: (n,) areas.
        stride: Pixels to a cell.
    """
    radius = np.sqrt(np.maximum(area_px, 1.0) / np.pi)
    across = np.maximum(2.0 * radius / stride, 1.0)
    return np.hypot(DELINEATION_CELLS * stride / np.sqrt(across), DELINEATION_SHARE * radius)


def eight_bits(image: Image, bands: int, light: RadiometryTable | None = None) -> NDArray[np.uint8]:
    """Returns an image as (h, w, bands) uint8; a single band is repeated, further ones left out.

    16 bits keep their upper 8; where the rig says that they are linear in light, they take the
    sRGB curve of the photos that networks know, reflectance 1 becoming white.
    """
    cube: NDArray[np.generic] = image[..., None] if image.ndim == 2 else image
    if cube.shape[2] < bands:
        cube = np.repeat(cube[..., :1], bands, axis=2)
    cube = cube[..., :bands]
    if cube.dtype != np.uint8 and light is not None and light.encoding == "linear":
        cube = display_table(light)[np.asarray(cube, np.uint16)]
    elif cube.dtype != np.uint8:
        cube = np.asarray(cube, np.uint16) >> 8
    return np.ascontiguousarray(cube, np.uint8)


def _ortho(pixels: Image | None, view: FrameView, grid: Grid) -> Ortho:
    assert pixels is not None  # noqa: S101
    return apply_map(pixels, build_map(view, grid, "linear"), antialias=True)


def _quality(frame: Frame, rig: Rig) -> str:
    """Returns what the source says is wrong with the frame's look, else what its pixels say.

    Linear light is judged through the sRGB curve: dark ground of 5 % reflectance is no lens cap.
    """
    for code in ("dark", "blurred"):
        if code in frame.flags:
            return code
    assert frame.pixels is not None  # noqa: S101
    pixels = frame.pixels
    if rig.radiometry is not None and pixels.dtype == np.uint16:
        pixels = eight_bits(pixels, 3, rig.radiometry)
    return frame_quality(pixels)


def _check_size(pixels: Image, rig: Rig) -> None:
    camera = rig.camera
    if pixels.shape[:2] != (camera.height_px, camera.width_px):
        raise SizeDiffersError(
            f"the image has {pixels.shape[1]} x {pixels.shape[0]} pixels, the rig's camera "
            f"{camera.width_px} x {camera.height_px}",
            "use the rig of this camera and image size",
        )


def _finite(points: Floats) -> Floats:
    return points[np.isfinite(points).all(axis=1)]


class _StopWatch:
    """Milliseconds spent in named stages."""

    def __init__(self) -> None:
        self.stage_ms: dict[str, float] = {}

    def time(self, stage: str, work: Callable[[], T]) -> T:
        """Returns what ``work`` returns, noting how long it took."""
        start = time.monotonic_ns()
        result = work()
        spent = (time.monotonic_ns() - start) / 1e6
        self.stage_ms[stage] = round(self.stage_ms.get(stage, 0.0) + spent, 3)
        return result
