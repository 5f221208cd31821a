"""The dashboard on stores of no launch, of one, and of a million samples: every view, filter, link and export."""

from __future__ import annotations

import csv
import io
import json
import shutil
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import campaign_fixture as fixture
import dashboard_stores
import pyarrow.parquet as pq
import pytest

from ipfs_accelerate_py.report.dashboard.filters import Filters
from ipfs_accelerate_py.report.dashboard.server import serving
from ipfs_accelerate_py.report.dashboard.tables import FACETS
from ipfs_accelerate_py.report.dashboard.views import VIEWS
from ipfs_accelerate_py.store.writer import Store

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
PATIENCE_MS = 120_000
SIZES = ("no launch", "one launch", "a million samples")
# Views whose rows are pairs that are compared: other filters choose other pairs, so a filtered answer is no part of the whole one.
PAIRED = {"verdicts", "effects", "timeline"}


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The addresses of the three stores, each served."""
    folder = tmp_path_factory.mktemp("sizes")
    stores = {name: folder / f"{place}.duckdb" for place, name in enumerate(SIZES)}
    Store.create_or_open(stores["no launch"])
    dashboard_stores.add(stores["one launch"], [fixture.launch(fixture.spec_of("bert", "torch"), 0, 20.0)])
    dashboard_stores.large(stores["a million samples"])
    with serving(stores[SIZES[0]]) as none, serving(stores[SIZES[1]]) as one, serving(stores[SIZES[2]]) as million:
        yield dict(zip(SIZES, (none, one, million), strict=True))


def get(url: str, name: str, *pairs: tuple[str, str]) -> bytes:
    with urllib.request.urlopen(f"{url}api/views/{name}?{urllib.parse.urlencode(pairs)}", timeout=120) as response:
        return response.read()


def ask(url: str, name: str, *pairs: tuple[str, str]) -> dict[str, Any]:
    return json.loads(get(url, name, *pairs))


def named(rows: list[dict[str, Any]]) -> Counter[str]:
    """Rows as they are, without their place."""
    return Counter(json.dumps({name: value for name, value in row.items() if name != "key"}, sort_keys=True) for row in rows)


@pytest.mark.parametrize("name", VIEWS)
def test_every_filter_and_export_of_a_view_at_a_million_samples(urls: dict[str, str], name: str) -> None:
    """Each facet by its rarest value gives the rows that have it; CSV, JSON and Parquet hold every row that the answer has."""
    url = urls["a million samples"]
    whole = ask(url, name, ("limit", "0"))
    rows = whole["rows"]
    assert rows
    chosen: list[tuple[str, str]] = []
    for facet in FACETS:
        counts = Counter("" if row[facet] is None else str(row[facet]) for row in rows if facet in row)
        if not counts:
            continue
        pair = (facet, min(counts, key=lambda value: (counts[value], value)))
        chosen.append(pair)
        found = ask(url, name, pair, ("limit", "0"))["rows"]
        assert found and len(Filters.of([pair]).keep(found)) == len(found)
        if name not in PAIRED:
            assert named(found) == named(Filters.of([pair]).keep(rows)), pair
    for pairs in ([], chosen[:1]):
        answer = ask(url, name, *pairs, ("limit", "0"))["rows"]
        texts = list(csv.DictReader(io.StringIO(get(url, name, *pairs, ("limit", "0"), ("format", "csv")).decode())))
        values = json.loads(get(url, name, *pairs, ("limit", "0"), ("format", "json")))
        table = pq.read_table(io.BytesIO(get(url, name, *pairs, ("limit", "0"), ("format", "parquet")))).to_pylist()
        assert len(texts) == len(values) == len(table) == len(answer)
        for shown, text, value, row in zip(answer, texts, values, table, strict=True):
            assert shown["provenance"] == text["provenance"] == value["provenance"] == row["provenance"]
            assert all(value[column] == shown[column] for column in value)


def test_a_cut_view_has_its_first_rows_and_says_how_many_there_are(urls: dict[str, str]) -> None:
    """Of 4,000 launches and more the page gets 2,000; with limit=0 all come, and no other limit is taken for one."""
    url = urls["a million samples"]
    cut, whole = ask(url, "launches"), ask(url, "launches", ("limit", "0"))
    assert len(cut["rows"]) == 2000 and cut["partial"] and len(whole["rows"]) > 4000 and not whole["partial"]
    assert f"first 2,000 of {len(whole['rows']):,}" in cut["note"]
    assert sum(cut["values"]["model_class"].values()) == len(whole["rows"])
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(url, "launches", ("limit", "10"))
    assert b"limit takes 0" in refused.value.read()


def test_all_classes_on_all_platforms_are_there(urls: dict[str, str]) -> None:
    """13 classes on eight platforms, and what was not measured says so."""
    rows = ask(urls["a million samples"], "matrix")["rows"]
    simulated = {(row["model_class"], row["platform"]) for row in rows if row["kind"] == "simulated"}
    assert len({name for name, _ in simulated}) == 13 and len({platform for _, platform in simulated}) == 8
    assert {row["kind"] for row in rows} >= {"measured", "predicted", "simulated", "failed", "unsupported", "inaccurate"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[[str], Any]]:
    """A function that opens an address in one page; no script may have failed at the end."""
    complaints: list[str] = []
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.on("pageerror", lambda error: complaints.append(str(error)))

    def open_address(address: str) -> Any:
        page.goto("about:blank")  # so that an address that differs behind the # alone is opened anew, as a link is
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_address
    context.close()
    assert complaints == []


@pytest.mark.parametrize("size", SIZES)
def test_every_view_by_its_link_with_a_filter_and_a_download(
    opened: Callable[[str], Any], urls: dict[str, str], size: str, tmp_path: Path
) -> None:
    """The page shows the rows that the REST address has, draws their marks, and saves all of them; an empty view names its command."""
    url = urls[size]
    filled = 0
    for name, view in VIEWS.items():
        rows = ask(url, name)["rows"]
        if not rows:
            page = opened(f"{url}#view={name}")
            assert view.empty[1] in page.text_content("#view"), name
            assert page.locator(".plot").count() == 0
            continue
        filled += 1
        facet = next((facet for facet in ("platform", "engine", "provenance") if facet in rows[0] and facet in FACETS), None)
        pairs = [(facet, "" if rows[-1][facet] is None else str(rows[-1][facet]))] if facet else []
        page = opened(f"{url}#{urllib.parse.urlencode([('view', name), *pairs])}")
        page.wait_for_selector(".plot .xy")
        expected = ask(url, name, *pairs)
        shown = page.text_content("#shown").split(" of ")[0]
        assert int(shown.replace(",", "")) == len(expected["rows"]), name
        marks = "document.querySelector('.plot').data.reduce((sum, trace) => sum + (trace.customdata?.length ?? 0), 0)"
        assert page.evaluate(marks) > 0, name
        with page.expect_download() as waiting:
            page.click("[data-export=csv]")
        saved = tmp_path / f"{name}.csv"
        waiting.value.save_as(saved)
        with saved.open(newline="") as lines:
            assert len(list(csv.DictReader(lines))) == len(ask(url, name, *pairs, ("limit", "0"))["rows"]), name
    assert filled == {"no launch": 0, "a million samples": len(VIEWS)}.get(size, filled) and (filled > 3) == (
        size != "no launch"
    )
