"""Loading by chunks against everything that goes wrong on the way, by a server that does it."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from product_model import WORKLOAD, require

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.models.export import describe
from ipfs_accelerate_py.models.prepared import Manifest
from ipfs_accelerate_py.platforms.base import OpenOptions
from ipfs_accelerate_py.web.optimized_session import OptimizedSession
from ipfs_accelerate_py.web.shaped_link import Application, Receive, Scope, Send, Wrapper, shaped_link
from ipfs_accelerate_py.web.switches import Switches

CHUNK_BYTES = 64 * 1024
SIZE = 256
WEIGHTS = np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(np.float32)  # 256 KiB: four chunks
INPUTS = {"x": np.random.default_rng(1).standard_normal((1, SIZE)).astype(np.float32)}
LOADING = Switches(parallel_loading=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept profiles and digests of these tests go where nothing else is."""
    monkeypatch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A matrix product with its weights in a file of four chunks and a bit."""
    folder = tmp_path / "model"
    folder.mkdir()
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", SIZE])],
        [onnx.numpy_helper.from_array(WEIGHTS, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    Manifest(
        model_class="product",
        origin="synthetic:0",
        precision="float32",
        dimensions={"batch": 1},
        graphs={"model": describe(folder / "model.onnx")},
        parameters=SIZE * SIZE,
        weights_bytes=WEIGHTS.nbytes,
    ).save(folder)
    return folder


STALL_S = 2.0


class Saboteur:
    """Harms responses of the model's weights; ``ranges`` are those that were asked for. ``harm`` gets the bytes of each response and
    says what is sent; None for a connection that stalls after half of them and then drops, as a lost link does: of one that drops at
    once a browser may give the page nothing."""

    def __init__(self, harm: Callable[[int, bytes], bytes | None]) -> None:
        self.ranges: list[str] = []
        self._harm = harm

    def __call__(self, application: Application) -> Application:
        async def harmed(scope: Scope, receive: Receive, send: Send) -> None:
            if not scope["path"].endswith("model.onnx.data"):
                await application(scope, receive, send)
                return
            headers = dict(scope["headers"])
            self.ranges.append(headers.get(b"range", b"").decode())
            number, start, body = len(self.ranges), {}, b""

            async def collect(message: MutableMapping[str, Any]) -> None:
                nonlocal start, body
                if message["type"] == "http.response.start":
                    start = dict(message)
                else:
                    body += message.get("body", b"")

            await application(scope, receive, collect)
            sent = self._harm(number, body)
            await send(start)
            if sent is None:
                await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
                await asyncio.sleep(STALL_S)
                raise ConnectionError("dropped on purpose")  # uvicorn closes a connection whose application fails
            await send({"type": "http.response.body", "body": sent, "more_body": False})

        return harmed


def load(folder: Path, link: Wrapper | None = None, switches: Switches = LOADING, key: str = "chromium") -> dict[str, Any]:
    """The report of a start; the product is right, or LaunchError."""
    options = OpenOptions(folder=folder, engine="onnxruntime-web", browser=key, inputs=INPUTS, limits_s={"default": 120})
    with OptimizedSession(require(key), "wasm", WORKLOAD, options, switches, link=link, chunk_bytes=CHUNK_BYTES) as session:
        report = session.prepare()
        outputs = session.first()[1]
    np.testing.assert_allclose(outputs["y"], INPUTS["x"] @ WEIGHTS, rtol=1e-4, atol=1e-4)
    return report


def flipped(body: bytes) -> bytes:
    return bytes([body[0] ^ 1]) + body[1:]


@pytest.mark.parametrize("key", ["chromium", "firefox"])
def test_dropped_connections_are_taken_up_where_they_broke(folder: Path, key: str):
    """Each of the first four responses drops in the middle: only the missing halves are asked for again."""
    saboteur = Saboteur(lambda number, body: None if number <= 4 else body)
    report = load(folder, saboteur, key=key)
    assert report["loading"]["resumed"] >= 4
    starts = sorted(int(each.removeprefix("bytes=").split("-")[0]) for each in saboteur.ranges)
    assert starts[:1] == [0]
    assert any(start % CHUNK_BYTES == CHUNK_BYTES // 2 for start in starts)
    total = sum(file.stat().st_size for file in folder.glob("model.onnx*") if "skeleton" not in file.name)
    assert report["loading"]["bytes_fetched"] == total  # nothing twice


def test_a_connection_that_always_drops_ends_with_a_sentence(folder: Path):
    """After five attempts the loading says which file, at which byte, and what happened."""
    with pytest.raises(LaunchError, match=r"model\.onnx\.data could not be fetched in 5 attempts: at byte \d+, ") as raised:
        load(folder, Saboteur(lambda number, body: None))
    assert raised.value.error_class == "load_failed"


def test_a_corrupt_chunk_is_fetched_once_more(folder: Path):
    """A flipped bit on the way is noticed by the chunk's digest, and the second copy is right."""
    saboteur = Saboteur(lambda number, body: flipped(body) if number == 2 else body)
    report = load(folder, saboteur)
    assert report["loading"]["refetched"] == 1
    assert len(saboteur.ranges) == len(set(saboteur.ranges)) + 1


