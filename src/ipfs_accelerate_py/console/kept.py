"""``cache``: browser profiles that are kept between starts."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from ..web import profiles


def show(*, as_json: bool) -> None:
    """Print each kept profile with its size and when it was last used."""
    found = profiles.entries()
    if as_json:
        print(json.dumps([asdict(entry) for entry in found], indent=1))
        return
    if not found:
        print("There is no kept profile.")
        return
    table = Table("profile", "size", "last used", "")
    for entry in found:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        table.add_row(entry.name, f"{entry.bytes / 2**20:.1f} MiB", used, "in use" if entry.in_use else "")
    Console(highlight=False).print(table)


def clear(name: str | None) -> None:
    """Remove one profile, or all, and say which."""
    removed = profiles.clear(name)
    print("\n".join(f"removed {each}" for each in removed) if removed else "There was nothing to remove.")
