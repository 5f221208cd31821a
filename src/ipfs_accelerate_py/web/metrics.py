"""What a platform object did, counted and timed: the numbers of ``get_performance_metrics``, Prometheus' text, a Chrome trace.

Every time is measured here or by the page's clock. In simulation they are those of the simulation, and ``provenance`` says so.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from ..measure.statistics import percentile

MOST_SAMPLES = 100_000
MOST_EVENTS = 20_000
# Upper bounds of the histogram's buckets, in seconds.
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.perf_counter()
        self.initialization_ms: float | None = None
        self.first_ms: float | None = None
        self._inference_ms: deque[float] = deque(maxlen=MOST_SAMPLES)
        self._sum_ms, self._count = 0.0, 0
        self._buckets = [0] * len(BUCKETS_S)
        self.counts: Counter[tuple[str, str]] = Counter()  # (what, which): failures by class, recoveries by action
        self.kernels: dict[str, Any] | None = None  # of the latest profile_kernels
        self._events: deque[dict[str, Any]] = deque(maxlen=MOST_EVENTS)

    def inferred(self, ms: float) -> None:
        with self._lock:
            if self.first_ms is None:
                self.first_ms = ms
            self._inference_ms.append(ms)
            self._sum_ms += ms
            self._count += 1
            for index, bound in enumerate(BUCKETS_S):
                self._buckets[index] += ms / 1e3 <= bound

    def count(self, what: str, which: str) -> None:
        with self._lock:
            self.counts[what, which] += 1

    def span(self, name: str, started: float, ended: float, **details: Any) -> None:
        """A stretch of time for the trace, in seconds of ``time.perf_counter``."""
        event = {
            "name": name,
            "ph": "X",
            "ts": (started - self._started) * 1e6,
            "dur": (ended - started) * 1e6,
            "pid": os.getpid(),
            "tid": threading.get_native_id(),
            "args": details,
        }
        with self._lock:
            self._events.append(event)

    def times(self) -> dict[str, Any]:
        """Milliseconds. A percentile is None until there are enough samples for it; ``samples_needed`` says how many."""
        with self._lock:
            samples, first, initial = list(self._inference_ms), self.first_ms, self.initialization_ms
            average = self._sum_ms / self._count if self._count else None
        p50, p95 = percentile(samples, 50), percentile(samples, 95)
        return {
            "initialization_time_ms": initial,
            "first_inference_time_ms": first,
            "average_inference_time_ms": average,
            "p50_ms": p50.value,
            "p95_ms": p95.value,
            "samples": len(samples),
            "samples_needed": {"p50_ms": p50.samples_needed, "p95_ms": p95.samples_needed},
        }

    def prometheus(
        self, labels: Mapping[str, str], gauges: Mapping[str, float | None], kernels_s: Mapping[str, float] | None = None
    ) -> str:
        """The text format of Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats); ``kernels_s`` are the seconds of
        each kernel of a step."""
        name = "ipfs_accelerate_web"
        with self._lock:
            lines = [f"# TYPE {name}_inference_seconds histogram"]
            for bound, number in zip(BUCKETS_S, self._buckets, strict=True):
                lines.append(f"{name}_inference_seconds_bucket{_labels(labels, le=f'{bound:g}')} {number}")
            lines.append(f"{name}_inference_seconds_bucket{_labels(labels, le='+Inf')} {self._count}")
            lines.append(f"{name}_inference_seconds_sum{_labels(labels)} {self._sum_ms / 1e3:.9g}")
            lines.append(f"{name}_inference_seconds_count{_labels(labels)} {self._count}")
            for what in sorted({what for what, _ in self.counts}):
                lines.append(f"# TYPE {name}_{what}_total counter")
                for (kind, which), number in sorted(self.counts.items()):
                    if kind == what:
                        lines.append(f"{name}_{what}_total{_labels(labels, kind=which)} {number}")
        for gauge, value in gauges.items():
            if value is not None:
                lines += [f"# TYPE {name}_{gauge} gauge", f"{name}_{gauge}{_labels(labels)} {value:.9g}"]
        if kernels_s:
            lines.append(f"# TYPE {name}_kernel_seconds gauge")
            lines += [f"{name}_kernel_seconds{_labels(labels, kernel=which)} {value:.9g}" for which, value in kernels_s.items()]
        return "\n".join(lines) + "\n"

    def chrome_trace(self, provenance: str) -> str:
        """JSON that chrome://tracing and ui.perfetto.dev open: the latest MOST_EVENTS stretches of time, and whose they are."""
        with self._lock:
            trace = {"traceEvents": list(self._events), "displayTimeUnit": "ms", "otherData": {"provenance": provenance}}
        return json.dumps(trace)


def _labels(labels: Mapping[str, str], **more: str) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    return "{" + ",".join(f'{key}="{escaped(str(value))}"' for key, value in {**labels, **more}.items()) + "}"
