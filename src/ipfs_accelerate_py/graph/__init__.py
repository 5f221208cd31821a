"""Operator counts: FLOPs, bytes, parameters and kernels of a model, by operator and phase, from its shape alone."""

from .counting import count
from .description import ModelDescription, describe
from .operator import ModelCounts, Operator, PhaseCounts

__all__ = ["ModelCounts", "ModelDescription", "Operator", "PhaseCounts", "count", "describe"]
