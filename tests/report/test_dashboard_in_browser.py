"""The dashboard in a real browser, served and as a file: every view, filters, links, exports, keyboard, themes, and what goes wrong."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import campaign_fixture as fixture
import dashboard_stores
import pyarrow.parquet as pq
import pytest

from ipfs_accelerate_py.report.dashboard.access import Access
from ipfs_accelerate_py.report.dashboard.page import write
from ipfs_accelerate_py.report.dashboard.server import serving
from ipfs_accelerate_py.report.dashboard.views import VIEWS
from ipfs_accelerate_py.store import observed
from ipfs_accelerate_py.store.quality import QualityRow, QualitySession, add_quality
from ipfs_accelerate_py.store.spool import spool
from ipfs_accelerate_py.store.writer import Store

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: pip install playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
AXE = Path(__file__).parents[2] / "browser" / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")
PATIENCE_MS = 90_000  # of a loaded machine; nothing waits longer than it must
EVIL = '</script><script>window.owned=1</script><img src=x onerror="window.owned=1"><a href="javascript:window.owned=1">x</a>'


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def url(full_store: Path) -> Iterator[str]:
    with serving(full_store) as address:
        yield address


@pytest.fixture(scope="module")
def file(full_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same page as one file."""
    return write(full_store, tmp_path_factory.mktemp("page") / "page.html").as_uri()


