"""Sentence embeddings on this machine's processor, by the embedding classes of ``models``: loaded by the first request that asks."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..models.registry import model_classes, resolve
from .errors import ApiError, busy

MOST_TEXTS = 256
MOST_WAITING = 8


class Embedder:
    """One request at a time, in a thread of its own, so that waiting ones hold no thread that others need; more than MOST_WAITING at once
    are refused.

    UserError for a model that makes no embeddings of texts. Close it.
    """

    def __init__(self, model: str, size: str | None = None) -> None:
        self.reference = resolve(model, size)
        self._class = model_classes()[self.reference.model_class]
        if self._class.family != "embedding" or self._class.raw_inputs != ("text",):
            raise UserError(f"{model} makes no embeddings of texts: bert does.")
        self.name = f"{self.reference.model_class}-{self.reference.size}"
        self._thread = ThreadPoolExecutor(1, "embeddings")
        self._places = threading.Semaphore(MOST_WAITING)
        self._loaded: tuple[Any, Any, Any] | None = None

    def describe(self) -> dict[str, Any]:
        reference = self.reference
        return {"platform": "cpu", "engine": "torch", "weights": reference.weights, "origin": reference.origin}

    def submit(self, texts: list[str]) -> Future[tuple[np.ndarray, int]]:
        """float32 [texts, size] of length 1, and how many tokens the texts have; ApiError for a text that is too long or empty. Raises
        ApiError at once where too many wait."""
        if not self._places.acquire(blocking=False):
            raise busy(f"{MOST_WAITING} requests for embeddings wait already: try again later.")
        try:
            made = self._thread.submit(self._embed, texts)
        except BaseException:  # it is closed
            self._places.release()
            raise
        made.add_done_callback(lambda _: self._places.release())
        return made

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _embed(self, texts: list[str]) -> tuple[np.ndarray, int]:
        import torch

        config, processor, model = self._load()
        try:
            preprocessed = self._class.preprocess(config, {"text": texts}, processor)
        except UserError as error:
            raise ApiError(400, str(error), param="input") from error
        arrays = preprocessed.arrays
        graph = self._class.graphs(model, arrays, None)["model"]
        with torch.inference_mode():
            outputs = graph.module(*(torch.from_numpy(arrays[name]) for name in graph.inputs))
        found = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
        return found.numpy(), int(arrays["attention_mask"].sum())

    def _load(self) -> tuple[Any, Any, Any]:
        if self._loaded is None:
            from ..models.processing.processor import Processor

            folder = self._folder()
            model = self._model(folder)
            self._loaded = (model.config, Processor(folder, model.config.vocab_size), model)
        return self._loaded

    def _folder(self) -> Path | None:
        if self.reference.weights == "synthetic" or self.reference.path is not None:
            return self.reference.path
        from ..models.hub import hub_folder

        return hub_folder(self.reference.origin.removeprefix("hub:"))

    def _model(self, folder: Path | None) -> Any:
        if folder is None:
            from ..models.synthetic import synthetic_model

            arguments = self._class.sizes[self.reference.size].config
            return synthetic_model(self._class, arguments, int(self.reference.origin.removeprefix("synthetic:")))
        from ..models.loading import load_folder

        return load_folder(self._class, folder)
