"""The built wheel in an empty venv, run where a stranger's folders have our names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an empty venv with our wheel and its own dependencies in it."""
    folder = tmp_path_factory.mktemp("wheel")
    built = run(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", folder, ROOT, cwd=folder
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("gossan-*.whl")
    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    extras = f"gossan[cpu,onboard,ground] @ file://{wheel}"
    done = run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", extras)
    assert done.returncode == 0, done.stderr
    return python.parent


@pytest.fixture
def strangers_folder(tmp_path: Path) -> Path:
    """A working folder with packages of our names that are not ours."""
    for name in ("models", "calibration", "onboard", "groundsync"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('a stranger')\n")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("group", ["onboard", "groundsync"])
@pytest.mark.parametrize("start", [["gossan"], ["python", "-m", "gossan"]], ids=" ".join)
def test_doctor_runs_from_a_strangers_folder(
    installed: Path, strangers_folder: Path, group: str, start: list[str]
) -> None:
    done = run(installed / start[0], *start[1:], group, "doctor", "--json", cwd=strangers_folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["checks"]


@pytest.mark.slow
def test_the_wheel_holds_what_it_needs_to_run(installed: Path, strangers_folder: Path) -> None:
    done = run(installed / "gossan", "models", "verify", "surface-rgb", cwd=strangers_folder)
    assert done.returncode == 0, done.stderr
    code = (
        "import calibration.geodesy as g, groundsync.server as s;"
        "assert abs(g.geoid_m(0.0, 0.0) - 17.16) < 0.05;"
        "assert (s.BUNDLE / 'index.html').is_file()"
    )
    run_code = run(installed / "python", "-I", "-c", code)
    assert run_code.returncode == 0, run_code.stderr
