"""The compatibility matrix in words and tables, the same for every format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..platforms.base import Unavailable
from ..spec import BROWSER_PLATFORMS
from ..web.browsers import KNOWN
from .browser_support import Facts, browsers, effects, support
from .matrix import FAMILIES, Column, Matrix, Row
from .rating import HIGH, MEDIUM, NOT_MEASURED, RATINGS, RULE, SOFTWARE, Launch, Rated
from .wording import count, listed

REASON_LENGTH = 160


@dataclass(frozen=True)
class Runs:
    """Specs whose launches, on one machine, are behind a row."""

    specs: tuple[str, ...]
    machine: str  # key of Matrix.machines


Cell = str | Runs


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph (``**bold**`` and ```code``` as in Markdown) and a table."""

    title: str
    text: str
    head: tuple[str, ...] = ()
    rows: Sequence[tuple[Cell, ...]] = field(default_factory=tuple)


def sections(matrix: Matrix, live: Mapping[str, Facts | Unavailable] | None = None) -> list[Section]:
    """Everything that the matrix says. ``live`` is what the browsers of this machine answered just now."""
    found = [
        _counts(matrix),
        _families(matrix),
        _platforms(matrix),
        _in_browsers(matrix),
        _why_not(matrix),
        _browsers(matrix, live),
        _effects(matrix),
        _targets("Every target, by machine", matrix, matrix.rows()),
    ]
    if training := matrix.rows("training"):
        found.append(_targets("Training: forward, backward and an optimizer step", matrix, training))
    return [*found, _machines(matrix)]


def _counts(matrix: Matrix) -> Section:
    cells = [matrix.cell(name, column)[0] for name in matrix.families for column in matrix.columns]
    ratings = Counter(rated.rating for rated in cells)
    untried = sum(rated.reasons == (NOT_MEASURED,) for rated in cells)
    runs = len(cells) - ratings["Unavailable"]
    native = [name for name in matrix.platforms if name not in BROWSER_PLATFORMS]
    known = len({column.browser for column in matrix.columns} - {None})
    by_rating = ", ".join(f"{ratings[name]} {name}" for name in RATINGS[:3])
    inference = [launch for launch in matrix.launches if launch["mode"] == "inference"]
    machines = len({launch["machine_key"] for launch in inference})
    left_out = f" {count(matrix.left_out, 'simulated launch')} left out." if matrix.left_out else ""
    text = (
        f"**{runs} of {len(cells)} cells run** ({by_rating}): {len(matrix.families)} model classes × "
        f"({len(native)} native platforms + {len(BROWSER_PLATFORMS)} in each of {known} browsers). "
        f"{ratings['Unavailable'] - untried} cannot run, or were not there, where it was tried; {untried} were not tried. "
        f"{count(_begun(inference), 'launch')} on {count(machines, 'machine')} stand behind this, all measured.{left_out}"
    )
    return Section("Compatibility matrix", f"{text}\n\n{RULE}")


def _families(matrix: Matrix) -> Section:
    rows = []
    for family in (*FAMILIES, "other"):
        names = [name for name, own in matrix.families.items() if own == family]
        if names:
            tallies = [_tally([matrix.platform_cell(name, platform)[0] for name in names]) for platform in matrix.platforms]
            rows.append((f"{family.replace('_', ' ')} ({', '.join(names)})", *tallies))
    return Section(
        "Model families by platform",
        "How many classes of a family have which rating.",
        ("family", *matrix.platforms),
        tuple(rows),
    )


def _tally(rated: Sequence[Rated]) -> str:
    told = Counter(_short(one) for one in rated)
    order = [*RATINGS[:3], "unavailable", NOT_MEASURED]
    return ", ".join(f"{told[word]} {word}" for word in order if told[word])


def _platforms(matrix: Matrix) -> Section:
    rows = [
        (name, *(_told(matrix, matrix.platform_cell(name, platform)) for platform in matrix.platforms))
        for name in matrix.families
    ]
    text = (
        "The best rating over machines, engines and browsers; in parentheses the machine that gave it (the list is at the end), and what "
        "to know before believing it: `cov` with the share of nodes, `sw` for a software adapter, `alone` where nothing else of its class "
        "of device was measured to compare with."
    )
    return Section("Model classes by platform", text, ("model class", *matrix.platforms), tuple(rows))


def _in_browsers(matrix: Matrix) -> Section:
    tried = [
        column
        for column in matrix.columns
        if column.browser and any(matrix.cell(name, column)[0].launch_ids for name in matrix.families)
    ]
    untried = [column.label for column in matrix.columns if column.browser and column not in tried]
    rows = [(name, *(_told(matrix, matrix.cell(name, column)) for column in tried)) for name in matrix.families]
    text = f"Not tried with any model: {listed(untried, 20)}." if untried else ""
    return Section("Model classes in browsers", text, ("model class", *(column.label for column in tried)), tuple(rows))


def _told(matrix: Matrix, cell: tuple[Rated, str | None]) -> str:
    rated, machine = cell
    if rated.rating == "Unavailable" or machine is None:
        return _short(rated)
    notes = [str(list(matrix.machines).index(machine) + 1)]
    if rated.coverage is not None and rated.coverage < 1:
        notes.append(f"cov {int(rated.coverage * 1000) / 10:g} %")
    notes += ["sw"] if rated.device_class == SOFTWARE else []
    notes += [] if rated.rivals else ["alone"]
    return f"{rated.rating} ({', '.join(notes)})"


def _short(rated: Rated) -> str:
    if rated.rating != "Unavailable":
        return rated.rating
    return NOT_MEASURED if rated.reasons == (NOT_MEASURED,) else "unavailable"


