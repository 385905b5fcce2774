"""Camera models from photos of a flat pattern, with covariance, outliers named, doubts said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.camera import INTRINSICS, Camera, ModelName
from calibration.errors import BoardError
from calibration.rotations import rot_exp
from calibration.views import View

Floats = NDArray[np.float64]

FEWEST_VIEWS = 4
GOOD_VIEWS = 8
TILTED_DEG = 15.0
GOOD_TILTED = 3
GOOD_COVERAGE = 0.5
GOOD_FOCAL_SHARE = 0.01
OUTLIER_RATIO = 2.5
OUTLIER_PX = 0.3
CELLS = (8, 6)
OPENCV_ORDER = (*INTRINSICS, "k1", "k2", "p1", "p2", "k3")
FISHEYE_ORDER = (*INTRINSICS, "k1", "k2", "k3", "k4")


@dataclass(frozen=True, slots=True)
class BoardCalibration:
    """A calibrated camera and how well it is known.

    Attributes:
        camera: The model.
        rms_px: RMS reprojection error over all used corners.
        covariance: (k, k) of the intrinsics, order ``covariance_order``.
        covariance_order: k names.
        used: Names of the views used.
        rms_by_view: RMS of each used view.
        dropped: Names of views left out and why.
        warnings: What makes the network weak.
        coverage: Share of the image's cells that hold a corner.
    """

    camera: Camera
    rms_px: float
    covariance: Floats
    covariance_order: tuple[str, ...]
    used: tuple[str, ...]
    rms_by_view: tuple[float, ...]
    dropped: dict[str, str]
    warnings: tuple[str, ...]
    coverage: float


@dataclass(frozen=True, slots=True)
class _Solution:
    camera: Camera
    rotations: Floats  # (v, 3)
    shifts: Floats  # (v, 3)
    residuals: tuple[Floats, ...]  # per view (n, 2)

    def rms_by_view(self) -> Floats:
        """Returns each view's RMS, the way OpenCV has it (over points, both axes together)."""
        return np.array([np.sqrt((r**2).sum(axis=1).mean()) for r in self.residuals])


def calibrate(
    views: list[View], width_px: int, height_px: int, model: ModelName = "opencv"
) -> BoardCalibration:
    """Returns the camera that explains the views best; views that contradict it are dropped.

    All of focal lengths, principal point, radial and tangential terms are free: fixing any of them
    bends the focal length (by 0.6-2 %).

    Args:
        views: Pattern points of photos of one size.
        width_px: Their width.
        height_px: Their height.
        model: The camera model.

    Raises:
        BoardError: Too few views, or no solution.
    """
    dropped: dict[str, str] = {}
    kept = list(views)
    while True:
        if len(kept) < FEWEST_VIEWS:
            raise BoardError(
                f"{len(kept)} usable views of the pattern, at least {FEWEST_VIEWS} are needed",
                "take 10-20 photos: pattern large, tilted 20-40° in all directions, into corners",
            )
        solution = _solve(kept, width_px, height_px, model)
        rms = solution.rms_by_view()
        worst = int(np.argmax(rms))
        limit = max(OUTLIER_RATIO * float(np.median(rms)), OUTLIER_PX)
        if rms[worst] <= limit or len(kept) == FEWEST_VIEWS:
            break
        name = kept[worst].name
        dropped[name] = f"residual {rms[worst]:.2f} px, the others' median {np.median(rms):.2f} px"
        del kept[worst]
    covariance, order = _covariance(solution, kept)
    cover = _coverage(kept, width_px, height_px)
    everything = np.concatenate(solution.residuals)
    return BoardCalibration(
        camera=solution.camera,
        rms_px=float(np.sqrt((everything**2).sum(axis=1).mean())),
        covariance=covariance,
        covariance_order=order,
        used=tuple(view.name for view in kept),
        rms_by_view=tuple(float(r) for r in solution.rms_by_view()),
        dropped=dropped,
        warnings=_warnings(solution, covariance, cover),
        coverage=cover,
    )


def _solve(views: list[View], width: int, height: int, model: ModelName) -> _Solution:
    solve = _solve_opencv if model == "opencv" else _solve_fisheye
    try:
        matrix, terms, rotations, shifts = solve(views, (width, height))
    except cv2.error as error:
        raise BoardError(
            f"the views give no {model} camera: {str(error).strip().splitlines()[-1]}",
            "take more photos with the pattern tilted, and check --pattern and --model",
        ) from error
    k = np.asarray(matrix, dtype=np.float64)
    camera = Camera(
        model, width, height, k[0, 0], k[1, 1], k[0, 2], k[1, 2],
        tuple(float(t) for t in np.ravel(terms)[: 5 if model == "opencv" else 4]),
    )  # fmt: skip
    r = np.asarray(rotations, dtype=np.float64).reshape(-1, 3)
    t = np.asarray(shifts, dtype=np.float64).reshape(-1, 3)
    residuals = tuple(view.uv - _project(camera, view, r[i], t[i]) for i, view in enumerate(views))
    if not all(np.isfinite(part).all() for part in residuals):
        raise BoardError(
            f"the {model} camera found is not monotonic inside the image",
            "take photos with the pattern reaching into the corners, or use --model fisheye",
        )
    return _Solution(camera, r, t, residuals)


