"""The HTTP API as OpenAI's own client sees it, around a small decoder on the CPU."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
import torch
from openai import OpenAI
from running_server import MakeService, running, until
from torch_engine import VOCABULARY, TorchEngine, decoder, reference, text_of

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.models.processing.text import synthetic_tokenizer
from ipfs_accelerate_py.serve.embeddings import Embedder
from ipfs_accelerate_py.serve.prompt import Prompts
from ipfs_accelerate_py.serve.server import Server, check_address
from ipfs_accelerate_py.web.language_model import Sampling

LIMIT_S = 120
TOKENIZER = synthetic_tokenizer(VOCABULARY)
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße 😀"}]
CHAT_TEXT = "system: Be brief.\nuser: Grüße 😀\nassistant:"


def ids(text: str) -> list[int]:
    return list(TOKENIZER.tokenizer.encode(text).ids)


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine()


@pytest.fixture(scope="module")
def server(make_service: MakeService, engine: TorchEngine) -> Iterator[Server]:
    with running(make_service(engine, Embedder("bert", "tiny"), buffer_events=64)) as made:
        yield made


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.url, api_key="unused", max_retries=0, timeout=LIMIT_S) as made:
        yield made


def port(server: Server) -> int:
    return int(server.url.rsplit(":", 1)[1].split("/")[0])


def post(server: Server, path: str, body: bytes, **headers: str) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port(server), timeout=LIMIT_S)
    connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_a_completion(client: OpenAI):
    """Greedy: the text of the reference's tokens, its usage, and the reason of its end; the first space of a continued text stays."""
    answer = client.completions.create(model="tiny", prompt="Once", max_tokens=12, temperature=0)
    expected = reference(ids("Once"), 12, Sampling())
    assert answer.choices[0].text == text_of(expected)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (4, 12, 16)
    assert answer.model_extra is not None
    assert answer.model_extra["ipfs_accelerate"]["weights"] == "synthetic"


def test_a_chat_stream_is_the_whole_answer_in_pieces(client: OpenAI):
    """With a seed both are the same text, multi-byte characters among it; the stream ends with a reason and, as asked, its usage."""
    asked = {"model": "tiny", "messages": CHAT, "max_tokens": 150, "temperature": 1.0, "seed": 5}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    expected = text_of(reference(ids(CHAT_TEXT), 150, Sampling(temperature=1.0, seed=5)))
    assert any(ord(letter) > 127 and letter != "\ufffd" for letter in expected)
    assert whole.choices[0].message.content == expected
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-2:] == [None, "length"]
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens == len(ids(CHAT_TEXT)) + 150
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(chunks) > 75


def test_sampling_follows_its_parameters(client: OpenAI):
    """Another seed gives another text, and temperature 0 ignores it."""

    def text(**options: float) -> str:
        return client.completions.create(model="tiny", prompt="x", max_tokens=20, **options).choices[0].text  # type: ignore[call-overload]

    assert text(seed=1) == text(seed=1) != text(seed=2)
    assert text(seed=1, temperature=0) == text(seed=2, temperature=0)
    assert text() != text()  # without a seed each answer has its own


def test_a_stop_text_ends_the_answer(client: OpenAI):
    """The text ends before it, streamed or not, and the engine generates no further."""
    full = text_of(reference(ids("abc"), 60, Sampling(temperature=1.0, seed=3)))
    stop = full[25:28]
    asked = {"model": "tiny", "prompt": "abc", "max_tokens": 60, "temperature": 1.0, "seed": 3, "stop": ["never there", stop]}
    answer = client.completions.create(**asked)
    assert answer.choices[0].text == full[: full.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens < 60
    assert (
        "".join(chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True)) == full[: full.index(stop)]
    )


def test_log_probabilities(client: OpenAI):
    """Of the chosen tokens, as the decoder's own logits give them, in both APIs' forms."""
    tokens = reference(ids("hi"), 5, Sampling())
    with torch.inference_mode():
        logits = decoder()(torch.tensor([ids("hi") + tokens])).logits[0].double()
    rows = torch.log_softmax(logits, -1)[1:-1]
    expected = [float(row[token]) for row, token in zip(rows, tokens, strict=True)]
    given = client.completions.create(model="tiny", prompt="hi", max_tokens=5, temperature=0, logprobs=0).choices[0].logprobs
    assert given is not None
    np.testing.assert_allclose(given.token_logprobs, expected, atol=1e-4)  # type: ignore[arg-type]
    chat = client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=5, temperature=0, logprobs=True)  # type: ignore[arg-type]
    assert chat.choices[0].logprobs is not None
    content = chat.choices[0].logprobs.content
    assert content is not None
    shown = b"".join(bytes(token.bytes or []) for token in content)
    assert shown.decode("utf-8", "replace") == chat.choices[0].message.content
    assert all(token.logprob < 0 for token in content)


