"""The ground's signing key and its receipts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nacl.encoding import RawEncoder
from nacl.signing import SigningKey

from gossan.errors import DamagedDataError
from onboard.keep.files import make_folder, sync_folder
from onboard.keep.receipt import Receipt

KEY_FILE = "receipt.key"


class Receipts:
    """Signs receipts with the key in a folder, made there on first use (mode 0600).

    Args:
        keys: The folder of the ground's keys.
        now_utc_s: The clock.

    Raises:
        DamagedDataError: The key file is not 32 bytes of hex.
    """

    def __init__(self, keys: Path, now_utc_s: Callable[[], float] = time.time) -> None:
        make_folder(keys)
        keys.chmod(0o700)
        path = keys / KEY_FILE
        if not path.exists():
            write_secret(path, os.urandom(32).hex() + "\n")
        try:
            self._key = SigningKey(bytes.fromhex(path.read_text().strip()))
        except (ValueError, TypeError) as error:
            raise DamagedDataError(
                f"{path} is no signing key", "restore it from a backup; drones know its public half"
            ) from error
        self._now_utc_s = now_utc_s

    @property
    def public_key(self) -> str:
        """The public half, hex: what a drone pins."""
        return bytes(self._key.verify_key).hex()

    def sign(self, what: str, flight_id: str, sha256: str, size_bytes: int) -> Receipt:
        """Returns a receipt for what lies durably here."""
        plain = Receipt(what, flight_id, sha256, size_bytes, round(self._now_utc_s(), 3))
        signature = self._key.sign(plain.signed_bytes(), encoder=RawEncoder).signature
        return replace(plain, signature=signature.hex())


def write_secret(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    temp = path.with_name(path.name + ".part")
    temp.unlink(missing_ok=True)
    descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temp.replace(path)
    sync_folder(path.parent)
