"""Find the browsers of this machine. Versions are read from the program that was found, never from a table."""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import UnavailableError, UserError, nearest
from ..paths import cache_folder
from ..platforms.base import Unavailable

KINDS = ("chromium", "firefox", "safari", "webkit")
_VERSION_TIMEOUT_S = 20


@dataclass(frozen=True)
class Browser:
    """A browser that is installed here. ``kind`` says how it is driven and is one of KINDS; ``version`` is its own answer."""

    key: str
    name: str
    kind: str
    version: str
    executable: Path


@dataclass(frozen=True)
class _Known:
    """Where a browser usually is: command names on PATH, then paths by system, and how to install it by system or distribution.

    ``{local}``, ``{programs}`` and ``{programs_x86}`` are Windows folders, ``{home}`` is the home folder.
    """

    name: str
    kind: str
    commands: tuple[str, ...]
    paths: dict[str, tuple[str, ...]]
    remedy: dict[str, str]


_INSTALL = "python -m ipfs_accelerate_py.web.install"

KNOWN: dict[str, _Known] = {
    "chromium": _Known(
        "Chromium",
        "chromium",
        ("chromium", "chromium-browser"),
        {
            "linux": ("/usr/lib/chromium/chromium", "/snap/bin/chromium"),
            "darwin": ("/Applications/Chromium.app/Contents/MacOS/Chromium",),
            "win32": (r"{local}\Chromium\Application\chrome.exe",),
        },
        {
            "linux": "Run: sudo apt-get install chromium",
            "ubuntu": "Run: sudo snap install chromium",
            "fedora": "Run: sudo dnf install chromium",
            "arch": "Run: sudo pacman -S chromium",
            "darwin": "Run: brew install --cask chromium",
            "win32": "Run: winget install Hibbiki.Chromium",
        },
    ),
    "chromium-headless-shell": _Known(
        "Chromium headless shell",
        "chromium",
        ("chromium-headless-shell", "chrome-headless-shell"),
        {"linux": ("/usr/lib/chromium/chromium-headless-shell",)},
        {"linux": f"Run: {_INSTALL} chromium-headless-shell"},
    ),
    "chrome": _Known(
        "Google Chrome",
        "chromium",
        ("google-chrome", "google-chrome-stable"),
        {
            "linux": ("/opt/google/chrome/chrome",),
            "darwin": ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",),
            "win32": (
                r"{programs}\Google\Chrome\Application\chrome.exe",
                r"{programs_x86}\Google\Chrome\Application\chrome.exe",
                r"{local}\Google\Chrome\Application\chrome.exe",
            ),
        },
        {
            "linux": "Install google-chrome-stable from https://www.google.com/chrome",
            "darwin": "Run: brew install --cask google-chrome",
            "win32": "Run: winget install Google.Chrome",
        },
    ),
    "edge": _Known(
        "Microsoft Edge",
        "chromium",
        ("microsoft-edge", "microsoft-edge-stable"),
        {
            "linux": ("/opt/microsoft/msedge/msedge",),
            "darwin": ("/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",),
            "win32": (
                r"{programs_x86}\Microsoft\Edge\Application\msedge.exe",
                r"{programs}\Microsoft\Edge\Application\msedge.exe",
            ),
        },
        {
            "linux": "Install microsoft-edge-stable from https://www.microsoft.com/edge",
            "darwin": "Run: brew install --cask microsoft-edge",
            "win32": "Run: winget install Microsoft.Edge",
        },
    ),
    "firefox": _Known(
        "Mozilla Firefox",
        "firefox",
        ("firefox", "firefox-esr"),
        {
            "linux": ("/usr/lib/firefox/firefox", "/usr/lib/firefox-esr/firefox-esr", "/snap/bin/firefox"),
            "darwin": ("/Applications/Firefox.app/Contents/MacOS/firefox",),
            "win32": (r"{programs}\Mozilla Firefox\firefox.exe", r"{programs_x86}\Mozilla Firefox\firefox.exe"),
        },
        {
            "linux": "Run: sudo apt-get install firefox-esr",
            "ubuntu": "Run: sudo snap install firefox",
            "fedora": "Run: sudo dnf install firefox",
            "arch": "Run: sudo pacman -S firefox",
            "darwin": "Run: brew install --cask firefox",
            "win32": "Run: winget install Mozilla.Firefox",
        },
    ),
    # Safari's engine as Linux has it: MiniBrowser comes with the library.
    "webkitgtk": _Known(
        "WebKitGTK MiniBrowser",
        "webkit",
        (),
        {
            "linux": (
                "/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser",
                "/usr/lib/aarch64-linux-gnu/webkit2gtk-4.1/MiniBrowser",
                "/usr/libexec/webkit2gtk-4.1/MiniBrowser",
                "/usr/lib/webkit2gtk-4.1/MiniBrowser",
            )
        },
        {
            "linux": "Run: sudo apt-get install libwebkit2gtk-4.1-0 xvfb xauth",
            "fedora": "Run: sudo dnf install webkit2gtk4.1 xorg-x11-server-Xvfb",
            "arch": "Run: sudo pacman -S webkit2gtk-4.1 xorg-server-xvfb",
        },
    ),
    "safari": _Known("Safari", "safari", (), {"darwin": ("/Applications/Safari.app/Contents/MacOS/Safari",)}, {}),
}


