"""A decoder language model in a browser, run by this project's own WGSL engine: low-bit weights, a quantised cache, tokens as they come.

with LanguageModel("auto", folder, key_bits=4, value_bits=2) as model:
    model.load()
    for token in model.generate(prompt_ids, max_new_tokens=100):
        print(token.id)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import LaunchError, UnavailableError, UserError, nearest
from . import protocol
from .browsers import Browser, find_browser
from .language_model_batch import Batch, BatchAnswer, Token, answer_all
from .language_model_folder import ModelFiles, read_folder
from .language_model_protocol import EngineSpec, SamplingSpec
from .page_session import Page
from .remembered import remember_numbers, tuned_numbers

BITS = (2, 3, 4, 8, 16, 32)
# The order in which "auto" looks: browsers whose WebGPU has subgroups first.
AUTO = ("chrome", "chromium", "edge", "chromium-headless-shell", "firefox")
LIMIT_S = 600.0
ACTIVATIONS = ("float", "int8", "planned")
MOST_SEQUENCES = 8  # of a batch: what the kernels keep in registers
# Invocations of a workgroup, those that share a row of a matrix, and rows that they have at a time: what ``tune`` tries.
Shape = tuple[int, int, int]
SHAPES: tuple[Shape, ...] = tuple(
    (workgroup, lanes, rows) for workgroup, lanes in ((128, 32), (256, 32), (128, 64), (256, 128)) for rows in (1, 2, 4)
)
_names = itertools.count(1)


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. The defaults take the most probable one.

    ``top_k`` 0, ``top_p`` 1, ``min_p`` 0 and ``repetition_penalty`` 1 leave nothing out. ``seed`` decides everything at a temperature
    above 0. UserError for values outside their ranges.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    logprobs: bool = False

    def __post_init__(self) -> None:
        allowed = {
            "temperature": (math.isfinite(self.temperature) and self.temperature >= 0, "0 or more"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p <= 1, "from 0 to 1"),
            "repetition_penalty": (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0, "above 0"),
            "seed": (0 <= self.seed < 2**32, "from 0 to 4294967295"),
        }
        for name, (fits, range_) in allowed.items():
            if not fits:
                raise UserError(f"{name} must be {range_}, not {getattr(self, name)}.")


@dataclass(frozen=True)
class LoadProgress:
    """``stage``: weights (bytes of the files loaded so far) or compile."""

    stage: Literal["weights", "compile"]
    file: str
    done_bytes: int
    total_bytes: int


class LanguageModel:
    """The model of ``folder`` in ``browser`` (a key, a path, a Browser, or "auto"); a context manager.

    ``key_bits`` and ``value_bits``: 2, 3, 4, 8, 16 or 32 bits for the cache; ``recent_tokens`` of it stay float where they are quantised.
    ``context_length``: tokens of prompt and answer together; by default the model's own, at most 4096. ``activations="int8"`` multiplies
    quantised weights with activations rounded to 8 bits, where the browser has dot4I8Packed; ``"planned"`` does so in the products that
    were faster with it on this kind of adapter, or by ``tune``. With ``packed_down`` the vector of the longest product is rounded once, by
    the kernel that makes it, rather than by every workgroup that takes it. ``subgroups=False`` keeps to
    the plain kernels; ``prefill_arithmetic="float16"`` computes prompts in half precision where the adapter has shader-f16. A ``page``
    that is open already is used in place of a browser of its own, beside the models in it. ``limit_s`` is for each step in the page.
    ``batch``: so many answers at a time, up to 8, each with a cache of the whole context; weights are read once a step for all of them.
    ``tuned``: what ``tune`` found; by default what it remembered for this browser version, {} for the usual shapes.

    Raises UserError, UnavailableError or LaunchError.
    """

    def __init__(
        self,
        browser: Browser | str,
        folder: Path | str | ModelFiles,
        *,
        key_bits: int = 16,
        value_bits: int = 16,
        context_length: int | None = None,
        recent_tokens: int = 64,
        prefill_tokens: int = 256,
        activations: Literal["float", "int8", "planned"] = "float",
        packed_down: bool = False,
        prefill_arithmetic: Literal["float32", "float16", "int8"] = "float32",
        subgroups: bool | None = None,
        attention_workgroups: int = 0,
        batch: int = 1,
        tuned: Mapping[str, int] | None = None,
        adapter: str = "auto",
        extra_flags: Sequence[str] = (),
        page: Page | None = None,
        limit_s: float = LIMIT_S,
    ) -> None:
        self.files = folder if isinstance(folder, ModelFiles) else read_folder(Path(folder))
        self.context_length = _context(self.files, context_length)
        _check_bits(key_bits, value_bits)
        for name, value in (("recent_tokens", recent_tokens), ("prefill_tokens", prefill_tokens)):
            if value < 1:
                raise UserError(f"{name} must be at least 1, not {value}.")
        if activations not in ACTIVATIONS:
            raise nearest(activations, ACTIVATIONS, "kind of activations")
        if packed_down and activations == "float":
            raise UserError("packed_down packs int8 activations: choose activations='int8' or 'planned' with it.")
        if prefill_arithmetic not in ("float32", "float16", "int8"):
            raise nearest(prefill_arithmetic, ("float32", "float16", "int8"), "arithmetic of prompts")
        if not 1 <= batch <= MOST_SEQUENCES:
            raise UserError(f"batch must be from 1 to {MOST_SEQUENCES} sequences, not {batch}.")
        if batch > 1 and activations != "float":
            raise UserError(f"A batch of sequences has float activations, not {activations}: leave one of the two out.")
        self._engine = EngineSpec(
            context_length=self.context_length,
            key_bits=key_bits,
            value_bits=value_bits,
            recent_tokens=-(-recent_tokens // 32) * 32,
            prefill_tokens=prefill_tokens,
            activations=activations,
            prefill_arithmetic=prefill_arithmetic,
            subgroups=subgroups,
            attention_workgroups=attention_workgroups,
            batch=batch,
            packed_down=packed_down,
        )
        self.batch = batch
        self._batch = Batch(self._ask, batch) if batch > 1 else None
        self._tuned = tuned
        self.finish_reason: str | None = None
        self.finish_reasons: list[str | None] = []
        self.reused_tokens = 0
        self._adapter = adapter
        # Of fetching with the copy to the device, and of waiting for pipelines; the page's clock.
        self.load_ns: dict[str, int] = {}
        self._name, self._limit_s = f"language-model-{next(_names)}", limit_s
        self._own_page = page is None
        if page is None:
            browser = browser if isinstance(browser, Browser) else _browser(browser)
            page = Page(browser, adapter=adapter, extra_flags=extra_flags)
        self.browser, self._page = page.browser, page
        self._folder = page.bridge.site.share(self.files.folder, [file.name for file in self.files.files])

    def __enter__(self) -> LanguageModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load(self, on_progress: Callable[[LoadProgress], None] = lambda _: None) -> dict[str, Any]:
        """Upload the weights while the pipelines compile; returns ``metrics()``.

        Every file's size, and its hash where one is stated, is checked.
        """
        message = protocol.LoadLanguageModel(
            decoder=self.files.decoder,
            engine=replace(self._engine, tuned=tuned_numbers(self.browser) if self._tuned is None else dict(self._tuned)),
            files=self.files.files,
            matrices=self.files.matrices,
            vectors=self.files.vectors,
            folder=self._folder,
            power_preference="high-performance" if self._adapter != "software" else None,
            software_adapter=self._adapter == "software",
            keep=self._page.kept,
        )
        self._ask(message, protocol.Facts, "load")
        total, done = sum(file.bytes for file in self.files.files), 0
        fetch_ns = 0
        for file in self.files.files:
            fetch_ns += self._ask(protocol.LoadWeights(file=file.name), protocol.Timed, "loading weights")[0].ns
            done += file.bytes
            on_progress(LoadProgress("weights", file.name, done, total))
        facts, _ = self._ask(protocol.CompileLanguageModel(), protocol.Facts, "compile")
        self.load_ns = {"fetch": fetch_ns, "compile": facts.facts.pop("waited_ns")}
        on_progress(LoadProgress("compile", "", total, total))
        return facts.facts

    def generate(
        self,
        prompt_ids: Sequence[int] | Sequence[Sequence[int]],
        *,
        max_new_tokens: int = 128,
        sampling: Sampling | Sequence[Sampling] | None = None,
        stop: Sequence[int | Sequence[int]] | None = None,
    ) -> Iterator[Token]:
        """Tokens as they come, at most ``max_new_tokens``; what the cache holds of the prompt's beginning is not computed again.

        A list of prompts is answered ``batch`` at a time, or one after the other; ``Token.sequence`` says which prompt it answers,
        ``finish_reasons`` has an entry for each, and ``sampling`` may have one for each too.
        ``stop``: tokens, or sequences of tokens, that end the answer and are its last ones; by default the model's end tokens.
        ``finish_reason`` says afterwards why it ended: stop, length, context (it is full) or cancelled. Closing the iterator cancels.
        """
        several = len(prompt_ids) > 0 and not isinstance(prompt_ids[0], (int, np.integer))
        prompts = list(prompt_ids) if several else [prompt_ids]
        samplings = [sampling] * len(prompts) if sampling is None or isinstance(sampling, Sampling) else list(sampling)
        if len(samplings) != len(prompts):
            raise UserError(f"{len(prompts)} prompts need one sampling for all or one each, not {len(samplings)}.")
        requests = [
            self._request(prompt, max_new_tokens, own, stop)  # type: ignore[arg-type]
            for prompt, own in zip(prompts, samplings, strict=True)
        ]
        self.finish_reasons = [None] * len(requests)
        if several:
            return self._stream_all(requests)
        return self._stream(requests[0]) if self._batch is None else self._stream_one(requests[0], self._batch)

    def start(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int = 128,
        sampling: Sampling | None = None,
        stop: Sequence[int | Sequence[int]] | None = None,
    ) -> BatchAnswer:
        """Begin an answer beside the others of a batch, from any thread; the arguments are those of ``generate``. UserError where the
        engine runs one at a time, LaunchError where it has no room."""
        if self._batch is None:
            raise UserError("This engine runs one sequence at a time: open it with a larger batch.")
        return self._batch.begin(self._request(prompt_ids, max_new_tokens, sampling, stop))

    def _request(
        self,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        sampling: Sampling | None,
        stop: Sequence[int | Sequence[int]] | None,
    ) -> protocol.GenerateTokens:
        prompt = self._tokens(prompt_ids, "A prompt")
        if len(prompt) >= self.context_length:
            raise UserError(
                f"A prompt of {len(prompt)} tokens leaves no room in a context of {self.context_length}: "
                "shorten it, or choose a larger context_length."
            )
        if max_new_tokens < 1:
            raise UserError(f"max_new_tokens must be at least 1, not {max_new_tokens}.")
        ends = self.files.end_tokens if stop is None else stop
        return protocol.GenerateTokens(
            prompt=prompt,
            max_new_tokens=max_new_tokens,
            sampling=_sampling(sampling or Sampling()),
            stop=tuple((end,) if isinstance(end, int) else tuple(end) for end in ends),
        )

    def _stream_all(self, requests: Sequence[protocol.GenerateTokens]) -> Iterator[Token]:
        if self._batch is not None:
            yield from answer_all(self._batch, requests, self.finish_reasons)
            return
        for index, request in enumerate(requests):
            for token in self._stream(request):
                yield replace(token, sequence=index)
            self.finish_reasons[index] = self.finish_reason

    def _stream_one(self, request: protocol.GenerateTokens, batch: Batch) -> Iterator[Token]:
        self.finish_reason = None
        answer = batch.begin(request)
        self.reused_tokens = answer.reused_tokens
        try:
            yield from answer
        finally:
            answer.cancel()
            self.finish_reason = answer.finish_reason

    def _stream(self, request: protocol.GenerateTokens) -> Iterator[Token]:
        self.finish_reason = None
        started, _ = self._ask(request, protocol.Facts, "generation")
        self.reused_tokens = int(started.facts["reused_tokens"])
        try:
            while self.finish_reason is None:
                batch, _ = self._ask(protocol.NextTokens(), protocol.TokenBatch, "generation")
                self.finish_reason = batch.reason or None
                logprobs = batch.logprobs or [None] * len(batch.tokens)
                known = zip(batch.tokens, logprobs, batch.token_ns, strict=True)
                yield from (Token(int(token), logprob, ns) for token, logprob, ns in known)
        except LaunchError:
            self.finish_reason = "failed"
            raise
        finally:
            if self.finish_reason is None:  # the caller stopped listening
                self.cancel()
                self.finish_reason = "cancelled"

    def cancel(self) -> None:
        """End the running answer, also from another thread; at most two submits that are already with the device still run."""
        self._ask(protocol.CancelTokens(), protocol.Done, "cancellation")

    def truncate(self, length: int) -> int:
        """Forget the cache after ``length`` tokens; how many are left, which is less where a quantised group had to go whole."""
        if length < 0:
            raise UserError(f"A cache cannot be cut to {length} tokens.")
        facts, _ = self._ask(protocol.TruncateCache(length=length), protocol.Facts, "truncation")
        return int(facts.facts["length"])

    def logits(self, ids: Sequence[int], *, path: Literal["prefill", "decode"] = "prefill") -> np.ndarray:
        """float32 [tokens, vocabulary]: the logits of what follows each token, from an empty cache, by the kernels of prompts (``prefill``)
        or of single tokens."""
        tokens = self._tokens(ids, "A sequence")
        if len(tokens) > self.context_length:
            raise UserError(f"{len(tokens)} tokens are more than the context of {self.context_length}.")
        _, tensors = self._ask(protocol.ComputeLogits(tokens=tokens, path=path), protocol.Facts, "logits")
        return tensors["logits"]

    def metrics(self) -> dict[str, Any]:
        """Bytes by use as allocated, pipelines with their compile time, the adapter, the variant, and the last answer's times and speed."""
        facts, _ = self._ask(protocol.InspectLanguageModel(), protocol.Facts, "inspection")
        found = dict(facts.facts)
        if last := found.get("last_answer"):
            decoded, decode_ns = last["decoded_tokens"], last["decode_ns"]
            computed = last["prompt_tokens"] - last["reused_tokens"]
            last["decode_tokens_per_second"] = decoded / decode_ns * 1e9 if decode_ns else None
            last["prefill_tokens_per_second"] = computed / last["prefill_ns"] * 1e9 if last["prefill_ns"] else None
        return found | {
            "stored_weights_bytes": self.files.weights_bytes,
            "browser": self.browser.name,
            "version": self.browser.version,
        }

    def copy_bytes_per_second(self, size: int = 1 << 28, repeats: int = 32) -> float:
        """Bytes read and written a second by copies on the device, from the difference between ``repeats`` and one, so that what a
        readback takes is not in it: what no kernel on this adapter can be expected to exceed by much."""

        def time_ns(count: int) -> int:
            return self._ask(protocol.TimeCopies(bytes=size, repeats=count), protocol.Timed, "copies")[0].ns

        once, often = min(time_ns(1) for _ in range(3)), min(time_ns(1 + repeats) for _ in range(3))
        if often <= once:
            raise LaunchError("inference_failed", f"{repeats} copies of {size} bytes took no time: choose a larger size.")
        return 2 * size * repeats / (often - once) * 1e9

    def profile(self, length: int = 128, shapes: Sequence[Shape] = (), budget_s: float = 10.0) -> dict[str, Any]:
        """Times of the kernels of a decoding step at a context of ``length`` tokens, by the GPU's own clock (timestamp queries): ``stages``
        and ``products``, each with ``ns`` of all its dispatches in a step (several rounds) and, for the matrix-vector products, the
        ``bytes`` that they must read. With ``shapes`` each product is timed in each of them, until ``budget_s`` is over; ``fastest``
        has those that beat the usual shape by 3 % or more. The cache is empty afterwards. LaunchError where there is no such clock."""
        message = protocol.ProfileDecoding(length=length, shapes=tuple(shapes), budget_ms=round(budget_s * 1000))
        return self._ask(message, protocol.Facts, "profile")[0].facts

    def tune(self, budget_s: float = 10.0) -> dict[str, Any]:
        """Search the fastest shape of every matrix-vector product on the live adapter and remember it: the next ``load`` of any model
        with a product of that size, in this browser version on this adapter, takes it. With planned activations each product is timed
        with float and with int8 ones, and the faster kind is remembered too. Returns what ``profile`` does."""
        found = self.profile(shapes=SHAPES, budget_s=budget_s)
        numbers = {
            f"{found['adapter_key']}|{key} {name}": int(shape[name])
            for key, shape in found["fastest"].items()
            for name in ("workgroup", "lanes", "rows")
        }
        widths = {f"{found['adapter_key']}|{key} activations": int(width) for key, width in found["widths"].items()}
        numbers |= widths
        remember_numbers(self.browser, numbers)
        return found | {"remembered": numbers}

    def process_ids(self) -> Sequence[int]:
        return self._page.process.process_ids()

    def close(self) -> None:
        """Free the model; its page is closed with it where it has one of its own."""
        if self._own_page:
            self._page.close()
            return
        self._page.bridge.site.withdraw(self._folder)
        if self._page.bridge.broken is None:
            self._ask(protocol.CloseLanguageModel(), protocol.Done, "closing")

    def _ask(self, message: protocol.LanguageModelMessage, kind: Any, phase: str) -> Any:
        return self._page.ask(replace(message, model=self._name), kind, phase, self._limit_s)

    def _tokens(self, ids: Sequence[int], what: str) -> tuple[int, ...]:
        tokens = tuple(int(token) for token in ids)
        if not tokens:
            raise UserError(f"{what} must have at least one token.")
        vocabulary = self.files.decoder.vocabulary
        wrong = next((token for token in tokens if not 0 <= token < vocabulary), None)
        if wrong is not None:
            raise UserError(f"Token {wrong} is not in the model's vocabulary of {vocabulary}.")
        return tokens


def _sampling(sampling: Sampling) -> SamplingSpec:
    return SamplingSpec(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed,
        logprobs=sampling.logprobs,
    )


def _context(files: ModelFiles, asked: int | None) -> int:
    longest = files.max_position_embeddings
    if asked is None:
        return min(longest, 4096)
    if not 1 <= asked <= longest:
        raise UserError(f"context_length must be from 1 to the model's {longest} positions, not {asked}.")
    return asked


def _check_bits(key_bits: int, value_bits: int) -> None:
    for name, bits in (("key_bits", key_bits), ("value_bits", value_bits)):
        if bits not in BITS:
            raise UserError(f"{name} must be one of {', '.join(map(str, BITS))}, not {bits}.")


def _browser(key: str) -> Browser:
    if key != "auto":
        return find_browser(key)
    for candidate in AUTO:
        try:
            return find_browser(candidate)
        except UnavailableError:
            continue
    raise UnavailableError("No browser with WebGPU was found.", "Install one of: " + ", ".join(AUTO) + ".")
