"""What a client asks for, checked: the parameters of OpenAI's completions, and of our WebSocket, as a GenerationRequest."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Collection, Mapping
from typing import Any

from starlette.datastructures import Address

from ..errors import UserError, nearest
from ..web.language_model import Sampling
from .errors import ApiError
from .fair_queue import Client
from .job import GenerationRequest
from .prompt import Prompts

DEFAULT_COMPLETION_TOKENS = 16  # of OpenAI's /v1/completions
MOST_STOPS = 4
LONGEST_STOP = 256  # characters
# Parameters that this server takes at the one value that changes nothing.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
IGNORED = ("user", "safety_identifier", "metadata", "prompt_cache_key")  # they say who asks, and change no answer
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
SHARED = (*SAMPLING, "model", "stream", "stream_options", "max_tokens", "stop", "logprobs")
CHAT = (*SHARED, "messages", "max_completion_tokens")
COMPLETION = (*SHARED, "prompt")
EMBEDDING = ("model", "input", "encoding_format", "dimensions")


def read_object(body: bytes | str, allowed: Collection[str]) -> dict[str, Any]:
    """The JSON object of a request, without what is null; ApiError for one that is none, or that has a parameter which is not known."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The body is not valid JSON: {error}.") from None
    if not isinstance(found, dict):
        raise ApiError(400, "The body must be a JSON object.")
    given = {name: value for name, value in found.items() if value is not None}
    for name, value in given.items():
        if name in allowed or name in IGNORED:
            continue
        if name not in NEUTRAL:
            raise ApiError(400, str(nearest(name, (*allowed, *NEUTRAL), "parameter")), param=name, code="unknown_parameter")
        if not any((value == neutral and type(value) is not bool) or value is neutral for neutral in NEUTRAL[name]):
            only = " or ".join(json.dumps(neutral) for neutral in NEUTRAL[name])
            raise ApiError(400, f"{name} is not supported here; leave it out, or give {only}.", param=name, code="unsupported")
    return given


def generation(given: Mapping[str, Any], prompts: Prompts, context_length: int) -> GenerationRequest:
    """The request of a body that has ``messages`` or a ``prompt``. Raises ApiError, as OpenAI does, where the context is too small."""
    chat = "messages" in given
    prompt = prompts.chat(given["messages"]) if chat else prompts.completion(given.get("prompt", ""))
    name = "max_completion_tokens" if "max_completion_tokens" in given else "max_tokens"
    left = context_length - len(prompt)
    if left < 1:
        raise _too_long(len(prompt), 1, context_length, "messages" if chat else "prompt")
    most = whole(given, name, left if chat else min(left, DEFAULT_COMPLETION_TOKENS), 1, 2**31)
    if most > left:
        raise _too_long(len(prompt), most, context_length, name)
    return GenerationRequest(tuple(prompt), most, _sampling(given, chat), _stops(given.get("stop")), continues=not chat)


def client(given: Mapping[str, Any], peer: Address | None) -> Client:
    """Who takes turns: the ``user`` that the request names, otherwise its connection; of the host that it comes from."""
    user = given.get("safety_identifier", given.get("user"))
    if user is not None and not isinstance(user, str):
        raise ApiError(400, "user must be a text.", param="user")
    host, port = peer if peer is not None else ("", 0)
    return Client(host, f"connection {port}" if user is None else f"user {user}")


def whole(given: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ApiError(400, f"{name} must be a whole number from {least} to {most}, not {json.dumps(value)}.", param=name)
    return value


def flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise ApiError(400, f"{name} must be true or false, not {json.dumps(value)}.", param=name)
    return value


def include_usage(given: Mapping[str, Any]) -> bool:
    options = given.get("stream_options", {})
    if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
        raise ApiError(400, 'stream_options must be an object with "include_usage".', param="stream_options")
    return flag(options, "include_usage")


def _too_long(prompt: int, new: int, context: int, param: str) -> ApiError:
    return ApiError(
        400,
        f"This model's maximum context length is {context} tokens. However, you requested {prompt + new} tokens ({prompt} in the prompt, "
        f"{new} for the answer). Please reduce the length of the prompt or of the answer.",
        param=param,
        code="context_length_exceeded",
    )


def _sampling(given: Mapping[str, Any], chat: bool) -> Sampling:
    numbers = {name: _number(given, name) for name in SAMPLING if name in given}
    for name in ("seed", "top_k"):
        if name in numbers:
            numbers[name] = whole(given, name, 0, -(2**63) if name == "seed" else 0, 2**63 - 1)
    if numbers.get("temperature", 1.0) > 2:
        raise ApiError(400, f"temperature must be from 0 to 2, not {numbers['temperature']:g}.", param="temperature")
    logprobs = given.get("logprobs", False)
    if chat:
        logprobs = flag(given, "logprobs")
    elif isinstance(logprobs, bool) or logprobs == 0:
        logprobs = "logprobs" in given and logprobs is not False
    else:
        raise ApiError(
            400,
            "logprobs above 0 is not supported: the log-probability of the chosen token is what there is (logprobs=0).",
            param="logprobs",
        )
    seed = numbers.pop("seed", None)
    try:
        return Sampling(
            temperature=numbers.pop("temperature", 1.0),
            seed=secrets.randbits(32) if seed is None else int(seed) % 2**32,
            logprobs=bool(logprobs),
            **numbers,
        )
    except UserError as error:
        raise ApiError(400, str(error), param=str(error).split(" ", 1)[0]) from None


def _number(given: Mapping[str, Any], name: str) -> Any:
    value = given[name]
    # math.isfinite fails on a whole number beyond the range of floats, which JSON may hold.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ApiError(400, f"{name} must be a number, not {json.dumps(value)}.", param=name)
    return value


def _stops(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MOST_STOPS or not all(isinstance(stop, str) for stop in stops):
        raise ApiError(400, f"stop must be a text or a list of at most {MOST_STOPS} texts.", param="stop")
    if any(not 0 < len(stop) <= LONGEST_STOP for stop in stops):
        raise ApiError(400, f"A stop text has 1 to {LONGEST_STOP} characters.", param="stop")
    return tuple(stops)
