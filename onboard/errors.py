"""The drone's errors that more than one room raises; rooms add their own.

UserError
├── TableError           a CSV table that cannot be used
├── PoseError            poses that cannot be used as they are
├── DemError             a DEM that is missing or cannot be used
├── AlignError           a flight that cannot be aligned with itself
└── SizeDiffersError     an image that is not of the rig's size
"""

from __future__ import annotations

from calibration.errors import TableError
from gossan.errors import UserError

__all__ = ["AlignError", "DemError", "PoseError", "SizeDiffersError", "TableError"]


class PoseError(UserError):
    """Poses that cannot be used as they are."""


class AlignError(UserError):
    """A flight that cannot be aligned with itself."""


class DemError(UserError):
    """A DEM that is missing or cannot be used."""


class SizeDiffersError(UserError):
    """An image that is not of the rig's size."""
