"""Predictions beside measurements, and rooflines: of stores that hold predictions and device probes; others say what makes them."""

from __future__ import annotations

from ... import figures
from ..filters import Filters
from ..snapshot import Row, Snapshot
from .base import Found, View


def cells_predicted(snapshot: Snapshot) -> list[Row]:
    return []


VIEWS: tuple[View, ...] = ()
_ = figures, Filters, Found
