"""The page: one document of HTML, style and scripts. Served, its data come by REST; as a file, they stand in it.

The scripts in ``assets`` are modules without dependencies. They are joined into one here, so that the same text runs from disk, where
a browser loads no module from another file.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from ...errors import UserError
from ..html import Page, write_file
from . import tables
from .detail import detail
from .filters import Filters
from .snapshot import Snapshot, Snapshots
from .views import VIEWS

MODULES = ("dom", "state", "filters", "ignored", "source", "figure", "table", "exports", "detail", "sql", "recommend", "main")
LIBRARY = "plotly.js"
SAMPLES_IN_A_FILE = 300_000  # 2 MB of digits; above it a file leaves out lists of samples, and says so
CELLS_IN_A_FILE = 1_500


@cache
def library() -> str:
    """Plotly's script. Its bundle of bars and scatters, all that the dashboard draws, is a quarter of the whole one, which takes a browser
    longer to start than all the rest; the build of the browser runtime puts it into the package. Without such a build it is the whole
    one, of Python's package."""
    bundle = files("ipfs_accelerate_py.web") / "static" / "plotly-basic.min.js"
    return bundle.read_text("utf-8") if bundle.is_file() else get_plotlyjs()


@cache
def script() -> str:
    """All modules as one script: their imports and the word export are taken out, their names are distinct."""
    folder = files(__package__) / "assets"
    texts = [(folder / f"{name}.js").read_text("utf-8") for name in MODULES]
    joined = "\n".join(re.sub(r"^import .*?;$", "", re.sub(r"^export ", "", text, flags=re.M), flags=re.M) for text in texts)
    return f'"use strict";\n(() => {{\n{joined}\n}})();\n'


@cache
def style() -> str:
    """The report's style, and what the dashboard adds to it."""
    return (files("ipfs_accelerate_py.report") / "assets" / "report.css").read_text("utf-8") + (
        files(__package__) / "assets" / "dashboard.css"
    ).read_text("utf-8")


def body() -> str:
    return (files(__package__) / "assets" / "body.html").read_text("utf-8")


@cache
def asset(name: str) -> tuple[bytes, str]:
    """Content and media type of a file that the served page asks for."""
    made = {
        LIBRARY: (library, "text/javascript"),
        "app.js": (script, "text/javascript"),
        "app.css": (style, "text/css"),
    }
    if name not in made:
        raise UserError(f"There is no asset '{name}'.")
    make, media_type = made[name]
    return make().encode(), media_type


@cache
def live() -> str:
    """The served page. The library's address has its digest, so that a browser which keeps it notices another version."""
    digest = hashlib.sha256(asset(LIBRARY)[0]).hexdigest()[:16]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">',
            '<title>Dashboard</title>\n<link rel="icon" href="data:,">\n<link rel="stylesheet" href="assets/app.css">\n'
            # In this order: the page's script asks for the data, and while they come the figures' library, which is large, is read.
            '<script src="assets/app.js" defer></script>\n'
            f'<script src="assets/{LIBRARY}?{digest}" id="plotly" defer></script>\n</head>\n<body>',
            body(),
            "</body>\n</html>\n",
        ]
    )


def write(store: Path, destination: Path) -> Path:
    """The same page as one file that opens from disk, with everything in it. UserError where it cannot be written."""
    with Snapshots(store) as snapshots:
        return write_file(destination, alone(snapshots.current(), store))


def alone(snapshot: Snapshot, store: Path) -> str:
    """The page as one text, with all views and, as far as its limits go, all details and samples."""
    made = Page(title="Dashboard", style=style(), scripts=[library(), script()])
    return made.render([body()], everything(snapshot, store))


def everything(snapshot: Snapshot, store: Path) -> dict[str, Any]:
    """What the page would ask by REST, by address."""
    cells = tables.cells(snapshot)
    samples = sum(row["samples"] or 0 for row in cells) <= SAMPLES_IN_A_FILE
    listed = [{"name": one.name, "title": one.title, "question": one.question} for one in VIEWS.values()]
    count = snapshot.rows("SELECT count(*) AS n FROM launch")[0]["n"]
    status = {
        "store": store.name,
        "version": snapshot.version,
        "launches": count,
        "waiting": 0,
        "error": None,
        "campaign_process": None,
    }
    answers: dict[str, Any] = {
        "api/status": {**status, "file": True},
        "api/views": {"views": listed, "meanings": tables.meanings()},
        **{f"api/views/{name}": one.answer(snapshot, Filters()) for name, one in VIEWS.items()},
        **{f"api/cells/{row['cell']}": detail(snapshot, row["cell"], samples=samples) for row in cells[:CELLS_IN_A_FILE]},
    }
    return answers
