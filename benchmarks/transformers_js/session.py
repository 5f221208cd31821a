"""transformers.js in a browser page as a RemoteSession, so that it is timed by the very protocol that times ours."""

from __future__ import annotations

import functools
import json
import queue
import threading
from collections.abc import Mapping, Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.platforms.base import Coverage, Memory, RemoteSession, Sample, Tensors
from ipfs_accelerate_py.web.browser_process import start_browser
from ipfs_accelerate_py.web.browsers import Browser

LIMIT_S = 900.0


class _Site(ThreadingHTTPServer):
    """Serves the page, the library, onnxruntime-web and the model, cross-origin isolated as threads need it, and takes its answers."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.folders = folders
        self.requests: queue.Queue[dict[str, Any]] = queue.Queue()
        self.answers: queue.Queue[dict[str, Any]] = queue.Queue()
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory="/"))
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(SimpleHTTPRequestHandler):
    server: _Site
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def translate_path(self, path: str) -> str:
        path = path.partition("?")[0]
        for prefix, folder in sorted(self.server.folders.items(), key=lambda item: -len(item[0])):
            if path.startswith(prefix):
                return str(folder / path.removeprefix(prefix)) if folder.is_dir() else str(folder)
        return "/nowhere"

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def do_POST(self) -> None:
        answer = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if answer:
            self.server.answers.put(answer)
        body = json.dumps(self.server.requests.get()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: the terminal is for results."""


class TransformersJs(RemoteSession):
    """``auto_class`` of transformers.js (AutoModel, ...) over ``model``, a folder as its users have it (config.json, onnx/model.onnx).

    ``device`` is webgpu or wasm; ``library`` and ``runtime`` are the dist folders of transformers.js and of its onnxruntime-web.
    """

    clock_resolution_ns = 5_000  # what a cross-origin isolated page is given (https://www.w3.org/TR/hr-time-3/)

    def __init__(
        self,
        browser: Browser,
        model: Path,
        library: Path,
        runtime: Path,
        *,
        auto_class: str,
        device: str,
        inputs: Tensors,
        dtype: str = "fp32",
        new_tokens: int | None = None,
        threads: int | None = None,
    ) -> None:
        here = Path(__file__).parent
        self.site = _Site(
            {"/index.html": here / "page.html", "/ort/": runtime, "/models/model/": model}
            | {"/transformers.min.js": library / "transformers.min.js"}
        )
        tensors = {
            name: {"dtype": str(array.dtype), "dims": list(array.shape), "data": array.ravel().tolist()}
            for name, array in inputs.items()
        }
        self.opened = {"autoClass": auto_class, "device": device, "dtype": dtype, "threads": threads, "tensors": tensors}
        self.new_tokens = new_tokens
        self.seen: dict[str, Any] = {}
        self.process = start_browser(browser, f"http://127.0.0.1:{self.site.server_port}/index.html")

    def _ask(self, action: str, **options: Any) -> dict[str, Any]:
        self.site.requests.put({"action": action, "newTokens": self.new_tokens, **options})
        waited = 0.0
        while waited < LIMIT_S:
            try:
                answer = self.site.answers.get(timeout=1.0)
            except queue.Empty:
                waited += 1.0
                if failure := self.process.failure():
                    raise failure from None
                continue
            if "error" in answer:
                raise LaunchError("page_error", answer["error"])
            return answer
        raise LaunchError("timeout", f"transformers.js did not answer '{action}' within {LIMIT_S:g} s.")

    def timed_phases(self) -> dict[str, int]:
        answer = self._ask("load", **self.opened)
        self.seen = answer["facts"]
        return {"load": answer["ns"]}

    def timed_first(self) -> tuple[Sample, dict[str, np.ndarray]]:
        answer = self._ask("first")
        outputs = {
            name: np.array(tensor["data"], dtype=tensor["dtype"]).reshape(tensor["dims"])
            for name, tensor in answer["outputs"].items()
        }
        return _sample(answer["times"]), outputs

    def timed_samples(self, count: int) -> list[Sample]:
        return [_sample(times) for times in self._ask("samples", count=count)["samples"]]

    def memory(self) -> Memory:
        return Memory(weights_bytes=None)

    def coverage(self) -> Coverage | None:
        return None

    def process_ids(self) -> Sequence[int]:
        return self.process.process_ids()

    def facts(self) -> dict[str, Any]:
        return self.seen

    def close(self) -> None:
        self.process.stop()
        self.site.shutdown()


def _sample(times: Mapping[str, Any]) -> Sample:
    return Sample(times["total_ns"], tuple(times["token_ns"]))
