"""A platform that another package registers is listed, planned, detected and rated like our own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ipfs_accelerate_py.campaign.plan import Request, engine_names, make_plan, probe_target
from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.platforms.registry import platform_names
from ipfs_accelerate_py.report.rating import device_class
from ipfs_accelerate_py.spec import PLATFORMS

PLUG_IN = """
from ipfs_accelerate_py.platforms.base import Available, Device
from ipfs_accelerate_py.platforms.cpu import Cpu

class Abacus(Cpu):
    name = "abacus"
    engines = ("beads",)

    def probe(self):
        return Available((Device("default", "an abacus with ten wires"),), self.engines)

    def unsupported(self, workload, engine):
        return "It has ten wires." if workload.model_class == "vit" else None
"""


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with one platform: its module, and the metadata that pip would write."""
    (tmp_path / "abacus_platform.py").write_text(PLUG_IN)
    metadata = tmp_path / "abacus_platform-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: abacus-platform\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[ipfs_accelerate_py.platforms]\nabacus = abacus_platform:Abacus\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_it_comes_after_our_own(plug_in: Path) -> None:
    """The order of our own platforms stays what it is."""
    assert platform_names() == (*PLATFORMS, "abacus")
    assert "beads" in engine_names()


def test_it_is_planned_and_what_it_cannot_run_has_its_reason(plug_in: Path) -> None:
    """A campaign may name it and its engine; a cell that it refuses keeps the reason that it gave."""
    request = Request(models=("bert", "vit"), platforms=("abacus",), engines=("beads",), launches=2)
    plan = make_plan(request, {"abacus": probe_target("abacus", simulate=False)})
    assert [(spec.workload.model_class, spec.target.platform, spec.target.engine) for spec in plan.specs.values()] == [
        ("bert", "abacus", "beads")
    ]
    assert [(cell.spec.workload.model_class, cell.reason) for cell in plan.impossible] == [("vit", "It has ten wires.")]


def test_detect_shows_it(plug_in: Path) -> None:
    """As a person meets it, in a process of its own."""
    command = [
        sys.executable,
        "-c",
        "import sys; sys.path.insert(0, sys.argv.pop(1)); from ipfs_accelerate_py.cli import main; main()",
    ]
    done = subprocess.run(
        [*command, str(plug_in), "detect", "--platforms", "abacus", "--json"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["abacus"]["devices"][0]["description"] == "an abacus with ten wires"


def test_it_is_compared_with_nothing_else() -> None:
    """Nothing says whether another package's device is a CPU or a GPU, so it is a class of its own."""
    launch = {"platform": "abacus", "engine": "beads", "device": "default", "session_device": None, "software_adapter": None}
    assert device_class(launch) == "device of abacus"


def test_an_unknown_platform_is_still_refused(plug_in: Path) -> None:
    """With the name that was meant."""
    with pytest.raises(UserError, match="did you mean abacus"):
        Request(platforms=("abacuss",)).checked()
