"""Cursor on Target: alerts as map marks for situation displays, over UDP, only where asked for."""

from __future__ import annotations

import logging
import socket
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

from gossan.errors import SettingsError
from onboard.records import Alert, Track
from onboard.tell.policy import track_ce90_m

log = logging.getLogger(__name__)

MARK_TYPE = "b-m-p-s-m"
ICON = "COT_MAPPING_SPOTMAP/b-m-p-s-m/-65536"
STALE = timedelta(hours=12)
TIMES_SENT = 2
UNKNOWN = "9999999.0"


class CotVoice:
    """Sends each track of an alert as a spot mark with a stable uid, twice.

    Args:
        address: ``HOST:PORT``.
        flight_id: Part of the uid.
    """

    interval_s = 0.0

    def __init__(self, address: str, flight_id: str) -> None:
        self._address = split_address(address)
        self._flight_id = flight_id
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def say(
        self,
        severity: int,  # noqa: ARG002
        text: str,  # noqa: ARG002
        alerts: list[Alert],
        tracks: list[Track],
    ) -> bool:
        """Sends one event per track; returns whether all left."""
        texts = {alert.track_id: alert.text for alert in alerts}
        try:
            for track in tracks:
                event = cot_event(track, self._flight_id, texts.get(track.track_id, ""))
                for _ in range(TIMES_SENT):
                    self._socket.sendto(event, self._address)
        except OSError as error:
            log.warning("cot_failed address=%s error=%s", self._address, error)
            return False
        return bool(tracks)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


def cot_event(track: Track, flight_id: str, remark: str, now: datetime | None = None) -> bytes:
    """Returns a track as a Cursor-on-Target event.

    ``ce`` is the radius that holds the place with 90 %; ``hae`` is given where the height is
    ellipsoidal, and 9999999 (unknown) otherwise.
    """
    now = now or datetime.now(UTC)
    event = ElementTree.Element(
        "event",
        version="2.0",
        uid=f"gossan-{flight_id}-{track.track_id}",
        type=MARK_TYPE,
        how="m-g",
        time=_stamp(now),
        start=_stamp(now),
        stale=_stamp(now + STALE),
    )
    known = track.height_datum == "ellipsoid"
    ElementTree.SubElement(
        event,
        "point",
        lat=f"{track.lat_deg:.7f}",
        lon=f"{track.lon_deg:.7f}",
        hae=f"{track.alt_m:.1f}" if known else UNKNOWN,
        ce=f"{track_ce90_m(track):.1f}",
        le=UNKNOWN,
    )
    detail = ElementTree.SubElement(event, "detail")
    ElementTree.SubElement(detail, "contact", callsign=f"{track.class_name} {track.track_id}")
    ElementTree.SubElement(detail, "usericon", iconsetpath=ICON)
    ElementTree.SubElement(detail, "color", argb="-65536")
    ElementTree.SubElement(detail, "remarks").text = remark
    return bytes(ElementTree.tostring(event, encoding="utf-8"))


def split_address(address: str) -> tuple[str, int]:
    """Returns host and port.

    Raises:
        SettingsError: It is not ``HOST:PORT``.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise SettingsError(f"[alerts] cot = {address!r} is not HOST:PORT", "239.2.3.1:6969, say")
    return host, int(port)


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