def _why_not(matrix: Matrix) -> Section:
    """Reasons of the cells without a result, and of those that are limited."""
    where: dict[str, list[tuple[str, Column]]] = {}
    for name in matrix.families:
        for column in matrix.columns:
            rated = matrix.cell(name, column)[0]
            if rated.rating == "Unavailable":
                where.setdefault(_cut(rated.reasons[0]), []).append((name, column))
    rows = []
    for reason, cells in sorted(where.items(), key=lambda item: -len(item[1])):
        columns = list(dict.fromkeys(column.label for _, column in cells))
        names = list(dict.fromkeys(name for name, _ in cells))
        everywhere = len(names) == len(matrix.families)
        rows.append((str(len(cells)), listed(columns, 20), "all" if everywhere else listed(names, 13), reason))
    text = "Each cell that does not run counts once; the reason is what the platform or the launch itself said."
    return Section("What does not run, and why", text, ("cells", "where", "model classes", "reason"), tuple(rows))


def _browsers(matrix: Matrix, live: Mapping[str, Facts | Unavailable] | None) -> Section:
    keys = list(dict.fromkeys([*browsers(matrix), *matrix.capabilities, *(live or {}), *KNOWN]))
    told = {key: support(matrix, key, live) for key in keys}
    features = list(next(iter(told.values()), {}))
    rows = [(key, *(_cut(told[key][feature]) for feature in features)) for key in keys]
    text = (
        f"What each browser offered to its launches and told campaigns{', and what it answered just now' if live else ''}. Browsers "
        "without a launch are unverified: they run by the same code, and nobody has seen it. `can` says that what a part of our own "
        "runtime needs is there; whether it was used, and what it brought, is in the next table."
    )
    return Section("What browsers offer", text, ("browser", *features), tuple(rows))


def _effects(matrix: Matrix) -> Section:
    told = {key: effects(matrix, key) for key in browsers(matrix)}
    names = list(next(iter(told.values()), {}))
    rows = [(key, *(told[key][name] for name in names)) for key in told]
    text = (
        "Ratio of median times in the same browser on the same machine for the same work, geometric mean over the pairs that were "
        "measured: 0.5× is twice as fast. A software adapter is no GPU and is left out. Shader warm-up, parallel loading, the audio front "
        "end and readback are the page's own switches: each model and adapter by itself, with its 95 % interval over launches, as "
        "`benchmarks/web_optimizations.py` measured it."
    )
    return Section("What browser features bring", text, ("browser", *names), tuple(rows))


def _targets(title: str, matrix: Matrix, rows: Sequence[Row]) -> Section:
    numbers = {key: str(number) for number, key in enumerate(matrix.machines, start=1)}
    table: list[tuple[Cell, ...]] = []
    for row in rows:
        rated = row.rated
        parts = [row.platform, row.browser or row.engine, *([] if row.device == "default" else [row.device])]
        table.append(
            (
                row.model_class,
                " · ".join(dict.fromkeys(parts)),
                numbers[row.machine],
                rated.rating,
                "" if rated.slowdown is None else f"{rated.slowdown:.2g}× ({rated.device_class})",
                ", ".join([*rated.precisions, *(f"no {name}" for name in rated.lacking)]),
                f"{rated.launches_ok}/{rated.launches}",
                coverage_text(rated, row.engine),
                "" if rated.read_back is None else f"{rated.read_back / 1e3:,.4g} kB",
                "; ".join(_cut(reason) for reason in rated.reasons),
                Runs(rated.specs, row.machine),
            )
        )
    text = (
        f"Times are over the fastest of the class of device on that machine: up to {HIGH:g}× High, up to {MEDIUM:g}× Medium. Coverage is "
        "the share of the graph's nodes, and of their time, on the provider asked for; read back is what one iteration copies back. "
        "Runs are hashes of specs: "
        "`ipfs-accelerate query \"SELECT * FROM launch_summary WHERE spec_hash = '...'\"` lists their launches."
    )
    head = (
        "class",
        "target",
        "machine",
        "rating",
        "time",
        "precisions",
        "launches",
        "coverage",
        "read back",
        "why not higher",
        "runs",
    )
    return Section(title, text, head, tuple(table))


def coverage_text(rated: Rated, engine: str) -> str:
    """The share of nodes, and of their time or why that is not known."""
    if not rated.launches_ok:
        return ""
    if rated.coverage is None:
        return "torch has one provider" if engine == "torch" else "not known"
    nodes = f"{int(rated.coverage * 1000) / 10:g} % of nodes"
    if rated.time_coverage is not None:
        return f"{nodes}, {int(rated.time_coverage * 1000) / 10:g} % of time"
    if rated.coverage == 1:
        return f"{nodes} and of time"  # no other provider ran any
    return f"{nodes}; time: {rated.time_unknown or NOT_MEASURED}"


def _machines(matrix: Matrix) -> Section:
    rows = []
    for number, (key, name) in enumerate(matrix.machines.items(), start=1):
        own = [launch for launch in matrix.launches if launch["machine_key"] == key]
        system = next((str(launch["machine"]["os_version"]) for launch in own if launch["machine"].get("os_version")), "")
        days = sorted({str(launch["started_at"])[:10] for launch in own})
        rows.append((str(number), name, system, " to ".join(dict.fromkeys([days[0], days[-1]])), str(_begun(own))))
    return Section("Machines", "", ("", "machine", "system", "measured", "launches"), tuple(rows))


def _begun(launches: Sequence[Launch]) -> int:
    """The row of a cell that could not be planned or prepared is no launch."""
    return sum(launch["error_phase"] not in ("plan", "prepare") for launch in launches)


def _cut(reason: str) -> str:
    """One line; the whole text is in the store."""
    line = " ".join(reason.split())
    return line if len(line) <= REASON_LENGTH else line[: REASON_LENGTH - 1] + "…"
