"""``detect`` and ``browsers``: what this machine has, or why it has not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from ..errors import nearest
from ..platforms.base import Unavailable
from ..platforms.registry import platform_names, probe


def show(platforms: Sequence[str], *, as_json: bool) -> None:
    """Probe the platforms and print devices and facts, or the reason and the remedy."""
    for name in platforms:
        if name not in platform_names():
            raise nearest(name, platform_names(), "platform")
    console = Console(stderr=True)
    with console.status("Asking the platforms and browsers of this machine ..."):
        found = {name: probe(name) for name in platforms or platform_names()}
    if as_json:
        print(json.dumps({name: _as_dict(answer) for name, answer in found.items()}, indent=1, default=str))
        return
    out = Console(highlight=False)
    table = Table("platform", "device or browser", "what it is", "facts", show_lines=True)
    for name, answer in found.items():
        if isinstance(answer, Unavailable):
            table.add_row(name, "[dim]unavailable[/dim]", answer.reason, answer.remedy)
            continue
        for device in answer.devices:
            table.add_row(name, device.name, device.description, _short({**answer.facts, **device.facts}))
    out.print(table)
    out.print("[dim]Everything that was found: ipfs-accelerate detect --json[/dim]")


def show_browsers(*, as_json: bool) -> None:
    """Print the browsers found, with versions and where they are, or the reason and the remedy."""
    from ..web.browsers import find_browsers

    found = find_browsers()
    if as_json:
        print(json.dumps({key: _as_dict(answer) for key, answer in found.items()}, indent=1, default=str))
        return
    table = Table("browser", "version", "where, or why not")
    for key, answer in found.items():
        if isinstance(answer, Unavailable):
            table.add_row(key, "[dim]missing[/dim]", f"{answer.reason} {answer.remedy}")
        else:
            table.add_row(key, answer.version, str(answer.executable))
    Console(highlight=False).print(table)


def _as_dict(answer: Any) -> dict[str, Any]:
    return {"available": not isinstance(answer, Unavailable), **asdict(answer)}


def _short(facts: dict[str, Any]) -> str:
    """The facts that fit a table's cell: single values, and lists by their length. The rest is for --json."""
    parts = []
    for key, value in facts.items():
        if isinstance(value, list | tuple):
            parts.append(f"{key}: {', '.join(map(str, value[:6]))}{', ...' if len(value) > 6 else ''}")
        elif not isinstance(value, dict) and value is not None:
            parts.append(f"{key}: {value}")
    return "\n".join(parts[:12])
