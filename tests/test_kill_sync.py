"""Recorder, uplink and ground server, killed at seeded times and started again, lose nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "kill_sync.py"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11])
def test_three_kills_each_lose_nothing(tmp_path: Path, seed: int) -> None:
    command = [sys.executable, str(SCRIPT), "--kills", "3", "--seed", str(seed)]
    command += ["--dir", str(tmp_path / "kills")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    account = json.loads(done.stdout)
    assert account["lost"] == []
    assert account["complete"]
    assert account["kills"] == {"recorder": 3, "uplink": 3, "ground": 3}
    assert account["flights_mended"] >= 1
    assert account["receipts_checked"] > 0
    assert account["frames_committed"] > 10
    assert done.returncode == 0
