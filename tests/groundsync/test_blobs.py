"""Objects by hash: killed at any step of taking one, the ground is right afterwards."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundsync.blobs import Blobs
from groundsync.sync_errors import (
    BadRequestError,
    HashMismatchError,
    NotWantedError,
    ObjectBusyError,
    OffsetError,
    TooLargeError,
)

CONTENT = b"0123456789" * 50
NAME = hashlib.sha256(CONTENT).hexdigest()


class Killed(BaseException):
    """The process ends here."""


def upload(blobs: Blobs, content: bytes = CONTENT, piece: int = 170) -> None:
    """Sends an object as a drone does: from where the ground says, to the end."""
    name = hashlib.sha256(content).hexdigest()
    while not blobs.has(name):
        at = blobs.offset(name)
        blobs.append(name, at, content[at : at + piece], len(content))


@pytest.mark.parametrize("step", range(16))
@pytest.mark.parametrize("call", ["fsync", "write", "replace"])
def test_killed_at_any_step_and_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, step: int
) -> None:
    left = [step]
    owner: Any = Path if call == "replace" else os
    real: Callable[..., Any] = getattr(owner, call)

    def killing(*given: Any) -> Any:
        if left[0] == 0:
            if call == "write":
                real(given[0], bytes(given[1][:7]))  # a part of it had reached the disk
            raise Killed
        left[0] -= 1
        return real(*given)

    blobs = Blobs(tmp_path, free_bytes_kept=0)
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, killing)
        try:
            upload(blobs)
        except Killed:
            assert not blobs.path(NAME).exists() or blobs.path(NAME).read_bytes() == CONTENT
    again = Blobs(tmp_path, free_bytes_kept=0)
    upload(again)
    assert again.path(NAME).read_bytes() == CONTENT
    assert list((tmp_path / "unfinished").iterdir()) == []


def test_bytes_are_synced_before_the_name_and_the_name_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = Blobs(tmp_path, free_bytes_kept=0)
    done: list[str] = []
    sync, move = os.fsync, Path.replace

    def noting_sync(descriptor: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        sync(descriptor)

    def noting_move(path: Path, target: Path) -> Path:
        done.append("move")
        return move(path, target)

    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(Path, "replace", noting_move)
    blobs.append(NAME, 0, CONTENT, len(CONTENT))
    at = done.index("move")
    assert f"sync {NAME}" in done[:at]
    assert f"sync {NAME[:2]}" in done[at:]


@settings(max_examples=30, deadline=None)
@given(content=st.binary(max_size=2000), pieces=st.integers(1, 700))
def test_any_content_in_any_pieces(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, pieces: int
) -> None:
    blobs = Blobs(tmp_path_factory.mktemp("blobs"), free_bytes_kept=0)
    upload(blobs, content, pieces)
    name = hashlib.sha256(content).hexdigest()
    assert blobs.path(name).read_bytes() == content
    assert blobs.put(content) == name


def test_refusals(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, free_bytes_kept=0)
    for bad in ("", "x" * 64, "../" + "a" * 61, NAME.upper(), None):
        with pytest.raises(BadRequestError):
            blobs.path(bad)  # type: ignore[arg-type]
    with pytest.raises(NotWantedError):
        blobs.size_bytes(NAME)
    with pytest.raises(OffsetError) as caught:
        blobs.append(NAME, 5, b"x", 500)
    assert caught.value.offset == 0
    with pytest.raises(TooLargeError):
        blobs.append(NAME, 0, b"x" * 501, 500)
    with pytest.raises(HashMismatchError):
        blobs.append(NAME, 0, b"x" * 500, 500)
    assert blobs.offset(NAME) == 0


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, free_bytes_kept=0)
    with blobs._locked_part(NAME), pytest.raises(ObjectBusyError):
        blobs.append(NAME, 0, CONTENT, len(CONTENT))
    barrier = threading.Barrier(4)
    problems: list[BaseException] = []

    def compete() -> None:
        barrier.wait()
        try:
            for _ in range(1000):
                if blobs.has(NAME):
                    return
                try:
                    at = blobs.offset(NAME)
                    blobs.append(NAME, at, CONTENT[at : at + 90], len(CONTENT))
                except (ObjectBusyError, OffsetError):
                    continue
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=compete) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert blobs.path(NAME).read_bytes() == CONTENT
