"""Documentation that cannot rot: every command in it exists with its options, cheap ones run, and every link leads somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
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
RUN = ("models", "query", "compare", "import", "matrix", "export")


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


def _cheap() -> list[str]:
    found = {tuple(words(line.values[0])): line.values[0] for line in ALL}
    return [line for command, line in found.items() if len(command) > 1 and command[0] in RUN]


def test_cheap_commands_run_as_they_are_written(tmp_path: Path) -> None:
    """On a store of the reference data, from the root of a copy, in the order of the pages: none fails."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "results").mkdir()
    program = "import shlex, sys; from ipfs_accelerate_py.cli import app\n"
    program += "for line in sys.stdin.read().splitlines():\n"
    program += "    try: app(shlex.split(line)[1:])\n"
    program += "    except SystemExit as end: assert not end.code, line\n"
    stores = ["results/ipfs-accelerate.duckdb", "a.duckdb"]
    made = [f"ipfs-accelerate import data/reference/two-cores-without-gpu --store {store}" for store in stores]
    made.append("ipfs-accelerate export exported --store a.duckdb")
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="\n".join(
            [*made, *(shlex.join(["ipfs-accelerate", *words(line)]) for line in _cheap() if "..." not in words(line))]
        ),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


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
