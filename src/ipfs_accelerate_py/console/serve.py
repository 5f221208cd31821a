"""``serve``: open the model with progress, say what runs where, and answer until Ctrl-C."""

from __future__ import annotations

import os

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from ..errors import LaunchError, UnavailableError
from ..platforms.extras import load_extra
from ..quantize.folder import Progress as Step
from ..serve.model import Options, open_service
from ..serve.server import Server, check_address
from ..serve.service import Service

TOKEN_VARIABLE = "IPFS_ACCELERATE_SERVE_TOKEN"


def serve(model: str, options: Options, host: str, port: int, token: str | None) -> None:
    """``token`` may also come from the variable IPFS_ACCELERATE_SERVE_TOKEN, where other users of the machine do not see it."""
    token = token or os.environ.get(TOKEN_VARIABLE) or None
    check_address(host, token)
    for package in ("torch", "transformers", "tokenizers"):
        load_extra(package, "torch")
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("opening the model", total=None)

        def on_progress(step: Step) -> None:
            progress.update(task, description=f"{step.phase} {step.name}", completed=step.done_bytes, total=step.total_bytes)

        try:
            service = open_service(model, options, on_progress=on_progress)
        except LaunchError as error:
            raise UnavailableError(f"The browser could not run this model ({error.error_class}): {error}") from error
    try:
        server = Server(service, host, port, token)
        server.run(lambda: console.print(startup_line(service, server.url), soft_wrap=True, markup=False))
    finally:
        service.close()


def startup_line(service: Service, url: str) -> str:
    """Which weights, browser and adapter answer, and where."""
    facts, about = service.engine.describe(), service.about()
    adapter = facts["adapter"]
    names = (adapter.get("description"), adapter.get("device"), adapter.get("architecture"), adapter.get("vendor"))
    named = next((name for name in names if name), "an adapter without a name")
    kind = {True: "software, not a GPU: slow", False: "GPU", None: "unknown whether a GPU"}[facts["software_adapter"]]
    garbage = "; synthetic weights: the text is garbage" if about["weights"] == "synthetic" else ""
    return (
        f"Serving {service.name} ({about['bits_per_weight']:g} bits a weight, context of {service.engine.context_length} tokens{garbage}) "
        f"in {facts['browser']} {facts['browser_version']} on {named} ({kind}): {url}"
    )
