"""The bridge under attack: only the page that Python opened gets in, and it gets only the model's own files."""

from __future__ import annotations

import http.client
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from product_model import require_network
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from ipfs_accelerate_py.errors import LaunchError, UserError
from ipfs_accelerate_py.web import protocol
from ipfs_accelerate_py.web.bridge import MAX_TEXT_BYTES, UNASKED_BURST, Bridge, Disconnected


@pytest.fixture
def bridge(product: Path):
    with Bridge(product, ["model.onnx"]) as running:
        yield running


def token_of(bridge: Bridge) -> str:
    return urlsplit(bridge.url).fragment.removeprefix("token=")


def dial(bridge: Bridge, token: str, *, origin: str | None = None, host: str | None = None) -> ClientConnection:
    headers = {"Host": host} if host else None
    url = f"ws://{bridge.host}/bridge?token={token}"
    return connect(url, origin=origin or bridge.origin, additional_headers=headers, proxy=None)  # type: ignore[arg-type]


def cookie_of(page: ClientConnection) -> str:
    """The key to the model's files, which the WebSocket's answer sets as a cookie."""
    assert page.response is not None
    return page.response.headers["Set-Cookie"].partition(";")[0]


def get(bridge: Bridge, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(bridge.host)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def refused(bridge: Bridge, *arguments, **options) -> bool:
    try:
        with dial(bridge, *arguments, **options):
            return False
    except InvalidStatus as answer:
        return answer.response.status_code == 403


def test_the_first_socket_with_the_token_gets_in_and_a_second_does_not(bridge):
    """The token is used up by the first WebSocket, also while that one is open."""
    token = token_of(bridge)
    with dial(bridge, token):
        assert bridge.connected(5)
        assert refused(bridge, token)
    assert refused(bridge, token)


@pytest.mark.parametrize("token", ["", "guess", "ü"])
def test_a_wrong_token_is_refused_and_the_right_one_stays_valid(bridge, token):
    """Guessing gets nobody in, and keeps nobody out."""
    assert refused(bridge, token)
    assert not bridge.connected(0)
    with dial(bridge, token_of(bridge)):
        assert bridge.connected(5)


@pytest.mark.parametrize("origin", ["https://example.com", "null", "http://127.0.0.1:1"])
def test_another_origin_is_refused_even_with_the_token(bridge, origin):
    """A page of another site that learnt the token cannot use it."""
    assert refused(bridge, token_of(bridge), origin=origin)


def test_a_socket_without_an_origin_is_refused(bridge):
    """Every browser sends one, so this is another program."""
    with pytest.raises(InvalidStatus), connect(f"ws://{bridge.host}/bridge?token={token_of(bridge)}", proxy=None):
        pass


def test_another_host_name_is_refused(bridge):
    """A name that was rebound to this machine (DNS rebinding) reaches neither the socket nor a file."""
    name = "rebound.example:" + bridge.host.rpartition(":")[2]
    assert get(bridge, "/", Host=name)[0] == 403
    assert get(bridge, "/model/model.onnx", Host=name)[0] == 403
    assert get(bridge, "/", Origin="https://example.com")[0] == 403


def test_the_page_is_isolated_and_allows_no_foreign_script(bridge):
    """The headers that give threads and the fine clock, and those that keep everything else out."""
    status, headers, body = get(bridge, "/")
    assert status == 200
    assert b"main.mjs" in body
    assert headers["Content-Type"].startswith("text/html")
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "'unsafe-eval'" not in policy
    assert "'unsafe-inline'" not in policy
    assert get(bridge, "/ort-wasm-simd-threaded.wasm")[1]["Content-Type"] == "application/wasm"
    assert get(bridge, "/main.mjs")[1]["Content-Type"].startswith("text/javascript")


def test_only_the_files_of_the_manifest_are_served(bridge, product):
    """A neighbour of the model, a path out of the folder and the folder itself do not exist for the page."""
    with dial(bridge, token_of(bridge)) as page:
        key = cookie_of(page)
        assert get(bridge, "/model/model.onnx", Cookie=key)[2] == (product / "model.onnx").read_bytes()
        for path in ("secret.txt", "manifest.json", "../manifest.json", "%2e%2e%2fproduct%2fsecret.txt", "/etc/passwd", ""):
            assert get(bridge, "/model/" + path, Cookie=key)[0] == 404, path
        for path in ("/../bridge.py", "/%2e%2e%2fbridge.py", "/..%5cbridge.py"):
            assert get(bridge, path, Cookie=key)[0] == 404, path


@pytest.mark.parametrize("key", [None, "", "guess", "ü"])
def test_a_model_file_needs_the_key_of_the_page_that_was_let_in(bridge, key):
    """Another program of this machine, and another user's, reads no weights."""
    with dial(bridge, token_of(bridge)) as page:
        name = cookie_of(page).partition("=")[0]
        headers = {} if key is None else {"Cookie": f"{name}={key}".encode().decode("latin-1")}
        status, _, body = get(bridge, "/model/model.onnx", **headers)
    assert status == 403
    assert b"let in" in body


def test_a_withdrawn_model_is_gone(bridge, product):
    """What a closed model had shared is no longer served; what others share still is."""
    prefix = bridge.site.share(product, ["model.onnx"])
    with dial(bridge, token_of(bridge)) as page:
        key = cookie_of(page)
        assert get(bridge, f"/model/{prefix}model.onnx", Cookie=key)[0] == 200
        bridge.site.withdraw(prefix)
        assert get(bridge, f"/model/{prefix}model.onnx", Cookie=key)[0] == 404
        assert get(bridge, "/model/model.onnx", Cookie=key)[0] == 200


def test_a_hang_ends_at_the_limit_and_names_the_phase(bridge):
    """A page that answers nothing is a timeout, not a wait for ever."""
    with dial(bridge, token_of(bridge)):
        assert bridge.connected(5)
        with pytest.raises(LaunchError, match=r"compile went over its limit of 0.2 s") as raised:
            bridge.request(protocol.Compile(), timeout_s=0.2, phase="compile")
    assert raised.value.error_class == "timeout"


def test_what_the_page_reports_reaches_the_request(bridge):
    """A failure without a request, such as window.onerror, ends the request that waits and refuses the next one."""
    with dial(bridge, token_of(bridge)) as page:
        assert bridge.connected(5)
        page.send('{"type": "Console", "id": 0, "level": "error", "text": "shader is broken"}')
        page.send('{"type": "Failure", "id": 0, "error_class": "page_error", "message": "worker: x is not defined"}')
        for _ in range(2):
            with pytest.raises(LaunchError, match=r"x is not defined.*shader is broken") as raised:
                bridge.request(protocol.Load(), timeout_s=5, phase="load")
            assert raised.value.error_class == "page_error"


@pytest.mark.parametrize("frame", ["no JSON", '{"type": "Nonsense", "id": 1}', b"\xff\xff\xff\x7f", b"ab", "[]"])
def test_a_message_that_is_not_understood_is_a_page_error(bridge, frame):
    """A broken page does not break the server, and its request does not wait for the limit."""
    with dial(bridge, token_of(bridge)) as page:
        assert bridge.connected(5)
        page.send(frame)
        with pytest.raises(LaunchError, match="not understood"):
            bridge.request(protocol.Load(), timeout_s=5, phase="load")


@pytest.mark.parametrize(
    "line",
    ['{"type": "Console", "id": 0, "level": "warn", "text": "again"}', '{"type": "Done", "id": 77}'],
    ids=["console", "no such request"],
)
def test_a_flood_of_unasked_messages_ends_the_page(bridge, line):
    """A page that sends what nobody asked for without end is cut off, and memory does not grow with it."""
    with dial(bridge, token_of(bridge)) as page:
        assert bridge.connected(5)
        with pytest.raises(ConnectionClosed):
            for _ in range(100 * UNASKED_BURST):
                page.send(line)
        assert len(bridge.console) <= 50
        with pytest.raises(LaunchError, match="answer no request"):
            bridge.request(protocol.Load(), timeout_s=5, phase="load")


def test_a_text_beyond_the_limit_ends_the_page(bridge):
    """Large things are tensors; a text of that size is an attack or a defect."""
    with dial(bridge, token_of(bridge)) as page:
        assert bridge.connected(5)
        page.send('{"type": "Console", "id": 0, "level": "warn", "text": "' + "x" * MAX_TEXT_BYTES + '"}')
        with pytest.raises(LaunchError, match="a text of"):
            bridge.request(protocol.Load(), timeout_s=10, phase="load")


def test_an_answer_to_nothing_changes_nothing(bridge):
    """A reply with an id that no request has is dropped."""
    with dial(bridge, token_of(bridge)) as page:
        assert bridge.connected(5)
        page.send('{"type": "Done", "id": 77}')
        page.send('{"type": "Console", "id": 0, "level": "warn", "text": "after it"}')
        while not bridge.console:
            page.ping().wait(5)
        assert bridge.broken is None


def test_metrics_are_for_programs_of_this_machine_and_only_when_asked_for(bridge):
    """Nothing before they are served; then only under our own name, not through a rebound one or from a page of another site."""
    assert get(bridge, "/metrics")[0] == 404
    bridge.site.texts["metrics"] = lambda: ("up 1\n", "text/plain")
    assert get(bridge, "/metrics")[::2] == (200, b"up 1\n")
    assert get(bridge, "/metrics", Host="rebound.example")[0] == 403
    assert get(bridge, "/metrics", Origin="https://example.com")[0] == 403


def test_it_listens_on_loopback_unless_told_otherwise(bridge, product):
    """The address of the network is refused by the system; with ``listen`` it answers there too, under that name and loopback's only."""
    assert bridge._socket.getsockname()[0] == "127.0.0.1"
    require_network()
    with Bridge(product, listen="0.0.0.0") as open_one:
        port = open_one.host.rpartition(":")[2]
        assert open_one.host != f"0.0.0.0:{port}"
        assert get(open_one, "/")[0] == 200
        assert get(open_one, "/", Host="rebound.example:" + port)[0] == 403
        assert get(open_one, "/model/model.onnx")[0] == 403


def test_an_address_that_is_not_ours_is_one_sentence():
    """Not a traceback of the socket module."""
    with pytest.raises(UserError, match=r"cannot listen on 192\.0\.2\.1"):
        Bridge(listen="192.0.2.1")


def test_a_page_that_leaves_ends_the_request(bridge):
    """A closed socket is seen at once."""
    with dial(bridge, token_of(bridge)):
        assert bridge.connected(5)
    with pytest.raises(Disconnected):
        bridge.request(protocol.Load(), timeout_s=5, phase="load")


def test_each_bridge_has_its_own_port_and_token(product):
    """Two at once do not meet: the port is a free one, and the token of one does not open the other."""
    with Bridge(product) as one, Bridge(product) as other:
        assert one.host != other.host
        assert refused(one, token_of(other))


def test_closing_frees_the_port_and_ends_the_socket(product):
    """Nothing of a bridge is left behind."""
    bridge = Bridge(product).__enter__()
    with dial(bridge, token_of(bridge)) as page:
        assert bridge.connected(5)
        bridge.close()
        with pytest.raises(ConnectionClosed):
            page.recv(timeout=5)
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(bridge.host).connect()
