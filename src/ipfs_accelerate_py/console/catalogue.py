"""``models``: the model classes and their sizes."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from ..models.registry import model_classes


def show(*, as_json: bool) -> None:
    """Print each class and size with the published model whose shape it has."""
    classes = model_classes()
    if as_json:
        listing = {
            name: {
                "family": cls.family,
                "task": cls.task,
                "sizes": {key: {"hub_id": size.hub_id, "package": size.package} for key, size in cls.sizes.items()},
            }
            for name, cls in classes.items()
        }
        print(json.dumps(listing, indent=1))
        return
    table = Table("model", "task", "size", "shape of", "trained weights without a hub")
    for name, cls in classes.items():
        for key, size in cls.sizes.items():
            table.add_row(name, cls.task, key, size.hub_id or "[dim]ours, for tests[/dim]", size.package or "")
    Console(highlight=False).print(table)
