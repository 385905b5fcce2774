"""What can go wrong with a source of frames.

GossanError
├── UserError
│   └── SourceError             a source, or a part of it, that cannot be used
│       ├── UnknownSourceError      nothing in it that is known
│       └── FrameTimeError          frames that no time can be found for
└── DamagedDataError
    ├── DamagedFrame            an image that cannot be decoded
    └── DamagedTelemetryError   a log that cannot be read
"""

from __future__ import annotations

from gossan.errors import DamagedDataError, UserError


class SourceError(UserError):
    """A source, or a part of it, that cannot be used."""


class UnknownSourceError(SourceError):
    """A path that holds none of the sources that are known."""


class FrameTimeError(SourceError):
    """Frames whose times cannot be found."""


class DamagedFrame(DamagedDataError):  # noqa: N818 - named so in the interface
    """An image that cannot be decoded."""


class DamagedTelemetryError(DamagedDataError):
    """A telemetry log that cannot be read."""
