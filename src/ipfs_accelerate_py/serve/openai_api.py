"""OpenAI's HTTP API: /v1/chat/completions, /v1/completions, /v1/embeddings and /v1/models.

What it answers is what the official ``openai`` client reads (https://platform.openai.com/docs/api-reference).
"""

from __future__ import annotations

import asyncio
import base64
import functools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import parse, stream
from .embeddings import MOST_TEXTS
from .errors import ApiError
from .events import Complete, Failed, Piece
from .job import Job
from .openai_format import Format, event
from .prompt import check_text
from .service import Service, events

MOST_BODY_BYTES = 1 << 20


class OpenAiApi:
    """The routes of a service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._created = int(time.time())

    def routes(self) -> list[Route]:
        return [
            Route("/v1/chat/completions", answered(functools.partial(self.complete, chat=True)), methods=["POST"]),
            Route("/v1/completions", answered(functools.partial(self.complete, chat=False)), methods=["POST"]),
            Route("/v1/embeddings", answered(self.embeddings), methods=["POST"]),
            Route("/v1/models", answered(self.models), methods=["GET"]),
            Route("/v1/models/{name:path}", answered(self.model), methods=["GET"]),
            Route("/health", answered(self.health), methods=["GET"]),
        ]

    async def complete(self, request: Request, *, chat: bool) -> Response:
        service = self.service
        given = await _given(request, parse.CHAT if chat else parse.COMPLETION)
        service.check_model(given, service.name)
        if chat and "messages" not in given:
            raise ApiError(400, "Missing required parameter: 'messages'.", param="messages")
        streams, include_usage = parse.flag(given, "stream"), parse.include_usage(given)
        wanted = await service.request(given)
        logprobs = wanted.sampling.logprobs
        form = Format(chat, service.name, logprobs, include_usage, service.decoding, service.about())
        job, _ = service.submit(wanted, parse.client(given, request.client))
        cancel = functools.partial(service.scheduler.cancel, job)
        if streams:
            return stream.EventStream(_chunks(job, form), service.limits.patience_s, cancel)
        try:
            return JSONResponse(await stream.while_connected(request.receive, _whole(job, form)))
        finally:
            cancel()

    async def embeddings(self, request: Request) -> Response:
        embedder = self.service.embedder
        given = await _given(request, parse.EMBEDDING)
        self.service.check_model(given, embedder.name if embedder else None)
        assert embedder is not None
        texts = given.get("input")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not 0 < len(texts) <= MOST_TEXTS or not all(isinstance(text, str) for text in texts):
            message = f"input must be a text or a list of 1 to {MOST_TEXTS} texts; token ids of another tokenizer would mean other words."
            raise ApiError(400, message, param="input")
        for text in texts:
            check_text(text, "input")
        form = given.get("encoding_format", "float")
        if form not in ("float", "base64"):
            raise ApiError(400, f"encoding_format must be float or base64, not {form!r}.", param="encoding_format")
        found, tokens = await asyncio.wrap_future(embedder.submit(texts))
        if given.get("dimensions", found.shape[1]) != found.shape[1]:
            raise ApiError(400, f"This model's embeddings have {found.shape[1]} dimensions and no others.", param="dimensions")
        rows: list[Any] = (
            found.tolist() if form == "float" else [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in found]
        )
        data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse(
            {"object": "list", "data": data, "model": embedder.name, "usage": usage, "ipfs_accelerate": embedder.describe()}
        )

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": self._models()})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        for model in self._models():
            if model["id"] == name:
                return JSONResponse(model)
        raise ApiError(404, f"The model '{name}' does not exist.", param="model", code="model_not_found")

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", **self.service.scheduler.status()})

    def _models(self) -> list[dict[str, Any]]:
        service, embedder = self.service, self.service.embedder
        abouts = {service.name: service.about() | {"context_length": service.engine.context_length}}
        if embedder is not None:
            abouts[embedder.name] = embedder.describe()
        return [
            {
                "id": name,
                "object": "model",
                "created": self._created,
                "owned_by": "ipfs_accelerate_py",
                "ipfs_accelerate": about,
            }
            for name, about in abouts.items()
        ]


def answered(handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Turns an ApiError into its answer."""

    async def endpoint(request: Request) -> Response:
        try:
            return await handle(request)
        except ApiError as error:
            return error_response(error)
        except ClientDisconnect:
            return Response(status_code=499)  # for nobody; nginx' number for it

    return endpoint


def error_response(error: ApiError) -> JSONResponse:
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return JSONResponse(error.body(), error.status, headers)


async def _given(request: Request, allowed: Collection[str]) -> dict[str, Any]:
    # A page of another site may send a form or a plain text without asking; JSON it may not.
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "The body must be JSON, with the header Content-Type: application/json.")
    body = await stream.body(request, MOST_BODY_BYTES)
    if body is None:
        raise ApiError(413, f"The body has more than {MOST_BODY_BYTES} bytes.")
    return parse.read_object(body, allowed)


async def _chunks(job: Job, form: Format) -> AsyncGenerator[str, None]:
    if (first := form.first()) is not None:
        yield first
    async for told in events(job):
        if isinstance(told, Piece):
            if (chunk := form.chunk(told)) is not None:
                yield chunk
        elif isinstance(told, Complete):
            for chunk in form.last(told):
                yield chunk
        elif isinstance(told, Failed):
            yield event(_error(told).body())


async def _whole(job: Job, form: Format) -> dict[str, Any]:
    pieces: list[Piece] = []
    async for told in events(job):
        if isinstance(told, Piece):
            pieces.append(told)
        elif isinstance(told, Complete):
            return form.whole(pieces, told)
        elif isinstance(told, Failed):
            raise _error(told)
    raise AssertionError("a job ends with Complete or Failed")


def _error(failed: Failed) -> ApiError:
    return ApiError(failed.status, failed.message, kind="server_error", code=failed.code)
