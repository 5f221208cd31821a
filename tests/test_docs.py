"""Documentation that cannot rot: every command in it exists with its options, what answers in seconds runs, and every link leads somewhere.

A command is a line of a code block, or a span between back quotes, that begins with ``ipfs-accelerate``, ``python``, ``pytest``,
``make`` or ``pip install``; a code block that begins with ``from`` or ``import`` is Python. ``ELSEWHERE`` says which commands are not
run here, why, and which test runs the command.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from ipfs_accelerate_py.cli import app
from ipfs_accelerate_py.report.dashboard.views import VIEWS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands
# Commands that answer at once on the reference data, anywhere; the others are checked by their words.
RUN = ("models", "query", "compare", "import", "matrix", "export", "history", "predict", "recommend", "prices", "report")
ELSEWHERE = {
    "bench": ("measures for minutes", "campaign/test_campaign.py"),
    "browsers": ("looks into every browser, or installs them", "web/test_browsers_install.py"),
    "cache": ("clears what the reader keeps", "web/test_profiles.py"),
    "calibrate": ("measures each device for a minute", "predict/test_probes.py"),
    "collectives": ("starts processes that measure", "recommend/test_collectives.py"),
    "dashboard": ("serves until it is interrupted", "report/test_dashboard_server.py"),
    "detect": ("asks every device and browser", "test_cli.py"),
    "quantize": ("needs the reader's weights, or writes gigabytes", "quantize/test_quantize_command.py"),
    "run": ("opens a browser", "web/test_run_command.py"),
    "serve": ("opens a browser and serves until it is interrupted", "serve/test_serve_browser.py"),
}
NOT_HERE = (
    "./my-model",
    "model.onnx",
    "organisation/name",
    "NAME",
    "--train",
)  # the reader's own files and names; a fit of minutes
GUIDES = ("getting-started", "benchmarking", "browsers", "low-bit-models", "prediction", "selection", "dashboard", "adding-a-platform",
          "adding-a-model", "reading-a-result")  # fmt: skip


def lines(page: Path) -> Iterator[str]:
    """Every ``ipfs-accelerate ...`` of a page: lines of code blocks, and commands between back quotes."""
    text = page.read_text()
    yield from (line.strip() for line in re.findall(r"^(?: {4,}|\t)(ipfs-accelerate .+)$", text, re.M))
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S):
        yield from (line.strip() for line in block.splitlines() if line.strip().startswith("ipfs-accelerate "))
    yield from (" ".join(span.split()) for span in re.findall(r"(?<!`)`(ipfs-accelerate [^`]+)`(?!`)", text))


def words(line: str) -> list[str]:
    """The command's words, without the comment behind it and without where the shell sends its output."""
    found = shlex.split(line, comments=True)[1:]
    return found[: next((place for place, word in enumerate(found) if word in (">", "|", "&&")), len(found))]


ALL = [pytest.param(line, id=f"{page.stem}: {line[:60]}") for page in PAGES for line in dict.fromkeys(lines(page))]
ALL += [pytest.param(view.empty[1], id=f"view {view.name}") for view in VIEWS.values()]


def problem(line: str) -> str | None:
    """What is wrong with a command, by the command line's own parser; None if it would run."""
    name, *rest = words(line) or [""]
    if name == "..." or name.startswith("-"):
        return None
    if name not in COMMANDS:
        return f"there is no command '{name}'"
    command = COMMANDS[name]
    known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]} | {"--help"}
    unknown = [word for word in rest if word.startswith("--") and word.partition("=")[0] not in known]
    if unknown:
        return f"'{name}' has no option {unknown[0]}"
    if "..." in rest or not rest or any(word.startswith("--") and word == rest[-1] for word in rest):
        return None  # an excerpt in a sentence: its names are right
    try:
        command.make_context(name, list(rest), resilient_parsing=False).close()
    except Exception as error:  # noqa: BLE001  # whatever the parser raises is what is wrong
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("line", ALL)
def test_each_command_exists_with_its_options(line: str) -> None:
    """Its name, its options and the types of their values, as the command line itself reads them."""
    assert problem(line) is None


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("ipfs-accelerate bnch --quick", "no command 'bnch'"),
        ("ipfs-accelerate bench --quik --models bert", "'bench' has no option --quik"),
        ("ipfs-accelerate dashboard --port many", "valid integer"),
        ("ipfs-accelerate export results/parquet --format csv", None),
        ("ipfs-accelerate export --store a.duckdb", "destination"),
    ],
)
def test_a_wrong_command_would_be_found(line: str, sentence: str | None) -> None:
    """The check itself can fail."""
    found = problem(line)
    assert found is None if sentence is None else found is not None and sentence.lower() in found.lower()


def test_the_pages_hold_commands() -> None:
    """The reading of pages finds what is there."""
    assert len(ALL) > 40
    assert "ipfs-accelerate bench --plan" in {line.partition("#")[0].strip() for line in lines(ROOT / "README.md")}


def _here() -> list[str]:
    """Commands that this test runs, each once, in the order of the pages."""
    found = {tuple(words(line.values[0])): line.values[0] for line in ALL}
    return [
        line
        for command, line in found.items()
        if (len(command) > 1 or command == ("models",))
        and command[0] in RUN
        and not any(word in NOT_HERE for word in command)
        and not _excerpt(command)
    ]


def _excerpt(command: tuple[str, ...]) -> bool:
    """Whether a sentence only names the command: something is left out, or its last option has no value."""
    options = [parameter for parameter in COMMANDS[command[0]].params if command[-1] in parameter.opts]
    return "..." in command or any(not getattr(option, "is_flag", False) for option in options)


