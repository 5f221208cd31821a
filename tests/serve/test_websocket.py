"""The WebSocket: its messages in order, and clients that send nonsense, flood, vanish or do not read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from running_server import MakeService, running
from torch_engine import TorchEngine, reference, text_of
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from ipfs_accelerate_py.serve.server import Server
from ipfs_accelerate_py.web.language_model import Sampling

LIMIT_S = 120
PROMPT = [50, 60, 70]


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine()


@pytest.fixture(scope="module")
def server(make_service: MakeService, engine: TorchEngine) -> Iterator[Server]:
    with running(make_service(engine)) as made:
        yield made


@pytest.fixture
def client(server: Server) -> Iterator[ClientConnection]:
    with connect(address(server), open_timeout=LIMIT_S) as made:
        yield made


def address(server: Server) -> str:
    return server.url.replace("http:", "ws:") + "/stream"


def ask(client: ClientConnection, **fields: Any) -> None:
    client.send(json.dumps({"type": "generate", "id": "a", "prompt": PROMPT, "max_tokens": 8, "temperature": 0, **fields}))


def answer(client: ClientConnection, name: str | None = "a") -> list[dict[str, Any]]:
    """The messages of one answer, up to its last."""
    told: list[dict[str, Any]] = []
    while not told or told[-1]["type"] not in ("complete", "error"):
        message = json.loads(client.recv(LIMIT_S))
        if message["id"] == name:
            told.append(message)
    return told


def test_messages_come_in_order(client: ClientConnection):
    """Start, prefill, tokens, cache, complete; the tokens are the model's, and each message has the client's id."""
    ask(client)
    told = answer(client)
    kinds = [message["type"] for message in told]
    assert kinds == ["start", "prefill_complete", *["token"] * 8, "kv_cache_status", "complete"]
    expected = reference(PROMPT, 8, Sampling())
    assert [message["token"] for message in told if message["type"] == "token"] == expected
    assert "".join(message["text"] for message in told if "text" in message) == text_of(expected)
    assert told[0]["about"]["weights"] == "synthetic"
    assert told[1]["prompt_tokens"] == 3
    assert told[-2]["used_tokens"] == 11
    assert told[-1]["finish_reason"] == "length"
    assert told[-1]["usage"]["total_tokens"] == 11


def test_two_answers_on_one_connection(client: ClientConnection):
    """Each is complete; an id is free again after its answer, and not before."""
    ask(client, id="a", max_tokens=400)
    ask(client, id="a")
    ask(client, id="b", messages=[{"role": "user", "content": "x"}], prompt=None)
    used = answer(client)
    while used[-1]["type"] != "error":
        used += answer(client)
    assert used[-1]["code"] == "id_in_use"
    assert answer(client, "b")[-1]["type"] == "complete"
    ask(client, id="a")
    while (last := answer(client)[-1])["usage"]["completion_tokens"] != 8:
        assert last["type"] == "complete"


def test_cancel(client: ClientConnection, engine: TorchEngine):
    """The answer completes as cancelled, a few tokens in; cancelling what is not there is an error with its id."""
    ask(client, max_tokens=8000)
    while json.loads(client.recv(LIMIT_S))["type"] != "token":
        pass
    client.send(json.dumps({"type": "cancel", "id": "a"}))
    last = answer(client)[-1]
    assert last["finish_reason"] == "cancelled"
    assert last["usage"]["completion_tokens"] < 8000
    client.send(json.dumps({"type": "cancel", "id": "zzz"}))
    assert answer(client, "zzz")[0]["code"] == "unknown_id"


MALFORMED = [
    ("{", "JSON"),
    ("[]", "JSON object"),
    ("[" * 50_000, "JSON"),
    (b"\xff\xfe", "JSON"),
    ('{"type": "shout", "id": "a"}', "generate or cancel"),
    ('{"type": "cancel"}', "id"),
    ('{"type": "cancel", "id": "\\ud800"}', "surrogate"),
    ('{"type": "generate", "id": "a"}', "messages"),
    ('{"type": "generate", "id": "a", "prompt": "x", "max_tokens": -1}', "max_tokens"),
    ('{"type": "generate", "id": "a", "prompt": "x", "what": 1}', "Unknown parameter 'what'"),
    ('{"type": "generate", "id": "a", "prompt": "x", "model": "gpt"}', "does not exist"),
]


@pytest.mark.parametrize(("message", "sentence"), MALFORMED)
def test_malformed_messages_are_answered(client: ClientConnection, message: str | bytes, sentence: str):
    """One error with one sentence, and the connection still works."""
    client.send(message)
    told = json.loads(client.recv(LIMIT_S))
    assert told["type"] == "error"
    assert sentence in told["message"]
    ask(client)
    assert answer(client)[-1]["type"] == "complete"


def test_floods_and_giants_end_the_connection(server: Server):
    """Too many messages, and one that is too large: that connection is closed, and another is answered."""
    with connect(address(server), open_timeout=LIMIT_S) as flood:
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(2000):
                flood.send('{"type": "cancel", "id": "none"}')
            while True:
                flood.recv(LIMIT_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
    with connect(address(server), open_timeout=LIMIT_S) as giant:
        with pytest.raises(ConnectionClosed) as closed:
            giant.send(" " * (2 << 20))
            giant.recv(LIMIT_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    with connect(address(server), open_timeout=LIMIT_S) as other:
        ask(other)
        assert answer(other)[-1]["type"] == "complete"


def test_a_vanished_client_cancels_all_that_it_asked_for(server: Server, engine: TorchEngine, client: ClientConnection):
    """Its running and its waiting requests: the next client does not wait for them."""
    gone = connect(address(server), open_timeout=LIMIT_S).__enter__()
    for name in "abc":
        ask(gone, id=name, max_tokens=8000)
    while json.loads(gone.recv(LIMIT_S))["type"] != "token":
        pass
    before = len(engine.served)
    gone.socket.close()
    ask(client)
    assert answer(client)[-1]["type"] == "complete"
    assert [prompt for prompt in engine.served[before:] if len(prompt) == 3] == [tuple(PROMPT)] * (len(engine.served) - before)
    assert len(engine.served) - before <= 2


def test_pages_of_other_origins_get_no_socket(server: Server):
    """A browser tells where a page comes from."""
    with pytest.raises(InvalidStatus) as refused:
        connect(address(server), origin="https://evil.example", open_timeout=LIMIT_S)  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403
