"""``dashboard`` and ``report --full``: one page, served or as a file."""

from __future__ import annotations

from pathlib import Path

import typer

from ..errors import UserError


def serve(store: Path, port: int, *, open_browser: bool, token: bool) -> None:
    """Serve the dashboard until interrupted."""
    from ..report.dashboard.server import serve as run

    run(store, port, open_browser=open_browser, token=token, say=typer.echo)


def write_file(store: Path, output: Path | None, campaign: str | None) -> None:
    """Write the dashboard as one file, beside the store where no other place is named."""
    from ..report.dashboard.page import write

    if campaign is not None:
        raise UserError("--full is of the whole store: leave out --campaign, and filter in the page.")
    destination = output or store.with_suffix(".dashboard.html")
    if destination.resolve() == store.resolve():
        raise UserError(f"The page would overwrite the store {store}: name another file with --output.")
    typer.echo(f"Dashboard: {write(store, destination).resolve()}")
