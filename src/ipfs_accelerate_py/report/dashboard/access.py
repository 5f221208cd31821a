"""Who may read the dashboard: whoever has the token of this start. Another user or program of the machine can connect, but reads nothing.

The printed address carries the token in its query. Opened, it is exchanged for a cookie, so that the token is in no address that is
copied, kept in the history or shared. Programs send it as ``Authorization: Bearer TOKEN``, or as ``?token=TOKEN``.
"""

from __future__ import annotations

import hmac
import secrets
from threading import Lock
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

TOKEN_BYTES = 32
REFUSED = "This dashboard needs the token of its start: open the address that ipfs-accelerate dashboard printed."


class Access:
    """The token of one start. A ticket does the same once: it may stand in the command line of a browser, which others can read."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        self._tickets: set[str] = set()
        self._lock = Lock()

    def ticket(self) -> str:
        """A token for the page's address that is used up when the page is asked for with it."""
        made = secrets.token_urlsafe(TOKEN_BYTES)
        with self._lock:
            self._tickets.add(made)
        return made

    def answer(self, request: Request) -> Response | None:
        """What is answered instead of what was asked: the page's address with a cookie, or a refusal. None lets the request through."""
        given = request.query_params.get("token", "")
        if request.url.path == "/" and given and (_same(given, self.token) or self._use_up(given)):
            response = RedirectResponse("/", 303)
            # Lax: a shared link to a view opens from another site's page too; what computes is refused to other sites elsewhere.
            response.set_cookie(_cookie(request), self.token, httponly=True, samesite="lax")
            return response
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        presented = [given, bearer if scheme.lower() == "bearer" else "", request.cookies.get(_cookie(request), "")]
        if any([_same(one, self.token) for one in presented]):
            return None
        headers = {"WWW-Authenticate": "Bearer"}
        if request.url.path == "/":
            page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Dashboard</title><p>{REFUSED}</p></html>'
            return HTMLResponse(page, 401, headers)
        return JSONResponse({"error": REFUSED}, 401, headers)

    def _use_up(self, given: str) -> bool:
        with self._lock:
            found = [one for one in self._tickets if _same(one, given)]
            self._tickets.difference_update(found)
        return bool(found)


def without_token(query: bytes) -> bytes:
    """A query string without the token: what answers is not to see, repeat or keep it."""
    if b"token" not in query:
        return query
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return urlencode([(name, value) for name, value in pairs if name != "token"]).encode("ascii")


def _cookie(request: Request) -> str:
    """By port: a browser sends the cookies of one host to all of its ports, and each start has its own token."""
    return f"dashboard-{request.url.port}"


def _same(given: str, wanted: str) -> bool:
    """Compared in a time that does not tell how much of it was right."""
    return hmac.compare_digest(given.encode(), wanted.encode())
