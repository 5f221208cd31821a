"""``compare --by`` and ``history``: many cells at once, and one cell over time."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from ..errors import UserError
from ..measure.families import Pair, compare_by
from ..measure.history import History, Step, history
from ..measure.record import LaunchRecord
from ..spec import identity
from ..store import queries
from .comparison import find_cell, name_of, words_of


def show(store: Path, wanted: str, by: str, *, as_json: bool) -> None:
    """Compare everything whose name has the words of ``wanted`` by one thing, as one family."""
    asked = set(words_of(wanted)) - {""}
    names = {(row["spec_hash"], row["machine_hash"], row["provenance"]): name_of(row) for row in queries.spec_summaries(store)}
    # What was simulated is meant only where the word is there, as with two cells.
    provenance = "simulated" if "simulated" in asked else "measured"
    records = [
        record
        for record in queries.records(store)
        if record.provenance == provenance and asked <= set(words_of(names.get(_key(record), "")))
    ]
    if not records:
        raise UserError(f"No {provenance} cell of {store} has all the words of '{wanted}'.")
    pairs = compare_by(records, by)
    if as_json:
        print(json.dumps({"provenance": provenance, "pairs": [_as_dict(pair) for pair in pairs]}, indent=1))
        return
    for pair in pairs:
        interval = pair.comparison.interval
        told = f", 95 % interval [{interval.low:.3g}, {interval.high:.3g}]" if interval else ""
        typer.echo(
            f"{_cell(pair)}: {pair.a} is {pair.comparison.text} against {pair.b}: {pair.comparison.ratio:.3g} times{told}"
        )
    decided = sum(pair.comparison.verdict != "not decided" for pair in pairs)
    family = sum(pair.comparison.adjusted_p is not None for pair in pairs)
    few = f"; the other {len(pairs) - family} have too few launches to be told apart" if family < len(pairs) else ""
    typer.echo(
        f"{decided} of {len(pairs)} comparisons decided, {provenance}; p-values adjusted over {family} of them (Benjamini-Hochberg){few}."
    )


def show_history(store: Path, wanted: str, *, as_json: bool) -> None:
    """Print a cell's campaigns in order, and every step of its level."""
    row = find_cell(store, wanted)
    key = (row["spec_hash"], row["machine_hash"], row["provenance"])
    found = history([record for record in queries.records(store) if _key(record) == key])
    if as_json:
        print(json.dumps({"cell": name_of(row), "provenance": row["provenance"], **asdict(found)}, indent=1))
        return
    typer.echo(f"{name_of(row)}, {row['provenance']}: {len(found.points)} campaigns")
    places = {step.after.campaign: step for step in found.steps}
    for point in found.points:
        if step := places.get(point.campaign):
            typer.echo(f"  {_step(step)}")
        typer.echo(f"  {point.started_at[:16]}  {point.median_ms:.4g} ms over {point.launches} launches")
    typer.echo(_verdict(found))


def _key(record: LaunchRecord) -> tuple[str, str, str]:
    return record.spec.hash, identity(record.machine), record.provenance


def _cell(pair: Pair) -> str:
    cell: dict[str, Any] = json.loads(pair.cell)
    shape = [f"b{cell['batch_size']}"] if "batch_size" in cell else []
    parts = [cell.get(name) for name in ("model_class", "size", "precision")]
    where = [cell.get(name) for name in ("platform", "browser", "engine", "device")]
    return " ".join(str(part) for part in (*parts, *shape, *where) if part and part != "default")


def _as_dict(pair: Pair) -> dict[str, Any]:
    return {"by": pair.by, "a": pair.a, "b": pair.b, "cell": json.loads(pair.cell), **asdict(pair.comparison)}


def _step(step: Step) -> str:
    changed = (
        ", ".join(f"{name} {old} to {new}" for name, (old, new) in step.changed.items()) or "no change of software is known"
    )
    return f"-- step: {step.comparison.text}, {step.comparison.ratio:.3g} times as long as before; {changed}"


def _verdict(found: History) -> str:
    if len(found.points) < 2:
        return "A single campaign has no history yet: measure it again later."
    if not found.steps:
        return "One level: nothing says that it changed."
    count = len(found.regressions)
    return f"{len(found.steps)} steps, of which {count} made it slower by its launches."
