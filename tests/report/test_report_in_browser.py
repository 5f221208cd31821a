"""The report in a real browser, opened from disk: filters, details, keyboard, themes, and hostile names."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import campaign_fixture as fixture
import pytest

from ipfs_accelerate_py.report.html import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: pip install playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(fixture.data(), tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def opened(browser) -> Iterator:
    """A function that opens a file; afterwards there must have been no error and no request but the file itself."""
    complaints: list[str] = []
    pages = []

    def open_file(path: Path, **options):
        page = browser.new_page(**options)
        pages.append(page)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on(
            "request", lambda request: None if request.url.startswith(("file:", "data:")) else complaints.append(request.url)
        )
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_file
    for page in pages:
        page.close()
    assert complaints == []


def rows(page, section: str) -> int:
    return page.locator(f"#{section} tbody tr:visible").count()


def test_filters_combine_and_clear(opened, file: Path):
    """Each narrows the tables and the map; together they narrow further; clearing brings all back."""
    page = opened(file)
    assert rows(page, "all") == 32 and page.text_content("#shown") == "32 of 32 cells"
    page.select_option("select[name=browser]", "firefox")
    assert rows(page, "all") == 8
    page.select_option("select[name=status]", "failed")
    assert page.text_content("#shown") == "1 of 32 cells"
    assert rows(page, "all") == rows(page, "failures") == 1
    assert page.locator(".grid button.tile:visible").count() == 1
    assert page.locator("#latency").is_hidden()
    page.click("button[type=reset]")
    playwright.expect(page.locator("#shown")).to_have_text("32 of 32 cells")
    assert rows(page, "all") == 32 and page.locator("#latency").is_visible()


def test_filters_act_on_figures(opened, file: Path):
    """A figure keeps the marks of visible cells only; a model's card goes when nothing is left to draw."""
    page = opened(file)
    page.locator("#latency .plot").first.scroll_into_view_if_needed()
    page.wait_for_selector("#latency .plot .xy")
    marks = "() => document.querySelector('#latency .plot').data.filter((t) => t.name === 'launch').flatMap((t) => t.x).length"
    assert page.evaluate(marks) == 39  # 8 targets x 5 launches, of which one died
    page.select_option("select[name=platform]", "cpu")
    assert page.evaluate(marks) == 10
    page.select_option("select[name=model]", "vit")
    assert page.locator("#latency .card:visible").count() == 1


def test_the_best_of_a_model_is_not_recomputed(opened, file: Path):
    """A filter by platform leaves the ranking alone; a filter by model shows that model's row."""
    page = opened(file)
    page.select_option("select[name=platform]", "webgpu")
    assert rows(page, "best") == 4
    page.select_option("select[name=model]", "llama")
    assert rows(page, "best") == 1


def test_a_cell_opens_its_details_by_keyboard(opened, file: Path):
    """Focus and Enter open; the dialog has command, launches, environment, samples; Escape closes and focus returns."""
    page = opened(file)
    page.focus("#all tbody tr:first-child")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] .xy")
    told = page.text_content("dialog")
    assert "--models bert --size small" in told and "cosine >= 0.999" in told
    assert page.evaluate("document.querySelector('dialog .plot').data.map((t) => t.x.length)") == [44] * 5
    page.locator("summary", has_text="Environment").click()
    assert page.locator("dialog td", has_text="1.32.0").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("dialog").is_hidden()
    assert page.evaluate("document.activeElement.tagName") == "TR"


def test_a_link_to_a_run_opens_it(opened, file: Path):
    """The compatibility matrix links to the launches of a spec; what is no run opens nothing."""
    spec = fixture.spec_of("bert", "openvino")
    page = opened(file)
    for fragment, title in ((f"#run={spec.hash}", "bert small on openvino"), ("#run=0000", None), ("#run=<b>", None)):
        page.goto("about:blank")
        page.goto(file.as_uri() + fragment)
        page.wait_for_selector("html[data-ready]")
        assert page.locator("dialog[open] #detail-title").all_inner_texts() == ([title] if title else [])


def test_a_simulated_series_is_named_in_the_details(opened, tmp_path: Path):
    """The figure of every iteration says of each launch that it is simulated."""
    records = [fixture.launch(fixture.spec_of("bert", "torch"), index, 5.0, provenance="simulated") for index in range(2)]
    page = opened(write_report(fixture.data(records), tmp_path / "simulated.html"))
    page.locator("button.tile").first.click()
    names = page.locator("dialog .legendtext").all_text_contents()
    assert names == ["simulated launch 0", "simulated launch 1"]


def test_a_failed_cell_says_what_went_wrong(opened, file: Path):
    """Class, phase and message, without an empty plot."""
    page = opened(file)
    page.locator("button.tile.failed").first.click()
    assert "gpu_process_crashed in compile" in page.text_content("dialog")
    assert page.locator("dialog .plot").count() == 0


def test_noise_is_told_in_the_details(opened, file: Path):
    """The warning of a launch stands in its cell."""
    page = opened(file)
    page.locator("#all tr", has_text="llama small").filter(has_text="cpu · torch").click()
    assert "launch 2: load average rose to 3.1" in page.text_content("dialog")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_and_the_button(opened, file: Path, scheme: str):
    """The button switches to the other one, page and figures."""
    page = opened(file, color_scheme=scheme)
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    before = page.evaluate(paper)
    assert (before == "rgb(20, 22, 26)") == (scheme == "dark")
    page.locator("#latency .plot").first.scroll_into_view_if_needed()
    page.wait_for_selector("#latency .plot .xy")
    ink = "document.querySelector('#latency .plot').layout.font.color"
    ink_before = page.evaluate(ink)
    page.click("#theme")
    assert page.evaluate(paper) != before and page.evaluate(ink) != ink_before


def test_a_narrow_screen_does_not_scroll_sideways(opened, file: Path):
    """Wide tables scroll in their own frame."""
    page = opened(file, viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_printing_shows_every_figure_and_no_controls(opened, file: Path):
    """Figures that were never scrolled to are drawn before the page is printed."""
    page = opened(file)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#filters").is_hidden()
    assert page.locator(".plot").count() == page.locator(".plot:has(.xy)").count() > 10


def test_hostile_names_never_run(opened, tmp_path: Path):
    """Not in the page, the figures, the filters or the details."""
    evil = (
        '</script><script>window.owned=1</script><img src=x onerror="window.owned=1"><a href="javascript:window.owned=1">x</a>'
    )
    spec = fixture.spec_of("bert", "torch", model_class=evil, size=evil)
    facts = {evil: evil}
    records = [fixture.launch(spec, index, 5.0, facts=facts, environment=facts) for index in range(2)]
    failed = [
        fixture.launch(fixture.spec_of("bert", "openvino", precision=evil), 0, None, error_message=evil, error_class=evil)
    ]
    page = opened(write_report(fixture.data([*records, *failed]), tmp_path / "evil.html"))
    page.locator("#latency .plot").first.scroll_into_view_if_needed()
    page.wait_for_selector("#latency .plot .xy")
    for tile in page.locator("button.tile[data-cell]").all():
        tile.click()
        assert evil in page.text_content("dialog")
        page.keyboard.press("Escape")
    assert page.evaluate("window.owned") is None
    assert page.locator("img, main a, dialog a, svg a").count() == 0


def test_an_empty_report_opens(opened, tmp_path: Path):
    """Without launches there is nothing to filter and nothing breaks."""
    page = opened(write_report(fixture.data([]), tmp_path / "empty.html"))
    assert "ipfs-accelerate bench --quick" in page.text_content("body")
