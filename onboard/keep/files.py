"""Files that survive a power cut: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

from onboard.keep.errors import DiskFullError, FlightNameError, StoreError
from onboard.keep.exif import splice_pose
from onboard.records import Poses

TEMP_SUFFIX = ".part"
FRAMES = "frames"
CHIPS = "chips"

_SAFE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]{0,127}")


def write_durably(path: Path, content: bytes) -> None:
    """Writes a file so that after a power cut it is whole or absent, never torn.

    Raises:
        DiskFullError: There is no room; nothing is left behind.
        StoreError: The disk refuses the write.
    """
    temp = path.with_name(path.name + own_temp_suffix())
    try:
        _write_and_sync(temp, content)
        temp.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        temp.unlink(missing_ok=True)
        raise refusal(error, path) from error


def own_temp_suffix() -> str:
    """Returns how this process' unfinished files end; a repair leaves them alone."""
    return f".{os.getpid()}{TEMP_SUFFIX}"


def refusal(error: OSError, path: Path) -> DiskFullError | StoreError:
    """Returns the error that says why this path could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"no room to write {path}", "free or change the disk after landing")
    return StoreError(f"cannot write {path}: {error.strerror}", "check the disk and its mount")


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes a folder, and its name durable in the folder above."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def safe_relative(text: str) -> str:
    """Returns a relative path that is safe inside a flight folder.

    Raises:
        FlightNameError: Absolute, empty, hidden, climbing or oddly spelt parts.
    """
    if not is_safe(text):
        raise FlightNameError(
            f"{text!r} cannot be a path inside a flight",
            "use letters, digits and _.+=@- in at most four parts",
        )
    return text


def is_safe(text: str) -> bool:
    """Returns whether a text is a safe relative path: at most four parts, oddly spelt ones none."""
    parts = text.split("/")
    return len(parts) <= 4 and all(_SAFE_PART.fullmatch(part) for part in parts)


def safe_name(name: str) -> str:
    """Returns the name with every character that is unsafe in a file name replaced by ``_``."""
    cleaned = re.sub(r"[^A-Za-z0-9_.+=@-]", "_", name.rsplit("/", 1)[-1]).lstrip(".+=@-")
    return cleaned[-128:].lstrip(".+=@-") or "unnamed"


def keep_frame(
    folder: Path,
    name: str,
    image_bytes: bytes,
    pose: Poses | None = None,
    t_utc_s: float = math.nan,
) -> tuple[str, str]:
    """Keeps an original in ``frames/``; its pixels stay as they came, byte for byte.

    JPEG and PNG get EXIF GPS and Pix4D's ``Camera:*`` XMP where the pose is known and the file
    does not have its own; other formats are kept as they are.

    Args:
        folder: The flight folder.
        name: The source's file name.
        image_bytes: The encoded image.
        pose: One pose, or ``None``.
        t_utc_s: UNIX time of the exposure, if it is known.

    Returns:
        The path relative to the flight folder, and the SHA-256 of what was written.

    Raises:
        DiskFullError: There is no room.
    """
    content = image_bytes if pose is None else splice_pose(image_bytes, pose, t_utc_s)
    return _keep(folder, f"{FRAMES}/{safe_name(name)}", content)


def keep_chip(folder: Path, track_id: int, image_bytes: bytes) -> tuple[str, str]:
    """Keeps a thumbnail of a track in ``chips/``, named by track and content, so never changed.

    Returns:
        The path relative to the flight folder, and the SHA-256 of what was written.
    """
    digest = hashlib.sha256(image_bytes).hexdigest()
    suffix = "png" if image_bytes.startswith(b"\x89PNG") else "jpg"
    return _keep(folder, f"{CHIPS}/{track_id:06d}_{digest[:8]}.{suffix}", image_bytes)


def sha256_of(path: Path, start: int = 0, stop: int | None = None) -> str:
    """Returns the SHA-256 of a file, or of its bytes [start, stop)."""
    digest = hashlib.sha256()
    for block in _blocks(path, start, stop):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path, start: int, stop: int | None) -> Iterator[bytes]:
    left = (stop if stop is not None else path.stat().st_size) - start
    with path.open("rb") as stream:
        stream.seek(start)
        while left > 0 and (block := stream.read(min(left, 1 << 20))):
            left -= len(block)
            yield block


def _keep(folder: Path, relative: str, content: bytes) -> tuple[str, str]:
    path = folder / safe_relative(relative)
    make_folder(path.parent)
    write_durably(path, content)
    return relative, hashlib.sha256(content).hexdigest()


def _write_and_sync(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