def test_models(client: OpenAI):
    """Both models are listed with what runs them; one by name, and one that is not there."""
    assert [model.id for model in client.models.list()] == ["tiny", "bert-tiny"]
    assert client.models.retrieve("tiny").model_extra["ipfs_accelerate"]["engine"] == "torch"  # type: ignore[index]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("large")


def test_embeddings(client: OpenAI):
    """Of length 1, the same whether sent as numbers or base64, and those of transformers' own model with masked mean pooling."""
    texts = ["A ferry.", "The museum shows paintings."]
    given = client.embeddings.create(model="bert-tiny", input=texts)  # the client asks for base64
    plain = client.embeddings.create(model="bert-tiny", input=texts, encoding_format="float")
    found = np.array([item.embedding for item in given.data])
    np.testing.assert_allclose(found, [item.embedding for item in plain.data], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    embedder = Embedder("bert", "tiny")
    model = embedder._model(None)
    for text, row in zip(texts, found, strict=True):
        tokens = torch.tensor([synthetic_tokenizer(1000).tokenizer.encode(text).ids])
        with torch.inference_mode():
            hidden = model(tokens).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(row, (hidden / hidden.norm()).numpy(), atol=1e-4)
    assert given.usage.prompt_tokens == sum(len(text) for text in texts)
    assert given.model_extra["ipfs_accelerate"]["platform"] == "cpu"  # type: ignore[index]


def test_embeddings_that_wait_hold_nobody_up(server: Server, client: OpenAI, monkeypatch: pytest.MonkeyPatch):
    """Twelve at once while none gets on: four are told to come back, a completion is answered meanwhile, and the eight get theirs."""
    go_on, results = threading.Event(), []
    embed = Embedder._embed

    def held(self: Embedder, texts: list[str]) -> tuple[np.ndarray, int]:
        assert go_on.wait(LIMIT_S)
        return embed(self, texts)

    monkeypatch.setattr(Embedder, "_embed", held)
    body = json.dumps({"model": "bert-tiny", "input": "x"}).encode()
    threads = [
        threading.Thread(target=lambda: results.append(post(server, "/v1/embeddings", body)[0]), daemon=True) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    until(lambda: len(results) >= 4)  # the refusals come at once
    answer = client.completions.create(model="tiny", prompt="y", max_tokens=3, temperature=0)
    assert answer.choices[0].text == text_of(reference(ids("y"), 3, Sampling()))
    go_on.set()
    for thread in threads:
        thread.join(LIMIT_S)
    assert sorted(results) == [200] * 8 + [429] * 4


REFUSED = [
    ({"model": "other"}, 404, "model", "does not exist: this server has 'tiny'"),
    ({"max_tokens": 9000}, 400, "max_tokens", "maximum context length is 8192 tokens"),
    ({"prompt": "x" * 9000}, 400, "prompt", "maximum context length is 8192 tokens"),
    ({"max_tokens": 0}, 400, "max_tokens", "whole number from 1"),
    ({"temperature": 3}, 400, "temperature", "from 0 to 2"),
    ({"temperature": "warm"}, 400, "temperature", "must be a number"),
    ({"top_p": 0}, 400, "top_p", "above 0 and at most 1"),
    ({"n": 2}, 400, "n", "n is not supported"),
    ({"logprobs": 5}, 400, "logprobs", "chosen token"),
    ({"stop": ["a", "b", "c", "d", "e"]}, 400, "stop", "at most 4"),
    ({"stop": ""}, 400, "stop", "1 to 256"),
    ({"prompt": ""}, 400, "prompt", "not be empty"),
    ({"prompt": [1, 999]}, 400, "prompt", "Token 999"),
    ({"stream": "yes"}, 400, "stream", "true or false"),
    ({"max_tokns": 3}, 400, "max_tokns", "did you mean max_tokens"),
    ({"prompt": "\ud800"}, 400, "prompt", "surrogate"),
    ({"user": 5}, 400, "user", "user must be a text"),
    ({"temperature": 10**400}, 400, "temperature", "must be a number"),
    ({"model": "\ud800"}, 404, "model", "'?' does not exist"),
    ({"\ud800": 1}, 400, "?", "Unknown parameter '?'"),
]


@pytest.mark.parametrize(("change", "status", "param", "sentence"), REFUSED)
def test_what_cannot_be_answered_is_refused(server: Server, change: dict, status: int, param: str | None, sentence: str):
    """OpenAI's form of an error, the parameter, and a sentence that says what would do."""
    body = json.dumps({"model": "tiny", "prompt": "x", **change}).encode()
    got, answer = post(server, "/v1/completions", body)
    assert got == status
    assert sentence in answer["error"]["message"]
    assert answer["error"]["param"] == param
    assert answer["error"]["type"] == "invalid_request_error"


def test_the_client_raises_its_own_errors(client: OpenAI):
    """What the official client makes of them."""
    with pytest.raises(openai.BadRequestError, match="messages\\[0\\] must have a role"):
        client.chat.completions.create(model="tiny", messages=[{"role": "robot", "content": "x"}])  # type: ignore[list-item]
    with pytest.raises(openai.BadRequestError, match="not text"):
        image = [{"type": "image_url", "image_url": {"url": "data:"}}]
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": image}])  # type: ignore[list-item,misc]
    with pytest.raises(openai.BadRequestError, match="token ids of another tokenizer"):
        client.embeddings.create(model="bert-tiny", input=[1, 2, 3])
    with pytest.raises(openai.BadRequestError, match="Text 1 has"):
        client.embeddings.create(model="bert-tiny", input="x" * 600)


def test_a_text_that_is_none_is_refused(server: Server):
    """Half of a surrogate pair for an embedding, and parts of a chat whose kind or text is no text: 400, not a defect."""
    status, answer = post(server, "/v1/embeddings", json.dumps({"model": "bert-tiny", "input": "\ud800"}).encode())
    assert (status, answer["error"]["param"]) == (400, "input")
    for part in ({"type": ["text"], "text": "x"}, {"type": "text", "text": 5}, {"type": "text"}):
        body = {"model": "tiny", "messages": [{"role": "user", "content": [part]}]}
        status, answer = post(server, "/v1/chat/completions", json.dumps(body).encode())
        assert status == 400
        assert "not text" in answer["error"]["message"]


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is an address of this machine on Linux alone")
def test_another_address_of_loopback_answers_under_its_own_name(make_service: MakeService, engine: TorchEngine):
    """--host 127.0.0.2 needs no token, and requests name that host."""
    with running(make_service(engine), host="127.0.0.2") as made:
        connection = http.client.HTTPConnection("127.0.0.2", port(made), timeout=LIMIT_S)
        connection.request("GET", "/v1/models")
        assert connection.getresponse().status == 200


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"[" * 100_000], ids=["cut", "list", "bytes", "deep"])
def test_bodies_that_are_no_requests(server: Server, body: bytes):
    """One sentence and 400, whatever was sent."""
    status, answer = post(server, "/v1/chat/completions", body)
    assert status == 400
    assert "JSON" in answer["error"]["message"]


