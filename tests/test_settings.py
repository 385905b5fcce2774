"""Settings: what is refused, and how plainly."""

from __future__ import annotations

from pathlib import Path

import pytest

from gossan.errors import SettingsError
from gossan.settings import Settings, effective_toml, load_settings, parse_settings


class Camera(Settings):
    width_px: int
    fps: float = 2.0


class Program(Settings):
    camera: Camera
    name: str = "gossan"


def test_defaults_are_filled_in_and_round_trip() -> None:
    settings = parse_settings("[camera]\nwidth_px = 640\n", Program, "a.toml")
    assert settings.camera == Camera(width_px=640, fps=2.0)
    assert parse_settings(effective_toml(settings), Program, "effective") == settings


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[camera]\nwidth_px = 1\nfsp = 3\n", "a.toml, line 3: unknown key 'camera.fsp'", "'fps'"),
        ("[camera]\nfps = 3\n", "'camera.width_px' is missing", "add 'width_px' to [camera]"),
        ("[camera]\nwidth_px = 'wide'\n", "a.toml, line 2: 'camera.width_px' = 'wide'", "correct"),
        ("[camera\n", "a.toml is not valid TOML", "mend"),
        ("zzz = 1\n[camera]\nwidth_px = 1\n", "line 1: unknown key 'zzz'", "known keys here"),
    ],
    ids=["unknown", "missing", "wrong type", "not TOML", "unknown at the top"],
)
def test_a_refusal_says_file_line_key_and_remedy(text: str, message: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(text, Program, "a.toml")
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml"):
        load_settings(tmp_path / "none.toml", Program)
