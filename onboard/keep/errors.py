"""What goes wrong while keeping a flight, and what to do about it.

GossanError
├── UserError
│   ├── FlightNotFoundError     no flight folder there
│   ├── FlightExistsError       a flight of that name is already there
│   ├── FlightNameError         a name that cannot be a folder's
│   ├── NewerSchemaError        written by a newer Gossan
│   ├── FlightBusyError         another process writes this flight
│   └── UplinkRefusedError      the ground refuses this drone or signs with another key
├── HardwareError
│   ├── DiskFullError           no room left
│   └── StoreError              the disk or the database does not take what it should keep
└── DamagedDataError
    └── DamagedFlightError      a flight folder that contradicts itself
"""

from __future__ import annotations

from gossan.errors import DamagedDataError, HardwareError, UserError


class FlightNotFoundError(UserError):
    """There is no flight folder at that path."""


class FlightExistsError(UserError):
    """A flight of that name is already there."""


class FlightNameError(UserError):
    """A flight or file name that is not safe as a path."""


class NewerSchemaError(UserError):
    """The flight was written by a newer version."""


class FlightBusyError(UserError):
    """Another process holds the one writing connection."""


class UplinkRefusedError(UserError):
    """The ground refuses this drone, or it is not the ground it was."""


class DiskFullError(HardwareError):
    """There is no room left on the disk."""


class StoreError(HardwareError):
    """The disk or the database does not take what it should keep."""


class DamagedFlightError(DamagedDataError):
    """A flight folder contradicts itself."""
