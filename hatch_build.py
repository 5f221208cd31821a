"""Builds the browser runtime (``browser/``, TypeScript) into the package (``web/static``) when it is missing or out of date.

A hook of the wheel, the editable install and the source distribution.
Whoever installs the built wheel or builds from the source distribution needs no Node.js: it carries ``web/static``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_STATIC = Path("src/ipfs_accelerate_py/web/static")
_NOT_SOURCES = {"node_modules", "dist", "coverage"}


class BrowserRuntimeHook(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Node.js from PyPI, only where it will be used and the machine has none."""
        node = _node_module(Path(self.root))
        return [] if up_to_date(Path(self.root)) or node.find_node() else [node.PACKAGE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        build(Path(self.root))


def build(root: Path) -> bool:
    """Run ``npm ci`` and ``npm run build`` where needed; whether it was. Exits with a sentence where that fails."""
    if up_to_date(root):
        return False
    folder = root / "browser"
    if not (folder / "package.json").is_file():
        sys.exit(f"The browser runtime cannot be built: there is no {folder / 'package.json'}. Clone the whole repository.")
    node = _node_module(root).find_node()
    if node is None:
        package = _node_module(root).PACKAGE
        sys.exit(f"Building the browser runtime needs Node.js 18 or later. Run: {sys.executable} -m pip install '{package}'")
    hash_of_sources = sources_hash(root)  # before the build: what changes meanwhile is built next time
    steps = [["run", "build"]]
    if not _packages_installed(folder):
        steps.insert(0, ["ci", "--no-audit", "--no-fund"])
    for arguments in steps:
        done = subprocess.run(
            [*node.npm, *arguments],
            cwd=folder,
            env=node.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if done.returncode != 0:
            sys.exit(f"Building the browser runtime failed: npm {arguments[0]} in {folder} said\n{done.stdout.strip()}")
    if not any((root / _STATIC).glob("*.html")):
        sys.exit(f"Building the browser runtime failed: npm run build in {folder} left no page in {root / _STATIC}.")
    (root / _STATIC / "BUILD").write_text(hash_of_sources + "\n")
    return True


def up_to_date(root: Path) -> bool:
    """Whether ``web/static`` was built from the sources that are there now (or came without its sources)."""
    stamp = root / _STATIC / "BUILD"
    if not stamp.is_file():
        return False
    return not (root / "browser").is_dir() or stamp.read_text().strip() == sources_hash(root)


def sources_hash(root: Path) -> str:
    """SHA-256 of the names and contents of everything in ``browser/`` that a build can depend on."""
    digest = hashlib.sha256()
    for path in _sources(root / "browser"):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _packages_installed(folder: Path) -> bool:
    """Whether npm's own note of what it installed, which it writes last, is as new as the lock file."""
    lock, note = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    return note.is_file() and note.stat().st_mtime >= lock.stat().st_mtime


def _sources(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in _NOT_SOURCES:
            yield from _sources(path)
        elif path.is_file():
            yield path


def _node_module(root: Path) -> ModuleType:
    """The package's own ``web/node.py``, loaded by its path: the package is not installed yet."""
    spec = importlib.util.spec_from_file_location("_ipfs_accelerate_node", root / "src/ipfs_accelerate_py/web/node.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
