"""Which drones may send: one token each, of which only the hash is kept."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from pathlib import Path

from gossan.errors import DamagedDataError
from groundsync.receipts import write_secret
from groundsync.sync_errors import BadRequestError, UnknownTokenError
from onboard.keep.files import make_folder

TOKENS_FILE = "tokens.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Tokens:
    """The tokens given out, by drone; read again when the file changes.

    Args:
        keys: The folder of the ground's keys.
    """

    def __init__(self, keys: Path) -> None:
        make_folder(keys)
        self._path = keys / TOKENS_FILE
        self._stamp: tuple[int, int] | None = None
        self._hashes: dict[str, str] = {}

    def create(self, name: str) -> str:
        """Gives a drone a new token, in place of any it had, and returns it: the only time.

        Raises:
            BadRequestError: The name is none.
        """
        token = secrets.token_urlsafe(32)
        self.adopt(name, token)
        return token

    def adopt(self, name: str, token: str) -> None:
        """Takes a token that was made elsewhere."""
        if not _NAME.fullmatch(name):
            raise BadRequestError(f"{name!r} cannot be the name of a drone", "letters, digits, _.-")
        if len(token) < 16:
            raise BadRequestError("the token is shorter than 16 characters", "make a longer one")
        hashes = {**self._read(), name: _hash(token)}
        write_secret(self._path, json.dumps({"format": 1, "sha256": hashes}, indent=1))

    def revoke(self, name: str) -> bool:
        """Takes a drone's token away; returns whether it had one."""
        hashes = dict(self._read())
        had = hashes.pop(name, None) is not None
        write_secret(self._path, json.dumps({"format": 1, "sha256": hashes}, indent=1))
        return had

    def names(self) -> tuple[str, ...]:
        """Returns the drones that have a token."""
        return tuple(sorted(self._read()))

    def client_of(self, authorization: str) -> str:
        """Returns whose ``Authorization: Bearer …`` this is, in constant time.

        Raises:
            UnknownTokenError: Nobody's.
        """
        scheme, _, token = authorization.partition(" ")
        offered = _hash(token.strip())
        found = ""
        for name, known in self._read().items():
            if hmac.compare_digest(offered, known):
                found = name
        if scheme.lower() != "bearer" or not found:
            raise UnknownTokenError("no valid token", "give this drone a token on the ground")
        return found

    def _read(self) -> dict[str, str]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return {}
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            try:
                document = json.loads(self._path.read_text())
                self._hashes = {str(k): str(v) for k, v in document["sha256"].items()}
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise DamagedDataError(f"{self._path} cannot be read: {error!r}") from error
            self._stamp = stamp
        return self._hashes


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
