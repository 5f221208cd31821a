"""A selection as people read it: the choice, a short table, the reasons."""

from __future__ import annotations

from ..predict.prediction import Interval
from ..report.wording import rounded
from .selection import HardwareSelection, Score

SHOWN = 8


def table(selection: HardwareSelection) -> str:
    """Plain text, at most SHOWN candidates; the JSON has all."""
    first = selection.primary_recommendation
    lines = [
        f"{selection.model} ({selection.parameter_count / 1e6:,.1f} million parameters), {selection.mode}, by {selection.objective}:",
        f"  {first.label}",
        "",
    ]
    feasible = [score for score in selection.all_scores if score.feasible][:SHOWN]
    head = ("candidate", "ms", "items/s", "predicted GB", "source", "")
    rows = [head, *(_row(score) for score in feasible)]
    sizes = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines += ["  " + "  ".join(cell.ljust(size) for cell, size in zip(row, sizes, strict=True)).rstrip() for row in rows]
    if any(score.pareto for score in feasible):
        lines.append("  * no other is better in every respect")
    lines += _training(selection)
    lines += ["", "Reasons", *(f"  - {sentence}" for sentence in selection.explanation)]
    against = [score for score in selection.all_scores if not score.feasible]
    if against:
        lines += ["", "Not feasible", *(f"  - {score.label}: {score.reason}" for score in against[:SHOWN])]
        lines += [f"  - and {len(against) - SHOWN} more (in the JSON)"] if len(against) > SHOWN else []
    if selection.measure_next:
        lines += ["", "To decide, measure", *(f"  {command}" for command in selection.measure_next)]
    return "\n".join(lines)


def _row(score: Score) -> tuple[str, ...]:
    source = f"{score.provenance or 'by formula'}" + (
        f" ({score.source})" if score.source and score.source != "measured" else ""
    )
    figures = (_span(score.latency_ms), _span(score.throughput_per_s), _span(score.memory_bytes, 1e-9))
    return score.label, *figures, source, "*" if score.pareto else ""


def _span(interval: Interval | None, scale: float = 1.0) -> str:
    if interval is None:
        return "not known"
    value, low, high = (each * scale for each in (interval.value, interval.low, interval.high))
    return f"{rounded(value)} [{rounded(low)}, {rounded(high)}]"


def _training(selection: HardwareSelection) -> list[str]:
    layout, memory = selection.primary_recommendation.layout, selection.primary_recommendation.training_memory
    if layout is None or memory is None:
        return []
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer states": memory.optimizer_states,
        "activations": memory.activations,
        "workspace": memory.workspace,
    }
    told = ", ".join(f"{name} {value / 1e9:,.2f}" for name, value in parts.items())
    lines = [
        "",
        f"  {layout.label}: {layout.micro_batch} items a device at once, {layout.accumulation} times a step, "
        f"mixed precision {selection.mixed_precision}, checkpointing {'on' if layout.checkpointing else 'off'}, "
        f"offload {'on' if layout.offload else 'off'}",
        f"  memory of a device, GB: {told}; peak {memory.peak / 1e9:,.2f} (they do not all peak at once)",
    ]
    if selection.configuration is not None:
        lines.append(
            f"  configuration for {selection.configuration_kind}: print it with --configuration {selection.configuration_kind}"
        )
    return lines
