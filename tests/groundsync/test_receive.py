"""The sync endpoint: pieces, offsets, hashes, receipts, refusals, and the folder they make."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from groundsync.blobs import Blobs
from groundsync.receive import MAX_PIECE_BYTES, Receiver, live_rows, routes
from groundsync.sync_errors import STATUS
from groundsync.tokens import Tokens
from onboard.keep.receipt import holds, receipt_of
from onboard.keep.segments import FINAL_FORMAT, canonical


class Wire(httpx.BaseTransport):
    """Carries requests to an ASGI application in this process."""

    def __init__(self, app: Starlette) -> None:
        self._inner = httpx.ASGITransport(app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def carried() -> httpx.Response:
            copy = httpx.Request(
                request.method, request.url, headers=request.headers, content=request.read()
            )
            answer = await self._inner.handle_async_request(copy)
            return httpx.Response(
                answer.status_code, headers=answer.headers, content=await answer.aread()
            )

        return asyncio.run(carried())


def caller(app: Starlette, token: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(transport=Wire(app), base_url="http://ground/sync", headers=headers)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tmp_path / "project"


@pytest.fixture
def client(project: Path) -> Iterator[httpx.Client]:
    token = Tokens(project / "keys").create("hexa")
    app = Starlette(routes=[Mount("/sync", routes=routes(project))])
    with caller(app, token) as it:
        yield it


def want(
    client: httpx.Client, *items: tuple[bytes, str], flight: str = "f1"
) -> list[dict[str, Any]]:
    objects = [{"sha256": sha(c), "size_bytes": len(c), "path": p, "kind": "x"} for c, p in items]
    answer = client.post("want", json={"flight_id": flight, "objects": objects})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["objects"])


def patch(client: httpx.Client, name: str, offset: int, piece: bytes) -> Any:
    return client.patch(f"o/{name}", content=piece, headers={"Upload-Offset": str(offset)})


def test_object_in_pieces_is_laid_out_and_receipted(client: httpx.Client, project: Path) -> None:
    content = b"abcdefghij" * 100
    assert want(client, (content, "frames/a.jpg"))[0]["offset"] == 0
    first = patch(client, sha(content), 0, content[:400])
    assert (first.status_code, first.headers["Upload-Offset"]) == (204, "400")
    assert client.head(f"o/{sha(content)}").headers["Upload-Offset"] == "400"
    assert not (project / "flights/f1/frames/a.jpg").exists()
    last = patch(client, sha(content), 400, content[400:])
    receipt = receipt_of(last.json()["receipts"][0])
    key = bytes.fromhex(client.get("key").json()["public_key"])
    assert holds(receipt, key, "object", "f1", sha(content))
    assert (project / "flights/f1/frames/a.jpg").read_bytes() == content
    again = want(client, (content, "frames/a.jpg"))[0]
    assert holds(receipt_of(again["receipt"]), key, "object", "f1", sha(content))


@pytest.mark.parametrize("offset", [0, 3, 99])
def test_wrong_offset_is_answered_with_the_right_one(client: httpx.Client, offset: int) -> None:
    content = b"0123456789"
    want(client, (content, "a"))
    patch(client, sha(content), 0, content[:5])
    answer = patch(client, sha(content), offset, content[5:])
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (409, "5")
    assert patch(client, sha(content), 5, content[5:]).status_code == 200


def test_wrong_bytes_are_thrown_away_and_the_right_ones_taken(client: httpx.Client) -> None:
    content = b"0123456789"
    want(client, (content, "a"))
    assert patch(client, sha(content), 0, b"x" * 10).status_code == 422
    assert client.head(f"o/{sha(content)}").headers["Upload-Offset"] == "0"
    assert patch(client, sha(content), 0, content).status_code == 200


def test_kill_between_last_byte_and_rename_ends_with_an_empty_piece(
    client: httpx.Client, project: Path
) -> None:
    content = b"0123456789"
    (project / "objects/unfinished" / sha(content)).write_bytes(content)
    (standing,) = want(client, (content, "a"))
    assert standing["offset"] == 10
    assert "receipt" not in standing
    assert patch(client, sha(content), 10, b"").status_code == 200


def test_connection_that_breaks_leaves_what_had_arrived(
    client: httpx.Client, project: Path
) -> None:
    content = b"0123456789" * 100
    want(client, (content, "a"))
    events = [
        {"type": "http.request", "body": content[:300], "more_body": True},
        {"type": "http.request", "body": content[300:420], "more_body": True},
        {"type": "http.disconnect"},
    ]
    headers = {"authorization": client.headers["authorization"], "upload-offset": "0"}
    scope = {
        "type": "http",
        "method": "PATCH",
        "path": f"/sync/o/{sha(content)}",
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        "query_string": b"",
        "root_path": "",
    }

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    async def send(_: Any) -> None:
        return None

    app = Starlette(routes=[Mount("/sync", routes=routes(project))])
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    assert client.head(f"o/{sha(content)}").headers["Upload-Offset"] == "420"
    assert patch(client, sha(content), 420, content[420:]).status_code == 200


def test_empty_object(client: httpx.Client, project: Path) -> None:
    want(client, (b"", "empty.txt"))
    assert patch(client, sha(b""), 0, b"").status_code == 200
    assert (project / "flights/f1/empty.txt").read_bytes() == b""


def test_kill_between_object_and_folder_is_mended_at_the_next_start(project: Path) -> None:
    first = Receiver(project)
    first.bindings.claim("f1", "hexa")
    from groundsync.bindings import Binding

    name = first.blobs.put(b"content")
    first.bindings.bind([Binding("f1", "frames/a.jpg", name, 7, "")])
    first.bindings.close()
    Receiver(project).bindings.close()
    assert (project / "flights/f1/frames/a.jpg").read_bytes() == b"content"


def refusals() -> list[Any]:
    good = {"sha256": "a" * 64, "size_bytes": 5, "path": "a", "kind": ""}

    def asked(flight_id: str = "f1", **change: Any) -> dict[str, Any]:
        objects = [{**good, **change}]
        return {
            "method": "POST",
            "url": "want",
            "json": {"flight_id": flight_id, "objects": objects},
        }

    a = "o/" + "a" * 64
    piece = {"method": "PATCH", "url": a, "content": b"x"}
    return [
        pytest.param(asked(path="../../etc/passwd"), 400, id="climbing path"),
        pytest.param(asked(path="/etc/passwd"), 400, id="absolute path"),
        pytest.param(asked(path=".hidden"), 400, id="hidden path"),
        pytest.param(asked(path="a\x00b"), 400, id="path with NUL"),
        pytest.param(asked(path="a/b/c/d/e"), 400, id="deep path"),
        pytest.param(asked(flight_id="../x"), 400, id="climbing flight"),
        pytest.param(asked(sha256="A" * 64), 400, id="capital hash"),
        pytest.param(asked(size_bytes=-1), 400, id="negative size"),
        pytest.param(asked(size_bytes=1 << 60), 400, id="giant size"),
        pytest.param(asked(more=1), 400, id="unknown key"),
        pytest.param({"method": "POST", "url": "want", "content": b"{"}, 400, id="no JSON"),
        pytest.param(
            {"method": "POST", "url": "want", "content": b" " * (1 << 21)}, 413, id="long"
        ),
        pytest.param({**piece, "headers": {"Upload-Offset": "0"}}, 404, id="never announced"),
        pytest.param({**piece, "headers": {"Upload-Offset": "-1"}}, 400, id="negative offset"),
        pytest.param(piece, 400, id="no offset"),
        pytest.param(
            {**piece, "url": "o/zz", "headers": {"Upload-Offset": "0"}}, 400, id="no hash"
        ),
        pytest.param(
            {"method": "GET", "url": "key", "headers": {"Authorization": ""}}, 401, id="none"
        ),
        pytest.param(
            {"method": "GET", "url": "key", "headers": {"Authorization": "Bearer x"}},
            401,
            id="wrong",
        ),
    ]


@pytest.mark.parametrize(("request_", "status"), refusals())
def test_refusals(
    client: httpx.Client, project: Path, request_: dict[str, Any], status: int
) -> None:
    answer = client.request(**request_)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "hint"}
    assert not [p for p in (project / "flights").rglob("*") if p.is_file()]


def test_every_refusal_has_one_status() -> None:
    assert sorted(STATUS.values()) == [400, 401, 403, 404, 409, 409, 413, 422, 423, 507]


def test_piece_beyond_the_cap_or_the_announced_size_is_refused(client: httpx.Client) -> None:
    content = b"x" * (MAX_PIECE_BYTES + 10)
    want(client, (content, "big"))
    assert patch(client, sha(content), 0, content).status_code == 413
    want(client, (b"small", "s"))
    assert patch(client, sha(b"small"), 0, b"smaller?").status_code == 413
    assert client.head(f"o/{sha(b'small')}").headers["Upload-Offset"] == "0"


def test_another_drones_flight_and_objects_are_refused(client: httpx.Client, project: Path) -> None:
    want(client, (b"content", "a"))
    other = {"Authorization": f"Bearer {Tokens(project / 'keys').create('other')}"}
    body = {"flight_id": "f1", "objects": []}
    assert client.post("want", json=body, headers=other).status_code == 403
    name = f"o/{sha(b'content')}"
    assert client.head(name, headers=other).status_code == 404
    headers = {**other, "Upload-Offset": "0"}
    assert client.patch(name, content=b"content", headers=headers).status_code == 404


def test_full_ground_disk_is_507_and_nothing_is_lost(project: Path) -> None:
    token = Tokens(project / "keys").create("hexa")
    blobs = Blobs(project / "objects", free_bytes_kept=1 << 60)
    app = Starlette(routes=[Mount("/sync", routes=routes(project, blobs))])
    with caller(app, token) as client:
        want(client, (b"content", "a"))
        assert patch(client, sha(b"content"), 0, b"content").status_code == 507
        assert client.head(f"o/{sha(b'content')}").headers["Upload-Offset"] == "0"


def manifest(files: dict[str, bytes], flight: str = "f1") -> bytes:
    named = [{"path": p, "sha256": sha(c), "size_bytes": len(c)} for p, c in files.items()]
    return canonical({"format": FINAL_FORMAT, "flight_id": flight, "files": named})


def test_manifest_waits_for_its_objects_then_lays_out_the_flight(
    client: httpx.Client, project: Path
) -> None:
    files = {"flight.toml": b"t", "flight.db": b"database", "frames/a.jpg": b"jpeg"}
    body = manifest(files)
    want(client, *((content, path) for path, content in files.items()))
    for content in (b"t", b"database"):
        patch(client, sha(content), 0, content)
    refused = client.post("flights/f1/manifest", content=body)
    assert (refused.status_code, refused.json()["missing"]) == (409, [sha(b"jpeg")])
    assert not (project / "flights/f1/manifest.json").exists()
    patch(client, sha(b"jpeg"), 0, b"jpeg")
    for _ in range(2):
        answer = client.post("flights/f1/manifest", content=body)
        key = bytes.fromhex(client.get("key").json()["public_key"])
        assert holds(receipt_of(answer.json()["receipt"]), key, "flight", "f1", sha(body))
    folder = project / "flights/f1"
    laid = {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }
    assert laid == {**files, "manifest.json": body}
    (folder / "flight.db").write_bytes(b"opened and changed by someone")
    assert (Blobs(project / "objects").path(sha(b"database"))).read_bytes() == b"database"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{}", id="empty"),
        pytest.param(manifest({"../x": b"a"}), id="climbing"),
        pytest.param(manifest({}, flight="f2"), id="another flight"),
    ],
)
def test_bad_manifests_are_refused(client: httpx.Client, body: bytes) -> None:
    want(client, (b"a", "a"))
    patch(client, sha(b"a"), 0, b"a")
    assert client.post("flights/f1/manifest", content=body).status_code == 400


def test_a_file_that_changed_takes_the_place_of_the_old_one(
    client: httpx.Client, project: Path
) -> None:
    for content in (b"old", b"new"):
        want(client, (content, "flight.toml"))
        patch(client, sha(content), 0, content)
    assert (project / "flights/f1/flight.toml").read_bytes() == b"new"


def test_live_rows_come_in_the_order_of_arrival_and_only_once(
    client: httpx.Client, project: Path
) -> None:
    def arrive(number: int) -> None:
        line = json.dumps({"kind": "alert", "row": {"n": number}}).encode() + b"\n"
        want(client, (line, f"rows/{number:06d}.jsonl"))
        patch(client, sha(line), 0, line)

    assert list(live_rows(project, "f1")) == []
    arrive(0)
    arrive(2)
    first = list(live_rows(project, "f1"))
    assert [(kind, row["n"]) for _, kind, row in first] == [("alert", 0), ("alert", 2)]
    arrive(1)  # overtaken on the way, and not to be missed
    assert [row["n"] for _, _, row in live_rows(project, "f1", after=first[-1][0])] == [1]
    assert [row["n"] for _, _, row in live_rows(project, "f1")] == [0, 2, 1]
    assert list(live_rows(project, "never")) == []


def test_no_token_in_the_log(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        want(client, (b"x", "a"))
        client.get("key", headers={"Authorization": "Bearer very-secret-token"})
    token = client.headers["Authorization"].split()[1]
    assert token not in caplog.text
    assert "very-secret-token" not in caplog.text


def test_keys_are_private_and_tokens_only_hashed(client: httpx.Client, project: Path) -> None:
    token = client.headers["Authorization"].split()[1]
    for path in (project / "keys").iterdir():
        assert path.stat().st_mode & 0o077 == 0
        assert token not in path.read_text()
    Tokens(project / "keys").revoke("hexa")
    assert client.get("key").status_code == 401
