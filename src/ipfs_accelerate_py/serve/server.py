"""The server: who may ask, and the application behind one socket.

It listens on loopback unless told otherwise, and elsewhere only with a token. Requests for another host (DNS rebinding) and from pages of
other origins are refused.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from ..errors import UserError
from . import websocket
from .errors import ApiError
from .openai_api import OpenAiApi, error_response
from .service import Service

MOST_CONNECTIONS = 256
SEND_BUFFER_BYTES = 64 << 10  # of each connection, in the kernel: what a slow reader may hold beside its events
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
SHORTEST_TOKEN = 16
PING_S = 20.0  # a WebSocket whose client vanished without a word is noticed within two of these


class Guard:
    """Lets through requests for this host, from no foreign page, and with the token where there is one."""

    def __init__(self, app: ASGIApp, names: tuple[str, ...] | None, token: str | None) -> None:
        self._app = app
        self._names = names  # None: any, because the token decides
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(HTTPConnection(scope)) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await error_response(refusal)(scope, receive, send)
        else:
            await WebSocket(scope, receive, send).send_denial_response(error_response(refusal))

    def _refusal(self, asked: HTTPConnection) -> ApiError | None:
        host = asked.headers.get("host", "")
        if self._names is not None and host.rpartition(":")[0] not in self._names and host not in self._names:
            return ApiError(403, f"This server does not answer for the host '{host}'.", code="wrong_host")
        origin = asked.headers.get("origin")
        if origin is not None and origin.rpartition("//")[2] != host:
            return ApiError(403, f"This server does not answer pages of '{origin}'.", code="wrong_origin")
        if self._token is not None and not _same(asked.headers.get("authorization", ""), f"Bearer {self._token}"):
            return ApiError(401, "Incorrect API key provided.", code="invalid_api_key")
        return None


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def check_address(host: str, token: str | None) -> None:
    """UserError for an address that other machines reach where no token is needed, and for a token that can be guessed."""
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise UserError(
            f"A token has at least {SHORTEST_TOKEN} printable ASCII characters: python -c 'import secrets; print(secrets.token_urlsafe())'."
        )
    if not _is_loopback(host) and token is None:
        raise UserError(
            f"{host} can be reached from other machines: give a --token, or leave --host out to serve this machine alone."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def application(service: Service, names: tuple[str, ...] | None, token: str | None) -> ASGIApp:
    async def stream(socket: WebSocket) -> None:
        await websocket.Connection(service, socket).run()

    async def not_found(request: Request, error: Exception) -> Response:
        return error_response(ApiError(404, f"Unknown request URL: {request.method} {request.url.path}.", code="unknown_url"))

    async def not_allowed(request: Request, error: Exception) -> Response:
        return error_response(
            ApiError(405, f"Not allowed to {request.method} on {request.url.path}.", code="method_not_allowed")
        )

    routes = [*OpenAiApi(service).routes(), WebSocketRoute(websocket.PATH, stream)]
    app = Starlette(routes=routes, exception_handlers={404: not_found, 405: not_allowed})
    return Guard(app, names, token)


class Server:
    """A bound socket and what answers on it. ``run`` serves until ``stop`` or Ctrl-C. Raises UserError for an address that is not free."""

    def __init__(self, service: Service, host: str = "127.0.0.1", port: int = 0, token: str | None = None) -> None:
        check_address(host, token)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=128)
        except (OSError, OverflowError) as refused:
            raise UserError(
                f"Port {port} of {host} cannot be used ({refused}): name another with --port, or 0 for a free one."
            ) from None
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # accepted connections inherit it
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}/v1"
        config = uvicorn.Config(
            application(service, (*LOOPBACK_NAMES, shown) if _is_loopback(host) else None, token),
            log_level="warning",
            access_log=False,
            lifespan="off",
            loop="asyncio",
            http="h11",
            ws="websockets-sansio",
            ws_max_size=websocket.MOST_MESSAGE_BYTES,
            ws_ping_interval=PING_S,
            ws_ping_timeout=PING_S,
            ws_per_message_deflate=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """``on_ready`` is called before the first request is taken; the socket listens already."""
        try:
            on_ready()
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        """From any thread."""
        self._server.should_exit = True
