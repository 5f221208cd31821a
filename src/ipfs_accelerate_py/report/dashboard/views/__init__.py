"""All views, in the order in which the page shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ....errors import nearest
from ..filters import Filters
from ..snapshot import Snapshots
from . import compared, performance, precision, predicted, running
from .base import COLUMNS, Found, View

_BY_FAMILY = (*performance.VIEWS, *compared.VIEWS, *precision.VIEWS, *predicted.VIEWS, *running.VIEWS)
_ORDER = (
    "matrix", "verdicts", "launches", "cold", "scaling", "roofline", "memory", "quality", "agreement", "predictions",
    "effects", "timeline", "progress",
)  # fmt: skip
VIEWS: dict[str, View] = {view.name: view for view in sorted(_BY_FAMILY, key=lambda view: _ORDER.index(view.name))}


def view(name: str) -> View:
    """The view of that name. UserError with the nearest names where there is none."""
    if name not in VIEWS:
        raise nearest(name, VIEWS, "view")
    return VIEWS[name]


def read(store: Path | str, name: str, **filters: str) -> dict[str, Any]:
    """Rows and figure of one view, for notebooks: ``figures.platform_matrix(read("results/x.duckdb", "matrix")["rows"]).show()``."""
    with Snapshots(Path(store)) as snapshots:
        return view(name).answer(snapshots.current(), Filters.of(filters.items()))


__all__ = ["COLUMNS", "VIEWS", "Found", "View", "read", "view"]
