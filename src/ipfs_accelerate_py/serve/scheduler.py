"""Gives the engine to the jobs in turn: as many at a time as it has slots, each on a thread of its own, joining and leaving between steps.

A job whose reader is behind is parked: its slot goes to the next one, and the job comes back, with its tokens so far as part of the
prompt, when its reader has caught up. One that stays behind for ``patience_s`` is ended.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil

from ..errors import LaunchError, UnavailableError, UserError
from .engine import Answer, Engine
from .errors import busy, unavailable
from .events import CacheStatus, MemoryPressure, PrefillComplete, Recovered, Start
from .fair_queue import FairQueue, Full
from .job import Job

NEARLY_FULL = 0.9  # of the context


@dataclass(frozen=True)
class Limits:
    """``buffer_events`` wait for a reader at most. ``reserve_bytes`` of host memory stay free: below, new requests are refused.

    ``status_tokens``: tokens between two reports on the cache.
    """

    waiting: int = 64
    waiting_per_client: int = 16
    buffer_events: int = 256
    patience_s: float = 30.0
    reserve_bytes: int = 256 << 20
    status_tokens: int = 64


class Scheduler:
    """Runs until ``close``. Every method may be called from any thread, and none of them waits for the engine."""

    def __init__(self, engine: Engine, limits: Limits | None = None) -> None:
        self.engine = engine
        self.limits = limits or Limits()
        self.finished = 0
        self._queue: FairQueue[Job] = FairQueue(self.limits.waiting, self.limits.waiting_per_client)
        self._lock = threading.Condition()  # guards _queue, _running, _closing, finished, and each job's ``parked``
        self._switching = threading.Lock()  # held while a job is cancelled in the engine, so that its successor is not
        self._running: dict[Job, Answer | None] = {}  # the answer, once it has begun
        self._closing = False
        self._canceller = ThreadPoolExecutor(1, "cancel")
        self._threads = [
            threading.Thread(target=self._work, name=f"engine-{slot}", daemon=True) for slot in range(engine.slots)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> int:
        """Queues a job; how many wait before it. Raises ApiError where there is no room for it."""
        if (free := psutil.virtual_memory().available) < self.limits.reserve_bytes:
            raise unavailable(
                f"This machine has {free >> 20} MiB of memory left, and the server keeps {self.limits.reserve_bytes >> 20} in reserve.",
                "memory_pressure",
            )
        with self._lock:
            if self._closing:
                raise unavailable("The server is ending.")
            job.channel.on_drained = lambda: self._resume(job)
            job.channel.on_behind = lambda: self._give_up(job)
            try:
                self._queue.push(job.client, job)
            except Full as full:
                raise busy(str(full)) from None
            self._lock.notify()
            return len(self._queue) - 1 + len(self._running)

    def cancel(self, job: Job) -> None:
        """Ends a job wherever it is; what is with the device already (two submits at most) still runs."""
        with self._lock:
            job.cancelled = True
            waits = self._queue.remove(job.client, job) or job.parked
            job.parked = False
            runs = job in self._running
        if waits:
            job.complete("cancelled")
        elif runs:
            with contextlib.suppress(RuntimeError):  # the server is ending, and ends the job itself
                self._canceller.submit(self._interrupt, job)

    def status(self) -> dict[str, int | bool]:
        with self._lock:
            return {
                "waiting": len(self._queue),
                "running": len(self._running),
                "slots": self.engine.slots,
                "finished": self.finished,
                "restarts": self.engine.restarts,
            }

    def close(self) -> None:
        with self._lock:
            self._closing = True
            running = list(self._running)
            self._lock.notify_all()
        for job in running:
            self.cancel(job)
        for thread in self._threads:
            thread.join()
        self._canceller.shutdown()
        while self._queue:
            self._queue.pop().fail(503, "engine_unavailable", "The server is ending.")

    def _interrupt(self, job: Job) -> None:
        with self._switching:
            if (answer := self._running.get(job)) is not None:
                with contextlib.suppress(LaunchError):  # its own thread meets the same error, and tells it
                    answer.cancel()

    def _resume(self, job: Job) -> None:
        with self._lock:
            if job.parked and not self._closing:
                job.parked = False
                self._queue.push(job.client, job, again=True)
                self._lock.notify()

    def _give_up(self, job: Job) -> None:
        with self._lock:
            if not job.parked:
                return
            job.parked = False
        job.fail(408, "slow_reader", f"The reader was {job.channel.limit} events behind for {job.channel.patience_s:g} s.")

    def _work(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._closing or len(self._queue) > 0)
                if self._closing:
                    return
                job = self._queue.pop()
                self._running[job] = None
            try:
                self._run(job)
            except LaunchError as error:
                job.fail(503, error.error_class, f"The browser failed, and starting it again did not help: {error}")
            except (UserError, UnavailableError) as error:
                job.fail(503, "engine_unavailable", str(error))
            except Exception:  # noqa: BLE001  a defect: this client hears of it, the others keep their engine, the log has the traceback
                traceback.print_exc()
                job.fail(500, "internal_error", "The server has a defect; its log has the traceback.")
            finally:
                with self._switching, self._lock:
                    del self._running[job]
                    self.finished += job.over

    def _run(self, job: Job) -> None:
        if job.cancelled:
            job.complete("cancelled")
            return
        began = time.monotonic()
        if not job.started:
            job.started = True
            job.channel.put(Start(len(job.request.prompt), 1e3 * (began - job.waits_since)))

        def on_restart(reason: str, restarts: int) -> None:
            job.channel.put(Recovered(reason, restarts))

        stopped, keeps_up = False, True
        answer = self.engine.generate(job.ids, job.left, job.request.sampling, on_restart)
        with self._lock:
            self._running[job] = answer
        if job.cancelled:  # before there was an answer to cancel
            answer.cancel()
        with contextlib.closing(answer):
            for token in answer:
                if not job.tokens:
                    self._tell_prefill(job, answer, began)
                stopped, keeps_up = job.take(token)
                if len(job.tokens) % self.limits.status_tokens == 0:
                    self._tell_memory(job)
                if stopped or job.cancelled or not keeps_up:
                    break
        if job.cancelled:
            job.complete("cancelled")
        elif stopped:
            self._tell_memory(job)
            job.complete("stop text")
        elif not keeps_up and answer.finish_reason is None and job.left > 0:
            self._park(job)
        else:
            self._tell_memory(job)
            job.complete(answer.finish_reason or "length")

    def _park(self, job: Job) -> None:
        with self._lock:
            job.parked = not job.cancelled
        if job.cancelled:
            job.complete("cancelled")
        else:
            job.channel.stopped()

    def _tell_prefill(self, job: Job, answer: Answer, began: float) -> None:
        job.reused_tokens = answer.reused_tokens
        elapsed_ms = 1e3 * (time.monotonic() - began)
        job.channel.put(PrefillComplete(len(job.request.prompt), job.reused_tokens, elapsed_ms))

    def _tell_memory(self, job: Job) -> None:
        used, context = len(job.ids), self.engine.context_length
        job.channel.put(CacheStatus(used, context, self.engine.cache_facts()))
        if used >= NEARLY_FULL * context and "context" not in job.warned:
            job.warned.add("context")
            job.channel.put(MemoryPressure("context", max(0, context - used), context))
        free = psutil.virtual_memory().available
        if free < self.limits.reserve_bytes and "host_memory" not in job.warned:
            job.warned.add("host_memory")
            job.channel.put(MemoryPressure("host_memory", free, self.limits.reserve_bytes))
