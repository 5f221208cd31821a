"""The protocol on scripted times, and the stopwatches on sessions that do what they are told. No test reads a real duration."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.measure.protocol import measure
from ipfs_accelerate_py.measure.stopping import Limits, precise, relative_half_width
from ipfs_accelerate_py.measure.stopwatch import LocalStopwatch, RemoteStopwatch, Stopwatch, stopwatch
from ipfs_accelerate_py.platforms.base import Memory, RemoteSession, Sample, Session

MILLISECOND = 10**6


class Scripted(Stopwatch):
    """A stopwatch whose i-th iteration (0 is the first inference) takes ``duration(i)`` nanoseconds of an imagined clock."""

    def __init__(self, duration, clock_resolution_ns=1, new_tokens=0):
        self.duration = duration
        self.clock_resolution_ns = clock_resolution_ns
        self.new_tokens = new_tokens
        self.iterations = 0
        self.batches: list[int] = []

    def phases(self, on_phase):
        on_phase("load")
        on_phase("compile")
        return {"load": 7, "compile": 8}

    def first(self):
        return self._sample(), {"logits": np.array([float(self.iterations)])}

    def samples(self, count):
        self.batches.append(count)
        return [self._sample() for _ in range(count)]

    def _sample(self):
        total = round(self.duration(self.iterations))
        self.iterations += 1
        return Sample(total, tuple(total // 2 + (total // 10) * n for n in range(self.new_tokens)))


def run(duration, limits=None, **arguments):
    """Measure a scripted stopwatch; returns the measurement, the stopwatch and the phases announced."""
    watch, phases = Scripted(duration, **arguments), []
    return measure(watch, limits or Limits(), phases.append), watch, phases


def test_a_steady_program_is_measured_to_precision():
    """All phases in order, every sample kept, batches of 50 ms, and an end by precision after the least steady time."""
    measurement, watch, phases = run(lambda i: 900 * MILLISECOND if i == 0 else 5 * MILLISECOND)
    assert phases == ["load", "compile", "first_inference", "warm_up", "steady"]
    assert (measurement.steady, measurement.stop_reason) == (True, "precision")
    assert measurement.phases_ns == {
        "load": 7,
        "compile": 8,
        "first_inference": 900 * MILLISECOND,
        "warm_up": sum(measurement.warm_up_ns),
        "steady": 500 * MILLISECOND,
    }
    assert set(measurement.samples_ns) == {5 * MILLISECOND}
    assert watch.batches[0] == 1 and watch.batches[1:] == [10] * (len(watch.batches) - 1)
    assert watch.iterations == 1 + len(measurement.warm_up_ns) + len(measurement.samples_ns)
    assert measurement.outputs["logits"].tolist() == [1.0]


def test_a_warm_up_is_kept_out_of_the_samples():
    """After a warm-up from three times the time, the steady samples are within 2 % of the settled time."""
    measurement, _, _ = run(lambda i: 5 * MILLISECOND * (1 + 2 * np.exp(-i / 5)))
    assert measurement.steady
    assert max(measurement.samples_ns) <= 1.02 * 5 * MILLISECOND < 1.2 * 5 * MILLISECOND < measurement.warm_up_ns[0]


def test_a_series_that_never_settles_is_kept_and_labelled():
    """2 % slower each iteration: the warm-up ends at its cap, and the samples are there, not steady."""
    measurement, _, _ = run(lambda i: MILLISECOND * 1.02**i, Limits(warm_up_max_iterations=60))
    assert not measurement.steady
    assert len(measurement.warm_up_ns) == 60
    assert measurement.samples_ns


def test_a_noisy_series_stops_at_the_cap():
    """A median that jumps between two values is never precise: the steady phase ends at its iterations or at its time."""
    jumps = np.random.default_rng(0).choice([1.0, 3.0], 2000)
    by_count, _, _ = run(lambda i: 0.1 * MILLISECOND * jumps[i], Limits(steady_min_s=0.0, steady_max_iterations=77))
    assert (by_count.stop_reason, len(by_count.samples_ns)) == ("cap", 77)
    by_time, _, _ = run(lambda i: 10 * MILLISECOND * jumps[i], Limits())
    assert by_time.stop_reason == "cap"
    assert 3000 * MILLISECOND <= by_time.phases_ns["steady"] < 3100 * MILLISECOND


@pytest.mark.parametrize(("seconds", "warm_ups", "samples"), [(1, 3, 5), (5, 2, 3), (30, 0, 1)])
def test_slow_iterations_lower_the_minimum(seconds, warm_ups, samples):
    """The minimum holds up to four times the time limit; where one iteration is beyond that, none is spent on warming up."""
    measurement, _, _ = run(lambda i: seconds * 1000 * MILLISECOND)
    assert (len(measurement.warm_up_ns), len(measurement.samples_ns)) == (warm_ups, samples)
    assert measurement.stop_reason == "cap"
    assert measurement.steady is (warm_ups >= 3)


def test_tokens_give_the_time_to_the_first_and_between_the_later():
    """Per steady iteration: half of the total to the first token, a tenth for each later one."""
    measurement, _, _ = run(lambda i: 5 * MILLISECOND, new_tokens=4)
    assert set(measurement.first_token_ns) == {2_500_000} and set(measurement.per_token_ns) == {500_000}
    assert len(measurement.first_token_ns) == len(measurement.per_token_ns) == len(measurement.samples_ns)
    one, _, _ = run(lambda i: 5 * MILLISECOND, new_tokens=1)
    assert one.first_token_ns and one.per_token_ns == ()


def test_a_clock_too_coarse_is_flagged():
    """100 ticks is the least; a clock that shows no time at all ends at the cap of iterations."""
    assert run(lambda i: 99_000, clock_resolution_ns=1000)[0].clock_limited
    assert not run(lambda i: 100_000, clock_resolution_ns=1000)[0].clock_limited
    blind = run(lambda i: 0, clock_resolution_ns=100_000)[0]
    assert blind.clock_limited and blind.stop_reason == "cap" and len(blind.samples_ns) == Limits().steady_max_iterations


def test_precision_is_the_half_width_of_the_median_interval():
    """Six samples have their range as interval; five have none."""
    assert relative_half_width([98, 99, 100, 100, 101, 102]) == pytest.approx(0.02)
    assert precise([98, 99, 100, 100, 101, 102], 0.02) and not precise([98, 99, 100, 100, 101, 103], 0.02)
    assert not precise([100] * 5, 0.02)


class Recorded(Session):
    """A session that notes each call. Its work is asynchronous: only ``synchronize`` ends it."""

    def __init__(self, tokens=None):
        self.calls = []
        self.tokens = tokens

    def load(self):
        self.calls.append("load")

    def compile(self):
        self.calls.append("compile")

    def infer(self, inputs):
        self.calls.append("infer")
        return {"y": inputs["x"] + 1}

    def generate(self, inputs, new_tokens, on_token):
        self.calls.append("generate")
        for _ in range(new_tokens if self.tokens is None else self.tokens):
            on_token()
        return {"token_ids": np.zeros((1, new_tokens), np.int64)}

    def synchronize(self):
        self.calls.append("synchronize")

    def memory(self):
        return Memory(None)

    def coverage(self):
        return None

    def close(self):
        self.calls.append("close")


def test_a_local_session_is_synchronised_around_what_is_timed():
    """Phases are announced before they run, and every iteration is between two synchronisations."""
    session = Recorded()
    watch = stopwatch(session, {"x": np.array([1])}, None)
    watch.phases(session.calls.append)
    assert session.calls == ["load", "load", "synchronize", "compile", "compile", "synchronize"]
    session.calls.clear()
    sample, outputs = watch.first()
    assert outputs["y"].tolist() == [2] and sample.total_ns > 0
    assert len(watch.samples(2)) == 2
    assert session.calls == ["synchronize", "infer", "synchronize"] * 3


def test_the_time_waited_in_synchronize_is_counted():
    """An asynchronous device's work ends in ``synchronize``, which lies inside the sample."""
    waited = threading.Event()

    class Asynchronous(Recorded):
        def synchronize(self):
            if "infer" in self.calls:
                waited.wait(0.05)

    assert LocalStopwatch(Asynchronous(), {"x": np.array([1])}, None).first()[0].total_ns >= 45 * MILLISECOND


