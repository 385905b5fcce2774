"""Is everything ready to fly? Each check says ok, warn or fail, and what to do."""

from __future__ import annotations

import logging
import math
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from calibration.rig import Rig, load_rig
from gossan.checks import Check, Kind, Level
from gossan.errors import GossanError
from onboard.config import ModelSettings, OnboardSettings
from onboard.health import Health
from onboard.live_telemetry import LiveTelemetry

log = logging.getLogger(__name__)

NEEDED = (
    "click", "cv2", "httpx", "nacl", "numpy", "PIL", "psutil", "pydantic", "pymavlink", "pyproj",
    "rasterio", "rich", "shapely", "sqlite_utils", "tomlkit",
)  # fmt: skip
CAMERA_S = 8.0
LINK_S = 12.0
FSYNC_SLOW_MS = 50.0
CLOCK_GOOD_S = 0.01
YEAR_2025_S = 1.735e9
MIN_TRIES = 20


def check_installation() -> Iterator[Check]:
    """Yields what can be said without settings: packages, engine, models, clock, disk."""
    version = platform.python_version()
    good = sys.version_info >= (3, 11)
    yield Check("python", "ok" if good else "fail", version, "" if good else "install 3.11+")
    missing = [name for name in NEEDED if find_spec(name) is None]
    yield Check(
        "packages",
        "fail" if missing else "ok",
        f"missing: {', '.join(missing)}" if missing else f"{len(NEEDED)} found",
        "pip install gossan" if missing else "",
    )
    yield _check_engine()
    yield _check_zoo()
    yield _check_host_clock()


def check_all(settings: OnboardSettings) -> Iterator[Check]:
    """Yields everything a crew wants to know before take-off; slow checks run last."""
    yield from check_installation()
    rig, check = _check_rig(settings)
    yield check
    yield from _guarded("model", lambda: _check_model(settings.model))
    yield from _guarded("plan", lambda: _check_plan(settings))
    if rig is not None:
        yield from _guarded("terrain", lambda: _check_terrain(settings))
    yield from _check_disk(settings)
    yield from _guarded("ground server", lambda: _check_ground(settings), "hardware")
    if rig is not None:
        yield from _guarded("camera", lambda: _check_camera(settings, rig), "hardware")
        yield from _check_link(settings, rig)


def _guarded(name: str, look: Callable[[], Check], kind: Kind = "settings") -> Iterator[Check]:
    try:
        yield look()
    except GossanError as error:
        mine: Kind = "hardware" if error.exit_code == 3 else kind
        yield Check(name, "fail", str(error), error.hint, mine)
    except (OSError, ValueError) as error:
        yield Check(name, "fail", repr(error), "see the message", kind)


def _check_engine() -> Check:
    if find_spec("onnxruntime") is None:
        return Check(
            "engine",
            "warn",
            "no ONNX Runtime: frames are recorded and placed, nothing is detected",
            "pip install 'gossan[cpu]' or 'gossan[gpu]'; on a Jetson JetPack's wheel",
        )
    try:
        import onnxruntime

        found = onnxruntime.get_available_providers()
    except (ImportError, AttributeError) as error:
        todo = "uninstall both onnxruntime packages, then install one of them again"
        return Check("engine", "fail", f"ONNX Runtime is broken: {error}", todo)
    short = ", ".join(p.removesuffix("ExecutionProvider") for p in found)
    return Check("engine", "ok", f"ONNX Runtime {onnxruntime.__version__}: {short}")


def _check_zoo() -> Check:
    from models.registry import list_models

    try:
        names = sorted(manifest.name for _, manifest in list_models())
    except GossanError as error:
        return Check("models", "fail", str(error), error.hint)
    if not names:
        return Check("models", "warn", "the zoo is empty", "install the whole package")
    return Check("models", "ok", ", ".join(names))


def _check_host_clock() -> Check:
    if time.time() < YEAR_2025_S:
        year = time.gmtime().tm_year
        return Check(
            "host clock",
            "warn",
            f"it says {year}: flights are named by it until GPS time comes",
            "set the clock, or wait for GPS time before arming",
        )
    return Check("host clock", "ok", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()))


def _check_rig(settings: OnboardSettings) -> tuple[Rig | None, Check]:
    path = settings.rig.file
    try:
        rig = load_rig(path)
    except GossanError as error:
        return None, Check("rig", "fail", str(error), error.hint)
    camera = rig.camera
    text = f"{path.name} {camera.width_px} x {camera.height_px}, {rig.mount.type} mount"
    if rig.covariance is None:
        return rig, Check(
            "rig", "warn", f"{text}, intrinsics taken as exact", "calibrate with a board"
        )
    return rig, Check("rig", "ok", f"{text}, hash {rig.hash[:8]}")


