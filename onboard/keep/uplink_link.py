"""The line to the ground: announces objects, sends pieces, checks every receipt."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from onboard.keep.errors import UplinkRefusedError
from onboard.keep.receipt import Receipt, holds, receipt_of
from onboard.keep.uplink_db import MANIFEST, Parcel

log = logging.getLogger(__name__)

SMALL_PIECE = 16 * 1024
LARGE_PIECE = 1024 * 1024


class LinkDownError(Exception):
    """The ground does not answer, or cannot take anything now; try again later."""


class RejectedError(Exception):
    """The ground will never take this: a path, size or document that it refuses."""


class ArrivedWrongError(Exception):
    """All bytes arrived and are not the object; the ground threw them away."""


class Line:
    """One client of one ground.

    Args:
        url: The ground server's address; ``/sync`` is added.
        token: The drone's token. It is sent, and never logged.
        server_key: The ground's public key, 32 bytes; empty until it is known.
        max_bytes_per_s: Bandwidth cap; 0 for none.
        wait: Waits so many seconds, less when the program is to stop.
        transport: Takes the place of the network in tests.

    Attributes:
        sent_bytes: Bytes of pieces that were sent.
        bad_receipts: Receipts that did not hold.
    """

    def __init__(
        self,
        url: str,
        token: str,
        server_key: bytes,
        max_bytes_per_s: float = 0.0,
        wait: Callable[[float], object] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._client = httpx.Client(
            base_url=sync_url(url),
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(30.0, connect=10.0),
            transport=transport,
        )
        self.server_key = server_key
        self._max_bytes_per_s, self._wait = max_bytes_per_s, wait
        self._rate_bytes_per_s = 0.0
        self.sent_bytes = 0
        self.bad_receipts = 0

    def close(self) -> None:
        """Hangs up."""
        self._client.close()

    def fetch_key(self) -> str:
        """Returns the public key that the ground says it signs with, hex."""
        return str(self._request("GET", "key").json()["public_key"])

    def want(self, parcels: Sequence[Parcel]) -> list[tuple[int, Receipt | None]]:
        """Announces objects of one flight; returns offset and, where it is whole, the receipt."""
        asked = [
            {
                "sha256": p.sha256,
                "size_bytes": p.size_bytes,
                "path": p.path,
                "kind": str(p.priority),
            }
            for p in parcels
        ]
        body = {"flight_id": parcels[0].flight_id, "objects": asked}
        answer = self._request("POST", "want", json=body).json()["objects"]
        return [
            (int(item["offset"]), self._checked(parcel, item.get("receipt")))
            for parcel, item in zip(parcels, answer, strict=True)
        ]

    def send_piece(self, parcel: Parcel, offset: int, piece: bytes) -> tuple[int, Receipt | None]:
        """Sends bytes of an object; returns the ground's offset and, at the end, the receipt.

        Raises:
            ArrivedWrongError: Together they are not the object.
            LinkDownError: Try again later.
        """
        began = time.monotonic()
        answer = self._request(
            "PATCH",
            f"o/{parcel.sha256}",
            content=piece,
            headers={"Upload-Offset": str(offset)},
            accept=(409, 422),
        )
        self._pace(len(piece), time.monotonic() - began)
        if answer.status_code == 422:
            raise ArrivedWrongError(parcel.path)
        now = int(answer.headers.get("Upload-Offset", "0"))
        if answer.status_code != 200:
            return now, None
        for item in answer.json()["receipts"]:
            if item.get("flight_id") == parcel.flight_id:
                return now, self._checked(parcel, item)
        return now, None

    def send_manifest(self, parcel: Parcel) -> tuple[Receipt | None, list[str]]:
        """Sends a flight's final manifest; returns the receipt, or the objects that are missing."""
        answer = self._request(
            "POST", f"flights/{parcel.flight_id}/manifest", content=parcel.body, accept=(409,)
        )
        self.sent_bytes += len(parcel.body or b"")
        said = answer.json()
        if answer.status_code == 409:
            return None, [str(item) for item in said["missing"]]
        return self._checked(parcel, said.get("receipt")), []

    def piece_bytes(self, hurry: bool) -> int:
        """Returns how much to send at once: little while something more urgent may come."""
        seconds, most = (0.25, LARGE_PIECE // 8) if hurry else (4.0, LARGE_PIECE)
        rate = min(self._rate_bytes_per_s, self._max_bytes_per_s or float("inf"))
        return int(min(max(rate * seconds, SMALL_PIECE), most))

    def _checked(self, parcel: Parcel, document: Any) -> Receipt | None:
        if document is None:
            return None
        what = "flight" if parcel.priority == MANIFEST else "object"
        try:
            receipt = receipt_of(document)
        except ValueError as error:
            raise self._bad(parcel, str(error)) from error
        if not holds(receipt, self.server_key, what, parcel.flight_id, parcel.sha256):
            raise self._bad(parcel, "it is not signed by the ground's key for this object")
        return receipt

    def _bad(self, parcel: Parcel, why: str) -> UplinkRefusedError:
        self.bad_receipts += 1
        return UplinkRefusedError(
            f"the receipt for {parcel.path} does not hold: {why}",
            "check that this is your ground server, and its public key in the uplink's settings",
        )

    def _request(
        self, method: str, path: str, accept: tuple[int, ...] = (), **more: Any
    ) -> httpx.Response:
        try:
            answer = self._client.request(method, path, **more)
        except httpx.HTTPError as error:
            raise LinkDownError(f"{type(error).__name__}: {error}") from error
        status = answer.status_code
        if status < 300 or status in accept:
            return answer
        if status in (401, 403):
            raise UplinkRefusedError(
                f"the ground refuses this drone: {_said(answer)}", "check the token file"
            )
        if status in (400, 413):
            raise RejectedError(_said(answer))
        raise LinkDownError(f"the ground answers {status}: {_said(answer)}")

    def _pace(self, n_bytes: int, took_s: float) -> None:
        self.sent_bytes += n_bytes
        rate = n_bytes / max(took_s, 1e-3)
        self._rate_bytes_per_s = 0.7 * self._rate_bytes_per_s + 0.3 * rate
        if self._max_bytes_per_s:
            self._wait(max(0.0, n_bytes / self._max_bytes_per_s - took_s))


def sync_url(url: str) -> str:
    """Returns the address of the sync endpoint of a ground server."""
    base = url.rstrip("/")
    return base if base.endswith("/sync") else f"{base}/sync"


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])[:200]
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase
