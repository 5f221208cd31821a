"""What a request does: a person's inputs to arrays, passes in the page, arrays to what a person reads, and the times of each part."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..models.processing.audio import example_waves
from .audio_front_end import IN_PAGE
from .errors import ModelError, WebRuntimeError
from .resumed import ResumableAnswer
from .runner import Opened
from .served_model import Run, ServedModel

if TYPE_CHECKING:
    from ..models.processing.processor import Preprocessed
    from .platform import UnifiedWebPlatform

CACHE_STEP = 64  # caches of few different sizes: zeros for one are kept in the page
WARM_UP_TOKENS = 8
WARM_UP_S, WARM_UP_RATE = 1.0, 16_000  # of the recording, for models that take one


@dataclass(frozen=True)
class Token:
    """``text`` is what this token adds, and may be empty where a letter needs several. ``ms`` since the generation began, by the page's
    clock, unless ``provenance`` says that the page is simulated."""

    index: int
    token_id: int
    text: str
    ms: float
    provenance: Literal["measured", "simulated"]


def run_inference(platform: UnifiedWebPlatform, inputs: Mapping[str, Any], max_new_tokens: int | None) -> dict[str, Any]:
    started = time.perf_counter()
    preprocessed = _preprocessed(platform, inputs)
    wanted, notes = _new_tokens(platform, preprocessed.arrays, max_new_tokens)
    ready = time.perf_counter()
    rows = _rows(preprocessed.arrays)
    work = Work(platform, preprocessed.arrays, wanted, inputs=inputs)
    opened, runs = platform.runner.execute(lambda opened: (opened, work.passes(opened)), rows)
    ran = time.perf_counter()
    outputs = _joined([run.outputs for run in runs], platform.model.end_tokens if wanted else ())
    result = platform.model.postprocess(outputs, preprocessed)
    ended = time.perf_counter()

    inference_ms = sum(run.ns for run in runs) / 1e6
    platform.metrics.inferred(inference_ms)
    for name, start, end in (("preprocess", started, ready), ("inference", ready, ran), ("postprocess", ran, ended)):
        platform.metrics.span(name, start, end, rows=rows)
    ends = platform.model.end_tokens
    tokens = sum(_generated(run.outputs["token_ids"], ends) for run in runs) if wanted else None
    return {
        "success": True,
        "result": result,
        "metadata": {**metadata(platform, opened), "notes": [*preprocessed.notes, *notes]},
        "performance": {
            "preprocessing_ms": (ready - started) * 1e3,
            "inference_ms": inference_ms,
            "postprocessing_ms": (ended - ran) * 1e3,
            "total_ms": (ended - started) * 1e3,
            "tokens_per_second": tokens / (inference_ms / 1e3) if tokens else None,
            "reused_prompt_tokens": sum(run.reused_tokens for run in runs) if wanted else None,
            "provenance": opened.served.provenance,
        },
    }


def stream(platform: UnifiedWebPlatform, inputs: Mapping[str, Any], max_new_tokens: int | None) -> Iterator[Token]:
    if not platform.model.generates:
        raise ModelError(f"{platform.model.model_class.name} models do not generate tokens: use run_inference.")
    if any(isinstance(value, list) and len(value) != 1 for value in inputs.values()):
        raise ModelError("A stream takes one input at a time: give a value, or use run_inference for a batch.")
    preprocessed = _preprocessed(platform, inputs)
    wanted, _ = _new_tokens(platform, preprocessed.arrays, max_new_tokens)
    assert wanted is not None
    return _stream(platform, inputs, preprocessed.arrays, wanted)


def _preprocessed(platform: UnifiedWebPlatform, inputs: Mapping[str, Any]) -> Preprocessed:
    """As the open model takes them; where none is open yet, with the features, which every model takes."""
    opened = platform.runner.opened
    return platform.model.preprocess(inputs, opened is not None and opened.served.takes_recordings)


def _stream(
    platform: UnifiedWebPlatform, inputs: Mapping[str, Any], arrays: Mapping[str, np.ndarray], wanted: int
) -> Iterator[Token]:
    arrived: queue.SimpleQueue[tuple[int, int] | BaseException | None] = queue.SimpleQueue()
    ended = threading.Event()

    def work() -> None:
        try:
            for row in range(_rows(arrays)):  # the chunks of a long recording, one after the other
                told: list[int] = []

                def on_token(index: int, ids: Sequence[int], ns: int, told: list[int] = told) -> bool:
                    if index < len(told):  # after a recovery it begins anew
                        if told[index] != ids[0]:
                            raise WebRuntimeError(
                                "After a recovery the generation took another turn: its tokens do not continue."
                            )
                    else:
                        told.append(ids[0])
                        arrived.put((ids[0], ns))
                    return ended.is_set()

                one = Work(platform, arrays, wanted, on_token, inputs, row)
                runs = platform.runner.execute(one.passes, 1)
                platform.metrics.inferred(sum(run.ns for run in runs) / 1e6)
                if ended.is_set():
                    break
            arrived.put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the tokens are taken
            arrived.put(error)

    thread = threading.Thread(target=work, name="stream", daemon=True)
    thread.start()
    ids: list[int] = []
    said = ""
    ends = set(platform.model.end_tokens)
    try:
        while (item := arrived.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            token_id, ns = item
            ids.append(token_id)
            whole = platform.model.processor.tokenizer.decode([token for token in ids if token not in ends])
            piece = "" if whole.endswith("\ufffd") else whole[len(said) :]  # a letter whose bytes are still coming
            said += piece
            yield Token(len(ids) - 1, token_id, piece, ns / 1e6, platform.runner.provenance)
    finally:
        ended.set()
        thread.join()


@dataclass
class Work:
    """One request on whatever model is open: as many passes as the plan's batch size makes of its rows. Called again after a recovery, it
    goes on with what is known where the engine can, and begins anew where it cannot. ``row`` is the one of the arrays that is asked
    for, None for all. ``inputs`` are what they were made of: one model takes recordings where another takes their features."""

    platform: UnifiedWebPlatform
    arrays: Mapping[str, np.ndarray]
    new_tokens: int | None
    on_token: Any = None
    inputs: Mapping[str, Any] | None = None
    row: int | None = None
    _answers: dict[tuple[int, str, str], ResumableAnswer] = field(default_factory=dict)  # by row, engine and precision

    def passes(self, opened: Opened) -> list[Run]:
        served = opened.served
        arrays = self._fitting(served)
        rows, most = _rows(arrays), min(opened.plan.batch_size, served.most_rows or opened.plan.batch_size)
        limit_s = 2 * self.platform.timeout_s  # one more may be before it in the page
        runs = []
        for first in range(0, rows, most):
            part = {name: array[first : first + most] for name, array in arrays.items()}
            if self.new_tokens is None:
                runs.append(served.infer(part, limit_s))
                continue
            prompt, context = _prompt_tokens(self.platform, part), _context(self.platform, opened.plan.context_length)
            if context is not None and prompt >= context:
                raise ModelError(
                    f"The input has {prompt} tokens, and the context of {context} leaves none to generate: shorten it."
                )
            new = self.new_tokens if context is None else min(self.new_tokens, context - prompt)
            cache = -(-(prompt + new) // CACHE_STEP) * CACHE_STEP
            cache = max(prompt + new, cache if context is None else min(cache, context))
            listen = self.on_token or (lambda index, ids, ns: False)
            if served.resumes:
                key = (first, served.engine, opened.plan.precision)
                answer = self._answers.setdefault(key, ResumableAnswer(part["input_ids"], self.platform.model.end_tokens))
                runs.append(answer.run(served, new, cache, limit_s, listen))
            else:
                runs.append(served.decode(part, new, cache, limit_s, listen))
        return runs

    def _fitting(self, served: ServedModel) -> dict[str, np.ndarray]:
        if self.inputs is not None and served.takes_recordings != ("samples" in self.arrays):
            self.arrays = self.platform.model.preprocess(self.inputs, served.takes_recordings).arrays
        wanted = slice(None) if self.row is None else slice(self.row, self.row + 1)
        return {name: array[wanted] for name, array in self.arrays.items()}


def warm_up(platform: UnifiedWebPlatform, passes: int) -> dict[str, Any]:
    model = platform.model
    arrays = model.model_class.inputs(model.config, 1, WARM_UP_TOKENS if model.model_class.default_sequence_length else None, 0)
    heard = {"audio": (example_waves(1, WARM_UP_S, WARM_UP_RATE, 0)[0], WARM_UP_RATE), "text": "a tone"}
    inputs = {name: heard[name] for name in model.model_class.raw_inputs} if model.model_class.name in IN_PAGE else None
    work = Work(platform, arrays, 2 if model.generates else None, inputs=inputs)
    times = []
    for _ in range(passes):
        runs = platform.runner.execute(work.passes, 1)
        times.append(sum(run.ns for run in runs) / 1e6)
    return {"pass_ms": times, "provenance": platform.runner.provenance}


def metadata(platform: UnifiedWebPlatform, opened: Opened) -> dict[str, Any]:
    """What really ran."""
    device = opened.served.facts.get("device") or {}
    adapter = " ".join(filter(None, (device.get(key) for key in ("vendor", "architecture", "device", "description"))))
    page = opened.live.page if opened.live else None
    return {
        "model_name": platform.model.name,
        "model_class": platform.model.model_class.name,
        "model_size": platform.model.reference.size,
        "model_type": platform.model.model_type,
        "weights": platform.model.reference.weights,
        "weights_origin": platform.model.reference.origin,
        "platform": opened.plan.platform,
        "engine": opened.served.engine,
        "engine_version": opened.served.facts.get("engine_version"),
        "browser": page.browser.key if page else opened.plan.browser,
        "browser_version": page.browser.version if page else None,
        "precision": opened.plan.precision,
        "bits_per_weight": opened.served.bits_per_weight,
        "kv_cache_bits": opened.served.kv_cache_bits,
        "adapter": adapter or None,
        "software_adapter": device.get("software_adapter"),
        "provenance": opened.served.provenance,
        "degradations": [step.to_dict() for step in platform.runner.degradations],
    }


def _rows(arrays: Mapping[str, np.ndarray]) -> int:
    return int(next(iter(arrays.values())).shape[0])


def _prompt_tokens(platform: UnifiedWebPlatform, arrays: Mapping[str, np.ndarray]) -> int:
    generation = platform.model.generation("float32")
    assert generation is not None
    return len(generation.start_token_ids) if generation.start_token_ids is not None else int(arrays["input_ids"].shape[1])


def _context(platform: UnifiedWebPlatform, asked: int | None) -> int | None:
    """Most tokens, prompt and new ones together: the model's own, or fewer. An image's tokens are among them."""
    model = platform.model
    text = getattr(model.config, "text_config", None)
    longest = text.max_position_embeddings if text is not None and model.generates else model.longest()
    known = [limit for limit in (longest, asked) if limit is not None]
    return min(known) if known else None


def _new_tokens(
    platform: UnifiedWebPlatform, arrays: Mapping[str, np.ndarray], asked: int | None
) -> tuple[int | None, tuple[str, ...]]:
    """How many tokens to generate, and a note where that is fewer than asked for; None for a model that does not generate."""
    model = platform.model
    if not model.generates:
        return None, ()
    if asked is not None and (isinstance(asked, bool) or not isinstance(asked, int) or asked < 1):
        raise ModelError(f"max_new_tokens is a whole number above 0, not {asked!r}.")
    wanted = asked or platform.config.max_new_tokens or model.model_class.default_new_tokens
    assert wanted is not None
    context, prompt = _context(platform, platform.config.context_length), _prompt_tokens(platform, arrays)
    if context is None or prompt + wanted <= context:
        return wanted, ()
    if prompt >= context:
        raise ModelError(f"The input has {prompt} tokens, and the context of {context} leaves none to generate: shorten it.")
    return context - prompt, (f"Only {context - prompt} of {wanted} tokens fit the context of {context}.",)


def _generated(token_ids: np.ndarray, ends: Sequence[int]) -> int:
    """How many tokens [rows, tokens] hold: a row that ended goes on only because others of its pass had not."""
    ended = np.isin(token_ids, ends)
    return int(np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, token_ids.shape[1]).sum())


def _joined(parts: Sequence[Mapping[str, np.ndarray]], ends: Sequence[int]) -> dict[str, np.ndarray]:
    """The outputs of all passes, row under row; rows of tokens that ended sooner are filled with the end token."""
    if len(parts) == 1:
        return dict(parts[0])
    joined = {}
    for name in parts[0]:
        arrays = [part[name] for part in parts]
        if name == "token_ids":
            width = max(array.shape[1] for array in arrays)
            fill = ends[0] if ends else 0  # without end tokens all rows are equally long
            arrays = [np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=fill) for array in arrays]
        joined[name] = np.concatenate(arrays)
    return joined
