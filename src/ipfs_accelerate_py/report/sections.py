"""The static part of the page, section by section. Every text from outside passes ``escape``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from ..errors import ERROR_CLASSES
from ..spec import identity
from .cells import KINDS, Cell, Ranking, fastest_medians
from .data import ReportData
from .figures import cold_seconds
from .findings import advantage, findings
from .wording import bounds, count, listed, rounded, shape, size_of

FILTERS = {
    "model": "Model",
    "platform": "Platform",
    "browser": "Browser",
    "engine": "Engine",
    "precision": "Precision",
    "status": "Status",
}
FIGURE_SECTIONS = {
    "latency": (
        "Latency of each launch",
        "One mark per launch (a fresh process, or a browser with a fresh profile) at the median of its iterations. The bar is the median "
        "over launches with its 95 % interval. The axis is logarithmic.",
    ),
    "phases": (
        "Cold start and warm iteration",
        "From nothing to the first output, by phase, and below it one warm iteration. Medians over launches.",
    ),
    "memory": (
        "Memory",
        "Peak of the host counts every process of the launch, the whole browser included. No bar for the device: it has no counter, or "
        "shares the host's memory.",
    ),
    "generation": (
        "Tokens",
        "For models that generate: the time to the first token (prompt included) and of each later one, one mark per launch.",
    ),
}


def page(data: ReportData, found: Sequence[Cell], ranked: Sequence[Ranking]) -> Iterable[str]:
    """The body, in the order in which it is read."""
    yield _header(data, found)
    yield "<main>"
    if found:
        yield _filters(found)
        yield _best(ranked)
        yield _grid(found)
        for name, (title, text) in FIGURE_SECTIONS.items():
            yield _figures(name, title, text, found)
        yield _table(found)
    yield _unavailable(data)
    if found:
        yield _failures(found)
        yield _method()
    yield "</main>"
    yield '<dialog id="detail" aria-labelledby="detail-title"></dialog>'


def filter_values(cell: Cell) -> dict[str, str]:
    """What the filters compare: the name of each filter and this cell's value."""
    first = cell.first
    values = {
        "model": first["model_class"],
        "platform": first["platform"],
        "browser": first["browser"] or "none",
        "engine": first["engine"],
        "precision": first["precision"],
        "status": cell.kind,
    }
    return {name: str(value) for name, value in values.items()}


def drawable(figure: str, found: Sequence[Cell]) -> list[Cell]:
    """The cells that a figure has something to show of."""
    return [cell for cell in found if cell.ok and (figure != "generation" or cell.per_launch("first_token_ns"))]


def by_model(found: Iterable[Cell]) -> list[list[Cell]]:
    """Cells grouped by model label, in order."""
    groups: dict[str, list[Cell]] = {}
    for cell in found:
        groups.setdefault(cell.model, []).append(cell)
    return list(groups.values())


def _header(data: ReportData, found: Sequence[Cell]) -> str:
    machine = data.machine
    facts = [
        machine.get("cpu_model"),
        f"{machine['logical_cpus']} logical CPUs" if machine.get("logical_cpus") else None,
        size_of(machine["memory_bytes"]) if machine.get("memory_bytes") else None,
        *(gpu.get("name") for gpu in machine.get("gpus") or []),
        machine.get("os_version"),
    ]
    days = sorted({str(launch["started_at"])[:10] for launch in data.launches})
    launches = count(len(data.launches), "launch")
    run = [" to ".join(dict.fromkeys([days[0], days[-1]])), launches, count(len(found), "cell")] if days else []
    points = "".join(f"<li>{escape(line)}</li>" for line in findings(data))
    title = "Where each model runs best on this machine" if found else "Nothing has been measured yet"
    return (
        f'<header><button type="button" id="theme" class="quiet" hidden>Dark</button><p class="kicker">ipfs-accelerate report</p>'
        f'<h1>{title}</h1><p class="facts">{_dots(facts)}</p><p class="facts">{_dots(run)}</p>'
        f'<ol class="findings">{points}</ol></header>'
    )


def _filters(found: Sequence[Cell]) -> str:
    controls = []
    for name, label in FILTERS.items():
        values = list(dict.fromkeys(filter_values(cell)[name] for cell in found))
        options = "".join(f'<option value="{escape(value)}">{escape(value)}</option>' for value in values)
        controls.append(
            f'<label><span>{label}</span><select name="{name}"><option value="">all</option>{options}</select></label>'
        )
    return (
        f'<form id="filters" aria-label="Filters" hidden>{"".join(controls)}<button type="reset" class="quiet">Clear</button>'
        f'<output id="shown" aria-live="polite"></output></form>'
    )


