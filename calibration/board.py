"""Camera models from photos of a flat pattern, with covariance, outliers named, doubts said."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.camera import INTRINSICS, Camera, ModelName
from calibration.errors import BoardError, RigError
from calibration.rotations import rot_exp
from calibration.views import View

Floats = NDArray[np.float64]
Start = tuple[Camera, Floats]

FEWEST_VIEWS = 4
GOOD_VIEWS = 8
TILTED_DEG = 15.0
GOOD_TILTED = 3
GOOD_COVERAGE = 0.5
GOOD_FOCAL_SHARE = 0.01
OUTLIER_RATIO = 2.5
OUTLIER_PX = 0.3
CELLS = (8, 6)
ROUGH_STEPS = 6
REFINE_STEPS = 60
FISHEYE_FOCALS = (0.22, 0.32, 0.45, 0.65, 0.9)
"""First focal lengths tried, as shares of the image's width: some 260° to 64° across."""

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
        uv: (n, 2) corners of each used view.
        residual_px: (n, 2) measured − projected of each used view.
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
    uv: tuple[Floats, ...]
    residual_px: tuple[Floats, ...]


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
        uv=tuple(view.uv for view in kept),
        residual_px=solution.residuals,
    )


def _solve(views: list[View], width: int, height: int, model: ModelName) -> _Solution:
    try:
        starts = _start_opencv(views, width, height) if model == "opencv" else [
            _start_fisheye(views, width, height, share) for share in FISHEYE_FOCALS
        ]  # fmt: skip
    except cv2.error as error:
        raise BoardError(
            f"the views give no {model} camera: {str(error).strip().splitlines()[-1]}",
            "take more photos with the pattern tilted, and check --pattern and --model",
        ) from error
    rough = [refine(views, start, ROUGH_STEPS) for start in starts if start is not None]
    costs = [_cost(list(solution.residuals)) for solution in rough]
    if not costs or not np.isfinite(min(costs)):
        raise BoardError(
            f"the views give no {model} camera that is monotonic inside the image",
            "check --model and --pattern; take photos with the pattern reaching into the corners",
        )
    best = rough[int(np.argmin(costs))]
    return refine(views, (best.camera, np.hstack([best.rotations, best.shifts])))


def _start_opencv(views: list[View], width: int, height: int) -> list[Start | None]:
    """Returns OpenCV's own solution, all terms free."""
    _, matrix, terms, rotations, shifts = cv2.calibrateCamera(
        [view.points_m.astype(np.float32) for view in views],
        [view.uv.astype(np.float32).reshape(-1, 1, 2) for view in views],
        (width, height),
        None,
        None,
        criteria=(cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 200, 1e-12),
    )
    k = np.asarray(matrix, dtype=np.float64)
    found = tuple(float(t) for t in np.ravel(np.asarray(terms))[:5])
    camera = Camera("opencv", width, height, k[0, 0], k[1, 1], k[0, 2], k[1, 2], found)
    poses = np.hstack([np.asarray(rotations).reshape(-1, 3), np.asarray(shifts).reshape(-1, 3)])
    return [(camera, np.asarray(poses, dtype=np.float64))]


def _start_fisheye(views: list[View], width: int, height: int, share: float) -> Start | None:
    """Returns an equidistant camera of a focal length, and the views' poses under it.

    ``cv2.fisheye.calibrate`` is not used: from its own start it ends in false minima.
    """
    f = share * width
    camera = Camera("fisheye", width, height, f, f, (width - 1) / 2, (height - 1) / 2)
    poses = []
    for view in views:
        rays = camera.unproject(view.uv)
        if not (rays[:, 2] > 0.1).all():
            return None
        plane = np.ascontiguousarray(rays[:, :2] / rays[:, 2:])
        seen, r, t = cv2.solvePnP(view.points_m, plane, np.eye(3), None, flags=cv2.SOLVEPNP_IPPE)
        if not seen:
            return None
        poses.append(np.concatenate([np.ravel(r), np.ravel(t)]))
    return camera, np.asarray(poses, dtype=np.float64)


