"""The sync endpoint: drones announce objects, send them in pieces, and get signed receipts.

``POST /want``, ``HEAD|PATCH /o/<sha256>``, ``POST /flights/<id>/manifest``, ``GET /key``: see
docs/formats/sync-protocol.md.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gossan.errors import GossanError
from groundsync.bindings import Binding, Bindings, arrivals
from groundsync.blobs import Blobs, safe_sha256
from groundsync.receipts import Receipts
from groundsync.sync_errors import (
    BadRequestError,
    NotWantedError,
    ObjectsMissingError,
    OffsetError,
    TooLargeError,
    status_of,
)
from groundsync.tokens import Tokens
from onboard.keep.errors import FlightNameError
from onboard.keep.files import safe_relative
from onboard.keep.flight import MANIFEST, safe_flight_id
from onboard.keep.rows import Row
from onboard.keep.segments import FINAL_FORMAT

log = logging.getLogger(__name__)

MAX_WANT_BYTES = 1 << 20
MAX_PIECE_BYTES = 8 << 20
MAX_MANIFEST_BYTES = 64 << 20
MAX_OBJECT_BYTES = 64 << 30

M = TypeVar("M", bound=BaseModel)
Handler = Callable[[Request], Awaitable[Response]]


class _Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0, le=MAX_OBJECT_BYTES)
    path: str
    kind: str = Field(default="", max_length=32)


class _Want(BaseModel):
    model_config = ConfigDict(extra="forbid")
    flight_id: str
    objects: list[_Wanted] = Field(max_length=1000)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0, le=MAX_OBJECT_BYTES)
    path: str


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    format: str
    flight_id: str
    files: list[_File]


class Receiver:
    """What the routes do, on one project folder.

    Args:
        project: The project folder; ``objects/``, ``flights/``, ``keys/`` and ``receive.db`` are
            made in it.
        blobs: The objects; the project's own by default.
    """

    def __init__(self, project: Path, blobs: Blobs | None = None) -> None:
        self.blobs = blobs or Blobs(project / "objects")
        self.tokens = Tokens(project / "keys")
        self.receipts = Receipts(project / "keys")
        self.bindings = Bindings(project, self.blobs)
        self.bindings.lay_all()

    async def want(self, request: Request) -> Response:
        """Answers what is here of the objects that a drone announces."""
        client = self._client(request)
        body = await _body(request, MAX_WANT_BYTES)
        asked = _parse(_Want, body)
        return await run_in_threadpool(self._want, client, asked)

    async def head(self, request: Request) -> Response:
        """Answers how much of an object is here."""
        client = self._client(request)
        sha256 = safe_sha256(request.path_params["sha256"])
        await run_in_threadpool(self._announced, sha256, client)
        offset = await run_in_threadpool(self.blobs.offset, sha256)
        return Response(status_code=200, headers={"Upload-Offset": str(offset)})

    async def patch(self, request: Request) -> Response:
        """Takes a piece of an object; a connection that breaks leaves what had arrived."""
        client = self._client(request)
        sha256 = safe_sha256(request.path_params["sha256"])
        offset = _whole(request, "upload-offset")
        bound = await run_in_threadpool(self._announced, sha256, client)
        piece = bytearray()
        try:
            await _collect(request, MAX_PIECE_BYTES, piece)
        except ClientDisconnect:
            log.info("piece_broken sha256=%s offset=%d bytes=%d", sha256, offset, len(piece))
        return await run_in_threadpool(self._append, sha256, offset, bytes(piece), bound)

    async def manifest(self, request: Request) -> Response:
        """Takes the final manifest of a flight and lays out what it names."""
        client = self._client(request)
        flight_id = safe_flight_id(request.path_params["flight_id"])
        body = await _body(request, MAX_MANIFEST_BYTES)
        return await run_in_threadpool(self._manifest, client, flight_id, body)

    async def key(self, request: Request) -> Response:
        """Answers the public key that signs receipts."""
        self._client(request)
        return JSONResponse({"public_key": self.receipts.public_key})

    def _want(self, client: str, asked: _Want) -> Response:
        flight_id = safe_flight_id(asked.flight_id)
        bound = [
            Binding(flight_id, safe_relative(o.path), o.sha256, o.size_bytes, o.kind)
            for o in asked.objects
        ]
        self.bindings.claim(flight_id, client)
        self.bindings.bind(bound)
        return JSONResponse({"objects": [self._standing(item) for item in bound]})

    def _standing(self, item: Binding) -> dict[str, Any]:
        if self.blobs.has(item.sha256):
            return {"sha256": item.sha256, "offset": item.size_bytes, "receipt": self._lay(item)}
        return {"sha256": item.sha256, "offset": self.blobs.offset(item.sha256)}

    def _lay(self, item: Binding) -> dict[str, Any]:
        """Lays a complete object's file and returns the receipt."""
        self.bindings.lay(item)
        size = self.blobs.size_bytes(item.sha256)
        return self.receipts.sign("object", item.flight_id, item.sha256, size).to_json()

    def _announced(self, sha256: str, client: str) -> list[Binding]:
        bound = self.bindings.of_object(sha256, client)
        if not bound:
            raise NotWantedError(f"object {sha256} was not announced", "POST /want first")
        return bound

    def _append(self, sha256: str, offset: int, piece: bytes, bound: list[Binding]) -> Response:
        total = bound[0].size_bytes
        now = self.blobs.append(sha256, offset, piece, total)
        headers = {"Upload-Offset": str(now)}
        if now < total:
            return Response(status_code=204, headers=headers)
        receipts = [self._lay(item) for item in bound]
        log.info("object_received sha256=%s bytes=%d path=%s", sha256, total, bound[0].path)
        return JSONResponse({"receipts": receipts}, headers=headers)

    def _manifest(self, client: str, flight_id: str, body: bytes) -> Response:
        named = _parse(_Manifest, body)
        if named.format != FINAL_FORMAT or named.flight_id != flight_id:
            raise BadRequestError(f"this is not a manifest of flight {flight_id}")
        bound = [
            Binding(flight_id, safe_relative(f.path), f.sha256, f.size_bytes, "")
            for f in named.files
        ]
        self.bindings.claim(flight_id, client)
        missing = tuple(b.sha256 for b in bound if not self.blobs.has(b.sha256))
        if missing:
            raise ObjectsMissingError(f"{len(missing)} objects of {flight_id} are missing", missing)
        sha256 = self.blobs.put(body)
        self.bindings.bind([*bound, Binding(flight_id, MANIFEST, sha256, len(body), "manifest")])
        for item in bound:
            self.bindings.lay(item)
        self.bindings.lay(Binding(flight_id, MANIFEST, sha256, len(body), "manifest"))
        self.bindings.note_manifest(flight_id, sha256)
        log.info("flight_received flight=%s files=%d", flight_id, len(bound))
        receipt = self.receipts.sign("flight", flight_id, sha256, len(body))
        return JSONResponse({"receipt": receipt.to_json()})

    def _client(self, request: Request) -> str:
        return self.tokens.client_of(request.headers.get("authorization", ""))