def environment_variable(key: str) -> str:
    """Name of the variable that names the executable of ``key``: IPFS_ACCELERATE_BROWSER_CHROMIUM_HEADLESS_SHELL, ..."""
    return "IPFS_ACCELERATE_BROWSER_" + key.upper().replace("-", "_")


def find_browsers() -> dict[str, Browser | Unavailable]:
    """Every known browser, found or not. Starts each one that is found once (``--version``), never a page."""
    return {key: _look_up(key) for key in KNOWN}


def on_disk() -> dict[str, Path]:
    """The executable of each known browser that is there. Starts none, so a broken one is found too."""
    found: dict[str, Path] = {}
    for key, known in KNOWN.items():
        chosen = os.environ.get(environment_variable(key))
        for path in [Path(chosen)] if chosen else _candidates(key, known):
            if path.is_file() and (key != "safari" or sys.platform == "darwin"):
                found[key] = path
                break
    return found


def find_browser(key_or_path: str) -> Browser:
    """The browser of a key of KNOWN, or at the path of an executable.

    Raises UserError for an unknown name (with the nearest ones) or a path that is no browser, UnavailableError where it is missing.
    """
    if os.sep in key_or_path or (os.altsep and os.altsep in key_or_path):
        found = _at_path(Path(key_or_path).expanduser())
    elif key_or_path in KNOWN:
        found = _look_up(key_or_path)
    else:
        raise nearest(key_or_path, KNOWN, "browser")
    if isinstance(found, Unavailable):
        raise UnavailableError(found.reason, found.remedy)
    return found


def on_virtual_display(command: list[str]) -> list[str]:
    """The command line that runs ``command``, of a browser that has no headless mode, on an X display in memory (Xvfb)."""
    return ["xvfb-run", "--auto-servernum", *command]


def library_environment(executable: Path) -> dict[str, str]:
    """Environment of a browser that carries its own shared libraries in ``lib`` beside it (the one ``web.install`` unpacks)."""
    folder = executable.parent / "lib"
    if not (folder / "libnss3.so").exists():
        return {}
    return {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("LD_LIBRARY_PATH")]))}


def _look_up(key: str) -> Browser | Unavailable:
    known = KNOWN[key]
    if key == "safari" and sys.platform != "darwin":
        return Unavailable("Safari exists only on macOS.", "Run this on a Mac, or name another browser.")
    variable = environment_variable(key)
    if chosen := os.environ.get(variable):
        if not Path(chosen).is_file():
            return Unavailable(f"{variable} names {chosen}, which does not exist.", f"Correct or unset {variable}.")
        return _read(key, known, Path(chosen))
    for path in _candidates(key, known):
        if path.is_file():
            return _read(key, known, path)
    remedy = next((known.remedy[system] for system in _systems() if system in known.remedy), None)
    if remedy is None:
        return Unavailable(f"{known.name} is not built for {sys.platform}.", "Name another browser.")
    return Unavailable(f"{known.name} is not installed.", f"{remedy} (or set {variable} to its executable).")


def _systems() -> list[str]:
    """Names of this system, the most special first: a Linux distribution, those it is like, its platform."""
    if sys.platform != "linux":
        return [sys.platform]
    try:
        release = platform.freedesktop_os_release()
    except OSError:  # no os-release file: some Linux
        release = {}
    return [release.get("ID", ""), *release.get("ID_LIKE", "").split(), "linux"]