def refine(views: list[View], start: Start, steps: int = REFINE_STEPS) -> _Solution:
    """Returns the least-squares camera and poses near a start (Levenberg-Marquardt)."""
    camera, poses = start
    residuals = _all_residuals(camera, views, poses)
    cost, damping = _cost(residuals), 1e-3
    for _ in range(steps):
        if not np.isfinite(cost):
            break
        blocks = [_blocks(camera, view, pose) for view, pose in zip(views, poses, strict=True)]
        while damping < 1e10:
            trial, moved = _step(camera, poses, blocks, residuals, damping)
            after = _all_residuals(trial, views, moved) if trial else None
            if after is not None and _cost(after) < cost:
                break
            damping *= 8.0
        else:
            break
        assert trial is not None  # noqa: S101
        done = cost - _cost(after) < 1e-9 * cost
        camera, poses, residuals, cost = trial, moved, after, _cost(after)
        damping = max(damping / 8.0, 1e-12)
        if done:
            break
    return _Solution(camera, poses[:, :3], poses[:, 3:], tuple(residuals))


def _cost(residuals: list[Floats]) -> float:
    total = sum(float((r**2).sum()) for r in residuals)
    return total if np.isfinite(total) else np.inf


def _all_residuals(camera: Camera, views: list[View], poses: Floats) -> list[Floats]:
    return [
        view.uv - _project(camera, view, pose[:3], pose[3:])
        for view, pose in zip(views, poses, strict=True)
    ]


def _order(camera: Camera) -> tuple[str, ...]:
    return OPENCV_ORDER if camera.model == "opencv" else FISHEYE_ORDER


def _blocks(camera: Camera, view: View, pose: Floats) -> tuple[Floats, Floats]:
    """Returns one view's derivatives by the intrinsics (2n, k) and by its pose (2n, 6)."""
    names = _order(camera)
    a = [_by_intrinsic(camera, name, view, pose[:3], pose[3:]) for name in names]
    b = [_by_pose(camera, j, view, pose[:3], pose[3:]) for j in range(6)]
    return np.stack(a, axis=1), np.stack(b, axis=1)


def _step(
    camera: Camera,
    poses: Floats,
    blocks: list[tuple[Floats, Floats]],
    residuals: list[Floats],
    damping: float,
) -> tuple[Camera | None, Floats]:
    """Returns camera and poses after one damped step (poses eliminated by Schur complement)."""
    k = len(_order(camera))
    left, right, solved = np.zeros((k, k)), np.zeros(k), []
    for (a, b), r in zip(blocks, residuals, strict=True):
        bb = b.T @ b
        bb += damping * np.diag(np.diag(bb))
        ab = a.T @ b
        bb_ba, bb_br = np.linalg.solve(bb, ab.T), np.linalg.solve(bb, b.T @ r.ravel())
        aa = a.T @ a
        left += aa + damping * np.diag(np.diag(aa)) - ab @ bb_ba
        right += a.T @ r.ravel() - ab @ bb_br
        solved.append((bb_ba, bb_br))
    shift = np.linalg.solve(left, right)
    moved = poses + np.stack([br - ba @ shift for ba, br in solved])
    try:
        for name, by in zip(_order(camera), shift, strict=True):
            camera = changed(camera, name, float(by))
    except RigError:  # a step beyond a positive focal length
        return None, poses
    return camera, moved


def _project(camera: Camera, view: View, rotation: Floats, shift: Floats) -> Floats:
    return camera.project(view.points_m @ rot_exp(rotation).T + shift)


def _covariance(solution: _Solution, views: list[View]) -> tuple[Floats, tuple[str, ...]]:
    """Returns the intrinsics' covariance with the views' poses marginalised (Schur complement)."""
    order = _order(solution.camera)
    reduced = np.zeros((len(order), len(order)))
    poses = np.hstack([solution.rotations, solution.shifts])
    for view, pose in zip(views, poses, strict=True):
        a, b = _blocks(solution.camera, view, pose)
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
