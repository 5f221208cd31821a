"""Hypothesis strategies for what the parts hand to each other. Text is any Unicode: names and messages come from outside."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import strategies as st

from ipfs_accelerate_py.measure.record import PROVENANCES, STATUSES, Accuracy, LaunchRecord, uuid7
from ipfs_accelerate_py.platforms.base import Coverage
from ipfs_accelerate_py.spec import Spec, Target, Workload

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["'; DROP TABLE launch; --", '"', "\\", "\x00", "a,b\nc", "{}", "NULL", "NaN", "💥"]
)
nanoseconds = st.integers(0, 2**62)
times_ns = st.lists(nanoseconds, max_size=12).map(tuple)
shares = st.floats(0, 1) | st.just(float("nan"))
finite = st.floats(allow_nan=False, allow_infinity=False)
# Integers beyond 2^53 do not survive tools that read JSON numbers as doubles, and nothing here stores such facts.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(text, json_values, max_size=3)
counts = st.dictionaries(text, nanoseconds, max_size=3)


def optional(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


workloads = st.builds(
    Workload,
    model_class=text,
    size=text,
    weights=text,
    origin=text,
    task=text,
    batch_size=st.integers(1, 2**20),
    sequence_length=optional(st.integers(1, 2**20)),
    new_tokens=optional(st.integers(1, 2**20)),
    precision=text,
    mode=text,
)
targets = st.builds(Target, platform=text, engine=text, device=text | st.just("default"), browser=optional(text))
specs = st.builds(Spec, workload=workloads, target=targets)
accuracies = st.builds(
    Accuracy, cosine=shares, relative_error=shares, top1_agreement=optional(shares), passed=st.booleans(), rule=text
)


def launch_records(campaign_id: str) -> st.SearchStrategy[LaunchRecord]:
    """Any launch of the campaign."""
    return st.builds(
        LaunchRecord,
        launch_id=st.builds(uuid7),
        campaign_id=st.just(campaign_id),
        spec=specs,
        launch_index=st.integers(0, 1000),
        order_index=st.integers(-1, 1000),
        started_at=st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1)).map(
            lambda moment: moment.replace(tzinfo=UTC, microsecond=moment.microsecond // 1000 * 1000).isoformat(
                timespec="milliseconds"
            )
        ),
        duration_s=st.floats(0, 1e6),
        provenance=st.sampled_from(PROVENANCES),
        status=st.sampled_from(STATUSES),
        error_class=optional(text),
        error_message=optional(text),
        error_phase=optional(text),
        phases_ns=counts,
        warm_up_ns=times_ns,
        samples_ns=times_ns,
        first_token_ns=times_ns,
        per_token_ns=times_ns,
        steady=optional(st.booleans()),
        stop_reason=optional(text),
        clock_resolution_ns=optional(nanoseconds),
        accuracy=optional(accuracies),
        host_peak_bytes=optional(nanoseconds),
        device_peak_bytes=optional(nanoseconds),
        weights_bytes=optional(nanoseconds),
        coverage=optional(st.builds(Coverage, provider=text, nodes=st.dictionaries(text, st.integers(0, 10**6), max_size=3))),
        software_adapter=optional(st.booleans()),
        bytes_read_back=optional(nanoseconds),
        facts=json_objects,
        noise=json_objects,
        machine=json_objects,
        environment=json_objects,
    )
