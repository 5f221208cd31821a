"""What the bridge's server gives to whom: the runtime to the page, a model's files to the page that holds the key, numbers to loopback.

Every request must name this server as its host, which a name that was rebound to this machine (DNS rebinding) does not, and must
not come from a page of another origin.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
import secrets
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from ..errors import UnavailableError

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm", ".txt": "text/plain"}
Provider = Callable[[], tuple[str, str]]  # a text and its media type


class LargeFileResponse(FileResponse):
    """Reads a model in few pieces: each one is a way to another thread and back."""

    chunk_size = 2**20


class Site:
    """``hosts`` are the names under which the server may be asked. ``allow_eval`` lets the page's scripts make functions from text, which
    ONNX Runtime's WebNN provider does."""

    def __init__(self, hosts: Collection[str], *, allow_eval: bool = False) -> None:
        if not (STATIC / "index.html").is_file():
            raise UnavailableError("The browser runtime is not built.", "Run: npm ci && npm run build in the folder browser.")
        self._hosts = frozenset(hosts)
        self._script_policy = "'self' 'wasm-unsafe-eval'" + (" 'unsafe-eval'" if allow_eval else "")
        self._static = {path.name: path for path in STATIC.iterdir()}
        self._models: dict[str, Path] = {}
        self._shares = itertools.count(1)
        # The page gets it with its WebSocket, so only who used up the one-time token can fetch a model.
        self._cookie = f"ipfs_accelerate_{min(hosts).rpartition(':')[2]}"
        self._key = secrets.token_urlsafe(32)
        self.model_requests = 0  # for a model's files, whole or a range of one
        self.texts: dict[str, Provider] = {}  # what /metrics and the like answer, to loopback only

    def share(self, folder: Path, files: Collection[str], prefix: str | None = None) -> str:
        """Let the page fetch ``files`` of ``folder``; what their address has between ``model/`` and their name."""
        prefix = f"{next(self._shares)}/" if prefix is None else prefix
        self._models |= {prefix + name: folder / name for name in files}
        return prefix

    def withdraw(self, prefix: str) -> None:
        """Stop serving what ``share`` gave this prefix to."""
        self._models = {name: path for name, path in self._models.items() if not name.startswith(prefix)}

    @property
    def cookie_header(self) -> tuple[bytes, bytes]:
        value = f"{self._cookie}={self._key}; Path=/model; HttpOnly; SameSite=Strict"
        return b"set-cookie", value.encode()

    def application(self, socket_route: BaseRoute) -> Starlette:
        routes = [
            socket_route,
            Route("/model/{name:path}", self._model),
            *(Route(f"/{name}", functools.partial(self._text, name)) for name in ("metrics", "trace.json")),
            Route("/{name}", self._runtime),
            Route("/", self._runtime),
        ]
        application = Starlette(routes=routes)
        application.router.redirect_slashes = False
        return application

    def for_us(self, connection: HTTPConnection) -> bool:
        host = connection.headers.get("host")
        return host in self._hosts and connection.headers.get("origin", f"http://{host}") == f"http://{host}"

    async def _runtime(self, request: Request) -> Response:
        return self._file(self._static, request.path_params.get("name", "index.html"), request)

    async def _model(self, request: Request) -> Response:
        given = request.cookies.get(self._cookie, "")
        if self.for_us(request) and not secrets.compare_digest(given.encode(), self._key.encode()):
            return PlainTextResponse("Model files are for the page that was let in.", 403, headers=self._headers(request))
        self.model_requests += 1
        return self._file(self._models, request.path_params["name"], request)

    def _file(self, files: Mapping[str, Path], name: str, request: Request) -> Response:
        if not self.for_us(request):
            return PlainTextResponse("This server answers only its own page.", 403)
        path = files.get(name)  # only whole names that were shared: no path can lead out of a folder
        if path is None or not path.is_file():
            return PlainTextResponse("No such file.", 404, headers=self._headers(request))
        media_type = MEDIA_TYPES.get(path.suffix, "application/octet-stream")
        return LargeFileResponse(path, media_type=media_type, headers=self._headers(request))

    async def _text(self, name: str, request: Request) -> Response:
        asks_here = request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
        if not self.for_us(request) or not asks_here:
            return PlainTextResponse("Only programs of this machine may read this.", 403)
        if name not in self.texts:
            return PlainTextResponse("No such file.", 404)
        text, media_type = await run_in_threadpool(self.texts[name])  # it may ask the page, which this thread serves
        return Response(text, media_type=media_type, headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})

    def _headers(self, request: Request) -> dict[str, str]:
        socket = f"ws://{request.headers.get('host')}"
        policy = f"default-src 'none'; script-src {self._script_policy}; worker-src 'self'; connect-src 'self' {socket}"
        return {
            # Both make the page cross-origin isolated, which wasm threads and the fine clock need.
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Embedder-Policy": "require-corp",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Content-Security-Policy": policy + "; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
