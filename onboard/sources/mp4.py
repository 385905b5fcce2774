"""The timed metadata track of an MP4 or QuickTime file, sample by sample (ISO/IEC 14496-12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from onboard.sources.errors import DamagedFrame

MAX_MOOV_BYTES = 1 << 28
CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
LARGE = 1
"""A box of this size says its real one in the eight bytes after its name."""


class MetaSample(NamedTuple):
    """One sample of a track.

    Attributes:
        t_s: Its start in the file.
        length_s: How long it lasts.
        data: Its bytes.
    """

    t_s: float
    length_s: float
    data: bytes


def track_samples(path: Path, sample_format: bytes) -> list[MetaSample]:
    """Returns the samples of the first track of a format (``gpmd``); none where there is none.

    Samples that lie beyond the file's end are left out.

    Raises:
        DamagedFrame: The file cannot be read, or its index contradicts itself.
    """
    try:
        with path.open("rb") as file:
            moov = _moov(file)
            if moov is None:
                return []
            for track in _children(moov, b"trak"):
                table = _sample_table(track)
                if table is not None and table[1].get(b"stsd", b"")[12:16] == sample_format:
                    return list(_samples(file, *table))
    except (OSError, struct.error, IndexError, ZeroDivisionError) as error:
        raise DamagedFrame(
            f"{path}: the index of its tracks cannot be read: {error}",
            "copy it again from the card",
        ) from error
    return []


def _moov(file: BinaryIO) -> bytes | None:
    at = 0
    while True:
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return None
        size, name = struct.unpack(">I4s", head[:8])
        if size == LARGE:
            (size,) = struct.unpack(">Q", head[8:16])
        if name == b"moov":
            if size > MAX_MOOV_BYTES:
                raise struct.error(f"an index of {size} bytes")
            file.seek(at + 8)
            return file.read(size - 8)
        if size < 8:
            return None
        at += size


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if size < 8:
            return
        yield name, data[at + 8 : at + size]
        at += size


def _children(data: bytes, name: bytes) -> list[bytes]:
    return [body for found, body in _boxes(data) if found == name]


def _sample_table(track: bytes) -> tuple[int, dict[bytes, bytes]] | None:
    """Returns a track's time scale and the boxes of its sample table."""
    (media,) = _children(track, b"mdia")[:1] or (b"",)
    header = next(iter(_children(media, b"mdhd")), b"")
    info = next(iter(_children(media, b"minf")), b"")
    table = next(iter(_children(info, b"stbl")), b"")
    if not header or not table:
        return None
    at = 20 if header[0] == 1 else 12
    return struct.unpack_from(">I", header, at)[0], dict(_boxes(table))


def _samples(file: BinaryIO, scale: int, boxes: dict[bytes, bytes]) -> Iterator[MetaSample]:
    sizes = _sizes(boxes[b"stsz"]) if b"stsz" in boxes else []
    starts = _offsets(boxes, sizes)
    ticks = _durations(boxes.get(b"stts", b""), len(sizes))
    at = 0
    for start, size, length in zip(starts, sizes, ticks, strict=False):
        file.seek(start)
        data = file.read(size)
        if len(data) == size:
            yield MetaSample(at / scale, length / scale, data)
        at += length


def _sizes(box: bytes) -> list[int]:
    one, count = struct.unpack_from(">II", box, 4)
    return [one] * count if one else list(struct.unpack_from(f">{count}I", box, 12))


def _offsets(boxes: dict[bytes, bytes], sizes: list[int]) -> list[int]:
    """Returns where each sample starts: chunks by ``stco``, the samples in them by ``stsc``."""
    wide = b"co64" in boxes
    box = boxes.get(b"co64" if wide else b"stco", bytes(8))
    (count,) = struct.unpack_from(">I", box, 4)
    chunks = struct.unpack_from(f">{count}{'Q' if wide else 'I'}", box, 8)
    runs_box = boxes.get(b"stsc", bytes(8))
    (n_runs,) = struct.unpack_from(">I", runs_box, 4)
    runs = [struct.unpack_from(">III", runs_box, 8 + 12 * i) for i in range(n_runs)]
    starts: list[int] = []
    for number, chunk in enumerate(chunks, start=1):
        per_chunk = next((n for first, n, _ in reversed(runs) if first <= number), 0)
        for _ in range(min(per_chunk, len(sizes) - len(starts))):
            starts.append(chunk)
            chunk += sizes[len(starts) - 1]
    return starts


def _durations(box: bytes, samples: int) -> list[int]:
    (count,) = struct.unpack_from(">I", box, 4)
    ticks: list[int] = []
    for i in range(count):
        n, length = struct.unpack_from(">II", box, 8 + 8 * i)
        ticks += [length] * min(n, samples - len(ticks))
    return ticks
