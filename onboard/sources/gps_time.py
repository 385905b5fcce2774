"""GPS time and UTC: the leap seconds between them since 2006 (IERS Bulletin C)."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime

GPS_EPOCH_UNIX_S = 315964800.0
WEEK_S = 604800.0
LEAPS = (
    (datetime(2006, 1, 1, tzinfo=UTC).timestamp(), 14.0),
    (datetime(2009, 1, 1, tzinfo=UTC).timestamp(), 15.0),
    (datetime(2012, 7, 1, tzinfo=UTC).timestamp(), 16.0),
    (datetime(2015, 7, 1, tzinfo=UTC).timestamp(), 17.0),
    (datetime(2017, 1, 1, tzinfo=UTC).timestamp(), 18.0),
)
"""From which UTC on GPS time is how many seconds ahead; none was announced after 2017."""


def leap_s(t_unix_s: float) -> float:
    """Returns how many seconds GPS time is ahead of UTC."""
    at = bisect_right([since for since, _ in LEAPS], t_unix_s)
    return LEAPS[max(at - 1, 0)][1]


def utc_from_week(week: int, second_of_week: float) -> float:
    """Returns the UNIX time (UTC) of a GPS week and its second."""
    gps_s = GPS_EPOCH_UNIX_S + week * WEEK_S + second_of_week
    return gps_s - leap_s(gps_s)
