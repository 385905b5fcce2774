"""The ground's word that it holds a durable copy: what is signed, and how it is checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from onboard.keep.segments import canonical

FORMAT = "gossan-receipt/1"


@dataclass(frozen=True, slots=True)
class Receipt:
    """A signed statement of the ground.

    Attributes:
        what: ``object``: these bytes lie durably on the ground; ``flight``: so do all files that
            the manifest with this hash names.
        flight_id: The flight it was sent for.
        sha256: Hash of the object or the manifest.
        size_bytes: Its size.
        t_utc_s: When the ground signed, by its clock.
        signature: Ed25519 over :meth:`signed_bytes`, hex.
    """

    what: str
    flight_id: str
    sha256: str
    size_bytes: int
    t_utc_s: float
    signature: str = ""

    def signed_bytes(self) -> bytes:
        """Returns what is signed: the canonical JSON of everything but the signature."""
        said = asdict(self)
        del said["signature"]
        return canonical({"format": FORMAT, **said})

    def to_json(self) -> dict[str, Any]:
        """Returns the receipt as it travels."""
        return {"format": FORMAT, **asdict(self)}


def receipt_of(document: Any) -> Receipt:
    """Returns the receipt in a JSON document.

    Raises:
        ValueError: It is none.
    """
    try:
        if document["format"] != FORMAT:
            raise ValueError(f"receipt has format {document['format']!r}, not {FORMAT!r}")
        return Receipt(
            what=str(document["what"]),
            flight_id=str(document["flight_id"]),
            sha256=str(document["sha256"]),
            size_bytes=int(document["size_bytes"]),
            t_utc_s=float(document["t_utc_s"]),
            signature=str(document["signature"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is no receipt: {error!r}") from error


def holds(receipt: Receipt, public_key: bytes, what: str, flight_id: str, sha256: str) -> bool:
    """Returns whether the receipt is genuine and speaks of this very object or flight."""
    if (receipt.what, receipt.flight_id, receipt.sha256) != (what, flight_id, sha256):
        return False
    try:
        VerifyKey(public_key).verify(receipt.signed_bytes(), bytes.fromhex(receipt.signature))
    except (BadSignatureError, ValueError):  # the latter: no key, no hex, wrong lengths
        return False
    return True
