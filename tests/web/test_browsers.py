"""Finding browsers: in their usual places, by environment variable, by path, and what is said when there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ipfs_accelerate_py.errors import UnavailableError, UserError
from ipfs_accelerate_py.platforms.base import Unavailable
from ipfs_accelerate_py.web import browsers
from ipfs_accelerate_py.web.browsers import KNOWN, Browser, environment_variable, find_browser, find_browsers


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test sees the usual places only."""
    for key in KNOWN:
        monkeypatch.delenv(environment_variable(key), raising=False)


@pytest.fixture
def empty_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Linux without a browser: an empty PATH, no usual places, an empty cache folder, which is returned."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path / "cache"))
    for known in KNOWN.values():
        monkeypatch.setitem(known.paths, "linux", ())
    return tmp_path / "cache"


def program(path: Path, text: str, status: int = 0) -> Path:
    """An executable that answers ``--version`` with ``text``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{text}'\nexit {status}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("key", ["chromium", "firefox", "chromium-headless-shell"])
def test_version_is_the_programs_own(key: str) -> None:
    """The version of a real browser is what the program itself prints."""
    browser = find_browser(key)
    printed = subprocess.run([browser.executable, "--version"], capture_output=True, text=True, check=True).stdout
    assert browser.version in printed
    assert browser.key == key


def test_every_known_browser_is_answered() -> None:
    """Each key gives a browser that exists, or a reason with a remedy."""
    found = find_browsers()
    assert set(found) == {"chromium", "chromium-headless-shell", "chrome", "edge", "firefox", "webkitgtk", "safari"}
    for answer in found.values():
        if isinstance(answer, Browser):
            assert answer.executable.is_file()
        else:
            assert answer.reason and answer.remedy


def test_missing_browser_names_the_command(empty_machine: Path) -> None:
    """Without a browser the message holds the exact command that brings it."""
    with pytest.raises(UnavailableError, match="sudo apt-get install firefox-esr") as raised:
        find_browser("firefox")
    assert raised.value.reason == "Mozilla Firefox is not installed."
    with pytest.raises(UnavailableError, match=r"python -m ipfs_accelerate_py\.web\.install chromium-headless-shell"):
        find_browser("chromium-headless-shell")


def test_safari_is_only_on_macos(empty_machine: Path) -> None:
    """Safari elsewhere is unavailable for its true reason."""
    assert find_browsers()["safari"] == Unavailable(
        "Safari exists only on macOS.", "Run this on a Mac, or name another browser."
    )


def test_newest_installed_headless_shell_is_taken(empty_machine: Path) -> None:
    """Of several versions in the cache the highest is chosen, compared as numbers."""
    for version in ("99.0.0", "153.0.0"):
        program(empty_machine / "browsers" / f"chromium-headless-shell-{version}" / "chromium", f"Chromium {version}.1")
    assert find_browser("chromium-headless-shell").version == "153.0.0.1"


def test_environment_variable_overrides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The named executable wins over the installed browser."""
    named = program(tmp_path / "mine", "Chromium 1.2.3.4")
    monkeypatch.setenv("IPFS_ACCELERATE_BROWSER_CHROMIUM", str(named))
    assert find_browser("chromium") == Browser("chromium", "Chromium", "chromium", "1.2.3.4", named)


def test_environment_variable_that_names_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that names no file is said, and does not fall back to the installed browser."""
    monkeypatch.setenv("IPFS_ACCELERATE_BROWSER_FIREFOX", "/nowhere/firefox")
    with pytest.raises(UnavailableError, match="IPFS_ACCELERATE_BROWSER_FIREFOX names /nowhere/firefox, which does not exist"):
        find_browser("firefox")


def test_webkit_needs_a_display_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MiniBrowser without xvfb-run is unavailable with the package that brings it; with it, its version is asked for there."""
    named = program(tmp_path / "MiniBrowser", "WebKitGTK 9.8.7")
    monkeypatch.setenv("IPFS_ACCELERATE_BROWSER_WEBKITGTK", str(named))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UnavailableError, match="xvfb-run is not installed") as raised:
        find_browser("webkitgtk")
    assert "xvfb" in raised.value.remedy
    browsers._version_text.cache_clear()
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "xvfb-run"
    stand_in.write_text('#!/bin/sh\nshift\nexec "$@"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    assert find_browser("webkitgtk") == Browser("webkitgtk", "WebKitGTK MiniBrowser", "webkit", "9.8.7", named)


def test_unknown_name_gives_the_nearest() -> None:
    """A misspelt name is answered with the names close to it."""
    with pytest.raises(UserError, match="Unknown browser 'firefx': did you mean firefox"):
        find_browser("firefx")


@pytest.mark.parametrize(
    ("said", "file", "key"),
    [
        ("Mozilla Firefox 160.0", "ff", "firefox"),
        ("Google Chrome 157.0.1.2", "c", "chrome"),
        ("Microsoft Edge 157.0.1.2", "e", "edge"),
        ("Chromium 153.0.1.2", "chrome-headless-shell", "chromium-headless-shell"),
        ("Chromium 153.0.1.2", "chromium", "chromium"),
    ],
)
def test_path_is_told_by_its_own_answer(tmp_path: Path, said: str, file: str, key: str) -> None:
    """An executable named by path is driven as what it says it is."""
    browser = find_browser(str(program(tmp_path / file, said)))
    assert (browser.key, browser.kind, browser.version) == (key, KNOWN[key].kind, said.split()[-1])


def test_path_that_is_no_browser(tmp_path: Path) -> None:
    """A path that does not exist, and a program that is no browser, are each one sentence."""
    with pytest.raises(UserError, match="no such file"):
        find_browser(str(tmp_path / "none"))
    with pytest.raises(UserError, match="not a browser that is known here"):
        find_browser(str(program(tmp_path / "python", "Python 3.11.7")))


def test_broken_program_is_unavailable(tmp_path: Path) -> None:
    """A browser that cannot tell its version is not offered, and what it said is passed on."""
    with pytest.raises(UnavailableError, match=r"ended with status 127: libnss3\.so: not found"):
        find_browser(str(program(tmp_path / "chromium", "libnss3.so: not found", status=127)))


def test_windows_version_is_read_from_files(tmp_path: Path) -> None:
    """On Windows nothing is started: the newest version folder (Chromium) or application.ini (Firefox) tells."""
    chrome = tmp_path / "Google" / "Chrome" / "Application" / "chrome.exe"
    for version in ("157.0.9.1", "157.0.10.1"):
        (chrome.parent / version).mkdir(parents=True)
    assert browsers._windows_version_text(chrome) == "Google Chrome 157.0.10.1"
    firefox = tmp_path / "Mozilla Firefox" / "firefox.exe"
    firefox.parent.mkdir()
    (firefox.parent / "application.ini").write_text("[App]\nVersion=160.0.1\n")
    assert browsers._windows_version_text(firefox) == "Mozilla Firefox 160.0.1"
