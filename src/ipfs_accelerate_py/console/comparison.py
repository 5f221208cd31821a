"""``compare``: two cells of the store side by side, by the launches of each."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from ..errors import UserError, nearest
from ..measure.compare import compare
from ..store import queries


def show(store: Path, a: str, b: str, *, as_json: bool) -> None:
    """Print the verdict on cell ``a`` against cell ``b``."""
    cells = {_name(row): row for row in queries.spec_summaries(store) if row["launches_ok"]}
    if not cells:
        raise UserError(f"{store} holds no successful launch yet; 'ipfs-accelerate bench' makes some.")
    first, second = _find(a, cells), _find(b, cells)
    if first["provenance"] != second["provenance"]:
        raise UserError(f"A {first['provenance']} cell is not compared with a {second['provenance']} one.")
    verdict = compare(_samples(store, first), _samples(store, second))
    if as_json:
        print(json.dumps({"a": _name(first), "b": _name(second), **asdict(verdict)}, indent=1))
        return
    for row in (first, second):
        typer.echo(f"{_name(row)}: median {row['median_ms']:.4g} ms over {row['launches_ok']} launches, {row['provenance']}")
    typer.echo(f"A is {verdict.text}")


def _name(row: dict[str, Any]) -> str:
    """``bert/small:cpu·onnxruntime``, with what makes it differ from its neighbours."""
    parts = [row["precision"], f"b{row['batch_size']}", *([f"s{row['sequence_length']}"] if row["sequence_length"] else [])]
    return f"{row['model_class']}/{row['size']}/{'/'.join(parts)}:{row['label'].replace(' ', '')}"


def _find(wanted: str, cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """By a spec's hash, or by a name whose words all occur in one cell's: ``bert:cpu·onnxruntime``, ``bert firefox wasm``."""
    for row in cells.values():
        if row["spec_hash"] == wanted:
            return row
    words = wanted.replace(":", " ").replace("/", " ").replace("·", " ").split()
    found = [name for name in cells if all(word in name.replace(":", "/").replace("·", "/").split("/") for word in words)]
    if len(found) == 1:
        return cells[found[0]]
    if found:
        raise UserError(f"'{wanted}' fits {len(found)} cells, add a word: {', '.join(found)}.")
    raise nearest(wanted, cells, "cell")


def _samples(store: Path, row: dict[str, Any]) -> list[Any]:
    """Steady samples of each successful launch of the cell, on the machine of the summary."""
    return [
        record.samples_ns
        for record in queries.records(store)
        if record.spec.hash == row["spec_hash"] and record.status == "ok" and record.provenance == row["provenance"]
    ]