def test_other_sites_hosts_and_sizes_are_refused(server: Server):
    """A page of another origin, another host's name, a form's content type, a body above the limit, a path that is not there."""
    body = json.dumps({"model": "tiny", "prompt": "x", "max_tokens": 1}).encode()
    path = "/v1/completions"
    assert post(server, path, body, Origin="https://evil.example")[1]["error"]["code"] == "wrong_origin"
    assert post(server, path, body, Host="evil.example")[1]["error"]["code"] == "wrong_host"
    assert post(server, path, body, **{"Content-Type": "text/plain"})[0] == 415
    assert post(server, path, b" " * (1 << 20) + body)[0] == 413
    assert post(server, "/v1/secrets", body)[0] == 404
    assert post(server, path, body, Origin=f"http://127.0.0.1:{port(server)}")[0] == 200


def test_a_flood_is_refused_and_the_rest_answered(client: OpenAI, engine: TorchEngine, server: Server):
    """Twenty requests of one user at once: as many as may wait are answered, the others are told to come back."""
    engine.gate.clear()
    results: list[str] = []

    def ask() -> None:
        try:
            results.append(
                client.completions.create(model="tiny", prompt="x", max_tokens=2, temperature=0, user="flood").choices[0].text
            )
        except openai.RateLimitError as error:
            results.append(str(error.response.headers["retry-after"]))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    until(lambda: len(results) >= 12)  # the refusals come at once
    engine.gate.set()
    for thread in threads:
        thread.join(LIMIT_S)
    answers = [result for result in results if result != "1"]
    assert len(results) == 20
    assert 6 <= len(answers) <= 8  # those that waited, and the one that ran
    assert set(answers) == {text_of(reference(ids("x"), 2, Sampling()))}


