"""Numbers and names as people read them. A figure is never more precise than its interval."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..measure.statistics import Interval


def rounded(value: float, interval: Interval | None = None) -> str:
    """Three significant digits, or the digits that the interval's width allows: 13.62 with [13.2, 14.1] is ``13.6``."""
    return _with_decimals(value, _decimals(value, interval)) if math.isfinite(value) else "n/a"


def bounds(interval: Interval | None) -> str:
    """``[13.2, 14.1]``, or that there is none."""
    if not interval or not math.isfinite(interval.high - interval.low):
        return "no interval"
    decimals = _decimals(interval.high, interval)
    return f"[{_with_decimals(interval.low, decimals)}, {_with_decimals(interval.high, decimals)}]"


def _decimals(value: float, interval: Interval | None) -> int:
    """Decimals (below 0: zeros before the point) for values of this size; at most four significant digits."""
    if value == 0:
        return 0
    leading = math.floor(math.log10(abs(value)))
    if interval and math.isfinite(interval.high - interval.low) and interval.high > interval.low:
        return min(3 - leading, -math.floor(math.log10((interval.high - interval.low) / 3)))
    return 2 - leading


def _with_decimals(value: float, decimals: int) -> str:
    """One significant digit is left in any case: beside a bound that is a hundred times larger, a time is still no "0"."""
    if value:
        decimals = max(decimals, -math.floor(math.log10(abs(value))))
    return f"{round(value, decimals):,.{max(decimals, 0)}f}"


def milliseconds(value: float, interval: Interval | None = None) -> str:
    """``value`` in milliseconds."""
    return f"{rounded(value, interval)} ms"


def size_of(byte_count: float | None) -> str:
    """Bytes in megabytes or gigabytes (powers of ten)."""
    if byte_count is None:
        return "n/a"
    return f"{byte_count / 1e9:.2f} GB" if byte_count >= 1e9 else f"{byte_count / 1e6:.3g} MB"


def count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 'es' if thing.endswith(('ch', 's')) else 's'}"


def listed(items: Sequence[str], limit: int = 6) -> str:
    """``a, b and c``; what is over the limit is counted."""
    shown = [*items[:limit], *([f"{len(items) - limit} more"] if len(items) > limit else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def model_labels(workloads: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """A short name by workload hash: ``bert small``, with the fields in which workloads of that name differ."""
    by_hash = {work["workload_hash"]: work for work in workloads}
    fields = {
        "weights": "{} weights",
        "precision": "{}",
        "batch_size": "batch {}",
        "sequence_length": "{} tokens",
        "new_tokens": "{} new tokens",
        "origin": "{}",
    }
    values: dict[tuple[Any, Any, str], set[Any]] = {}
    for work in by_hash.values():
        for key in fields:
            values.setdefault((work["model_class"], work["size"], key), set()).add(work[key])
    labels = {}
    for hash_, work in by_hash.items():
        name = f"{work['model_class']} {work['size']}"
        differing = [
            pattern.format(work[key])
            for key, pattern in fields.items()
            if work[key] is not None and len(values[work["model_class"], work["size"], key]) > 1
        ]
        training = ["training"] if work["mode"] == "training" else []
        labels[hash_] = " · ".join([name, *training, *differing])
    return labels


def target_labels(targets: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """A short name by target hash: ``cpu · torch``, ``webgpu · firefox``; engine or device are added where the name is not enough."""
    by_hash = {target["target_hash"]: target for target in targets}
    labels = {hash_: _place(target) for hash_, target in by_hash.items()}
    for extra in ("engine", "device"):
        values: dict[str, set[Any]] = {}
        for hash_, label in labels.items():
            values.setdefault(label, set()).add(by_hash[hash_][extra])
        labels = {
            hash_: label
            if len(values[label]) == 1 or by_hash[hash_][extra] == "default"
            else f"{label} · {by_hash[hash_][extra]}"
            for hash_, label in labels.items()
        }
    return labels


def _place(target: Mapping[str, Any]) -> str:
    place = target["browser"] or target["engine"]
    return target["platform"] if place == target["platform"] else f"{target['platform']} · {place}"


def shape(work: Mapping[str, Any]) -> str:
    """The work asked of the model, in words: ``128 tokens · batch 1 · float32 · synthetic weights``."""
    parts = [
        f"{work['sequence_length']} tokens" if work["sequence_length"] else "",
        f"{work['new_tokens']} new tokens" if work["new_tokens"] else "",
        f"batch {work['batch_size']}",
        work["precision"],
        "training" if work["mode"] == "training" else "",
        f"{work['weights']} weights",
    ]
    return " · ".join(part for part in parts if part)


def repeat_command(launch: Mapping[str, Any], request: Mapping[str, Any], launches: int) -> str:
    """The command that measures this spec again on this machine. ``request`` is the campaign's."""
    scheme, _, source = str(launch["origin"]).partition(":")
    published = scheme in ("synthetic", "package")
    if scheme == "hub":
        model = source
    elif scheme == "folder":
        folders = [name for name in request.get("models", ()) if "/" in name or name.startswith(".")]
        model = folders[0] if len(folders) == 1 else "THE/MODEL/FOLDER"
    else:
        model = launch["model_class"]
    flags: dict[str, Any] = {
        "--models": model,
        "--size": launch["size"] if published else None,
        "--weights": launch["weights"] if published else None,
        "--platforms": launch["platform"],
        "--browsers": launch["browser"],
        "--engines": launch["engine"],
        "--batch-sizes": launch["batch_size"],
        "--sequence-lengths": launch["sequence_length"],
        "--new-tokens": launch["new_tokens"],
        "--precisions": launch["precision"],
        "--modes": launch["mode"] if launch["mode"] != "inference" else None,
        "--threads": request.get("threads"),
        "--launches": request.get("launches") or launches,
        "--software-launches": request.get("software_launches") if launch["software_adapter"] else None,
        "--seed": request.get("seed") or 0,
    }
    words = [word for flag, value in flags.items() if value is not None for word in (flag, str(value))]
    words += ["--quick"] if request.get("quick") else []
    words += ["--simulate"] if launch["provenance"] == "simulated" else []
    return f"ipfs-accelerate bench {shlex.join(words)}"