def test_a_chunk_that_stays_corrupt_ends_with_a_sentence(folder: Path):
    """Twice wrong: the file, the bytes and both digests are named, and nothing runs on damaged weights."""
    # One chunk alone: of several wrong ones that come at once any may be the first to fail.
    saboteur = Saboteur(lambda number, body: flipped(body) if saboteur.ranges[number - 1].startswith("bytes=0-") else body)
    with pytest.raises(
        LaunchError, match=r"model\.onnx\.data is not the file of the manifest: bytes 0 to 65535 came twice"
    ) as raised:
        load(folder, saboteur)
    assert raised.value.error_class == "load_failed"


def test_a_changed_file_is_named_before_a_browser_starts(folder: Path):
    """The digests of chunks are made only of the file whose own digest is the manifest's."""
    path = folder / "model.onnx.data"
    path.write_bytes(flipped(path.read_bytes()))
    with pytest.raises(LaunchError, match=r"model\.onnx\.data is not the file of the manifest"):
        load(folder)


@pytest.mark.parametrize("key", ["chromium", "firefox"])
def test_a_second_start_fetches_nothing(folder: Path, key: str):
    """With a kept profile all chunks come from the browser's cache; those that it evicted are fetched again."""
    kept = Switches(parallel_loading=True, keep=True)
    first = load(folder, switches=kept, key=key)
    assert (first["profile"], first["loading"]["bytes_from_cache"]) == ("kept, first start", 0)
    saboteur = Saboteur(lambda number, body: body)
    second = load(folder, saboteur, kept, key)
    assert second["profile"] == "kept, started before"
    assert second["loading"]["bytes_fetched"] == 0
    assert second["loading"]["bytes_from_cache"] == first["loading"]["bytes_fetched"]
    assert saboteur.ranges == []


def test_what_was_evicted_is_fetched_again(folder: Path):
    """A browser that needs room removes some chunks: the next start fetches those, and no others."""
    kept, key = Switches(parallel_loading=True, keep=True), "chromium"
    first = load(folder, switches=kept)
    options = OpenOptions(folder=folder, engine="onnxruntime-web", browser=key, inputs=INPUTS)
    with OptimizedSession(require(key), "wasm", WORKLOAD, options, kept, chunk_bytes=CHUNK_BYTES) as session:
        gone = session.evict(0.5)
    assert 0 < gone["removed"] < gone["before"]
    third = load(folder, switches=kept, key=key)
    assert 0 < third["loading"]["bytes_fetched"] < first["loading"]["bytes_fetched"]
    assert third["loading"]["cache"] == "kept"


def test_a_full_cache_does_not_end_the_loading(folder: Path, tmp_path: Path):
    """Where the browser has no room the model loads all the same, and the report says that nothing is kept."""
    profile = tmp_path / "cache" / "profiles"
    kept = Switches(parallel_loading=True, keep=True)
    load(folder, switches=kept, key="firefox")
    (made,) = profile.iterdir()
    # Firefox's own limit for all sites together, in KiB: less than one chunk.
    (made / "profile" / "prefs.js").open("a").write('user_pref("dom.quotaManager.temporaryStorage.fixedLimit", 16);\n')
    for storage in (made / "profile" / "storage").glob("default/*"):
        shutil.rmtree(storage)
    report = load(folder, switches=kept, key="firefox")
    assert re.search("(?i)space|quota", report["loading"]["cache"])  # what Firefox says, in the report
    assert report["loading"]["bytes_fetched"] > WEIGHTS.nbytes


def test_the_shaped_link_has_its_rate_and_its_delay():
    """Two bodies at once share the link: together they take what their bytes need, after a round trip each."""
    import asyncio

    sent: list[int] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(250_000), "more_body": False})

    async def take(message: MutableMapping[str, Any]) -> None:
        sent.append(len(message.get("body", b"")))

    async def both() -> float:
        link = shaped_link(megabits_per_s=20, round_trip_ms=50)(application)
        start = time.monotonic()
        await asyncio.gather(*(link({"type": "http"}, None, take) for _ in range(2)))  # type: ignore[arg-type]
        return time.monotonic() - start

    assert asyncio.run(both()) >= 0.05 + 500_000 * 8 / 20e6 - 0.01  # never faster than the link, however the machine is loaded
    assert sum(sent) == 500_000
