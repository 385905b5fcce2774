"""The front door: commands by name, exit codes, refusals, strangers' packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gossan import cli
from gossan.errors import MissingExtraError, NotBuiltError

ALL = [(group, name) for group, (_, mounts) in cli.GROUPS.items() for name in mounts] + [
    ("", name) for name in cli.TOP
]


def run_gossan(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gossan", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("group", "name"), ALL, ids=lambda part: part or "top")
def test_every_command_has_help(group: str, name: str) -> None:
    arguments = [part for part in (group, name, "--help") if part]
    result = CliRunner().invoke(cli.gossan, arguments)
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_help_of_a_group_imports_no_folder() -> None:
    code = (
        "import sys, gossan.cli as c\n"
        "from click.testing import CliRunner\n"
        "assert CliRunner().invoke(c.gossan, ['onboard', '--help']).exit_code == 0\n"
        "print([m for m in sys.modules if m.partition('.')[0] in c.PACKAGES])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("group", "name"),
    [(g, n) for g, (_, mounts) in cli.GROUPS.items() for n, m in mounts.items() if m.not_built],
)
def test_what_is_not_built_says_so_and_what_to_do_instead(group: str, name: str) -> None:
    done = run_gossan(group, name, "--anything", "at all")
    assert done.returncode == NotBuiltError.exit_code
    assert "not built yet" in done.stderr
    assert "what to do:" in done.stderr


def test_a_usage_error_exits_2() -> None:
    assert run_gossan("onboard", "no-such-command").returncode == 2


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    mount = cli.Mount("tests_need_torch_extra:command", "")
    module = type(sys)("tests_need_torch_extra_loader")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'", name="torch.nn")

    monkeypatch.setattr(cli.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError) as caught:
        cli._load(mount)
    assert "gossan[train]" in caught.value.hint


def test_a_strangers_models_folder_is_harmless(tmp_path: Path) -> None:
    for name in ("models", "calibration"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('a stranger')\n")
    done = run_gossan("calibration", "board", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--pattern" in done.stdout
