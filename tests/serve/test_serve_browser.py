"""The whole server in a real browser: a tiny model with weights of 4 bits, OpenAI's client, and a browser that is killed in mid-answer."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from openai import OpenAI
from running_server import running
from transformers import LlamaConfig, LlamaForCausalLM
from websockets.sync.client import connect

from ipfs_accelerate_py import cli
from ipfs_accelerate_py.console.serve import startup_line
from ipfs_accelerate_py.errors import LaunchError, UnavailableError
from ipfs_accelerate_py.models.processing.text import synthetic_tokenizer
from ipfs_accelerate_py.quantize.stored import QuantizedFolder
from ipfs_accelerate_py.serve.engine import BrowserEngine
from ipfs_accelerate_py.serve.model import Options, open_service, quantized_folder
from ipfs_accelerate_py.serve.server import Server
from ipfs_accelerate_py.serve.service import Service
from ipfs_accelerate_py.web.browsers import find_browser
from ipfs_accelerate_py.web.language_model import LanguageModel

LIMIT_S = 180
PROMPT = "The ferry"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield quantized_folder("llama", Options(bits=4, size="tiny", weights="synthetic"))


@pytest.fixture(scope="module")
def service(folder: Path) -> Service:
    try:
        browser = find_browser("chromium")
    except UnavailableError as missing:
        pytest.skip(str(missing))
    options = Options(key_bits=8, value_bits=8, context=128, browser=browser, adapter="software", embeddings=None)
    return open_service(str(folder), options)


@pytest.fixture(scope="module")
def server(service: Service) -> Iterator[Server]:
    with running(service) as made:
        yield made


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.url, api_key="unused", max_retries=0, timeout=LIMIT_S) as made:
        yield made


def browser_of(service: Service) -> BrowserEngine:
    assert isinstance(service.engine, BrowserEngine)
    return service.engine


def generate(
    server: Server, on_message: Callable[[dict[str, Any]], None] = lambda message: None, **fields: Any
) -> list[dict[str, Any]]:
    """All messages of one greedy answer over the WebSocket; ``on_message`` sees each as it comes."""
    told: list[dict[str, Any]] = []
    with connect(server.url.replace("http:", "ws:") + "/stream", open_timeout=LIMIT_S) as socket:
        socket.send(json.dumps({"type": "generate", "id": "a", "prompt": PROMPT, "temperature": 0, **fields}))
        while not told or told[-1]["type"] not in ("complete", "error"):
            told.append(json.loads(socket.recv(LIMIT_S)))
            on_message(told[-1])
    return told


def tokens(told: list[dict[str, Any]]) -> list[int]:
    return [message["token"] for message in told if message["type"] == "token"]


def test_its_tokens_are_those_of_the_dequantised_weights(server: Server, folder: Path):
    """transformers' model with the same weights continues the prompt with the same tokens; the cache is told as it was made."""
    stored = QuantizedFolder(folder)
    model = LlamaForCausalLM(LlamaConfig(**{key: value for key, value in stored.config.items() if key != "model_type"})).eval()
    model.load_state_dict({name: torch.from_numpy(stored.read(name)) for name in stored.tensors})
    prompt = list(synthetic_tokenizer(model.config.vocab_size).tokenizer.encode(PROMPT).ids)
    expected = model.generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False, eos_token_id=None)[0, len(prompt) :]  # type: ignore[operator]
    told = generate(server, max_tokens=6)
    assert tokens(told) == expected.tolist()
    status = next(message for message in told if message["type"] == "kv_cache_status")
    assert (status["key_bits"], status["value_bits"], status["context_length"]) == (8, 8, 128)
    assert status["key_bytes"] > 0
    assert status["used_tokens"] == len(prompt) + 6


