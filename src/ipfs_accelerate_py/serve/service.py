"""What the server serves: one language model, its scheduler, and a model for embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .channel import Channel
from .detokenize import Decoding
from .embeddings import Embedder
from .engine import Engine
from .errors import ApiError
from .events import LAST, Event
from .fair_queue import Client
from .job import GenerationRequest, Job
from .parse import generation
from .prompt import Prompts
from .scheduler import Limits, Scheduler


@dataclass
class Service:
    """``name`` is the model's id; ``facts`` are its bits and the kind of its weights. Close it after the server."""

    name: str
    engine: Engine
    prompts: Prompts
    decoding: Decoding
    embedder: Embedder | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.engine, self.limits)

    def about(self) -> dict[str, Any]:
        """What makes the answers; whoever reads one sees whether a software adapter or synthetic weights did."""
        facts = self.engine.describe()
        about: dict[str, Any] = {
            key: facts[key] for key in ("engine", "browser", "browser_version", "software_adapter") if key in facts
        }
        return {**self.facts, **about, "chat_template": self.prompts.template}

    def check_model(self, given: Mapping[str, Any], known: str | None) -> None:
        asked = given.get("model")
        if not isinstance(asked, str):
            raise ApiError(400, "you must provide a model parameter", param="model")
        if asked != known:
            there = "this server has none for it" if known is None else f"this server has '{known}'"
            raise ApiError(404, f"The model '{asked}' does not exist: {there}.", param="model", code="model_not_found")

    async def request(self, given: Mapping[str, Any]) -> GenerationRequest:
        """As ``parse.generation``, on another thread: a long prompt is a second of work."""
        return await asyncio.to_thread(generation, given, self.prompts, self.engine.context_length)

    def submit(self, request: GenerationRequest, client: Client) -> tuple[Job, int]:
        """The queued job, and how many are before it. Raises ApiError where there is no room."""
        job = Job(request, client, Channel(self.limits.buffer_events, self.limits.patience_s), self.decoding)
        return job, self.scheduler.submit(job)

    def close(self) -> None:
        self.scheduler.close()
        self.engine.close()
        if self.embedder is not None:
            self.embedder.close()


async def events(job: Job) -> AsyncGenerator[Event, None]:
    """What happens to a job, until its end."""
    while True:
        event = await job.channel.get()
        yield event
        if isinstance(event, LAST):
            return
