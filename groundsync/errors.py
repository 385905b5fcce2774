"""What can go wrong on the ground.

GossanError
├── UserError
│   ├── GridError           a study area or grid that cannot be used
│   ├── LayerError          a map layer that cannot be read or placed
│   ├── OccurrenceError     training points that cannot be used
│   └── ExportError         a place that cannot be written to
└── DamagedDataError
    ├── PriorError          a prior folder that is not what `prior` wrote
    └── LedgerError         a ledger file that is not what `fuse` wrote
"""

from __future__ import annotations

from gossan.errors import DamagedDataError, UserError


class GridError(UserError):
    """A study area or grid that cannot be used."""


class LayerError(UserError):
    """A map layer that cannot be read or placed."""


class OccurrenceError(UserError):
    """Training points that cannot be used."""


class FlightConflictError(UserError):
    """The project holds another flight of the same name."""


class EmptyProjectError(UserError):
    """Nothing in the project that could be fused, exported or reported."""


class ExportError(UserError):
    """A place that exports cannot be written to."""


class PriorError(DamagedDataError):
    """A prior folder that is not what ``gossan groundsync prior`` wrote."""


class LedgerError(DamagedDataError):
    """A ledger file that is not what ``fuse`` wrote."""
