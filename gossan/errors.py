"""The root of the error tree, and the one table from errors to exit codes.

    GossanError
    ├── UserError           1   the caller gave something that cannot be used
    │   ├── SettingsError       a settings file or one of its values
    │   └── MissingExtraError   a part of Gossan that is not installed
    ├── HardwareError       3   a device or a link
    ├── DamagedDataError    4   data that cannot be trusted as it lies there
    └── NotBuiltError       5   a command whose first version is still to come

Exit code 2 is a usage error and belongs to click. Each package refines these in its own
``errors.py``.
"""

from __future__ import annotations


class GossanError(Exception):
    """A failure that a person can act on.

    Attributes:
        hint: What to do about it, one sentence.
        exit_code: The exit code of the command line.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UserError(GossanError):
    """Something given by the caller that cannot be used."""


class SettingsError(UserError):
    """A settings file, or a value in it, that cannot be used."""


class MissingExtraError(UserError):
    """A part of Gossan whose libraries are not installed."""


class HardwareError(GossanError):
    """A device or a link that does not answer or misbehaves."""

    exit_code = 3


class DamagedDataError(GossanError):
    """Data that is unreadable, truncated, or not what its hash says."""

    exit_code = 4


class NotBuiltError(GossanError):
    """A command that is named in the contract and not built yet."""

    exit_code = 5
