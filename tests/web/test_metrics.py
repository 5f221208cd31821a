"""Numbers about the platform: percentiles only with enough samples, Prometheus' text, a trace that is one."""

from __future__ import annotations

import json
import re
import threading

import numpy as np

from ipfs_accelerate_py.web.metrics import BUCKETS_S, Metrics

LABELS = {"model": 'a "quoted" \\ name', "platform": "wasm", "browser": "chromium"}


def test_percentiles_wait_for_enough_samples():
    """p50 needs 5 and p95 59 (1 - p^n >= 0.95); before that they are None with the number."""
    metrics = Metrics()
    assert metrics.times()["average_inference_time_ms"] is None
    values = np.random.default_rng(0).uniform(1, 9, 59)
    for index, value in enumerate(values):
        times = metrics.times()
        assert (times["p50_ms"] is None) == (index < 5)
        assert times["p95_ms"] is None
        metrics.inferred(float(value))
    times = metrics.times()
    assert times["samples_needed"] == {"p50_ms": 5, "p95_ms": 59}
    assert times["p50_ms"] == np.percentile(values, 50)
    assert times["p95_ms"] == np.percentile(values, 95)
    assert times["first_inference_time_ms"] == values[0]
    np.testing.assert_allclose(times["average_inference_time_ms"], values.mean())


def test_prometheus_text_has_cumulative_buckets_and_escaped_labels():
    """Each line is a sample or a type; buckets never fall and end with the count."""
    metrics = Metrics()
    for ms in (1.0, 7.0, 7.0, 60_000.0):
        metrics.inferred(ms)
    metrics.count("recoveries", "retry")
    text = metrics.prometheus(LABELS, {"bridge_sent_bytes": 12, "unknown": None})
    for line in text.splitlines():
        assert re.fullmatch(r'# TYPE \w+ (histogram|counter|gauge)|\w+\{(\w+="(\\.|[^"\\])*",?)+\} [\d.e+-]+', line), line
    buckets = [int(line.rpartition(" ")[2]) for line in text.splitlines() if "_bucket" in line]
    assert buckets == sorted(buckets)
    assert len(buckets) == len(BUCKETS_S) + 1
    assert (buckets[0], buckets[1], buckets[-2], buckets[-1]) == (1, 3, 3, 4)
    assert 'recoveries_total{model="a \\"quoted\\" \\\\ name",platform="wasm",browser="chromium",kind="retry"} 1' in text
    assert "unknown" not in text


def test_the_trace_is_what_chrome_opens():
    """Complete events in microseconds, with what they were about."""
    metrics = Metrics()
    metrics.span("load", metrics._started + 1.0, metrics._started + 1.5, platform="wasm")
    trace = json.loads(metrics.chrome_trace("simulated"))
    assert trace["otherData"] == {"provenance": "simulated"}
    (event,) = trace["traceEvents"]
    assert (event["name"], event["ph"], event["args"]) == ("load", "X", {"platform": "wasm"})
    np.testing.assert_allclose([event["ts"], event["dur"]], [1e6, 0.5e6])


def test_threads_lose_no_sample():
    """Eight threads, a thousand each."""
    metrics = Metrics()
    threads = [threading.Thread(target=lambda: [metrics.inferred(1.0) for _ in range(1000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "_count{" in metrics.prometheus(LABELS, {})
    assert metrics.times()["samples"] == 8000
