"""Objects by their SHA-256: resumable, checked, durable before anyone is told."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from groundsync.sync_errors import (
    BadRequestError,
    HashMismatchError,
    NoRoomError,
    NotWantedError,
    ObjectBusyError,
    OffsetError,
    TooLargeError,
)

_SHA256 = re.compile(r"[0-9a-f]{64}")
FREE_BYTES_KEPT = 200_000_000


def safe_sha256(text: object) -> str:
    """Returns the hash if it is 64 small hex digits, else raises BadRequestError."""
    if not isinstance(text, str) or not _SHA256.fullmatch(text):
        raise BadRequestError("an object's name is its SHA-256, 64 small hex digits")
    return text


class Blobs:
    """A folder of objects; complete ones never change.

    The offset of an unfinished object is the size of its file, nothing else. An object is
    complete when its bytes were hashed, fsynced and renamed into place, and the folder fsynced.

    Args:
        folder: Made if it is not there.
        free_bytes_kept: Refuse new bytes when the disk would fall below this.
    """

    def __init__(self, folder: Path, free_bytes_kept: int = FREE_BYTES_KEPT) -> None:
        self.folder = folder
        self._parts = folder / "unfinished"
        self._parts.mkdir(parents=True, exist_ok=True)
        self._free_bytes_kept = free_bytes_kept

    def path(self, sha256: str) -> Path:
        """Returns where a complete object lies or would lie."""
        return self.folder / safe_sha256(sha256)[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Returns whether the object is complete, its name durable."""
        path = self.path(sha256)
        if not path.is_file():
            return False
        _sync_folder(path.parent)
        return True

    def size_bytes(self, sha256: str) -> int:
        """Returns the size of a complete object.

        Raises:
            NotWantedError: It is not there.
        """
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError as error:
            raise NotWantedError(f"object {sha256} is not here") from error

    def offset(self, sha256: str) -> int:
        """Returns how many bytes of the object are here."""
        whole = self.path(sha256)
        for path in (whole, self._part(sha256), whole):  # it may be completed in between
            with suppress(FileNotFoundError):
                return path.stat().st_size
        return 0

    def append(self, sha256: str, offset: int, content: bytes, total_bytes: int) -> int:
        """Adds bytes to an object; they are durable when this returns.

        Args:
            sha256: The object's name.
            offset: Where the bytes belong.
            content: The bytes.
            total_bytes: The whole object's size.

        Returns:
            The new offset; the object is complete when that is ``total_bytes``.

        Raises:
            OffsetError: The object continues elsewhere; it was not changed.
            TooLargeError: The bytes go beyond ``total_bytes``; nothing was written.
            HashMismatchError: All bytes are there and are not this object; it starts again at 0.
            ObjectBusyError: Another request writes it.
            NoRoomError: The disk is full; what was written before stays.
        """
        if self.has(sha256):
            return self.size_bytes(sha256)
        with self._locked_part(sha256) as descriptor:
            here = os.fstat(descriptor).st_size
            if here > total_bytes:  # announced with another size before: it starts again
                os.ftruncate(descriptor, 0)
                here = 0
            if offset != here:
                raise OffsetError(f"object {sha256} continues at {here}, not {offset}", here)
            if here + len(content) > total_bytes:
                raise TooLargeError(f"object {sha256} was announced with {total_bytes} bytes")
            self._write(descriptor, content)
            if here + len(content) == total_bytes:
                self._complete(sha256)
        return here + len(content)

    def put(self, content: bytes) -> str:
        """Stores a small object whole and returns its name."""
        sha256 = hashlib.sha256(content).hexdigest()
        self._part(sha256).unlink(missing_ok=True)
        self.append(sha256, 0, content, len(content))
        return sha256

    def _part(self, sha256: str) -> Path:
        return self._parts / safe_sha256(sha256)

    @contextmanager
    def _locked_part(self, sha256: str) -> Iterator[int]:
        """Opens the unfinished object for one writer; a kill frees it."""
        path = self._part(sha256)
        new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ObjectBusyError(f"object {sha256} is being written") from error
            if not _is_at(descriptor, path):
                raise ObjectBusyError(f"object {sha256} was completed or thrown away just now")
            if new:
                _sync_folder(self._parts)
            yield descriptor
        finally:
            os.close(descriptor)

    def _write(self, descriptor: int, content: bytes) -> None:
        if shutil.disk_usage(self.folder).free - len(content) < self._free_bytes_kept:
            raise NoRoomError("the ground's disk is full", "free space there; the drone waits")
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoRoomError("the ground's disk is full", "free space there") from error
            raise

    def _complete(self, sha256: str) -> None:
        part, path = self._part(sha256), self.path(sha256)
        with part.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != sha256:
            part.unlink()
            _sync_folder(self._parts)
            raise HashMismatchError(
                f"the bytes sent as {sha256} are {found}", "send the object again from 0"
            )
        if not path.parent.is_dir():
            path.parent.mkdir(exist_ok=True)
            _sync_folder(self.folder)
        part.chmod(0o444)
        part.replace(path)
        _sync_folder(path.parent)
        _sync_folder(self._parts)


def _is_at(descriptor: int, path: Path) -> bool:
    """Returns whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
