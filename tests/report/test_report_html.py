"""The report's file: whole, self-contained, and harmless whatever a name or a message holds."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import campaign_fixture as fixture
import pytest

from ipfs_accelerate_py.report.html import render, write_report

VOID = {"meta", "link", "br", "input", "img", "hr"}


class Page(HTMLParser):
    """Checks nesting as it reads, and keeps scripts, addresses, ids and the text outside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts: list[tuple[dict, str]] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "data", "srcset", "poster")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif not self.open or self.open[-1] != "style":
            self.text += f"{data} "


@pytest.fixture(scope="module")
def text() -> str:
    return render(fixture.data())


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def payload(page: Page) -> dict:
    return json.loads(next(script for attributes, script in page.scripts if attributes.get("id") == "data"))


def test_the_file_is_written_where_asked(tmp_path: Path):
    """Folders are made; the size is that of plotly.js and a little more."""
    path = write_report(fixture.data(), tmp_path / "a" / "b" / "report.html")
    assert path.read_text("utf-8").startswith("<!doctype html>")
    assert path.stat().st_size < 7_000_000


def test_nothing_is_loaded_from_elsewhere(page: Page, text: str):
    """No address but the empty icon, no stylesheet import, and a policy that forbids every request."""
    assert page.addresses == ["data:,"]
    styles = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in styles and "@import" not in styles
    assert "default-src 'none'" in text and "unsafe-eval" not in text and "script-src 'unsafe-inline'" not in text


def test_plotly_is_there_once(page: Page):
    """Three scripts: the data, plotly.js, ours."""
    assert len(page.scripts) == 3
    assert sum("plotly.js v" in script[:400] for _, script in page.scripts) == 1


def test_every_launch_is_in_the_data_with_all_its_samples(page: Page):
    """By id, with samples, phases, environment and machine."""
    data = fixture.data()
    content = payload(page)
    found = {launch["launch_id"]: launch for cell in content["cells"].values() for launch in cell["launches"]}
    assert len(found) == len(data.launches)
    for launch in data.launches:
        there = found[launch["launch_id"]]
        assert there["samples_ns"] == list(launch["samples_ns"]) and there["phases_ns"] == launch["phases_ns"]
        assert content["shared"][there["environment"]] == launch["environment"]
        assert content["shared"][there["machine"]] == launch["machine"]


def test_sections_come_in_reading_order(text: str):
    """Findings, best, map, figures, table, what is missing, what failed."""
    marks = [
        "findings",
        "filters",
        "best",
        "map",
        "latency",
        "phases",
        "memory",
        "generation",
        "all",
        "unavailable",
        "failures",
    ]
    places = [text.index(f'{"class" if mark == "findings" else "id"}="{mark}"') for mark in marks]
    assert places == sorted(places)


def test_failed_and_unsupported_differ_without_colour(text: str):
    """By symbol and word in each cell of the map, and by border and pattern in the style."""
    assert "<b>✕</b><small>failed</small>" in text and "<b>–</b><small>cannot run</small>" in text
    style = text[text.index("<style>") : text.index("</style>")]
    rules = dict(re.findall(r"\.tile\.(failed|unsupported|simulated|inaccurate) \{([^}]*)\}", style))
    borders = {re.search(r"border: \S+ (\w+)", rule)[1] for rule in rules.values()}
    assert len(rules) == len(borders) == 4


def test_failures_have_class_and_message(page: Page):
    """And unavailable platforms their reason and remedy."""
    assert "gpu_process_crashed" in page.text and "SIGABRT in TFLite" in page.text
    assert "There is no /dev/kfd" in page.text and "Load the amdgpu driver." in page.text


def test_hostile_strings_stay_text():
    """A name that is markup adds no element, no handler and no script, in tables and in the data alike."""
    evil = '</script><script>window.owned=1</script><img src=x onerror="window.owned=1">'
    quote = '" onclick="window.owned=1'
    spec = fixture.spec_of("bert", "torch", model_class=evil, size=quote, precision=quote)
    failed = fixture.launch(fixture.spec_of("bert", "openvino"), 0, None, error_message=evil, error_class=evil)
    platforms = ({"name": evil, "available": False, "reason": evil, "remedy": evil},)
    records = [fixture.launch(spec, index, 5.0, facts={evil: evil}) for index in range(2)]
    page = Page(render(fixture.data([*records, failed], platforms=platforms, machine={"cpu_model": evil})))
    assert len(page.scripts) == 3 and page.handlers == [] and "img" not in page.tags
    assert evil in page.text
    assert any(cell["filters"]["model"] == evil for cell in payload(page)["cells"].values())


def test_not_a_number_becomes_null():
    """The data stay valid JSON, and no figure shows a number that is none."""
    accuracy = fixture.Accuracy(cosine=float("nan"), relative_error=float("inf"), top1_agreement=None, passed=True, rule="r")
    records = [
        fixture.launch(
            fixture.spec_of("bert", "torch"), index, 5.0, accuracy=accuracy, host_peak_bytes=None, noise={"x": float("nan")}
        )
        for index in range(3)
    ]
    page = Page(render(fixture.data(records)))
    [cell] = payload(page)["cells"].values()
    assert cell["launches"][0]["accuracy"]["cosine"] is None and cell["launches"][0]["noise"]["x"] is None
    assert "nan" not in page.text.lower().replace("finance", "")


def test_no_launches_give_a_report_that_helps():
    """What to type, and what is not available; no empty figures or tables."""
    page = Page(render(fixture.data([])))
    assert "Nothing has been measured yet" in page.text and "ipfs-accelerate bench --quick" in page.text
    assert "There is no /dev/kfd" in page.text
    assert "figure" not in page.tags and "form" not in page.tags


def test_only_failures_give_a_report_without_figures():
    """Failures are shown; nothing is drawn."""
    page = Page(render(fixture.data([fixture.launch(fixture.spec_of("bert", "torch"), 0, None)])))
    assert "process_died" in page.text and "figure" not in page.tags


def test_simulated_numbers_are_marked_in_every_table():
    """Beside the median, the cold start and the memory."""
    records = [fixture.launch(fixture.spec_of("bert", "torch"), index, 5.0, provenance="simulated") for index in range(3)]
    text = render(fixture.data(records))
    row = text[text.index('<section id="all">') :]
    row = row[row.index("<tbody>") : row.index("</tbody>")]
    assert row.count("◇ simulated</span>") == 1 + 3  # the status, and each number
    assert "<i>◇ simulated</i>" in text
