"""The error tree of calibration.

UserError
├── RigError             a rig that cannot be used
├── DatumError           a height whose datum is unknown or cannot be converted
├── CrsError             a coordinate reference system that cannot be the map's
├── BoardError           photos of a board that give no calibration
├── ControlPointError    control points that give no pose
└── RadiometryError      pixels whose light cannot be told
"""

from __future__ import annotations

from gossan.errors import SettingsError, UserError


class RigError(SettingsError):
    """A rig that cannot be used."""


class DatumError(UserError):
    """A height whose datum is unknown or cannot be converted."""


class CrsError(UserError):
    """A coordinate reference system that cannot be the map's."""


class TableError(UserError):
    """A CSV table that cannot be used."""


class BoardError(UserError):
    """Photos of a board that give no calibration."""


class ControlPointError(UserError):
    """Control points that give no pose."""


class RadiometryError(UserError):
    """Pixels whose light cannot be told."""