def _best(ranked: Sequence[Ranking]) -> str:
    rows = []
    for ranking in ranked:
        if not ranking.order:
            rows.append(f'<tr data-workload="{ranking.workload}"><th scope="row">{escape(ranking.model)}</th>'
                        '<td colspan="4" class="muted">no measurement with a passed output check</td></tr>')  # fmt: skip
            continue
        first = ranking.order[0]
        if ranking.level:
            names = escape(listed([cell.target for cell in (first, *ranking.level)]))
            place = f"≈ {names}" if ranking.equal else f'<span class="muted">not decided between</span> {names}'
            versus = "equal within 3 %" if ranking.equal else ranking.comparisons[0].text
        elif ranking.comparisons:
            place, versus = f"<strong>{escape(first.target)}</strong>", advantage(ranking)
        else:
            place, versus = f"<strong>{escape(first.target)}</strong>", "nothing else was measured"
        rows.append(
            f'<tr data-cell="{first.id}" data-workload="{ranking.workload}" tabindex="0"><th scope="row">{escape(ranking.model)}'
            f"<small>{escape(shape(first.first))}</small></th><td>{place}</td><td class=number>{_time(first)}</td>"
            f"<td>{escape(versus)}</td><td class=number>{len(first.ok)}</td></tr>"
        )
    head = "<th>Model</th><th>Fastest here</th><th class=number>Median, ms</th><th>Against the next</th><th class=number>Launches</th>"
    return _section(
        "best",
        "Best platform for each model",
        "Ranked are checked measurements only, within one model and one shape of work. A platform is called fastest only where the "
        "comparison over launches says so.",
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>',
    )


def _grid(found: Sequence[Cell]) -> str:
    """The heat map as a table of buttons: readable without colour, by keyboard and by a screen reader."""
    fastest = fastest_medians(found)
    targets = list(
        dict.fromkeys(
            cell.target for cell in sorted(found, key=lambda cell: not any(c.ok for c in found if c.target == cell.target))
        )
    )
    head = "".join(f'<th scope="col">{"<br>".join(escape(part) for part in target.split(" · "))}</th>' for target in targets)
    body = []
    for group in by_model(found):
        placed = {target: [cell for cell in group if cell.target == target] for target in targets}
        columns = "".join(
            f"<td>{''.join(_tile(cell, fastest.get(cell.model)) for cell in placed[target])}</td>" for target in targets
        )
        name = escape(group[0].model)
        body.append(f'<tr><th scope="row">{name}<small>{escape(shape(group[0].first))}</small></th>{columns}</tr>')
    kinds = [kind for kind in KINDS if any(cell.kind == kind for cell in found)]
    legend = "".join(f'<li class="tile {kind}"><b>{KINDS[kind][0]}</b> {KINDS[kind][1]}</li>' for kind in kinds)
    flags = {mark: words for cell in found for mark, words in cell.flags if mark.isalpha() or mark == "~"}
    legend += "".join(f"<li><b>{escape(mark)}</b> {MARKS[mark]}</li>" for mark in flags)
    return _section(
        "map",
        "Every model on every platform",
        "Median milliseconds per iteration and its 95 % interval. Shade: times the fastest in the row. Open a cell for its launches.",
        f'<div class="scroll"><table class="grid"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
        f'<ul class="legend"><li class="ramp"><span>fastest</span><i class="s0"></i><i class="s1"></i><i class="s2"></i><i class="s3"></i>'
        f'<i class="s4"></i><span>over 30×</span></li>{legend}</ul>',
    )


MARKS = {
    "sw": "software adapter: the CPU's time, says nothing about a GPU",
    "cov": "part of the graph fell back to another provider",
    "part": "some launches gave no result",
    "~": "some launches never became steady",
}


def _tile(cell: Cell, fastest: float | None) -> str:
    label = f"{cell.model} on {cell.target}: {KINDS[cell.kind][1]}"
    shade = ""
    if cell.median is None:
        text = f"<b>{KINDS[cell.kind][0]}</b><small>{'cannot run' if cell.kind == 'unsupported' else cell.kind}</small>"
    else:
        times = cell.median / fastest if fastest else None
        if cell.kind == "measured" and times:
            shade = f" s{sum(times > limit for limit in (1.0, 2, 8, 30))}"
        symbol = "" if cell.kind == "measured" else f"{KINDS[cell.kind][0]} "
        text = f"<b>{symbol}{rounded(cell.median, cell.interval)}</b><small>{bounds(cell.interval)}</small>"
    tags = "".join(f"<i>{escape(mark)}</i>" for mark in _tags(cell))
    return (
        f'<button type="button" class="tile {cell.kind}{shade}" data-cell="{cell.id}" aria-label="{escape(label)}">{text}'
        f"{f'<span>{tags}</span>' if tags else ''}</button>"
    )


def _tags(cell: Cell) -> list[str]:
    named = {"inaccurate": "output wrong", "unchecked": "not checked", "simulated": "simulated"}
    return [*([named[cell.kind]] if cell.kind in named else []), *(mark for mark, _ in cell.flags if mark not in KINDS_SYMBOLS)]


KINDS_SYMBOLS = {symbol for symbol, _ in KINDS.values()}