def _candidates(key: str, known: _Known) -> Iterator[Path]:
    """Places to look, the likeliest first; of several versions in our own cache the newest."""
    if key == "chromium-headless-shell":
        installed = cache_folder().joinpath("browsers").glob("chromium-headless-shell-*/chromium")
        yield from sorted(installed, key=lambda path: [int(n) for n in re.findall(r"\d+", path.parent.name)], reverse=True)
    for command in known.commands:
        if found := shutil.which(command):
            yield Path(found)
    folders = {
        "home": str(Path.home()),
        "local": os.environ.get("LOCALAPPDATA", ""),
        "programs": os.environ.get("PROGRAMFILES", ""),
        "programs_x86": os.environ.get("PROGRAMFILES(X86)", ""),
    }
    for template in known.paths.get(sys.platform, ()):
        path = Path(template.format(**folders))
        yield path
        if sys.platform == "darwin":
            yield Path.home() / path.relative_to("/")


def _at_path(path: Path) -> Browser | Unavailable:
    """A browser named by its executable; its own ``--version`` says which one it is."""
    if not path.is_file():
        raise UserError(f"There is no browser at {path}: no such file.")
    text = _version_text(path, path.stat().st_mtime_ns)
    if isinstance(text, Unavailable):
        return text
    names = {
        "Chrome": "chrome",
        "Edge": "edge",
        "Firefox": "firefox",
        "Safari": "safari",
        "WebKitGTK": "webkitgtk",
        "Chromium": "chromium",
    }
    key = next((key for word, key in names.items() if word in text), None)
    if key is None:
        raise UserError(f"{path} is not a browser that is known here: asked for its version, it said {text!r}.")
    if key == "chromium" and ("headless" in path.name or "headless-shell" in str(path.parent)):
        key = "chromium-headless-shell"
    return _read(key, KNOWN[key], path)


def _read(key: str, known: _Known, path: Path) -> Browser | Unavailable:
    text = _version_text(path, path.stat().st_mtime_ns)
    if isinstance(text, Unavailable):
        return text
    version = re.search(r"\d+(\.\d+)+\w*", text)
    if version is None:
        return Unavailable(
            f"{path} does not tell its version (it said {text!r}).",
            f"Reinstall {known.name}, or set {environment_variable(key)} to a working one.",
        )
    return Browser(key, known.name, known.kind, version.group(), path)


@functools.cache
def _version_text(path: Path, modified_ns: int) -> str | Unavailable:
    """What the program at ``path`` says of itself; ``modified_ns`` makes an updated program a new question."""
    if path.name == "Safari":
        import plistlib

        return "Safari " + plistlib.loads((path.parents[1] / "Info.plist").read_bytes())["CFBundleShortVersionString"]
    if sys.platform == "win32":
        return _windows_version_text(path)
    command = [str(path), "--version"]
    if path.name == "MiniBrowser":
        if shutil.which("xvfb-run") is None:
            return Unavailable(
                "WebKitGTK's MiniBrowser needs a display, and xvfb-run is not installed.", KNOWN["webkitgtk"].remedy["linux"]
            )
        command = on_virtual_display(command)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            env=os.environ | library_environment(path),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Unavailable(f"{path} cannot be started: {error}.", "Reinstall it, or name another executable.")
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        return Unavailable(
            f"{path} --version ended with status {done.returncode}{': ' + said[-1] if said else ''}.",
            "Reinstall it, or name another executable.",
        )
    return done.stdout.strip()


def _windows_version_text(path: Path) -> str | Unavailable:
    """Windows browsers print no version (they open a window); it is in the folder beside Chromium, in application.ini for Firefox."""
    ini = path.with_name("application.ini")
    if ini.is_file():
        found = re.search(r"^Version=(.+)$", ini.read_text(encoding="utf-8"), re.MULTILINE)
        return f"Mozilla Firefox {found.group(1).strip() if found else ''}"
    folders = [entry.name for entry in path.parent.iterdir() if entry.is_dir() and re.fullmatch(r"\d+(\.\d+){3}", entry.name)]
    if not folders:
        return Unavailable(f"No version folder lies beside {path}.", "Reinstall it, or name another executable.")
    # After an update the old folder may remain until the browser restarts; the new one is what starts next.
    newest = max(folders, key=lambda name: [int(part) for part in name.split(".")])
    maker = {"msedge.exe": "Microsoft Edge"}.get(path.name.lower(), "Google Chrome" if "Google" in path.parts else "Chromium")
    return f"{maker} {newest}"
