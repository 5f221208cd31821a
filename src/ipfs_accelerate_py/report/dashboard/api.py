"""The dashboard's addresses: the page, and read-only REST behind it. Everything that answers is computed from a snapshot."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

import psutil
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ...errors import UserError, nearest
from ...store.migration import SCHEMA_VERSION
from . import page, sql, tables
from .access import Access, without_token
from .detail import detail
from .filters import Filters
from .openapi import document
from .recommended import recommend
from .snapshot import Snapshots
from .tabular import MEDIA_TYPES, encode, to_json
from .views import VIEWS, view

KEPT_ANSWERS = 32


class Answers:
    """What was computed for a state of the store, by address: asked again, it is not computed again."""

    def __init__(self, snapshots: Snapshots) -> None:
        self.snapshots = snapshots
        self._kept: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._lock = Lock()

    def view(self, name: str, filters: Filters) -> bytes:
        snapshot = self.snapshots.current()
        key = snapshot.version, f"{name} {filters}"
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = to_json({**view(name).answer(snapshot, filters), "version": snapshot.version})
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > KEPT_ANSWERS:
                self._kept.popitem(last=False)
        return made


def application(snapshots: Snapshots, hosts: frozenset[str], access: Access | None = None) -> Starlette:
    """The web application. ``hosts`` are the values of the Host header that it answers to; without ``access`` it needs no token."""
    answers = Answers(snapshots)

    def listed(request: Request) -> Response:
        names = [{"name": one.name, "title": one.title, "question": one.question} for one in VIEWS.values()]
        return _json({"views": names, "meanings": tables.meanings()})

    def status(request: Request) -> Response:
        return _json(_status(snapshots))

    def one_view(request: Request) -> Response:
        name = request.path_params["name"]
        view(name)
        parameters = [pair for pair in request.query_params.multi_items() if pair[0] != "format"]
        filters = Filters.of(parameters)
        format_ = request.query_params.get("format")
        if format_ is None:
            return Response(answers.view(name, filters), media_type="application/json")
        answer = view(name).answer(snapshots.current(), filters, draw=False)
        columns = [column["key"] for column in answer["columns"]]
        return _file(encode(answer["rows"], columns, format_), name, format_)

    def one_cell(request: Request) -> Response:
        return _json(detail(snapshots.current(), request.path_params["cell"]))

    def console(request: Request) -> Response:
        for name in request.query_params:
            if name not in ("query", "format"):
                raise nearest(name, ["query", "format"], "parameter")
        found = sql.ask(snapshots.current(), request.query_params.get("query", ""))
        rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
        format_ = request.query_params.get("format")
        if format_ is not None:
            return _file(encode(rows, found.columns, format_), "query", format_)
        return _json({"columns": found.columns, "rows": found.rows, "cut": found.cut, "limit": sql.ROWS_UP_TO})

    def recommended(request: Request) -> Response:
        return _json(recommend(snapshots.store, dict(request.query_params)))

    def openapi(request: Request) -> Response:
        return _json(document(token=access is not None))

    def html(request: Request) -> Response:
        return Response(page.live(), media_type="text/html")

    def asset(request: Request) -> Response:
        name = request.path_params["name"]
        content, media_type = page.asset(name)
        # Nothing of a store is in the figures' library: the browser keeps it, and what it compiled of it, for the next time.
        kept = {"Cache-Control": "private, max-age=604800, immutable"} if name == page.LIBRARY else {}
        return Response(content, media_type=media_type, headers=kept)

    routes = [
        Route("/", html),
        Route("/assets/{name}", asset),
        Route("/openapi.json", openapi),
        Route("/api/status", status),
        Route("/api/views", listed),
        Route("/api/views/{name}", one_view),
        Route("/api/cells/{cell}", one_cell),
        Route("/api/sql", console),
        Route("/api/recommend", recommended),
    ]
    made = Starlette(
        routes=[Route(route.path, _sentence(route.endpoint)) for route in routes],
        middleware=[Middleware(_Guard, hosts=hosts, access=access)],
    )
    made.state.answers = answers
    return made


def _status(snapshots: Snapshots) -> dict[str, Any]:
    """What the page asks every two seconds: cheap, and never an error of its own."""
    told: dict[str, Any] = {
        "store": str(snapshots.store),
        "schema": SCHEMA_VERSION,
        "waiting": snapshots.waiting(),
        "error": None,
    }
    told["campaign_process"] = campaign_process(snapshots)
    try:
        snapshot = snapshots.current()
    except UserError as error:
        return {**told, "version": None, "error": str(error)}
    count = snapshot.kept("count", lambda: snapshot.rows("SELECT count(*) AS n FROM launch")[0]["n"])
    return {**told, "version": snapshot.version, "launches": count}


def campaign_process(snapshots: Snapshots) -> int | None:
    """The process that runs a campaign on the store now: it holds the store's lock file, with its id inside."""
    lock = snapshots.store.with_name(snapshots.store.name + ".lock")
    try:
        text = lock.read_text()
    except OSError:
        return None
    return int(text) if text.isdigit() and psutil.pid_exists(int(text)) else None


def _json(value: Any, status_code: int = 200) -> Response:
    return Response(to_json(value), status_code, media_type="application/json")


def _file(content: bytes, name: str, format_: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}.{format_}"'}
    return Response(content, media_type=MEDIA_TYPES[format_], headers=headers)


def _sentence(endpoint: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """A mistake is answered with its sentence; a defect stays one. Endpoints run in threads, so none waits for another's query."""

    def answer(request: Request) -> Response:
        try:
            return endpoint(request)
        except UserError as error:
            return _json({"error": str(error)}, 400)

    return answer


class _Guard:
    """Answers only its own page on this machine, and only questions (DNS rebinding, forms and scripts of other sites). Another site's
    picture or link may lead to the page, not to what computes: it could not read the answer, but would cost the time. Then the token
    is asked for, where there is one."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], access: Access | None) -> None:
        self.app, self.hosts, self.access = app, hosts, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        origins = {f"http://{host}" for host in self.hosts}
        elsewhere = request.headers.get("sec-fetch-site") in ("cross-site", "same-site") and scope["path"] != "/"
        strange = request.headers.get("origin", next(iter(origins))) not in origins
        if request.headers.get("host") not in self.hosts or strange or elsewhere:
            refused = _json({"error": "This server answers only its own page on this machine."}, 403)
            await refused(scope, receive, send)
            return

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in _HEADERS if pair[0] not in given)]
            await send(message)

        instead = self.access.answer(request) if self.access else None
        await (instead or self.app)({**scope, "query_string": without_token(scope["query_string"])}, receive, sending)


_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data: blob:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