@pytest.fixture
def opened(browser) -> Iterator[Callable]:
    """A function that opens an address; afterwards no script must have failed, and a file must have asked for nothing."""
    complaints: list[str] = []
    contexts = []

    def open_address(address: str, expect_errors: bool = False, **options):
        context = browser.new_context(accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if not expect_errors:
            page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        if address.startswith("file:"):
            page.on(
                "request",
                lambda asked: None if asked.url.startswith(("file:", "data:", "blob:")) else complaints.append(asked.url),
            )
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_address
    for context in contexts:
        context.close()
    assert complaints == []


def show(page, view: str) -> None:
    """Go to a view by its link."""
    page.locator(f"#views a[href^='#view={view}']").first.click()
    page.wait_for_selector(f"html[data-ready='{view}']")


def choose(page, facet: str, value: str) -> None:
    summary = page.locator(f"[data-facet='{facet}'] summary")
    if page.locator(f"[data-facet='{facet}'][open]").count() == 0:
        summary.click()
    page.check(f"input[data-option='{facet}={value}']")
    page.locator(f"[data-facet='{facet}'] summary").click()


def shown(page) -> tuple[int, int]:
    """Rows that pass, of all."""
    found = re.match(r"([\d,]+) of ([\d,]+) rows", page.text_content("#shown"))
    return tuple(int(number.replace(",", "")) for number in found.groups())


@pytest.mark.parametrize("how", ["served", "file"])
def test_every_view_shows_its_figure_and_its_rows(opened, url: str, file: str, how: str):
    """Served and from disk alike: a figure with marks, a table, buttons to save."""
    page = opened(url if how == "served" else file)
    assert page.locator("#views a").count() == len(VIEWS) + 2
    for name, view in VIEWS.items():
        show(page, name)
        assert page.text_content("#title") == view.title
        page.wait_for_selector(".plot .xy")
        marks = page.evaluate(
            "document.querySelector('.plot').data.reduce((sum, trace) => sum + (trace.customdata?.length ?? 0), 0)"
        )
        assert marks > 0, name
        assert page.locator("table.rows tbody tr").count() == min(shown(page)[0], 100), name
        assert page.locator("[data-export=png]").count() == page.locator("[data-export=csv]").count() == 1
    assert page.locator("main img").count() == 0


def test_a_logarithmic_axis_has_whole_numbers(opened, url: str):
    """8 to 64 ms: 10, 20 and 50, where Plotly by itself writes 10, 2 and 5."""
    page = opened(f"{url}#view=scaling&search=8481C")
    page.wait_for_selector(".plot .ytick")
    texts = page.locator(".plot .ytick text").all_text_contents()
    assert {"10", "20", "50"} <= set(texts) and not {"2", "3"} & set(texts)


def test_filters_combine_act_on_the_figure_and_clear(opened, url: str):
    """Values of a facet add, facets and words narrow; marks follow; clearing brings all back."""
    page = opened(url)
    everything, total = shown(page)
    assert everything == total > 150
    choose(page, "platform", "webgpu")
    webgpu = shown(page)[0]
    choose(page, "platform", "wasm")
    assert shown(page)[0] > webgpu
    choose(page, "kind", "measured")
    both = shown(page)[0]
    page.fill("#search", "firefox")
    narrow = shown(page)[0]
    assert total > both > narrow > 0
    marks = "document.querySelector('.plot').data.reduce((sum, trace) => sum + trace.customdata.length, 0)"
    assert page.evaluate(marks) == narrow
    assert set(page.locator("table.rows tbody tr .badge").all_inner_texts()) == {"measured"}
    page.fill("#search", "no such thing")
    assert "Nothing passes these filters" in page.text_content("#view")
    page.click("#clear")
    assert shown(page) == (total, total)


def test_a_link_shows_the_same_again(opened, url: str, file: str):
    """View, filters, search, order and open details are in the address, which works served and in a file."""
    page = opened(url)
    show(page, "launches")
    choose(page, "model_class", "bert")
    choose(page, "platform", "cpu")
    page.fill("#search", "onnxruntime")
    page.click("[data-sort=median_ms]")
    page.click("[data-sort=median_ms]")
    page.locator("table.rows .open").first.click()
    page.wait_for_selector("dialog[open] .xy")
    address, count = page.url, shown(page)
    first = page.locator("table.rows tbody tr").first.inner_text()
    for start in (url, file):
        again = opened(start + address[address.index("#") :])
        again.wait_for_selector("dialog[open] .xy")
        assert shown(again) == count
        assert again.text_content("#title") == VIEWS["launches"].title
        assert again.locator("table.rows tbody tr").first.inner_text() == first
        assert again.locator("[aria-sort=descending]").count() == 1
        assert again.text_content("#detail-title") == page.text_content("#detail-title")


def test_going_back_closes_details_and_returns_to_the_view(opened, url: str):
    """The browser's own button undoes a step."""
    page = opened(url)
    show(page, "memory")
    page.locator("table.rows .open").first.click()
    page.wait_for_selector("dialog[open] h3")
    page.go_back()
    page.wait_for_selector("dialog", state="hidden")
    assert page.text_content("#title") == VIEWS["memory"].title
    page.go_back()
    page.wait_for_selector("html[data-ready=matrix]")
    assert page.text_content("#title") == VIEWS["matrix"].title


@pytest.mark.parametrize(
    "address", ["nowhere", "matrix&cell=nothing", "matrix&page=-7", "sql&sql=SELEC", "matrix&platform=<b>"]
)
def test_a_link_that_leads_nowhere_says_so(opened, url: str, address: str):
    """An unknown view, cell, page, statement or value is no blank page."""
    page = opened(f"{url}#view={address}", expect_errors=True)
    expected = {
        "nowhere": "There is no view 'nowhere'",
        "matrix&cell=nothing": "no cell 'nothing'",
        "sql&sql=SELEC": "Parser Error",
    }
    sentence = expected.get(address, "Nothing passes" if "<b>" in address else "the numbers")
    page.locator("body", has_text=sentence).wait_for()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("#view=matirx", "There is no view 'matirx': choose one from the list. Did you mean matrix?"),
        ("#view=matrix&platfrom=cpu", "The address asks for 'platfrom', which this page does not know. Did you mean platform?"),
        ("#matrix", "The address asks for 'matrix', which this page does not know."),
        ("?view=cold", "What stands after ? in the address ('view=cold') changes nothing"),
        ("#view=cold&view=memory", "The address gives 'view' 2 times: the first one counts."),
        ("#view=memory&sort=-device_peak", "no column 'device_peak' to sort by. Did you mean device_peak_mb?"),
        ("#view=progress&precision=int8", "Precision filters nothing here: this view's rows do not have it."),
        ("#view=matrix&page=-7", "'-7' is no page: the first one is shown."),
        ("#view=matrix&page=9999", "There is no page 9999"),
        ("#view=matrix&sql=SELECT", "'sql' in the address belongs to the view 'sql', not to this one."),
        ("#view=recommend&ask=modell%3Dbert", "'modell', which no recommendation takes. Did you mean model?"),
        ("#view=recommend&ask=objective%3Dfastest", "'fastest' is no objective: latency is asked."),
    ],
)
def test_no_part_of_an_address_is_ignored_in_silence(opened, url: str, address: str, sentence: str):
    """What changes nothing in the view is named, with the nearest name that would."""
    page = opened(url + address, expect_errors=True)
    page.locator("main [role=status], main [role=alert]", has_text=sentence).wait_for()


