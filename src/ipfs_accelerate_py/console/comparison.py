"""``compare``: two cells of the store side by side, by the launches of each."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from ..errors import UserError, nearest
from ..measure.compare import compare_records
from ..measure.record import LaunchRecord
from ..spec import identity
from ..store import queries


def show(store: Path, a: str, b: str, *, as_json: bool) -> None:
    """Print the verdict on cell ``a`` against cell ``b``."""
    first, second = find_cell(store, a), find_cell(store, b)
    for row in (first, second):
        if not row["accuracy_passed"]:
            raise UserError(f"{name_of(row)} failed its output check: how fast it is wrong is not compared.")
    if first["mode"] != second["mode"]:
        raise UserError(
            f"{first['mode'].capitalize()} is not compared with {second['mode']}: an iteration is another piece of work."
        )
    verdict = compare_records(_launches(store, first), _launches(store, second))
    provenance = first["provenance"]
    if as_json:
        print(json.dumps({"a": name_of(first), "b": name_of(second), "provenance": provenance, **asdict(verdict)}, indent=1))
        return
    for row in (first, second):
        software = ", on a software adapter" if row["software_adapter"] else ""
        typer.echo(
            f"{name_of(row)}: median {row['median_ms']:.4g} ms over {row['launches_ok']} launches, {row['provenance']}{software}"
        )
    interval = f", 95 % interval [{verdict.interval.low:.3g}, {verdict.interval.high:.3g}]" if verdict.interval else ""
    told = f"A is {verdict.text}: it takes {verdict.ratio:.3g} times as long as B{interval}."
    if provenance != "measured":
        told = f"{provenance.capitalize()}, not measured; these times are made up and say nothing about either. {told}"
    typer.echo(told)


def find_cell(store: Path, wanted: str) -> dict[str, Any]:
    """The one cell of the store with a successful launch that ``wanted`` names, as ``_find`` finds it. UserError for none or several."""
    cells = [row for row in queries.spec_summaries(store) if row["launches_ok"]]
    if not cells:
        raise UserError(f"{store} holds no successful launch yet; 'ipfs-accelerate bench' makes some.")
    return _find(wanted, cells)


def name_of(row: dict[str, Any]) -> str:
    """Everything that tells a cell from its neighbours: ``bert/small/trained/float32/b1/s128:cpu·onnxruntime@3f2a``, the machine last."""
    shape = [f"b{row['batch_size']}"]
    shape += [f"s{row['sequence_length']}"] if row["sequence_length"] else []
    shape += [f"n{row['new_tokens']}"] if row["new_tokens"] else []
    mode = [row["mode"]] if row["mode"] != "inference" else []
    model = "/".join([row["model_class"], row["size"], row["weights"], row["precision"], *mode, *shape])
    mark = "" if row["provenance"] == "measured" else f"/{row['provenance']}"
    return f"{model}:{row['label'].replace(' ', '')}@{row['machine_hash'][:4]}{mark}"


def words_of(text: str) -> list[str]:
    return re.split(r"[\s:/·@]+", text)


def _find(wanted: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """By a spec's hash, or by words that all occur in one cell's name only: ``bert:cpu·onnxruntime``, ``bert firefox wasm``.

    Where a cell was measured and simulated, the measured one is meant unless the word ``simulated`` is there; likewise inference unless
    the word ``training`` is.
    """
    names = {name_of(row): row for row in cells}
    found = [row for row in cells if set(words_of(wanted)) <= {row["spec_hash"], *words_of(name_of(row))}]
    for word, column, usual in (("simulated", "provenance", "measured"), ("training", "mode", "inference")):
        if word not in words_of(wanted):
            found = [row for row in found if row[column] == usual] or found
    if len(found) == 1:
        return found[0]
    if found:
        told = ", ".join(f"{name_of(row)} ({row['spec_hash']})" for row in found)
        raise UserError(f"'{wanted}' fits {len(found)} cells: add a word of a name, or give its hash. {told}.")
    raise nearest(wanted, names, "cell")


def _launches(store: Path, row: dict[str, Any]) -> list[LaunchRecord]:
    """The successful launches of the cell: of its spec, on its machine, of its provenance."""
    return [
        record
        for record in queries.records(store)
        if record.status == "ok"
        and record.spec.hash == row["spec_hash"]
        and record.provenance == row["provenance"]
        and identity(record.machine) == row["machine_hash"]
    ]