def _figures(name: str, title: str, text: str, found: Sequence[Cell]) -> str:
    cards = []
    for group in by_model(drawable(name, found)):
        caption = f"{escape(group[0].model)}<small>{escape(shape(group[0].first))}</small>"
        label = escape(f"{title}: {group[0].model}. The numbers are in the table of all cells.")
        key = f"{name}-{identity(group[0].model)}"
        cards.append(
            f'<figure class="card"><figcaption>{caption}</figcaption>'
            f'<div class="plot" id="{key}" role="img" aria-label="{label}"></div></figure>'
        )
    return _section(name, title, text, f'<div class="cards">{"".join(cards)}</div>') if cards else ""


def _table(found: Sequence[Cell]) -> str:
    rows = []
    for cell in found:
        first_token, per_token = cell.median_of("first_token_ns", 1e-6), cell.median_of("per_token_ns", 1e-6)
        values = [
            rounded(cold_seconds(cell)) if cell.ok else "",
            "" if first_token is None else rounded(first_token),
            "" if per_token is None else rounded(per_token),
            "" if (host := cell.median_of("host_peak_bytes")) is None else size_of(host),
        ]
        columns = "".join(f"<td class=number>{value}{_mark(cell) if value else ''}</td>" for value in values)
        symbol, words = KINDS[cell.kind]
        rows.append(
            f'<tr data-cell="{cell.id}" tabindex="0"><th scope="row">{escape(cell.model)}</th><td>{escape(cell.target)}</td>'
            f'<td><span class="badge {cell.kind}" title="{words}">{symbol} {cell.kind}</span> {escape(" ".join(_tags(cell)[0 if cell.kind in ("measured", "failed", "unsupported") else 1 :]))}</td>'
            f"<td class=number>{_time(cell) if cell.ok else ''}</td>{columns}<td class=number>{len(cell.ok)}/{len(cell.launches)}</td></tr>"
        )
    head = (
        "<th>Model</th><th>Target</th><th>Status</th><th class=number>Median, ms</th><th class=number>Cold start, s</th>"
        "<th class=number>First token, ms</th><th class=number>Per token, ms</th><th class=number>Host peak</th><th class=number>Launches</th>"
    )
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    return _section("all", "All cells", "The same numbers as a table. Open a row for its launches.", table)


def _unavailable(data: ReportData) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(str(platform["name"]))}</th><td>{escape(str(platform.get("reason") or ""))}</td>'
        f"<td>{escape(str(platform.get('remedy') or '')) or 'nothing to be done on this machine'}</td></tr>"
        for platform in data.platforms
        if not platform["available"]
    )
    if not rows:
        return ""
    table = f"<table><thead><tr><th>Platform</th><th>Why</th><th>What helps</th></tr></thead><tbody>{rows}</tbody></table>"
    return _section("unavailable", "Not available here", "", f'<div class="scroll">{table}</div>')


def _failures(found: Sequence[Cell]) -> str:
    rows = []
    for cell in found:
        problems: dict[tuple[str, str, str], list[int]] = {}
        for launch in cell.launches:
            if launch["status"] != "ok":
                told = (launch["error_class"] or launch["status"], launch["error_message"] or "", launch["error_phase"] or "")
                problems.setdefault(told, []).append(launch["launch_index"])
        for (error_class, message, phase), indices in problems.items():
            meaning = ERROR_CLASSES.get(error_class, "")
            symbol = KINDS["unsupported" if error_class == "unsupported" else "failed"][0]
            rows.append(
                f'<tr data-cell="{cell.id}" tabindex="0"><th scope="row">{escape(cell.model)}</th><td>{escape(cell.target)}</td>'
                f'<td><span title="{escape(meaning)}">{symbol} {escape(error_class)}</span></td><td>{escape(message)}</td>'
                f"<td>{escape(phase)}</td><td class=number>{len(indices)} of {len(cell.launches)}</td></tr>"
            )
    if not rows:
        return _section("failures", "Failures", "Every launch gave samples.", "")
    head = "<th>Model</th><th>Target</th><th>Class</th><th>Message</th><th>Phase</th><th class=number>Launches</th>"
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    return _section("failures", "Failures and what cannot run", "", table)


def _method() -> str:
    return _section(
        "method",
        "How to read this",
        "",
        "<p>The launch is the sample: each is a fresh process or a browser with a fresh profile, and launches of different cells are "
        "interleaved in random order. Outputs are read back inside the timed region. Iterations count once the warm-up test passes. "
        "Intervals are 95 %, from a bootstrap over launches and then iterations. Every launch's output is checked against a float32 CPU "
        "reference; what does not pass is shown and never ranked. A number that was not measured says so beside it.</p>",
    )


def _section(name: str, title: str, text: str, body: str) -> str:
    lead = f'<p class="lead">{escape(text)}</p>' if text else ""
    return f'<section id="{name}"><h2>{escape(title)}</h2>{lead}{body}</section>'


def _time(cell: Cell) -> str:
    """Median and interval, with what must stand beside them."""
    return f"{rounded(cell.median or 0.0, cell.interval)}{_mark(cell)}<small>{bounds(cell.interval)}</small>"


def _mark(cell: Cell) -> str:
    return ' <span class="badge simulated">simulated</span>' if cell.kind == "simulated" else ""


def _dots(parts: Iterable[Any]) -> str:
    return " · ".join(escape(str(part)) for part in parts if part)