def test_tokens_are_timed_in_order_and_counted():
    """One rising time a token, within the total; a session that generates fewer is a failed launch."""
    sample, _ = LocalStopwatch(Recorded(), {}, 3).first()
    assert len(sample.token_ns) == 3 and list(sample.token_ns) == sorted(sample.token_ns)
    assert sample.token_ns[-1] <= sample.total_ns
    with pytest.raises(LaunchError, match="2 tokens where 3") as raised:
        LocalStopwatch(Recorded(tokens=2), {}, 3).first()
    assert raised.value.error_class == "inference_failed"


class Remote(RemoteSession):
    """A remote session with raw times of its own; ``missing`` samples are lost on the way."""

    clock_resolution_ns = 5000

    def __init__(self, missing=0):
        self.missing = missing

    def timed_phases(self):
        return {"fetch": 1, "load": 2, "compile": 3}

    def timed_first(self):
        return Sample(40), {"y": np.array([1.0])}

    def timed_samples(self, count):
        return [Sample(20)] * (count - self.missing)

    def memory(self):
        return Memory(None)

    def coverage(self):
        return None

    def process_ids(self):
        return []

    def close(self):
        pass

    def facts(self):
        return {}


def test_a_remote_session_keeps_its_own_times():
    """Raw times and the remote clock's resolution pass unchanged; lost samples are an error, not a shorter list."""
    phases: list[str] = []
    watch = stopwatch(Remote(), {}, None)
    assert isinstance(watch, RemoteStopwatch) and watch.clock_resolution_ns == 5000
    assert watch.phases(phases.append) == {"fetch": 1, "load": 2, "compile": 3} and len(phases) == 1
    assert watch.first()[0] == Sample(40) and watch.samples(3) == [Sample(20)] * 3
    with pytest.raises(LaunchError, match="2 samples where 3"):
        RemoteStopwatch(Remote(missing=1)).samples(3)
