"""Is this machine ready to be the office? What is installed, where data goes, what is missing."""

from __future__ import annotations

import importlib
import os
import shutil
import stat
from pathlib import Path

from gossan.checks import Check

LIBRARIES = ("geopandas", "jinja2", "nacl", "pyogrio", "rasterio", "scipy", "sklearn", "starlette")
WARN_FREE_GB = 20.0


def examine(data: Path | None) -> list[Check]:
    """Returns the checks of this machine, and of a project folder where one is given."""
    checks = [_libraries(), _geoid(), _web_map()]
    return [*checks, *([] if data is None else [_folder(data), _space(data), _keys(data)])]


def _libraries() -> Check:
    missing = []
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        return Check(
            "libraries", "fail", f"missing: {', '.join(missing)}", "pip install 'gossan[ground]'"
        )
    import rasterio

    return Check("libraries", "ok", f"all there, GDAL {rasterio.__gdal_version__}")


def _geoid() -> Check:
    from calibration.geodesy import geoid_m

    height_m = float(geoid_m(0.0, 0.0))
    if abs(height_m - 17.16) > 0.05:
        return Check(
            "EGM96 grid", "fail", f"{height_m:.2f} m at 0 N 0 E, not 17.16", "reinstall", "damage"
        )
    return Check("EGM96 grid", "ok", f"{height_m:.2f} m at 0 N 0 E")


def _web_map() -> Check:
    from groundsync.server import BUNDLE

    if (BUNDLE / "index.html").is_file():
        return Check("web map", "ok", "built in")
    remedy = "python hatch_build.py in a checkout, then install again; all else works without"
    return Check("web map", "warn", "not built into this installation", remedy)


def _folder(data: Path) -> Check:
    parent = next((p for p in (data, *data.absolute().parents) if p.exists()), Path("/"))
    if not os.access(parent, os.W_OK):
        return Check("project folder", "fail", f"{parent} cannot be written", "give another --data")
    return Check("project folder", "ok", f"{data}{'' if data.exists() else ' (will be made)'}")


def _space(data: Path) -> Check:
    parent = next(p for p in (data, *data.absolute().parents) if p.exists())
    free_gb = shutil.disk_usage(parent).free / 1e9
    if free_gb < WARN_FREE_GB:
        return Check("disk", "warn", f"{free_gb:.1f} GB free", "a day of flights may need 20 GB")
    return Check("disk", "ok", f"{free_gb:.0f} GB free")


def _keys(data: Path) -> Check:
    keys = data / "keys"
    if not keys.is_dir():
        return Check("keys", "ok", "made at the first start")
    open_ones = [p.name for p in keys.iterdir() if stat.S_IMODE(p.stat().st_mode) & 0o077]
    if open_ones:
        return Check(
            "keys", "fail", f"readable by others: {', '.join(open_ones)}", f"chmod 600 {keys}/*"
        )
    return Check("keys", "ok", "private to this user")