def routes(project: Path, blobs: Blobs | None = None) -> list[Route]:
    """Returns the sync endpoint's routes, to be mounted under ``/sync``."""
    receiver = Receiver(project, blobs)
    return [
        Route("/want", _guarded(receiver.want), methods=["POST"]),
        Route("/o/{sha256}", _guarded(receiver.head), methods=["HEAD"]),
        Route("/o/{sha256}", _guarded(receiver.patch), methods=["PATCH"]),
        Route("/flights/{flight_id}/manifest", _guarded(receiver.manifest), methods=["POST"]),
        Route("/key", _guarded(receiver.key), methods=["GET"]),
    ]


def live_rows(project: Path, flight_id: str, after: int = -1) -> Iterator[tuple[int, str, Row]]:
    """Yields the rows that arrived of a flight, in the order of arrival: alerts overtake.

    Args:
        project: The project folder.
        flight_id: The flight.
        after: Number of the last bundle already read; only later ones are yielded.

    Yields:
        The bundle's number, rising as bundles arrive, and kind and row of each of its lines
        (:func:`onboard.keep.rows.record_of` makes records of them).
    """
    for number, path in arrivals(project, safe_flight_id(flight_id), "rows", after):
        for line in path.read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            yield number, str(item["kind"]), item["row"]


def _guarded(handler: Handler) -> Handler:
    """Wraps a handler so that every refusal becomes its status and a short JSON answer."""

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except FlightNameError as error:
            return _refused(BadRequestError(str(error), error.hint))
        except GossanError as error:
            return _refused(error)

    return guarded


def _refused(error: GossanError) -> Response:
    status = status_of(error)
    log.log(logging.ERROR if status >= 500 else logging.INFO, "refused status=%d %s", status, error)
    answer: dict[str, Any] = {"error": str(error), "hint": error.hint}
    headers = {}
    if isinstance(error, OffsetError):
        headers["Upload-Offset"] = str(error.offset)
    if isinstance(error, ObjectsMissingError):
        answer["missing"] = list(error.missing)
    return JSONResponse(answer, status_code=status, headers=headers)


async def _body(request: Request, limit: int) -> bytes:
    """Returns the whole body, read no further than the limit."""
    content = bytearray()
    try:
        await _collect(request, limit, content)
    except ClientDisconnect as error:
        raise BadRequestError("the connection broke") from error
    return bytes(content)


async def _collect(request: Request, limit: int, into: bytearray) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise TooLargeError(f"{declared} bytes in one request, {limit} are allowed")
    async for part in request.stream():
        if len(into) + len(part) > limit:
            raise TooLargeError(f"more than {limit} bytes in one request")
        into += part


def _parse(kind: type[M], body: bytes) -> M:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadRequestError(f"{place or 'the body'}: {first['msg']}") from error


def _whole(request: Request, header: str) -> int:
    text = request.headers.get(header, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise BadRequestError(f"the {header} header is {text!r}, not a whole number")
    return int(text)