def test_an_address_whose_parts_all_count_has_no_remark(opened, url: str):
    """Also while the view changes; and a remark goes when its cause does."""
    page = opened(f"{url}#view=launches&platform=cpu&sort=-median_ms&search=bert")
    assert page.locator("#ignored").is_hidden()
    show(page, "memory")
    assert page.locator("#ignored").is_hidden()
    page.evaluate("location.hash = '#view=memory&sort=nothing'")
    page.locator("#ignored", has_text="no column 'nothing'").wait_for()
    page.click("[data-sort=device_peak_mb]")
    page.wait_for_selector("#ignored", state="hidden")


def test_a_statement_in_a_changed_address_is_asked(opened, url: str):
    """A link to another statement, followed in the console, shows that statement's answer."""
    page = opened(f"{url}#view=sql&sql=SELECT%2041")
    page.locator("#result tbody td", has_text="41").wait_for()
    page.evaluate("location.hash = '#view=sql&sql=SELECT%2042'")
    page.locator("#result tbody td", has_text="42").wait_for()


def test_an_answer_that_comes_late_is_not_drawn_over_another_view(opened, url: str):
    """The console stays when the view that was left answers after it was opened."""
    page = opened(url)
    held = []
    page.route("**/api/views/cold", lambda route: held.append(route))
    with page.expect_request("**/api/views/cold"):
        page.locator("#views a[href^='#view=cold']").click()
    show(page, "sql")
    with page.expect_response("**/api/views/cold") as late:
        held.pop().continue_()
    late.value.finished()
    page.evaluate("async () => (await fetch('api/status')).json()")  # a later answer: the page has read the late one
    assert page.locator("#sql").count() == 1
    assert page.text_content("#title") == "SQL"


def test_the_printed_address_opens_the_page_and_its_view(opened, full_store: Path):
    """The token leaves the address and the view stays in it; everything that the page asks is let in; a new start has another token."""
    access = Access()
    with serving(full_store, access=access) as url:
        page = opened(f"{url}?token={access.token}#view=memory", expect_errors=True)
        assert page.url == f"{url}#view=memory"
        page.wait_for_selector(".plot .xy")
        assert access.token not in page.evaluate(
            "document.cookie + location.href + performance.getEntries().map((one) => one.name)"
        )
        show(page, "sql")
        page.click("#run")
        page.wait_for_selector("#result table")
        access.token = Access().token  # as if started again on the same port
        page.locator("#trouble", has_text="open the address that ipfs-accelerate dashboard printed").wait_for()


def saved(page, kind: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.click(f"[data-export={kind}]")
    target = folder / waiting.value.suggested_filename
    waiting.value.save_as(target)
    return target


def test_what_is_shown_can_be_saved(opened, url: str, file: str, tmp_path: Path):
    """CSV, JSON and Parquet have the filtered rows with their provenance; PNG and SVG the figure. A file says why it has no Parquet."""
    page = opened(f"{url}#view=matrix&platform=openvino")
    page.wait_for_selector(".plot .xy")
    count = shown(page)[0]
    with saved(page, "csv", tmp_path).open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == count and {row["provenance"] for row in rows} == {"measured", "simulated"}
    told = json.loads(saved(page, "json", tmp_path).read_text())
    table = pq.read_table(saved(page, "parquet", tmp_path)).to_pylist()
    assert [row["median_ms"] for row in told] == [row["median_ms"] for row in table]
    assert [row["model"] for row in rows] == [row["model"] for row in told]
    assert saved(page, "png", tmp_path).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    drawing = saved(page, "svg", tmp_path).read_text()
    assert drawing.startswith("<svg") and "openvino" in drawing
    alone = opened(f"{file}#view=matrix&platform=openvino")
    alone.wait_for_selector(".plot .xy")
    assert saved(alone, "csv", tmp_path).read_text().count("\n") == count + 1
    assert saved(alone, "png", tmp_path).stat().st_size > 5000
    assert "ipfs-accelerate dashboard" in alone.locator("button[disabled]", has_text="Parquet").get_attribute("title")


def test_details_by_keyboard(opened, url: str):
    """A row's button opens them; they have the command, every launch, samples and the machine; Escape closes and focus returns."""
    page = opened(f"{url}#view=verdicts&platform=openvino&model_class=bert")
    page.focus("table.rows .open")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] .xy")
    told = page.text_content("dialog")
    assert "ipfs-accelerate bench --models bert" in told and "cosine" in told
    page.locator("dialog summary", has_text="Samples").click()
    assert page.locator("dialog details[open] pre").first.inner_text().split()[0].isdigit()
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="hidden")
    assert page.evaluate("document.activeElement.className") == "open"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("]")
    page.wait_for_selector("html[data-ready=launches]")


