"""What all tests share: the real data beside the checkout, and quiet defaults."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("MAVLINK20", "1")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real frames, logs and geology; skips where it does not lie beside us."""
    if not SHARED_DATA.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"CI must have the real data at {SHARED_DATA}")
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA
