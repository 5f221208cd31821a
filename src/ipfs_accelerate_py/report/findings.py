"""What the measurements say, in three plain sentences. Only checked measurements are ranked, and "faster" is the comparison's word."""

from __future__ import annotations

from collections.abc import Sequence

from .cells import Cell, Ranking, adapter, cells, fastest_medians, rankings
from .data import ReportData
from .wording import bounds, count, listed, milliseconds, rounded

START = "ipfs-accelerate bench --quick"


def findings(data: ReportData) -> list[str]:
    """Three sentences: where each model runs best here, what the browsers gave, and what gave no result."""
    found = cells(data)
    if not found:
        return [
            "Nothing has been measured yet, so nothing can be said about this machine.",
            f"Start with a short campaign: {START}",
            _platforms_sentence(data) or "ipfs-accelerate detect shows which platforms are here.",
        ]
    return [_best_sentence(rankings(found)), _browser_sentence(found), _gaps_sentence(data, found)]


def verdict(ranking: Ranking) -> str:
    """Who is fastest and by how much, or between whom it is not decided."""
    if not ranking.order:
        return "no checked measurement"
    first = ranking.order[0]
    time = f"{milliseconds(first.median or 0.0, first.interval)}{first.marks}"
    if ranking.level:
        names = listed([cell.target + cell.marks for cell in (first, *ranking.level)])
        return f"{names} are equal within 3 % ({time})" if ranking.equal else f"not decided between {names}"
    if not ranking.comparisons:
        return f"{first.target} ({time}), the only one with a checked result"
    return f"{first.target} ({time}), {advantage(ranking)}"


def advantage(ranking: Ranking) -> str:
    """``1.31× faster [1.25, 1.38] than cpu · torch``: the first against the next."""
    found, second = ranking.comparisons[0], ranking.order[1]
    return f"{rounded(found.ratio, found.interval)}× faster {bounds(found.interval)} than {second.target}{second.marks}"


def _best_sentence(ranked: Sequence[Ranking]) -> str:
    told = [f"{ranking.model}: {verdict(ranking)}" for ranking in ranked if ranking.order]
    if not told:
        return "No platform gave a measurement whose output check passed, so there is no best platform to name."
    launches = sorted({len(cell.ok) for ranking in ranked for cell in ranking.order})
    span = str(launches[0]) if len(launches) == 1 else f"{launches[0]} to {launches[-1]}"
    return f"Fastest here, with 95 % intervals over {span} launches: {'; '.join(told[:6])}{_more(told)}."


def _more(told: Sequence[str]) -> str:
    return f"; {len(told) - 6} more in the table" if len(told) > 6 else ""


def _browser_sentence(found: Sequence[Cell]) -> str:
    web = [cell for cell in found if cell.first["browser"] and cell.kind == "measured"]
    software = [cell for cell in found if cell.software]
    if not web:
        said = "No browser gave a measurement whose output check passed."
    else:
        fastest, fastest_web = fastest_medians(found), fastest_medians(web)
        per_model = []
        for cell in web:
            if cell.median == fastest_web[cell.model]:
                times = f"{cell.median / fastest[cell.model]:.2g}× the lowest of all"
                per_model.append(
                    f"{cell.model} on {cell.target} ({milliseconds(cell.median, cell.interval)}{cell.marks}, {times})"
                )
        said = f"Lowest median in a browser: {listed(per_model, 4)}."
    if software:
        names = sorted({adapter(cell.launches) for cell in software} - {""})
        targets = listed(sorted({cell.target for cell in software}))
        said += (
            f" On a software adapter{f' ({listed(names)})' if names else ''}, so the CPU's time and never a GPU's: {targets}."
        )
    return said


def _gaps_sentence(data: ReportData, found: Sequence[Cell]) -> str:
    ok = sum(len(cell.ok) for cell in found)
    total = sum(len(cell.started) for cell in found)
    words = {
        "failed": "failed",
        "unsupported": "cannot run here",
        "inaccurate": "gave a wrong output",
        "unchecked": "had no output check",
        "simulated": "are simulated",
    }
    gaps = [f"{number} {told}" for kind, told in words.items() if (number := sum(cell.kind == kind for cell in found))]
    cells_said = f"{listed(gaps)}; none of these is ranked" if gaps else "all passed the output check"
    said = f"{ok} of {count(total, 'launch')} gave samples. Of {count(len(found), 'cell')}, {cells_said}."
    return f"{said} {_platforms_sentence(data)}".strip()


def _platforms_sentence(data: ReportData) -> str:
    missing = [str(platform["name"]) for platform in data.platforms if not platform["available"]]
    return f"Not available on this machine: {listed(missing, 8)}." if missing else ""