def test_a_tile_opens_its_details(opened, url: str):
    """So does a click on a mark of a figure."""
    page = opened(f"{url}#view=matrix&platform=openvino&model_class=bert&kind=measured")
    page.wait_for_selector(".plot .xy")
    page.locator(".plot .barlayer .point path").first.click(force=True)
    page.wait_for_selector("dialog[open] h3")
    assert "openvino" in page.text_content("#detail-title")


def test_the_table_sorts_with_what_is_not_there_last(opened, url: str):
    """By numbers as numbers, either way, and the figure of rows follows the order."""
    page = opened(f"{url}#view=memory&kind=measured")
    column = "[...document.querySelectorAll('table.rows tbody tr')].map((row) => row.children[6].textContent)"
    page.click("[data-sort=device_peak_mb]")
    rising = page.evaluate(column)
    page.click("[data-sort=device_peak_mb]")
    falling = page.evaluate(column)
    numbers = [float(text.replace(",", "")) for text in rising if text]
    assert numbers == sorted(numbers) and "" not in rising[: len(numbers)]
    assert [float(text.replace(",", "")) for text in falling if text] == sorted(numbers, reverse=True) and falling[-1] == ""


def test_the_console_asks_and_is_refused(opened, url: str, file: str):
    """A SELECT has its rows, and its text in the address; a write is a sentence; a file names the command instead."""
    page = opened(f"{url}#view=sql", expect_errors=True)
    page.fill("#sql", "SELECT provenance, count(*) AS launches FROM launch GROUP BY 1 ORDER BY 1")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#result table")
    assert page.locator("#result tbody td").all_inner_texts()[0] == "measured"
    assert "sql=SELECT" in page.url
    page.fill("#sql", "DROP TABLE launch")
    page.click("#run")
    page.locator("#result [role=alert]", has_text="DROP is refused").wait_for()
    assert 'ipfs-accelerate query "SELECT' in opened(f"{file}#view=sql").text_content("#view")


def test_a_recommendation_is_asked_and_linked(opened, tmp_path: Path):
    """Ranked candidates with reasons and a figure; the question is in the address; a misspelled model is a sentence."""
    path = tmp_path / "s.duckdb"
    dashboard_stores.add(path, [fixture.launch(fixture.spec_of("bert", "torch"), index, 20.0) for index in range(4)])
    alone = write(path, tmp_path / "page.html").as_uri()
    with serving(path) as url:
        page = opened(f"{url}#view=recommend", expect_errors=True)
        page.fill("[name=model]", "bert")
        page.select_option("[name=objective]", "memory")
        page.click(".ask button")
        page.wait_for_selector("#recommended .xy")
        assert page.locator("#recommended tbody tr").count() > 3
        again = opened(page.url, expect_errors=True)  # the server ends before its pages
        again.wait_for_selector("#recommended .xy")
        assert again.locator("#recommended tbody").inner_text() == page.locator("#recommended tbody").inner_text()
        page.fill("[name=model]", "brt")
        page.click(".ask button")
        page.locator("#recommended [role=alert]", has_text="did you mean").wait_for()
    assert "ipfs-accelerate recommend" in opened(f"{alone}#view=recommend").text_content("#view")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_and_the_button(opened, url: str, scheme: str):
    """Page and figure, and the words on the tiles can be read: their ink is the page's."""
    page = opened(url, color_scheme=scheme)
    page.wait_for_selector(".plot .xy")
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    assert (page.evaluate(paper) == "rgb(20, 22, 26)") == (scheme == "dark")
    inks = """[document.querySelector('.plot').layout.font.color, getComputedStyle(document.querySelector('.plot .bartext')).fill,
        getComputedStyle(document.body).color]"""
    before = page.evaluate(inks)
    assert len(set(before)) == 1
    page.click("#theme")
    after = page.evaluate(inks)
    assert len(set(after)) == 1 and after != before


