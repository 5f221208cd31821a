"""What is built and shipped: the browser runtime in the wheel and the source distribution, the command, the locked versions."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from ipfs_accelerate_py.web import node

ROOT = Path(__file__).resolve().parents[1]
STATIC = "src/ipfs_accelerate_py/web/static"


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    """The build hook, which lies outside the package."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project whose build script copies ``page.html`` and counts its runs."""
    browser = tmp_path / "browser"
    (browser / "src").mkdir(parents=True)
    (browser / "src" / "page.html").write_text("one")
    (browser / "package.json").write_text('{"name": "x", "version": "1.0.0", "scripts": {"build": "node build.mjs"}}')
    (browser / "package-lock.json").write_text('{"name": "x", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": {}}}')
    (browser / "build.mjs").write_text(
        f"""import fs from "node:fs"; const out = "../{STATIC}"; fs.mkdirSync(out, {{recursive: true}});
        fs.copyFileSync("src/page.html", out + "/index.html"); fs.appendFileSync("../runs", ".");"""
    )
    code = tmp_path / "src/ipfs_accelerate_py/web/node.py"
    code.parent.mkdir(parents=True)
    code.write_text(Path(node.__file__).read_text())
    return tmp_path


def test_runtime_is_built_when_missing_or_changed(hook: ModuleType, project: Path) -> None:
    """The hook builds once, skips what is up to date, and builds again after a change of the sources."""
    assert hook.build(project) is True
    assert hook.build(project) is False
    assert (project / "runs").read_text() == "."
    (project / "browser" / "src" / "page.html").write_text("two")
    assert hook.build(project) is True
    assert (project / STATIC / "index.html").read_text() == "two"
    (project / "browser" / "node_modules" / "later").mkdir(parents=True, exist_ok=True)
    (project / "browser" / "node_modules" / "later" / "index.js").write_text("")
    assert hook.build(project) is False, "installed packages are not sources"
    (project / "browser" / "src" / "page.html").rename(project / "browser" / "src" / "renamed.html")
    assert hook.up_to_date(project) is False, "a name is part of the sources"


def test_failed_build_is_told_and_not_taken_for_done(hook: ModuleType, project: Path) -> None:
    """Npm's own words reach the user, and the next build tries again."""
    (project / "browser" / "build.mjs").write_text("throw new Error('no such shader')")
    with pytest.raises(SystemExit, match=r"Building the browser runtime failed(.|\n)*no such shader"):
        hook.build(project)
    assert hook.up_to_date(project) is False
    (project / "browser" / "build.mjs").write_text("")
    with pytest.raises(SystemExit, match="left no page"):
        hook.build(project)


def test_build_without_node_is_one_sentence(hook: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Node.js the hook asks pip for it, and only then; by hand it names the command."""
    monkeypatch.setenv("PATH", str(project / "nothing"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    builder = hook.BrowserRuntimeHook(str(project), {}, None, None, str(project), "wheel")
    assert builder.dependencies() == [node.PACKAGE]
    with pytest.raises(SystemExit, match=r"needs Node\.js 18 or later. Run: .* -m pip install"):
        hook.build(project)
    (project / STATIC).mkdir()
    (project / STATIC / "BUILD").write_text(hook.sources_hash(project))
    assert builder.dependencies() == []


def test_old_node_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system Node.js below 18 is passed over."""
    for name, said in (("node", "v16.20.0"), ("npm", "8.0.0")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {said}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert node.find_node() is None
    (tmp_path / "node").write_text("#!/bin/sh\necho v18.0.1\n")
    found = node.find_node()
    assert found is not None and found.node == tmp_path / "node"


def test_wheel_and_source_distribution_carry_the_runtime(tmp_path: Path) -> None:
    """Both hold every built file, the wasm ones too, and the wheel its command; the source distribution can build anew."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path), "-t"]
    for target in ("wheel", "sdist"):
        done = subprocess.run([*command, target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    built = {path.name for path in (ROOT / STATIC).iterdir()}
    assert "index.html" in built and any(name.endswith(".wasm") for name in built)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        assert built <= {name.removeprefix("ipfs_accelerate_py/web/static/") for name in names}
        assert not [name for name in names if "node_modules" in name or name.startswith("tests/")]
        entry_points = next(wheel.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    assert "ipfs-accelerate = ipfs_accelerate_py.cli:main" in entry_points
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        members = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"{STATIC}/{name}" for name in built} <= members
    assert {"browser/package.json", "browser/package-lock.json", "hatch_build.py", "pyproject.toml"} <= members
    assert not [name for name in members if "node_modules" in name or name.startswith(".venv")]


def test_entry_points_load() -> None:
    """Every platform and model class that the project names can be imported, and is found by its name."""
    for group in ("ipfs_accelerate_py.platforms", "ipfs_accelerate_py.models"):
        declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][group]
        found = {point.name: point for point in importlib.metadata.entry_points(group=group)}
        assert set(declared) <= set(found), "installed before pyproject.toml was changed: run make"
        for name in declared:
            assert isinstance(found[name].load(), type)


def test_lock_pins_every_requirement() -> None:
    """Each direct requirement has a locked version, and that version satisfies it."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [text for name, texts in project["optional-dependencies"].items() if name != "all" for text in texts]
    for text in [*project["dependencies"], *extras]:
        requirement = Requirement(text)
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert name in pins, f"{name} is not locked: run make lock"
        assert requirement.specifier.contains(pins[name]), f"{text}, but {pins[name]} is locked"


def test_every_dependency_has_its_reason() -> None:
    """docs/dependencies.md names each direct requirement."""
    reasons = (ROOT / "docs" / "dependencies.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [text for name, texts in project["optional-dependencies"].items() if name != "all" for text in texts]
    missing = [text for text in [*project["dependencies"], *extras] if f"| {Requirement(text).name} |" not in reasons]
    assert missing == []
