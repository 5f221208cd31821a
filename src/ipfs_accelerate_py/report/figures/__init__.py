"""Every Plotly figure of this program, for the report, the dashboard and notebooks alike.

Of cells with all their samples (``report.cells``): ``latency(cells(data)).show()``. Of a view's rows (``report.dashboard.views.read``):
``platform_matrix(read("results/ipfs-accelerate.duckdb", "matrix")["rows"]).show()``.
"""

from __future__ import annotations

from .cells import SIMULATED_OPACITY, cold_seconds, generation, heat_map, latency, memory, phases
from .compared import effects, timeline, verdicts
from .matrix import platform_matrix
from .performance import cold_start, iterations, launch_distributions, memory_use, scaling
from .precision import agreement, quality
from .predicted import pareto, predicted_against_measured, roofline
from .progress import progress

__all__ = [
    "SIMULATED_OPACITY",
    "agreement",
    "cold_seconds",
    "cold_start",
    "effects",
    "generation",
    "heat_map",
    "iterations",
    "latency",
    "launch_distributions",
    "memory",
    "memory_use",
    "pareto",
    "phases",
    "platform_matrix",
    "predicted_against_measured",
    "progress",
    "quality",
    "roofline",
    "scaling",
    "timeline",
    "verdicts",
]