def long_request(server: Server, count: int, receive_bytes: int = 0, stream: bool = True) -> socket.socket:
    """A connection that asked for a long answer and has read nothing of it."""
    raw = socket.socket()
    if receive_bytes:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    raw.settimeout(LIMIT_S)
    raw.connect(("127.0.0.1", port(server)))
    body = json.dumps(
        {"model": "tiny", "prompt": "x", "max_tokens": count, "temperature": 1, "seed": 1, "stream": stream, "logprobs": 0}
    )
    raw.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())  # fmt: skip
    return raw


def test_a_slow_reader_and_its_neighbour(server: Server, client: OpenAI, engine: TorchEngine):
    """The engine stops for a reader that takes nothing; another client is answered meanwhile; then the reader gets its whole stream."""
    count = 1500
    with long_request(server, count, receive_bytes=4096) as slow:
        before = len(engine.served)
        until(lambda: len(engine.served) > before and not engine.running.is_set())  # the engine has stopped for it
        answer = client.completions.create(model="tiny", prompt="y", max_tokens=3, temperature=0)
        assert answer.choices[0].text == text_of(reference(ids("y"), 3, Sampling()))
        whole = b"".join(iter(lambda: slow.recv(65536), b""))
    assert b"[DONE]" in whole
    assert whole.count(b'"logprobs": {') == count


@pytest.mark.parametrize("stream", [True, False])
def test_a_vanished_client_frees_the_engine(server: Server, client: OpenAI, engine: TorchEngine, stream: bool):
    """It closes its connection in the middle of a stream, or of a whole answer: what it asked for ends long before its last token."""
    reached: list[int] = []
    engine.step = reached.append
    gone = long_request(server, 8000, stream=stream)
    until(lambda: reached)
    gone.close()
    answer = client.completions.create(model="tiny", prompt="yy", max_tokens=3, temperature=0)
    engine.step = lambda position: None
    assert answer.choices[0].text == text_of(reference(ids("yy"), 3, Sampling()))
    assert len(reached) < 4000
    assert reached[-3:] == [2, 3, 4]


def test_a_token_is_needed_where_there_is_one(make_service: MakeService):
    """With the right key the client works, with another it raises AuthenticationError; no path answers without."""
    secret = "correct-horse-battery"
    with running(make_service(TorchEngine()), token=secret) as guarded:
        with OpenAI(base_url=guarded.url, api_key=secret) as right:
            assert [model.id for model in right.models.list()] == ["tiny"]
        with OpenAI(base_url=guarded.url, api_key="wrong-wrong-wrong") as wrong, pytest.raises(openai.AuthenticationError):
            wrong.models.list()
        assert post(guarded, "/health", b"")[0] == 401
        with OpenAI(base_url=guarded.url, api_key=secret) as right, pytest.raises(openai.NotFoundError, match="has none"):
            right.embeddings.create(model="bert", input="x")


@pytest.mark.parametrize(("host", "token"), [("0.0.0.0", None), ("192.168.1.5", None), ("::", None), ("127.0.0.1", "short")])
def test_addresses_that_need_a_token(host: str, token: str | None):
    """Other machines may ask only with one, and one that is long enough."""
    with pytest.raises(UserError, match="token"):
        check_address(host, token)


def test_a_port_in_use_is_said(make_service: MakeService, server: Server):
    """One sentence with the remedy."""
    with pytest.raises(UserError, match="name another with --port"):
        Server(make_service(TorchEngine()), port=port(server))


def test_the_models_own_chat_template_is_used(tmp_path: Path):
    """Messages as it renders them, with its special tokens, without a second beginning; what it refuses is the client's error."""
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
        "[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "bos_token": {"content": " <1>"}}))
    prompts = Prompts(TOKENIZER, tmp_path)
    assert prompts.template == "the model's own"
    assert text_of(prompts.chat([{"role": "user", "content": [{"type": "text", "text": "hé"}]}])) == " <1>[user]hé[assistant]"
    with pytest.raises(Exception, match="no system here"):
        prompts.chat(CHAT)
