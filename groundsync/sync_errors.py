"""What the sync endpoint refuses, and the one table from refusals to HTTP statuses.

GossanError
├── UserError
│   ├── BadRequestError      400  a request that means nothing
│   ├── UnknownTokenError    401  no token, or one that was never given out
│   ├── ForeignFlightError   403  another drone's flight
│   ├── NotWantedError       404  an object that was not announced
│   ├── OffsetError          409  the object continues elsewhere
│   ├── ObjectsMissingError  409  a manifest names what is not there yet
│   ├── TooLargeError        413  more bytes than allowed or announced
│   ├── HashMismatchError    422  the bytes are not what their name says
│   └── ObjectBusyError      423  another request writes this object
└── HardwareError
    └── NoRoomError          507  the ground's disk is full
"""

from __future__ import annotations

from gossan.errors import GossanError, HardwareError, UserError


class BadRequestError(UserError):
    """A request that means nothing."""


class UnknownTokenError(UserError):
    """No token, or one that was never given out."""


class ForeignFlightError(UserError):
    """The flight belongs to another drone."""


class NotWantedError(UserError):
    """The object was not announced by ``/want``."""


class OffsetError(UserError):
    """The object continues at another offset.

    Attributes:
        offset: Where it continues.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message, "continue at Upload-Offset")
        self.offset = offset


class ObjectsMissingError(UserError):
    """A manifest names objects that are not there yet.

    Attributes:
        missing: Their hashes.
    """

    def __init__(self, message: str, missing: tuple[str, ...]) -> None:
        super().__init__(message, "send them, then the manifest again")
        self.missing = missing


class TooLargeError(UserError):
    """More bytes than allowed, or than announced."""


class HashMismatchError(UserError):
    """The bytes are not what their name says; they were thrown away."""


class ObjectBusyError(UserError):
    """Another request writes this object just now."""


class NoRoomError(HardwareError):
    """The ground's disk is full."""


STATUS: dict[type[GossanError], int] = {
    BadRequestError: 400,
    UnknownTokenError: 401,
    ForeignFlightError: 403,
    NotWantedError: 404,
    OffsetError: 409,
    ObjectsMissingError: 409,
    TooLargeError: 413,
    HashMismatchError: 422,
    ObjectBusyError: 423,
    NoRoomError: 507,
}


def status_of(error: GossanError) -> int:
    """Returns the HTTP status of a refusal; what has none of its own is 500."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
