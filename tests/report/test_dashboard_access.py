"""The dashboard's token: who gets in, who does not, and where the token goes."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ipfs_accelerate_py.report.dashboard import server
from ipfs_accelerate_py.report.dashboard.access import Access, without_token
from ipfs_accelerate_py.report.dashboard.server import serving


@pytest.fixture(scope="module")
def access() -> Access:
    return Access()


@pytest.fixture(scope="module")
def url(full_store: Path, access: Access) -> Iterator[str]:
    with serving(full_store, access=access) as address:
        yield address


def get(url: str, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, str]:
    """As a client that follows no redirection and keeps no cookies."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    content = response.read().decode()
    connection.close()
    return response.status, response.headers, content


PATHS = ["/api/status", "/api/views", "/api/views/matrix", "/api/cells/x", "/api/sql?query=SELECT%201", "/openapi.json"]


@pytest.mark.parametrize("path", [*PATHS, "/api/recommend?model=bert", "/assets/app.js", "/", "/nowhere"])
def test_nothing_is_answered_without_the_token(url: str, path: str) -> None:
    """No data, no store's name, no hint at which addresses there are: one sentence with the remedy."""
    status, headers, content = get(url, path)
    assert status == 401 and headers["WWW-Authenticate"] == "Bearer" and headers["Content-Security-Policy"]
    assert "open the address that ipfs-accelerate dashboard printed" in content and "full.duckdb" not in content


def test_programs_send_it_in_a_header_or_in_the_query(url: str, access: Access) -> None:
    """Both answer what the address answers, and neither is taken for a filter; a view's answer does not repeat it."""
    for path in PATHS:
        sign = "&" if "?" in path else "?"
        expected = 400 if "cells" in path else 200
        by_header = get(url, path, Authorization=f"Bearer {access.token}")
        by_query = get(url, f"{path}{sign}token={access.token}")
        assert by_header[0] == by_query[0] == expected, path
        assert access.token not in by_header[2] + by_query[2]
    filtered = get(url, f"/api/views/matrix?platform=webgpu&token={access.token}&platform=wasm")[2]
    assert {row["platform"] for row in json.loads(filtered)["rows"]} == {"webgpu", "wasm"}


@pytest.mark.parametrize("wrong", ["", "x", "é", "%FF", "{token}x", "{half}", "{upper}"])
def test_a_wrong_token_is_refused_wherever_it_stands(url: str, access: Access, wrong: str) -> None:
    """In the query, the header and the cookie; a part of the token and one too long are wrong too."""
    given = wrong.format(token=access.token, half=access.token[:20], upper=access.token.swapcase())
    name = f"dashboard-{urlsplit(url).port}"
    plain = given if given.isascii() else "other"
    for path in ("/", "/api/status"):
        assert get(url, f"{path}?token={plain}")[0] == 401
    assert get(url, "/api/status", Authorization=f"Bearer {plain}")[0] == 401
    assert get(url, "/api/status", Authorization=f"Basic {access.token}")[0] == 401
    assert get(url, "/api/status", Cookie=f"{name}={plain}")[0] == 401
    assert get(url, "/api/status", Cookie=f"dashboard-1={access.token}")[0] == 401


def test_the_printed_address_becomes_a_cookie(url: str, access: Access) -> None:
    """The page's address then has no token; scripts and other sites cannot read or send the cookie."""
    status, headers, _ = get(url, f"/?token={access.token}")
    assert (status, headers["Location"]) == (303, "/")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "samesite=lax" in cookie.lower() and "domain" not in cookie.lower()
    kept = cookie.split(";")[0]
    assert get(url, "/", Cookie=kept)[0] == get(url, "/api/status", Cookie=kept)[0] == 200


def test_a_ticket_lets_in_once(url: str, access: Access) -> None:
    """The address that is handed to a browser is worth nothing to who reads it afterwards, and opens the page alone."""
    ticket = access.ticket()
    assert get(url, f"/api/status?token={ticket}")[0] == 401
    assert get(url, f"/?token={ticket}")[0] == 303
    assert get(url, f"/?token={ticket}")[0] == 401


def test_the_token_replaces_no_other_check(url: str, access: Access) -> None:
    """Another Host, another origin and another site's page are refused with the right token too."""
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        status, _, content = get(url, f"/api/status?token={access.token}", **headers)
        assert status == 403 and "full.duckdb" not in content, headers


def test_each_start_has_its_own_token() -> None:
    """Of 256 bits; that of an earlier start is worth nothing."""
    tokens = {Access().token for _ in range(20)}
    assert len(tokens) == 20 and all(len(token) == 43 for token in tokens)


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (b"token=a&platform=cpu&search=a%26b+c&platform=", b"platform=cpu&search=a%26b+c&platform="),
        (b"query=SELECT+%27token%27&token=x", b"query=SELECT+%27token%27"),
        (b"search=%FF", b"search=%FF"),
        (b"", b""),
    ],
)
def test_only_the_token_is_taken_out_of_a_query(query: bytes, left: bytes) -> None:
    """Everything else stays, empty and encoded values included."""
    assert without_token(query) == left


def test_the_document_says_how_the_token_is_sent(url: str, access: Access) -> None:
    """A client that is made from it can get in."""
    document = json.loads(get(url, "/openapi.json", Authorization=f"Bearer {access.token}")[2])
    assert {"bearer": []} in document["security"]
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


@pytest.mark.parametrize("option", ["--token", "--no-token"])
def test_the_command_prints_the_address_that_lets_in(full_store: Path, option: str) -> None:
    """With the token unless it is switched off; the printed address answers, the bare one only without a token."""
    command = [
        sys.executable,
        "-u",
        "-m",
        "ipfs_accelerate_py.cli",
        "dashboard",
        "--store",
        str(full_store),
        "--port",
        "0",
        option,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        printed = re.search(r"http://\S+", process.stdout.readline())
        assert printed
        address = urlsplit(printed[0])
        assert bool(address.query) == (option == "--token")
        base = f"http://{address.netloc}/"  # the socket listens before the line is printed: a request waits for the server
        assert get(base, "/api/status")[0] == (401 if address.query else 200)
        assert get(base, f"/?{address.query}")[0] == (303 if address.query else 200)
    finally:
        process.kill()
        process.communicate()


def test_the_browser_is_opened_with_a_ticket(full_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other users see a browser's command line: what stands there is not the token that is printed."""
    opened: list[str] = []
    said: list[str] = []
    there = threading.Event()
    monkeypatch.setattr(server.webbrowser, "open", lambda address: (opened.append(address), there.set()))
    monkeypatch.setattr(server.uvicorn.Server, "run", lambda self, sockets: there.wait(60))
    server.serve(full_store, 0, open_browser=True, say=said.append)
    token = re.search(r"token=(\S+)", said[0])
    assert token and "?token=" in opened[0] and token[1] not in opened[0]
