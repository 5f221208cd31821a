"""A decoder with low-bit weights as a model that the platform serves: by this project's WGSL engine, in a page that others may share."""

from __future__ import annotations

import contextlib
import importlib.metadata
import threading
from typing import Any

import numpy as np

from ..errors import LaunchError, UserError
from . import protocol
from .language_model import LanguageModel, LoadProgress
from .language_model_folder import read_folder
from .limits import check_size
from .page_session import Page
from .served_model import Arrays, Loading, OnProgress, OnToken, OpenRequest, Progress, Run, ServedModel
from .web_model import WGSL


class LowBitModel(ServedModel):
    """``request.precision`` (int8 to int2) names the weights, which are made in the cache where they are not there yet.

    Answers come one after the other, one row at a time; ``context_length`` tokens fit the cache, prompt and answer together.
    """

    engine = WGSL
    provenance = "measured"
    most_rows = 1
    resumes = True

    def __init__(self, page: Page, request: OpenRequest, on_progress: OnProgress = lambda progress: None) -> None:
        model = request.model
        folder, self.bits_per_weight = model.low_bit_weights(
            request.precision, lambda step: on_progress(Progress(step, "prepare"))
        )
        self.kv_cache_bits = request.kv_cache_bits
        self._page, self._limit_s = page, request.limit_s
        self._ends = model.end_tokens
        self._turn = threading.Lock()
        try:
            files = read_folder(folder)
            check_size({"decoder": files.weights_bytes}, request.memory_threshold_mb, request.precision)
            self._model = LanguageModel(
                page.browser,
                files,
                key_bits=request.kv_cache_bits,
                value_bits=request.kv_cache_bits,
                context_length=_least(model.longest(), request.context_length),
                adapter="software" if request.device.get("software_adapter") else "auto",
                page=page,
                limit_s=request.limit_s,
            )
        except UserError as cannot:  # a part of the architecture that the kernels don't have: another engine may
            raise LaunchError("unsupported", str(cannot)) from cannot
        self.context_length = self._model.context_length

        def progressed(step: LoadProgress) -> None:
            phase = "compile" if step.stage == "compile" else "fetch"
            on_progress(Progress("decoder", phase, step.done_bytes, step.total_bytes))

        try:
            facts = self._model.load(progressed)
        except BaseException:
            with contextlib.suppress(LaunchError):  # what ended the loading is raised, not what it did to the page
                self._model.close()
            raise
        version = importlib.metadata.version("ipfs_accelerate_py")
        self.facts = {"engine_version": version, "threads": None, "device": facts["device"], "variant": facts["variant"]}
        times = self._model.load_ns
        self.loading = Loading(times["fetch"] / 1e6, times["compile"] / 1e6, sum(file.bytes for file in files.files))

    def infer(self, arrays: Arrays, limit_s: float) -> Run:
        raise LaunchError("unsupported", "The WGSL engine generates tokens and has no single pass: ask for tokens.")

    def decode(self, arrays: Arrays, new_tokens: int, cache_tokens: int, limit_s: float, on_token: OnToken) -> Run:
        """``input_ids`` [1, tokens]. The cache was made when the model was opened; what it holds of the prompt is not computed again."""
        (prompt,) = arrays["input_ids"]
        tokens: list[int] = []
        token_ns: list[int] = []
        with self._turn:
            answer = self._model.generate(prompt.tolist(), max_new_tokens=new_tokens, stop=self._ends)
            with contextlib.closing(answer):  # type: ignore[type-var]  # closing it ends the answer in the page
                for index, token in enumerate(answer):
                    tokens.append(token.id)
                    token_ns.append(token.ns)
                    if on_token(index, [token.id], token.ns):
                        break
            reused = self._model.reused_tokens
        return Run({"token_ids": np.array([tokens])}, token_ns[-1], tuple(token_ns), reused)

    def profile(self, length: int) -> dict[str, Any]:
        """Times of a step's kernels, see LanguageModel.profile; not while an answer runs."""
        with self._turn:
            return self._model.profile(min(length, self._model.context_length))

    def memory(self) -> dict[str, Any]:
        facts = self._model.metrics()
        page = self._page.ask(protocol.PageMemory(), protocol.Facts, "memory", self._limit_s)[0].facts
        pipelines = facts["pipelines"]
        return {
            "models": [self._model.files.folder.name],
            "shaders": {"count": len(pipelines), "compiled_ms": sum(entry["ms"] for entry in pipelines), "cache": None},
            "gpu_buffer_bytes": facts["total_bytes"],
            "gpu_buffer_peak_bytes": facts["peak_bytes"],
            "buffers_bytes": facts["buffers_bytes"],
            **{name: page[name] for name in ("js_heap_bytes", "js_heap_reason")},
        }

    def close(self) -> None:
        self._model.close()


def _least(longest: int | None, asked: int | None) -> int | None:
    return asked if longest is None or asked is None else min(longest, asked)