def _solve_opencv(views: list[View], size: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    out = cv2.calibrateCamera(
        [view.points_m.astype(np.float32) for view in views],
        [view.uv.astype(np.float32).reshape(-1, 1, 2) for view in views],
        size,
        None,
        None,
        criteria=(cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 200, 1e-12),
    )
    return out[1], out[2], out[3], out[4]


def _solve_fisheye(views: list[View], size: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    out = cv2.fisheye.calibrate(
        [view.points_m.reshape(-1, 1, 3) for view in views],
        [view.uv.reshape(-1, 1, 2) for view in views],
        size,
        np.zeros((3, 3)),
        np.zeros((4, 1)),
        flags=cv2.CALIB_RECOMPUTE_EXTRINSIC | cv2.CALIB_FIX_SKEW,
        criteria=(cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 200, 1e-12),
    )
    return out[1], out[2], out[3], out[4]


def _project(camera: Camera, view: View, rotation: Floats, shift: Floats) -> Floats:
    return camera.project(view.points_m @ rot_exp(rotation).T + shift)


def _covariance(solution: _Solution, views: list[View]) -> tuple[Floats, tuple[str, ...]]:
    """Returns the intrinsics' covariance with the views' poses marginalised (Schur complement)."""
    camera = solution.camera
    order = OPENCV_ORDER if camera.model == "opencv" else FISHEYE_ORDER
    reduced = np.zeros((len(order), len(order)))
    for i, view in enumerate(views):
        rotation, shift = solution.rotations[i], solution.shifts[i]
        a = np.stack([_by_intrinsic(camera, name, view, rotation, shift) for name in order], axis=1)
        b = np.stack([_by_pose(camera, j, view, rotation, shift) for j in range(6)], axis=1)
        reduced += a.T @ a - a.T @ b @ np.linalg.solve(b.T @ b, b.T @ a)
    residuals = np.concatenate(solution.residuals).ravel()
    freedom = max(1, residuals.size - len(order) - 6 * len(views))
    scale = np.sqrt(np.diag(reduced))
    inverse = np.linalg.inv(reduced / np.outer(scale, scale)) / np.outer(scale, scale)
    covariance = inverse * float(residuals @ residuals) / freedom
    return 0.5 * (covariance + covariance.T), order


def _by_intrinsic(camera: Camera, name: str, view: View, rotation: Floats, shift: Floats) -> Floats:
    step = 1e-3 if name in INTRINSICS else 1e-6
    ahead, back = (
        _project(changed(camera, name, sign * step), view, rotation, shift) for sign in (1, -1)
    )
    return np.asarray((ahead - back).ravel() / (2 * step))


def _by_pose(camera: Camera, j: int, view: View, rotation: Floats, shift: Floats) -> Floats:
    step = np.zeros(6)
    step[j] = 1e-6
    ahead = _project(camera, view, rotation + step[:3], shift + step[3:])
    back = _project(camera, view, rotation - step[:3], shift - step[3:])
    return np.asarray((ahead - back).ravel() / 2e-6)


def changed(camera: Camera, name: str, by: float) -> Camera:
    """Returns a camera with one intrinsic (``INTRINSICS`` or a distortion term) changed."""
    if name in INTRINSICS:
        return replace(camera, **{name: getattr(camera, name) + by})
    terms = list(camera.distortion)
    terms[camera.terms.index(name)] += by
    return replace(camera, distortion=tuple(terms))


def _coverage(views: list[View], width: int, height: int) -> float:
    uv = np.concatenate([view.uv for view in views])
    cells = np.clip((uv / [width, height] * CELLS).astype(int), 0, np.array(CELLS) - 1)
    return len(np.unique(cells, axis=0)) / (CELLS[0] * CELLS[1])


def _warnings(solution: _Solution, covariance: Floats, coverage: float) -> tuple[str, ...]:
    """Returns what makes the network weak, in a photographer's words."""
    out = []
    count = len(solution.residuals)
    if count < GOOD_VIEWS:
        out.append(f"weak network: {count} views; take at least {GOOD_VIEWS}, better 15")
    normals = rot_exp(solution.rotations)[:, :, 2]
    tilt = np.degrees(np.arccos(np.clip(np.abs(normals[:, 2]), 0.0, 1.0)))
    tilted = int((tilt > TILTED_DEG).sum())
    if tilted < GOOD_TILTED:
        out.append(
            f"weak network: {tilted} views with the pattern tilted by more than {TILTED_DEG:.0f}°; "
            "focal length and distance cannot be told apart without tilt"
        )
    if coverage < GOOD_COVERAGE:
        out.append(
            f"weak network: corners in {100 * coverage:.0f} % of the image; bring the pattern into "
            "its edges and corners"
        )
    share = float(np.sqrt(covariance[0, 0])) / solution.camera.fx_px
    if share > GOOD_FOCAL_SHARE:
        out.append(f"weak network: the focal length is known to {100 * share:.1f} % (1 sigma)")
    return tuple(out)