def test_the_official_client(client: OpenAI, service: Service):
    """A completion, a chat stream and the models, with what runs them."""
    answer = client.completions.create(model=service.name, prompt=PROMPT, max_tokens=5, temperature=0.8, seed=1)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer.model_extra is not None
    assert answer.model_extra["ipfs_accelerate"]["software_adapter"] is True
    chat = [{"role": "user", "content": "x"}]
    chunks = list(client.chat.completions.create(model=service.name, messages=chat, max_tokens=5, temperature=0, stream=True))  # type: ignore[call-overload]
    whole = client.chat.completions.create(model=service.name, messages=chat, max_tokens=5, temperature=0)  # type: ignore[call-overload]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert whole.usage.prompt_tokens_details.cached_tokens > 0  # the same prompt again
    assert [model.id for model in client.models.list()] == [service.name]
    with pytest.raises(openai.BadRequestError, match="maximum context length is 128"):
        client.completions.create(model=service.name, prompt="x" * 128, max_tokens=1)


def test_the_startup_line_says_what_runs(service: Service):
    """Nobody takes a software adapter for a GPU, or synthetic weights for a model."""
    line = startup_line(service, "http://127.0.0.1:1/v1")
    assert "software, not a GPU" in line
    assert "the text is garbage" in line
    assert "Chromium" in line
    assert line.endswith("http://127.0.0.1:1/v1")


def test_a_client_that_goes_away_frees_the_browser(server: Server, service: Service):
    """It leaves after three tokens; the next answer does not wait for the rest."""

    def leave(message: dict[str, Any]) -> None:
        if message["type"] == "token" and message["index"] == 2:
            raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        generate(server, leave, max_tokens=100)
    assert len(tokens(generate(server, max_tokens=4))) == 4
    metrics = browser_of(service).current().metrics()
    assert metrics["last_answer"]["decoded_tokens"] <= 4


def test_a_killed_browser_in_mid_answer(server: Server, service: Service):
    """kill -9 after the tenth token: another browser goes on with the same answer, and says so."""
    whole = tokens(generate(server, max_tokens=60))
    killed = []

    def kill(message: dict[str, Any]) -> None:
        if message["type"] == "token" and message["index"] == 9 and not killed:
            killed.append(browser_of(service).process_ids()[0])
            os.kill(killed[0], signal.SIGKILL)

    told = generate(server, kill, max_tokens=60)
    assert told[-1]["type"] == "complete"
    assert tokens(told) == whole
    assert [message["index"] for message in told if message["type"] == "token"] == list(range(60))
    recovered = [message for message in told if message["type"] == "recovered"]
    assert len(recovered) == 1
    assert "SIGKILL" in recovered[0]["reason"]
    assert browser_of(service).process_ids()[0] != killed[0]


def test_a_browser_that_does_not_come_back(server: Server, service: Service, client: OpenAI, monkeypatch: pytest.MonkeyPatch):
    """The client is told why, and the next request, when browsers start again, is answered."""
    engine = browser_of(service)
    with monkeypatch.context() as patch:

        def refuse() -> None:
            raise LaunchError("browser_start", "no browser starts here")

        patch.setattr(engine, "_make", refuse)
        os.kill(engine.process_ids()[0], signal.SIGKILL)
        with pytest.raises(openai.InternalServerError, match="no browser starts here"):
            client.completions.create(model=service.name, prompt=PROMPT, max_tokens=4)
    assert client.completions.create(model=service.name, prompt=PROMPT, max_tokens=4).usage.completion_tokens == 4  # type: ignore[union-attr]


MISTAKES = [
    (["./nothing"], "There is no folder './nothing'"),
    (["bert"], "low-bit weights are made for decoders"),
    (["llama", "--size", "tiny", "--host", "0.0.0.0"], "give a --token"),
    (["llama", "--size", "tiny", "--embeddings", "vit"], "makes no embeddings of texts"),
    (["llama", "--size", "tiny", "--bits", "5"], "bits"),
    (["llama", "--size", "tiny", "--browser", "netscape"], "Unknown browser 'netscape'"),
]


@pytest.mark.parametrize(("arguments", "sentence"), MISTAKES)
def test_mistakes_on_the_command_line(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """One sentence, status 2, and no browser was started."""
    monkeypatch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["ipfs-accelerate", "serve", *arguments])
    monkeypatch.setattr(LanguageModel, "load", lambda model: pytest.fail("a browser was started"))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err
