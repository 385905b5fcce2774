"""The daemon's settings: defaults, refusals, paths."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from gossan.errors import SettingsError
from gossan.settings import effective_toml, parse_settings
from onboard.cli.daemon import config
from onboard.config import OnboardSettings, load_onboard

EXAMPLE = Path(__file__).resolve().parents[2] / "systemd" / "onboard.example.toml"


def test_the_example_is_valid_and_complete():
    settings = load_onboard(EXAMPLE)
    assert settings.rig.file == EXAMPLE.parent / "rig.toml"
    assert settings.survey.record == "armed"
    assert set(type(settings).model_fields) == {
        line.strip("[]") for line in EXAMPLE.read_text().splitlines() if line.startswith("[")
    } - {"alerts.rule"}


def test_effective_settings_round_trip():
    settings = load_onboard(EXAMPLE)
    again = parse_settings(effective_toml(settings), OnboardSettings, "again")
    assert again == settings


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        pytest.param("[rig]\nfile='r'\n[camra]\n", "line 3.*camra", "camera", id="table"),
        pytest.param("[rig]\nfil='r'", "rig.fil", "file", id="key"),
        pytest.param("[camera]\nsource='0'", "'rig' is missing", "rig", id="missing"),
        pytest.param("[rig]\nfile='r'\n[camera]\nrate_hz=-1", "rate_hz", "", id="value"),
        pytest.param(
            "[rig]\nfile='r'\n[alerts]\nmin_interval_s=1", "min_interval_s", "", id="fast"
        ),
        pytest.param(
            "[rig]\nfile='r'\n[storage]\nlow_free_mb=1\ncritical_free_mb=2",
            "low_free",
            "",
            id="order",
        ),
    ],
)
def test_refuses_with_place_and_suggestion(tmp_path, text, message, hint):
    path = tmp_path / "onboard.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message) as caught:
        load_onboard(path)
    assert hint in caught.value.hint


def test_relative_paths_count_from_the_file(tmp_path):
    path = tmp_path / "onboard.toml"
    path.write_text(
        "[rig]\nfile='a/rig.toml'\n[terrain]\ndem='/abs/dem.tif'\n[storage]\nroot='out'"
    )
    settings = load_onboard(path)
    assert settings.rig.file == tmp_path / "a/rig.toml"
    assert settings.terrain.dem == Path("/abs/dem.tif")
    assert settings.storage.root == tmp_path / "out"
    assert settings.survey.plan is None


def test_config_show_effective(tmp_path):
    result = CliRunner().invoke(config, ["show", "--config", str(EXAMPLE), "--effective"])
    assert result.exit_code == 0
    assert "pose_wait_s = 2.0" in result.output


def test_every_setting_is_documented():
    page = (EXAMPLE.parents[1] / "docs" / "formats" / "onboard-toml.md").read_text()
    missing = [
        f"{table}.{key}"
        for table, info in OnboardSettings.model_fields.items()
        for key in info.annotation.model_fields
        if f"`{key}`" not in page
    ]
    assert missing == []
