"""The static part of the page, section by section. Every text from outside passes ``escape``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from ..errors import ERROR_CLASSES
from ..spec import identity
from .cells import FLAGS, KINDS, NUMBER_MARKS, Cell, Ranking, fastest_medians
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


SHADES = (1.0, 1.5, 4.0, 16.0)  # times the fastest: upper ends of all shades of the map but the last


def page(data: ReportData, found: Sequence[Cell], ranked: Sequence[Ranking]) -> Iterable[str]:
    """The body, in the order in which it is read."""
    yield _header(data, found)
    yield "<main>"
    if found:
        yield _filters(found)
        yield _best(ranked)
        yield _grid(found, ranked)
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
    launches = count(sum(len(cell.started) for cell in found), "launch")
    run = [" to ".join(dict.fromkeys([days[0], days[-1]])), launches, count(len(found), "cell")] if days else []
    points = "".join(f"<li>{escape(line)}</li>" for line in findings(data))
    title = "Where each model runs best on this machine" if found else "Nothing has been measured yet"
    if found and all(cell.simulated for cell in found):
        title = "Simulated: nothing here was measured"
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
            place, versus, time, launches = '<span class="muted">no measurement with a passed output check</span>', "", "", ""
            row = f'<tr data-model="{escape(ranking.model)}"><th scope="row">{escape(ranking.model)}</th>'
        else:
            first = ranking.order[0]
            place, versus = _place(ranking)
            time, launches = _time(first), str(len(first.ok))
            row = (
                f'<tr data-cell="{first.id}" data-model="{escape(ranking.model)}" tabindex="0"><th scope="row">{escape(ranking.model)}'
                f"<small>{escape(shape(first.first))}</small></th>"
            )
        rows.append(
            f'{row}<td>{place}</td><td class=number data-label="median, ms">{time}</td><td>{escape(versus)}</td>'
            f'<td class=number data-label="launches">{launches}</td></tr>'
        )
    return _section(
        "best",
        "Best platform for each model",
        "Ranked are checked measurements only, within one model and one shape of work. A platform is called fastest only where the "
        "comparison over launches says so.",
        _framed(_head("Model", "Fastest here", "Median, ms#", "Against the next", "Launches#"), rows),
    )


def _place(ranking: Ranking) -> tuple[str, str]:
    """HTML of who is fastest, and text of how much."""
    first = ranking.order[0]
    if ranking.level:
        names = escape(listed([cell.target + cell.marks for cell in (first, *ranking.level)]))
        if ranking.equal:
            return f"≈ {names}", "equal within 3 %"
        return f'<span class="muted">not decided between</span> {names}', ranking.comparisons[0].text
    best = f"<strong>{escape(first.target)}</strong>{escape(first.marks)}"
    return best, advantage(ranking) if ranking.comparisons else "nothing else has a checked result"


def _grid(found: Sequence[Cell], ranked: Sequence[Ranking]) -> str:
    """The heat map as a table of buttons: readable without colour, by keyboard and by a screen reader."""
    fastest = fastest_medians(found)
    front = {cell.id for ranking in ranked for cell in (*ranking.order[:1], *ranking.level)}
    alive = {cell.target for cell in found if cell.ok}
    targets = sorted(dict.fromkeys(cell.target for cell in found), key=lambda target: target not in alive)
    head = "".join(f'<th scope="col">{escape(target).replace(" · ", "<br>")}</th>' for target in targets)
    body = []
    for group in by_model(found):
        tiles = dict.fromkeys(targets, "")
        for cell in group:
            tiles[cell.target] += _tile(cell, 1.0 if cell.id in front else (cell.median or 0.0) / fastest.get(cell.model, 1.0))
        columns = "".join(f"<td>{tile}</td>" for tile in tiles.values())
        body.append(f'<tr><th scope="row">{escape(group[0].model)}</th>{columns}</tr>')
    kinds = {cell.kind for cell in found}
    legend = "".join(
        f'<li class="tile {kind}"><b>{KINDS[kind][0]}</b> {KINDS[kind][1]}</li>' for kind in KINDS if kind in kinds
    )
    marks = {mark for cell in found for mark, _ in cell.flags} - set(NUMBER_MARKS.values())
    legend += "".join(f"<li><b>{mark}</b> {FLAGS[mark]}</li>" for mark in FLAGS if mark in marks)
    ramp = "".join(f'<i class="s{step}"></i>' for step in range(len(SHADES) + 1))
    return _section(
        "map",
        "Every model on every platform",
        "Median milliseconds per iteration and its 95 % interval. Shade: times the fastest in the row. Open a cell for its launches.",
        f'<div class="scroll"><table class="grid"><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
        f'<ul class="legend"><li class="ramp"><span>fastest</span>{ramp}<span>over {SHADES[-1]:g}×</span></li>{legend}</ul>',
    )


def _tile(cell: Cell, times: float) -> str:
    shade = f" s{sum(times > limit for limit in SHADES)}" if cell.kind == "measured" else ""
    if cell.median is None:
        words = "cannot run" if cell.kind == "unsupported" else cell.kind
        text = f"<b>{KINDS[cell.kind][0]}</b><small>{words}</small>"
    else:
        text = f"<b>{rounded(cell.median, cell.interval)}</b><small>{bounds(cell.interval)}</small>"
    tags = "".join(f"<i>{mark}</i>" for mark, _ in cell.flags)
    label = escape(f"{cell.model} on {cell.target}: {KINDS[cell.kind][1]}")
    return (
        f'<button type="button" class="tile {cell.kind}{shade}" data-cell="{cell.id}" title="{label}">{text}'
        f"{f'<span>{tags}</span>' if tags else ''}</button>"
    )


def _figures(name: str, title: str, text: str, found: Sequence[Cell]) -> str:
    cards = []
    for group in by_model(drawable(name, found)):
        caption = f"{escape(group[0].model)}<small>{escape(shape(group[0].first))}</small>"
        label = escape(f"{title}: {group[0].model}. The numbers are in the table of all cells.")
        cards.append(
            f'<figure class="card"><figcaption>{caption}</figcaption>'
            f'<div class="plot" id="{name}-{identity(group[0].model)}" role="img" aria-label="{label}"></div></figure>'
        )
    return _section(name, title, text, f'<div class="cards">{"".join(cards)}</div>') if cards else ""


def _table(found: Sequence[Cell]) -> str:
    rows = []
    for cell in found:
        tokens = [cell.median_of(name, 1e-6) for name in ("first_token_ns", "per_token_ns")]
        host = cell.median_of("host_peak_bytes")
        values = [
            rounded(cold_seconds(cell)) if cell.ok else None,
            *(None if value is None else rounded(value) for value in tokens),
            None if host is None else size_of(host),
        ]
        provenance = _mark(cell) if cell.kind == "simulated" else ""
        columns = "".join(f"<td class=number>{'' if value is None else value + provenance}</td>" for value in values)
        symbol, words = KINDS[cell.kind]
        marks = " ".join(mark for mark, _ in cell.flags if mark not in NUMBER_MARKS.values())
        rows.append(
            f'<tr data-cell="{cell.id}" tabindex="0"><th scope="row">{escape(cell.model)}</th><td>{escape(cell.target)}</td>'
            f'<td><span class="badge {cell.kind}" title="{words}">{symbol} {cell.kind}</span> {marks}</td>'
            f"<td class=number>{_time(cell) if cell.ok else ''}</td>{columns}"
            f"<td class=number>{len(cell.ok)}/{len(cell.started)}</td></tr>"
        )
    times = ("Median, ms#", "Cold start, s#", "First token, ms#", "Per token, ms#")
    head = _head("Model", "Target", "Status", *times, "Host peak#", "Launches#")
    text = "The same numbers as a table. Open a row for its launches. A browser's host peak is the sum of its processes' peaks."
    return _section("all", "All cells", text, _framed(head, rows))


def _unavailable(data: ReportData) -> str:
    rows = [
        f'<tr><th scope="row">{escape(str(platform["name"]))}</th><td>{escape(str(platform.get("reason") or ""))}</td>'
        f"<td>{escape(str(platform.get('remedy') or '')) or 'nothing can be done about it here'}</td></tr>"
        for platform in data.platforms
        if not platform["available"]
    ]
    return (
        _section("unavailable", "Not available here", "", _framed(_head("Platform", "Why", "What helps"), rows)) if rows else ""
    )


def _failures(found: Sequence[Cell]) -> str:
    rows = []
    for cell in found:
        problems: dict[tuple[str, str, str], int] = {}
        for launch in cell.launches:
            if launch["status"] != "ok":
                message = f"{launch['error_message'] or ''} {launch['facts'].get('remedy') or ''}".strip()
                told = (launch["error_class"] or launch["status"], message, launch["error_phase"] or "")
                problems[told] = problems.get(told, 0) + 1
        for (error_class, message, phase), number in problems.items():
            symbol = KINDS["unsupported" if error_class == "unsupported" else "failed"][0]
            rows.append(
                f'<tr data-cell="{cell.id}" tabindex="0"><th scope="row">{escape(cell.model)}</th><td>{escape(cell.target)}</td>'
                f'<td><span title="{escape(ERROR_CLASSES.get(error_class, ""))}">{symbol} {escape(error_class)}</span></td>'
                f"<td>{escape(message)}</td><td>{escape(phase)}</td><td class=number>{number if cell.started else '–'}</td></tr>"
            )
    if not rows:
        return _section("failures", "Failures", "Every launch gave samples.", "")
    head = _head("Model", "Target", "Class", "Message", "Phase", "Launches#")
    return _section("failures", "Failures and what cannot run", "", _framed(head, rows))


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


def _head(*names: str) -> str:
    """Column heads; a name that ends in # heads numbers."""
    return "".join(f"<th class=number>{name[:-1]}</th>" if name.endswith("#") else f"<th>{name}</th>" for name in names)


def _framed(head: str, rows: Iterable[str]) -> str:
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _time(cell: Cell) -> str:
    """Median and interval, with what must stand beside them."""
    return f"{rounded(cell.median or 0.0, cell.interval)}{_mark(cell)}<small>{bounds(cell.interval)}</small>"


def _mark(cell: Cell) -> str:
    """What stands beside a number that is not a checked measurement."""
    return f' <span class="badge {cell.kind}">{NUMBER_MARKS[cell.kind]}</span>' if cell.kind in NUMBER_MARKS else ""


def _dots(parts: Iterable[Any]) -> str:
    return " · ".join(escape(str(part)) for part in parts if part)
