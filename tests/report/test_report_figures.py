"""The Plotly figures."""

from __future__ import annotations

import campaign_fixture as fixture
import plotly.graph_objects as go
import pytest

from ipfs_accelerate_py.report import figures, style
from ipfs_accelerate_py.report.cells import cells

ALL = [figures.heat_map, figures.latency, figures.phases, figures.memory, figures.generation]


@pytest.fixture(scope="module")
def found():
    return cells(fixture.data(list(fixture.campaign(launches=2))))


@pytest.mark.parametrize("draw", ALL)
@pytest.mark.parametrize("dark", [False, True])
def test_each_figure_is_valid_and_its_axes_have_units(draw, dark, found):
    """Built for several models at once, with a panel each; Plotly validates every property as it is set."""
    figure = draw(found, dark)
    figure.to_json()
    if draw is not figures.heat_map:
        titles = [axis.title.text for axis in figure.select_xaxes() if axis.title.text]
        assert len(titles) == 1 and any(unit in titles[0] for unit in ("milliseconds", "seconds", "megabytes"))


@pytest.mark.parametrize("draw", ALL)
def test_no_cells_give_an_empty_figure(draw):
    """Nothing to draw is not an error."""
    assert isinstance(draw([]), go.Figure)


@pytest.mark.parametrize("draw", ALL[1:])
def test_every_mark_carries_its_cell(draw, found):
    """The report filters by these ids, one for each x."""
    ids = {cell.id for cell in found}
    traces = draw(found).data
    assert traces
    for trace in traces:
        assert len(trace.customdata) == len(trace.x) == len(trace.y)
        assert set(trace.customdata) <= ids


def test_latency_has_one_mark_per_launch(found):
    """Every launch with samples is drawn, at its median."""
    drawn = sorted(x for trace in figures.latency(found).data if "launch" in trace.name for x in trace.x)
    assert drawn == sorted(value for cell in found for value in cell.medians)


def test_kinds_differ_without_colour(found):
    """In the heat map by words, in latency by symbols, in bars by patterns."""
    texts = {annotation.text for annotation in figures.heat_map(found).layout.annotations}
    assert {"✕ failed", "– unsupported"} <= texts and any("output wrong" in text for text in texts)
    assert len({symbol for _, _, symbol in style.MARKER.values()}) == len(style.MARKER)
    assert len({pattern for _, _, pattern in style.PHASES.values()}) == len(style.PHASES)


def test_a_simulated_number_says_so():
    """Beside every number of every figure."""
    records = [fixture.launch(fixture.spec_of("llama", "torch"), index, 9.0, provenance="simulated") for index in range(2)]
    for draw in ALL:
        figure = draw(cells(fixture.data(records)))
        texts = [text for trace in figure.data for text in trace.text or () if text]
        texts += [annotation.text for annotation in figure.layout.annotations]
        assert texts and all("simulated" in text for text in texts), draw.__name__


def test_names_are_not_read_as_markup():
    """Plotly takes links and styles from its texts; names arrive escaped."""
    spec = fixture.spec_of("bert", "torch", size='<a href="javascript:1">x</a>')
    records = [fixture.launch(spec, 0, 9.0), fixture.launch(fixture.spec_of("vit", "torch"), 0, 9.0)]
    for draw in ALL[:-1]:
        assert "<a" not in draw(cells(fixture.data(records))).to_json().replace("\\u003c", "<")


@pytest.mark.parametrize("paper", ["#ffffff", "#14161a"])
@pytest.mark.parametrize("colour", ["BLUE", "ORANGE", "GREEN", "PURPLE", "RED", "GREY"])
def test_colours_stand_out_on_both_papers(colour: str, paper: str):
    """WCAG 2.2, 1.4.11: graphical objects have a contrast of at least 3:1."""

    def luminance(value: str) -> float:
        channels = [int(value[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(getattr(style, colour)), luminance(paper)), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 3