def test_a_narrow_screen_does_not_scroll_sideways(opened, url: str):
    """At 390 pixels every view fits; what is wide scrolls in its own frame."""
    page = opened(url, viewport={"width": 390, "height": 844})
    for name in [*VIEWS, "recommend", "sql"]:
        show(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") == 390, name


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed: npm ci in the folder browser")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_no_serious_problem(opened, file: str, scheme: str, width: int):
    """In every view and in the details; contrast included. From the file, whose script is the served page's."""
    # Whisper has cells of every kind and few rows: contrast is computed for each text there is.
    page = opened(
        f"{file}#view=matrix&model_class=whisper",
        color_scheme=scheme,
        viewport={"width": width, "height": 900},
        bypass_csp=True,
    )
    page.add_script_tag(path=AXE)
    check = """async () => (await axe.run({ exclude: [".plot"] }, { resultTypes: ["violations"] })).violations
        .filter((one) => ["serious", "critical"].includes(one.impact))
        .map((one) => [one.id, ...one.nodes.slice(0, 3).map((node) => node.html.slice(0, 120) + node.failureSummary)].join(" | "))"""
    for name in ["matrix", "verdicts", "cold", "roofline", "progress", "recommend", "sql"]:
        show(page, name)
        assert page.evaluate(check) == [], name
    show(page, "matrix")
    page.locator("table.rows .open").first.click()
    page.wait_for_selector("dialog[open] h3")
    assert page.evaluate(check) == []
    page.keyboard.press("Escape")
    show(page, "progress")
    page.click("#clear")  # perplexities and predictions are of other models
    for name in ["quality", "predictions"]:
        show(page, name)
        assert page.locator("table.rows tbody tr").count() and page.evaluate(check) == [], name


PREDICTED_BAND = {"latency_ms": 25.0, "latency_low_ms": 18.0, "latency_high_ms": 40.0, "machine_hash": EVIL}


def test_hostile_names_never_run(opened, tmp_path: Path):
    """Not in a figure, a filter, a table, the details, the console or the file."""
    path = tmp_path / "evil.duckdb"
    spec = fixture.spec_of("bert", "torch", model_class=EVIL, size=EVIL)
    machine = {**fixture.MACHINE, "cpu_model": EVIL}
    bad = fixture.launch(fixture.spec_of("bert", "openvino", precision=EVIL), 0, None, error_message=EVIL, error_class=EVIL)
    good = [
        fixture.launch(spec, index, 5.0, facts={EVIL: EVIL}, environment={EVIL: EVIL}, machine=machine) for index in range(2)
    ]
    dashboard_stores.add(path, [*good, bad])
    session = QualitySession(model=EVIL, origin=EVIL, windows_sha256="0", machine=machine)
    names = [
        QualityRow(format=EVIL, made_by=EVIL, solver=EVIL, bits_per_weight=bits, nats=[1.0, 2.0], tokens=9) for bits in (2, 3)
    ]
    add_quality(path, session, [*names, replace(names[0], format="float", is_reference=True)])
    observed.add_predictions(
        path, [{**dashboard_stores.PREDICTED, **PREDICTED_BAND, "model": EVIL, "regime": EVIL, "reasons": [EVIL]}]
    )
    alone = write(path, tmp_path / "evil.html").as_uri()
    with serving(path) as url:
        for start in (url, alone):
            page = opened(start)
            for name in VIEWS:
                show(page, name)
            show(page, "matrix")
            for summary in page.locator(".facet summary").all():
                summary.click()
            for place in range(2):
                page.locator("table.rows .open").nth(place).click()
                page.locator("dialog[open]", has_text=EVIL).wait_for()
                page.keyboard.press("Escape")
            assert EVIL in page.text_content("table.rows")
            show(page, "quality")
            assert page.text_content("table.rows tbody").count(EVIL) >= 3
            assert page.evaluate("window.owned") is None
            assert page.locator("main img, dialog img, .plot a, table.rows a").count() == 0


def test_a_running_campaign_appears_by_itself(opened, tmp_path: Path):
    """A launch that is stored while the page is open is drawn without a click, filters kept; so is the campaign's end."""
    path = tmp_path / "s.duckdb"
    specs = [fixture.spec_of("bert", target) for target in ("torch", "openvino")]
    campaign = dashboard_stores.add(path, [fixture.launch(specs[0], index, 20.0) for index in range(2)], end=False, planned=6)
    store = Store.create_or_open(path)
    with serving(path) as url:
        page = opened(f"{url}#view=matrix&model_class=bert")
        assert shown(page) == (1, 1)
        with store.campaign_lock():
            page.locator("#live", has_text="A campaign is running").wait_for()
            spool(replace(fixture.launch(specs[1], 0, 10.0), campaign_id=campaign), store.spool_folder)
            assert store.ingest().added == 1
            page.locator("#shown", has_text="2 of 2 rows").wait_for()
            assert "model_class=bert" in page.url
        page.locator("#live", has_text="No campaign is running").wait_for()
        show(page, "progress")
        assert page.locator("table.rows tbody tr", has_text="unfinished").count() == 1
        store.finish_campaign(campaign)
        page.locator("table.rows tbody tr", has_text="finished").filter(has_not_text="unfinished").wait_for()


def test_a_store_that_goes_away_leaves_what_was_read(opened, tmp_path: Path):
    """A banner says what happened; the view stays; when the store is back the banner goes."""
    path, away = tmp_path / "s.duckdb", tmp_path / "away.duckdb"
    dashboard_stores.add(path, [fixture.launch(fixture.spec_of("bert", "torch"), 0, 20.0)])
    with serving(path) as url:
        page = opened(url, expect_errors=True)
        path.rename(away)
        page.locator("#trouble", has_text="There is no store at").wait_for()
        assert page.locator("table.rows tbody tr").count() == 1
        show(page, "cold")
        page.locator("#view [role=alert]", has_text="There is no store at").wait_for()
        away.rename(path)
        page.wait_for_selector("#trouble", state="hidden")
    page.locator("#trouble", has_text="server does not answer").wait_for()


@pytest.mark.parametrize("launches", [0, 1])
def test_a_store_with_nothing_or_one_launch(opened, tmp_path: Path, launches: int):
    """Nothing breaks: an empty view names its command, a single launch is drawn without an interval."""
    path = tmp_path / "small.duckdb"
    Store.create_or_open(path)
    if launches:
        dashboard_stores.add(path, [fixture.launch(fixture.spec_of("bert", "torch"), 0, 20.0)])
    page = opened(write(path, tmp_path / "small.html").as_uri())
    for name, view in VIEWS.items():
        show(page, name)
        if not launches:
            assert view.empty[1] in page.text_content("#view"), name
    if launches:
        show(page, "matrix")
        assert "one launch" in page.locator(".plot .bartext").first.text_content()


def test_a_large_store_is_drawn_a_page_at_a_time(opened, tmp_path: Path):
    """A million simulated samples: every tile says simulated, the figure has pages, the table more rows on demand."""
    from ipfs_accelerate_py.report.dashboard.synthetic import fill

    path = tmp_path / "large.duckdb"
    fill(path, 4000, 250)
    with serving(path) as url:
        page = opened(url)
        page.wait_for_selector(".plot .xy")
        assert shown(page) == (800, 800)
        first = page.evaluate("document.querySelector('.plot').layout.yaxis.categoryarray")
        assert len(first) == 20 and all("simulated" in name for name in first)
        page.locator(".pager button", has_text="Next").click()
        assert page.evaluate("document.querySelector('.plot').layout.yaxis.categoryarray[0]") not in first
        page.locator(".more").click()
        assert page.locator("table.rows tbody tr").count() == 200
        show(page, "launches")
        assert "first 2,000 of 4,000" in page.text_content("#note")
        choose(page, "model_class", "xclip")
        page.locator("#note", has_text="first 2,000").wait_for(state="hidden")
        assert shown(page)[0] > 0
