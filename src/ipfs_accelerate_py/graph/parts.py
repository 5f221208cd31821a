"""The parts of a model that are graphs of their own, and could run in different places: a vision tower or an encoder, and the decoder that
reads what it leaves. Which models have them is told by their phases; the towers of CLIP, CLAP and X-CLIP are exported as one graph."""

from __future__ import annotations

from dataclasses import replace

from .operator import ModelCounts, PhaseCounts

FIRST = ("vision", "encoder")
DECODER = "decoder"


def parts_of(counts: ModelCounts) -> dict[str, ModelCounts]:
    """The counts of each part of an inference, in the order in which they run; empty for a model of one graph.

    A part's weights are those that its graph holds: a table of embeddings that both read counts in both.
    """
    first = next((name for name in FIRST if name in counts.phases), None)
    if first is None or "prefill" not in counts.phases:
        return {}
    ahead = counts.phases[first]
    rest = {name: phase for name, phase in counts.phases.items() if name != first}
    own = ahead.weights_bytes
    table = _embedding_bytes(ahead, rest)
    return {
        first: _part(counts, {first: ahead}, own + table, 0),
        DECODER: _part(counts, rest, counts.weights_bytes - own, counts.kv_cache_bytes),
    }


def boundary_bytes(counts: ModelCounts) -> int:
    """What the first part leaves for the decoder: the keys and values of cross-attention, or the embeddings of an image."""
    first = counts.phases[next(name for name in FIRST if name in counts.phases)]
    cross = [each for each in first.operators if ".cross." in each.name]
    if cross:
        return sum(each.bytes_written * each.count for each in cross)
    return first.operators[-1].bytes_written


def _embedding_bytes(ahead: PhaseCounts, rest: dict[str, PhaseCounts]) -> int:
    """Of the table that both parts look tokens up in, known by the output matrix that is tied to it; 0 where the first part reads none."""
    if not any(each.kind == "gather" and each.name == "embed" for each in ahead.operators):
        return 0
    return max(each.weights_bytes for phase in rest.values() for each in phase.operators if each.name == "head")


def _part(counts: ModelCounts, phases: dict[str, PhaseCounts], weights: int, cache: int) -> ModelCounts:
    largest = max(
        each.bytes_read - each.weights_bytes + each.bytes_written for phase in phases.values() for each in phase.operators
    )
    return replace(counts, phases=phases, weights_bytes=weights, kv_cache_bytes=cache, largest_activation_bytes=largest)