def _check_model(settings: ModelSettings) -> Check:
    from onboard.eyes import open_eyes

    if settings.name == "none":
        return Check("model", "warn", "none: frames are recorded and placed only", "")
    begun = time.perf_counter()
    eyes = open_eyes(settings)
    spent = time.perf_counter() - begun
    text = f"{eyes.model_name} on {eyes.provider}, hash {eyes.model_hash[:8]}, opened in"
    return Check("model", "ok", f"{text} {spent:.1f} s")


def _check_plan(settings: OnboardSettings) -> Check:
    from onboard.survey_scene import read_plan

    if settings.survey.plan is None:
        return Check("plan", "warn", "none: coverage has no percentage", "give [survey] plan")
    west, south, east, north = read_plan(settings.survey.plan).bounds
    return Check("plan", "ok", f"{south:.5f},{west:.5f} to {north:.5f},{east:.5f}")


def _check_terrain(settings: OnboardSettings) -> Check:
    from onboard.place.terrain import open_dem
    from onboard.survey_scene import map_near, read_plan, to_map

    wanted = settings.terrain
    if wanted.dem is None:
        return Check(
            "terrain", "warn", "no DEM: a plane at take-off height is used", "give [terrain] dem"
        )
    plan = None if settings.survey.plan is None else read_plan(settings.survey.plan)
    lat, lon = _centre_of_dem(wanted.dem) if plan is None else (plan.centroid.y, plan.centroid.x)
    map_frame = map_near(lat, lon)
    terrain = open_dem(wanted.dem, map_frame, wanted.datum, wanted.sigma_m)
    low, high = terrain.z_range
    text = f"{wanted.dem.name}: {low:.0f} to {high:.0f} m {terrain.datum}, {terrain.post_m:.1f} m"
    if plan is None:
        return Check("terrain", "ok", f"{text} posts (no plan to compare with)")
    share = _covered_share(terrain.height_m, to_map(plan, map_frame).bounds)
    if share < 0.999:
        todo = "give a DEM of the whole area: frames beyond it are not placed"
        return Check("terrain", "fail", f"{text} posts cover {share:.0%} of the plan", todo)
    return Check("terrain", "ok", f"{text} posts cover the plan")


def _centre_of_dem(path: Path) -> tuple[float, float]:
    import rasterio
    from rasterio.warp import transform_bounds

    with rasterio.open(path) as dem:
        west, south, east, north = transform_bounds(dem.crs, "EPSG:4326", *dem.bounds)
    return (south + north) / 2, (west + east) / 2


def _covered_share(
    height_m: Callable[[np.ndarray, np.ndarray], np.ndarray],
    bounds: tuple[float, float, float, float],
) -> float:
    x, y = np.meshgrid(np.linspace(bounds[0], bounds[2], 50), np.linspace(bounds[1], bounds[3], 50))
    return float(np.isfinite(height_m(x.ravel(), y.ravel())).mean())


def _check_disk(settings: OnboardSettings) -> Iterator[Check]:
    root = settings.storage.root
    try:
        root.mkdir(parents=True, exist_ok=True)
        free_mb = shutil.disk_usage(root).free / 1e6
        slowest_ms = _fsync_ms(root)
    except OSError as error:
        todo = "check [storage] root, its mount and its owner"
        yield Check("disk", "fail", f"{root}: {error.strerror}", todo, "hardware")
        return
    limits = settings.storage
    level: Level = "ok"
    if free_mb < limits.low_free_mb:
        level = "fail" if free_mb < limits.critical_free_mb else "warn"
    yield Check(
        "disk",
        level,
        f"{free_mb:.0f} MB free in {root}",
        "" if level == "ok" else "sync and free the disk, or lower the watermarks",
        "hardware",
    )
    slow = slowest_ms > FSYNC_SLOW_MS
    yield Check(
        "disk speed",
        "warn" if slow else "ok",
        f"a durable write takes up to {slowest_ms:.0f} ms",
        "use an SSD: slow cards drop frames" if slow else "",
        "hardware",
    )


def _fsync_ms(root: Path) -> float:
    spent = []
    with tempfile.TemporaryFile(dir=root) as stream:
        for _ in range(MIN_TRIES):
            begun = time.perf_counter()
            stream.write(b"x" * 65536)
            stream.flush()
            os.fsync(stream.fileno())
            spent.append((time.perf_counter() - begun) * 1e3)
    return sorted(spent)[int(0.9 * len(spent))]


def _check_ground(settings: OnboardSettings) -> Check:
    import httpx

    wanted = settings.uplink
    if not wanted.url:
        return Check("ground server", "warn", "none: sync by hand after landing", "give [uplink]")
    if wanted.token_file is not None and not wanted.token_file.is_file():
        return Check("ground server", "fail", f"no token at {wanted.token_file}", "copy it there")
    host = urlsplit(wanted.url).netloc
    try:
        answer = httpx.get(wanted.url, timeout=4.0)
    except httpx.HTTPError as error:
        todo = "the flight is kept and sent later; check network and address"
        return Check("ground server", "warn", f"{host} does not answer: {error}", todo, "hardware")
    return Check("ground server", "ok", f"{host} answers ({answer.status_code})")


