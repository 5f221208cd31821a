"""``quantize``: a folder of low-bit weights, with progress and a table of what it cost."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..errors import UserError
from ..models.registry import ModelReference, resolve
from ..platforms.extras import load_extra
from ..quantize import architecture
from ..quantize.folder import Progress as Step
from ..quantize.folder import Request, quantize_folder, windows_digest
from ..quantize.plan import DEFAULT_BUDGETS, uniform
from ..quantize.sources import Source, open_source
from ..quantize.stored import QuantizedFolder


@dataclass(frozen=True)
class Options:
    """As given on the command line. ``budget`` is a number, ``default`` or None."""

    size: str | None
    weights: str
    bits: int
    group_size: int
    solver: str | None
    budget: str | None
    text: Path | None
    evaluate: Path | None
    device: str | None
    store: Path | None = None


def quantize(model: str, options: Options, output: Path, *, as_json: bool) -> None:
    """Quantise a model into ``output`` and print what was made; its perplexities go to ``options.store``, where one is named."""
    if options.store is not None and options.evaluate is None:
        raise UserError("--store keeps perplexities: name a text to measure them on with --evaluate.")
    load_extra("torch", "torch")
    load_extra("transformers", "torch")
    reference = resolve(model, options.size, options.weights)
    source = open_source(reference)
    windows = None if options.text is None else _windows(options.text, source)
    request = Request(
        origin=source.origin,
        bits=options.bits,
        group_size=options.group_size,
        solver=options.solver or ("gptq" if windows is not None else "rtn"),
        budget=_budget(options, source),
        windows_sha256=windows_digest(windows),
    )
    device = _device(options.device)
    evaluated = None if options.evaluate is None else _windows(options.evaluate, source)
    with _progress() as progress:
        task = progress.add_task("", total=None)

        def on_progress(step: Step) -> None:
            progress.update(task, description=f"{step.phase} {step.name}", completed=step.done_bytes, total=step.total_bytes)

        manifest = quantize_folder(source, request, output, windows, device, on_progress)
    quality = None if evaluated is None else _quality(source, QuantizedFolder(output), evaluated, device, options.store)
    if as_json:
        shown = {key: manifest[key] for key in ("request", "plan", "totals", "shards", "tensors")}
        print(json.dumps({"model": _described(reference), "output": str(output), **shown, "quality": quality}, indent=1))
        return
    _show(_described(reference), manifest, output, quality)


def check(folder: Path, *, as_json: bool) -> None:
    """Read every shard of a folder and compare it with the manifest."""
    found = QuantizedFolder(folder)
    found.verify()
    totals = found.manifest["totals"]
    if as_json:
        print(json.dumps({"folder": str(folder), "whole": True, "totals": totals}, indent=1))
        return
    shards = len(found.manifest["shards"])
    print(f"{folder}: all {shards} shards are whole; {totals['bits_per_weight']:.3f} bits a weight.")


def _budget(options: Options, source: Source) -> float | None:
    if options.budget is None:
        return None
    if options.budget != "default":
        try:
            return float(options.budget)
        except ValueError as error:
            raise UserError(f"A budget is a number of bits a weight, or 'default'; '{options.budget}' is neither.") from error
    if options.bits not in DEFAULT_BUDGETS:
        raise UserError(f"There is no default budget for {options.bits} bits; name one in bits a weight.")
    from ..quantize.formats import Format

    least = uniform(source.config, Format(options.bits, options.group_size)).bits_per_weight(source.config)
    if least > DEFAULT_BUDGETS[options.bits]:
        raise UserError(
            f"The default budget of {options.bits} bits is {DEFAULT_BUDGETS[options.bits]:g} bits a weight, and this model takes at "
            f"least {least:.3f} in groups of {options.group_size}: name a larger budget."
        )
    return DEFAULT_BUDGETS[options.bits]


def _windows(text: Path, source: Source) -> np.ndarray:
    from ..quantize.calibration import windows

    return windows(text, source.folder, source.config)


def _device(asked: str | None) -> str:
    import torch

    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=asked)
    except (RuntimeError, AssertionError) as unusable:  # torch built without CUDA asserts
        raise UserError(f"torch has no device '{asked}' here: leave --device out, or take cpu.") from unusable
    return asked


def _quality(
    source: Source, quantised: QuantizedFolder, windows: np.ndarray, device: str, store: Path | None
) -> dict[str, Any]:
    from ..quantize.quality import paired_ratio, perplexity
    from ..quantize.recorded import QualityLog

    before = perplexity(source.config, windows, source.read, device)
    after = perplexity(source.config, windows, quantised.read, device)
    made, totals = quantised.manifest["request"], quantised.manifest["totals"]
    budget = "" if made["budget"] is None else f" within {made['budget']:g}"
    name = f"{made['bits']} bits, groups of {made['group_size']}{budget}, {made['solver']}"
    log = QualityLog(store, source, windows, before, device=device)
    log.add(name, totals["bits_per_weight"], after, solver=made["solver"])
    ratio, low, high = paired_ratio(after, before)
    return {
        "perplexity_float": before.perplexity,
        "perplexity": after.perplexity,
        "ratio": ratio,
        "ratio_interval_95": [low, high] if len(windows) > 1 else None,  # a single window has none
        "windows": len(windows),
        "tokens": after.tokens,
    }


def _described(reference: ModelReference) -> str:
    return f"{reference.model_class} {reference.size} ({reference.origin})"


def _show(model: str, manifest: Mapping[str, Any], output: Path, quality: Mapping[str, Any] | None) -> None:
    console = Console(highlight=False)
    request, totals, tensors = manifest["request"], manifest["totals"], manifest["tensors"]
    calibrated = request["windows_sha256"] is not None
    rows: dict[tuple[str, Any], list[Mapping[str, Any]]] = defaultdict(list)
    for name, facts in tensors.items():
        rows[architecture.role(name) or "norms and biases", facts.get("bits", "float32")].append(facts)
    columns = ["matrix", "bits", "number", "weights", "bytes", "bits a weight", "error of weights"]
    table = Table(
        *columns, *(["error of outputs"] if calibrated else []), title=f"{model}, {request['solver']}", title_justify="left"
    )
    order = {role: place for place, role in enumerate(architecture.ROLES)}
    for (role, bits), group in sorted(rows.items(), key=lambda row: (order.get(row[0][0], len(order)), str(row[0][1]))):
        weights = sum(int(np.prod(facts["shape"])) for facts in group)
        size = sum(facts["bytes"] for facts in group)
        cells = [role, str(bits), str(len(group)), f"{weights:,}", f"{size:,}", f"{8 * size / weights:.3f}"]
        cells += [_mean(group, "weight_error"), *([_mean(group, "output_error")] if calibrated else [])]
        table.add_row(*cells)
    table.add_section()
    table.add_row(
        "all", "", str(len(tensors)), f"{totals['weights']:,}", f"{totals['bytes']:,}", f"{totals['bits_per_weight']:.3f}"
    )
    console.print(table)
    console.print(
        f"{totals['reduction_percent']:.1f} % less than float16 ({totals['float16_bytes']:,} bytes). Errors: |difference| / |original|, "
        f"root mean square over the row's matrices{', of outputs on the text given' if calibrated else ''}."
    )
    if quality is not None:
        bounds = quality["ratio_interval_95"]
        interval = f"95 % interval {bounds[0]:.4f} to {bounds[1]:.4f}" if bounds else "no interval from a single window"
        console.print(
            f"Perplexity {quality['perplexity_float']:.3f} with float weights, {quality['perplexity']:.3f} with these: "
            f"{quality['ratio']:.4f} times, {interval}, over {quality['tokens']:,} tokens."
        )
    console.print(f"{output}: {len(manifest['shards'])} shards and manifest.json")


def _mean(group: list[Mapping[str, Any]], key: str) -> str:
    values = [facts[key] for facts in group if facts.get(key) is not None]
    return f"{np.sqrt(np.mean(np.square(values))):.4f}" if values else ""


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