def test_every_command_is_run_somewhere() -> None:
    """Here, or by the named test, which exists and uses it; and no command is in both lists or in none."""
    used = {words(line.values[0])[0] for line in ALL if words(line.values[0])}
    names = {name for name in used if name in COMMANDS}
    assert names == set(RUN) | set(ELSEWHERE) and not set(RUN) & set(ELSEWHERE)
    assert {words(line)[0] for line in _here()} == set(RUN)
    for name, (_, test) in ELSEWHERE.items():
        # As an argument of the program, or by the Python function behind it.
        assert re.search(rf'"{name}["\s]|\b{name}[.(]', (ROOT / "tests" / test).read_text()), f"{test} runs no {name}"


def test_cheap_commands_run_as_they_are_written(tmp_path: Path) -> None:
    """On a store of the reference data, from the root of a copy, in the order of the pages: none fails."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "results").mkdir()
    prices = re.search(r"^    (hardware,.*?)\n\n", (ROOT / "docs" / "selection.md").read_text(), re.M | re.S)
    assert prices
    (tmp_path / "prices.csv").write_text("\n".join(line.strip() for line in prices[1].splitlines()) + "\n")
    program = "import shlex, sys; from ipfs_accelerate_py.cli import app\n"
    program += "for line in sys.stdin.read().splitlines():\n"
    program += "    try: app(shlex.split(line)[1:])\n"
    program += "    except SystemExit as end: assert not end.code, line\n"
    stores = ["results/ipfs-accelerate.duckdb", "a.duckdb"]
    made = [f"ipfs-accelerate import data/reference/two-cores-without-gpu --store {store}" for store in stores]
    made += ["ipfs-accelerate export exported --store a.duckdb", "ipfs-accelerate prices import prices.csv"]
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="\n".join([*made, *(shlex.join(["ipfs-accelerate", *words(line)]) for line in _here())]),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def _code(page: Path) -> Iterator[str]:
    """Code blocks of a page, fenced and indented, without their indentation."""
    text = page.read_text()
    yield from (block for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S))
    yield from (textwrap.dedent(block) for block in re.findall(r"(?:^(?: {4,}|\t).*\n(?:\n(?= {4}))?)+", text, re.M))


PYTHON = [
    pytest.param(block, id=f"{page.stem}: {block.strip().splitlines()[0][:50]}")
    for page in PAGES
    for block in _code(page)
    if re.match(r"\s*(from|import) \w", block)
]
OTHERS = sorted(
    {
        line.partition("#")[0].strip()
        for page in PAGES
        for text in [*_code(page), *(span for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text()))]
        for line in text.splitlines()
        if re.match(r"(python3?|pytest|make|pip install) ", line)
    }
)


@pytest.mark.parametrize("block", PYTHON)
def test_each_python_example_imports_what_exists(block: str) -> None:
    """It compiles, and every name that it imports from this program is there."""
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (
            "ipfs_accelerate_py",
            "fixed_web_platform",
        ):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


def test_the_notebook_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the dashboard's page, on a store of the reference data: it draws a figure of bert's cells."""
    import plotly.graph_objects as go

    from ipfs_accelerate_py.store.exchange import import_

    (tmp_path / "results").mkdir()
    import_(tmp_path / "results" / "ipfs-accelerate.duckdb", ROOT / "data" / "reference" / "two-cores-without-gpu")
    monkeypatch.chdir(tmp_path)
    shown: list[go.Figure] = []
    monkeypatch.setattr(go.Figure, "show", lambda figure: shown.append(figure))
    (block,) = [code for code in _code(ROOT / "docs" / "dashboard.md") if "import figures" in code]
    exec(compile(block, "docs/dashboard.md", "exec"), {})  # the page's own text
    assert len(shown) == 1 and sum(len(trace.customdata) for trace in shown[0].data) > 5


@pytest.mark.parametrize("line", OTHERS)
def test_each_other_command_names_what_exists(line: str) -> None:
    """Scripts with their options, modules, folders of tests, targets of the Makefile and extras of the package."""
    program, *rest = shlex.split(line)
    if program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.M)
    elif program == "pip":
        extras = re.search(r"\[(.*)\]", line)
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(extras[1].split(",") if extras else ()) <= set(known)
    elif program == "pytest":
        assert all(list(ROOT.glob(word)) for word in rest if word.startswith("tests"))
    elif rest[0] == "-m":
        assert importlib.util.find_spec(rest[1])
    else:
        script = ROOT / rest[0]
        source = script.read_text()
        for name in re.findall(r"^\s*(?:from|import) ([\w.]+)", source, re.M):  # modules beside it, which may hold its options
            beside = script.parent / f"{name.replace('.', '/')}.py"
            source += beside.read_text() if beside.is_file() else ""
        options = {word.partition("=")[0] for word in rest[1:] if word.startswith("--")}
        assert all(f'"{option}"' in source for option in options), f"{rest[0]} has other options than {options}"


def test_every_guide_is_there_and_the_readme_leads_to_it() -> None:
    """What a newcomer looks for."""
    readme = (ROOT / "README.md").read_text()
    for name in GUIDES:
        assert len((ROOT / "docs" / f"{name}.md").read_text()) > 1000 and f"docs/{name}.md" in readme, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_to_a_file_leads_somewhere(page: Path) -> None:
    """Pages, pictures and folders; the heading too, where a link names one."""
    text = page.read_text()
    for address in re.findall(r"\]\(([^)\s]+)\)", text):
        if address.startswith(("http:", "https:")):
            continue
        name, _, heading = address.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), f"{page.name} links to {address}"
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.M)
            assert heading in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, address