def _check_camera(settings: OnboardSettings, rig: Rig) -> Check:
    from onboard.frame_quality import frame_quality
    from onboard.sources.camera import open_camera, pixels_of

    wanted = settings.camera
    camera = open_camera(wanted.source, wanted.rate_hz, wanted.latency_s)
    stop = threading.Event()
    timer = threading.Timer(CAMERA_S, stop.set)
    timer.start()
    try:
        captured = next(camera.captures(stop), None)
    finally:
        stop.set()
        timer.cancel()
    if captured is None:
        text = f"{wanted.source} gave no frame in {CAMERA_S:.0f} s"
        folder = Path(wanted.source.removeprefix("folder:"))
        if wanted.source.startswith("folder:") and folder.is_dir():
            todo = "it fills when its camera shoots: trigger one frame and look again"
            return Check("camera", "warn", f"no frame yet in {folder}", todo, "hardware")
        return Check("camera", "fail", text, "check cable, driver and [camera] source", "hardware")
    pixels = pixels_of(captured)
    size = (pixels.shape[1], pixels.shape[0])
    if size != (rig.camera.width_px, rig.camera.height_px):
        todo = "set the camera's size, or use the rig of this size"
        return Check("camera", "fail", f"frames are {size[0]} x {size[1]}, not the rig's", todo)
    quality = frame_quality(pixels)
    text = f"{size[0]} x {size[1]}, {quality}"
    if quality != "good":
        return Check("camera", "warn", text, "take the lens cap off, look at focus", "hardware")
    return Check("camera", "ok", text)


def _check_link(settings: OnboardSettings, rig: Rig) -> Iterator[Check]:
    if not settings.vehicle.link:
        yield Check("link", "warn", "none: frames are recorded and not placed", "[vehicle] link")
        return
    telemetry = LiveTelemetry(settings.vehicle, rig, Health())
    link = telemetry.link
    assert link is not None  # noqa: S101
    stop = threading.Event()
    thread = threading.Thread(target=link.run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield from _listen(telemetry, settings.vehicle.link)
    finally:
        stop.set()
        thread.join(5.0)


def _listen(telemetry: LiveTelemetry, link_text: str) -> Iterator[Check]:
    link = telemetry.link
    assert link is not None  # noqa: S101
    heard = _wait(lambda: link.vehicle.heartbeat_ns > 0, LINK_S)
    if not heard:
        todo = (
            "check cable, baud rate and the port's protocol (MAVLink 2); MAVProxy hides companions "
            "unless --target-system=1 --target-component=0, PX4 forwards only with MAV_x_FORWARD"
        )
        yield Check("link", "fail", f"no heartbeat on {link_text}", todo, "hardware")
        return
    vehicle = link.vehicle
    armed = "armed" if vehicle.armed else "disarmed"
    yield Check("link", "ok", f"vehicle {vehicle.system_id}, {armed}", "", "hardware")
    _wait(lambda: not link.rates.missing(time.monotonic()), LINK_S)
    missing = link.rates.missing(time.monotonic())
    refused = [s.name for s in link.rates.streams.values() if s.refused]
    vital = [n for n in missing + refused if n == "GLOBAL_POSITION_INT"]
    no_attitude = {"ATTITUDE", "ATTITUDE_QUATERNION"} <= set(missing + refused)
    level: Level = "fail" if vital or no_attitude else "warn" if missing else "ok"
    text = f"missing {', '.join(missing)}" if missing else "all streams flow"
    text += f"; not known to it: {', '.join(refused)}" if refused else ""
    todo = "wait for a position fix; raise the port's rates" if level != "ok" else ""
    yield Check("telemetry", level, text, todo, "hardware")
    _wait(lambda: _clock_sigma_s(telemetry) <= CLOCK_GOOD_S, LINK_S)
    yield _check_clock(telemetry)
    _, utc = telemetry.clock.utc_from_boot(telemetry.clock.newest_boot_s)
    if str(utc) == "none":
        yield Check("GPS time", "warn", "not yet", "wait for a fix: names use the host's clock")
    else:
        yield Check("GPS time", "ok", str(utc))


def _clock_sigma_s(telemetry: LiveTelemetry) -> float:
    return telemetry.clock.boot_from_mono(time.monotonic_ns())[1]


def _check_clock(telemetry: LiveTelemetry) -> Check:
    sigma_s = _clock_sigma_s(telemetry)
    if not math.isfinite(sigma_s):
        return Check("clocks", "fail", "not tied", "the autopilot sends no times", "hardware")
    good = sigma_s <= CLOCK_GOOD_S
    todo = "" if good else "no TIMESYNC answers: check that the link goes both ways"
    return Check("clocks", "ok" if good else "warn", f"tied to {sigma_s * 1e3:.1f} ms", todo)


def _wait(done: Callable[[], bool], limit_s: float) -> bool:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if done():
            return True
        time.sleep(0.1)
    return done()
