"""Installing browsers: what is there costs nothing, what cannot be had is said with the command, and one failure stops nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from ipfs_accelerate_py.errors import UnavailableError, UserError
from ipfs_accelerate_py.platforms.base import Unavailable
from ipfs_accelerate_py.web import install
from ipfs_accelerate_py.web.browsers import KNOWN, Browser, environment_variable
from ipfs_accelerate_py.web.node import Node, find_node


@pytest.fixture
def bare_debian(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Debian without browsers or a software Vulkan driver, its user not root; returns the cache folder."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(install, "_is_debian", lambda: True)
    monkeypatch.setattr(install, "has_gpu_device", lambda: False)
    monkeypatch.setattr(install, "software_vulkan_driver", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path / "cache"))
    for key, known in KNOWN.items():
        monkeypatch.delenv(environment_variable(key), raising=False)
        monkeypatch.setitem(known.paths, "linux", ())
    return tmp_path / "cache"


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_what_is_there_is_only_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all three browsers installed nothing is run but their version."""

    def no_command(*arguments: object, **options: object) -> None:
        raise AssertionError(f"ran {arguments}")

    monkeypatch.setattr(install, "_run", no_command)
    said: list[str] = []
    result = install.install(say=said.append)
    assert list(result) == ["chromium", "firefox", "chromium-headless-shell"]
    assert all(isinstance(browser, Browser) for browser in result.values()), result
    assert len(said) == 3 and all(": ready (" in line for line in said)


def test_user_gets_the_exact_command(bare_debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root the command to type is named for each browser, and the next one is tried all the same."""
    monkeypatch.setattr(install, "_fetch", lambda *arguments: pytest.fail("not reached"))
    monkeypatch.setattr(install, "find_node", lambda: None)

    def failing_pip(command: list[str], what: str, **options: object) -> None:
        raise UnavailableError(f"{what} failed: no network.", "Run: " + " ".join(command))

    monkeypatch.setattr(install, "_run", failing_pip)
    said: list[str] = []
    result = install.install(say=said.append)
    assert all(isinstance(answer, Unavailable) for answer in result.values())
    packages = "sudo sh -c 'apt-get update && apt-get install -y --no-install-recommends"
    assert f"{packages} chromium chromium-sandbox'" in said[0]
    assert f"{packages} firefox-esr mesa-vulkan-drivers'" in said[1]
    assert said[-1].startswith("Chromium headless shell: not available. Installing Node.js failed: no network. Run: ")


def test_root_installs_with_apt(bare_debian: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As root apt-get is run without questions; the browser is then found by itself."""
    log = tmp_path / "apt.log"
    body = "\\necho Mozilla Firefox 160.0"
    make = f"printf '#!/bin/sh{body}\\n' > {tmp_path}/bin/firefox-esr; /bin/chmod 755 {tmp_path}/bin/firefox-esr"
    program(tmp_path / "bin" / "apt-get", f'echo "$DEBIAN_FRONTEND $@" >> {log}; {make}')
    (tmp_path / "bin" / "sh").symlink_to("/bin/sh")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    result = install.install(["firefox"])
    assert isinstance(result["firefox"], Browser) and result["firefox"].version == "160.0"
    assert log.read_text().splitlines() == [
        "noninteractive update",
        "noninteractive install -y --no-install-recommends firefox-esr mesa-vulkan-drivers",
    ]


def test_failing_apt_is_said(bare_debian: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The last words of apt-get reach the user."""
    program(tmp_path / "bin" / "apt-get", "echo 'E: Unable to fetch some archives' >&2; exit 100")
    (tmp_path / "bin" / "sh").symlink_to("/bin/sh")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    answer = install.install(["chromium"])["chromium"]
    assert isinstance(answer, Unavailable)
    assert answer.reason == "Installing Chromium failed: E: Unable to fetch some archives."


def test_firefox_without_vulkan_is_kept_and_said(bare_debian: Path, tmp_path: Path) -> None:
    """A Firefox without a software Vulkan driver is usable for wasm; what it lacks is said with the command."""
    program(tmp_path / "bin" / "firefox", "echo Mozilla Firefox 160.0")
    said: list[str] = []
    assert isinstance(install.install(["firefox"], said.append)["firefox"], Browser)
    assert "has no WebGPU on this machine" in said[0] and "mesa-vulkan-drivers" in said[0]


def test_chosen_browser_that_is_missing_is_not_installed_over(bare_debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that names nothing is the user's to correct: no package is installed instead."""
    monkeypatch.setenv("IPFS_ACCELERATE_BROWSER_CHROMIUM", "/nowhere")
    answer = install.install(["chromium"])["chromium"]
    assert isinstance(answer, Unavailable) and "names /nowhere, which does not exist" in answer.reason


@pytest.fixture
def node() -> Node:
    found = find_node()
    assert found is not None, "the tests need Node.js, as the build does"
    return found


def npm_archive(path: Path, node: Node, folder: Path) -> Path:
    """A small archive of the form of the npm package: brotli files, two of them of tar files."""
    (folder / "package" / "bin").mkdir(parents=True)
    (folder / "libEGL.so").write_text("EGL")
    (folder / "lib").mkdir()
    (folder / "lib" / "libnss3.so").write_text("NSS")
    (folder / "chromium").write_text("#!/bin/sh\necho Chromium 1.2.3\n")
    for name, member in (("swiftshader.tar", "libEGL.so"), ("al2023.tar", "lib/libnss3.so")):
        with tarfile.open(folder / name, "w") as inner:
            inner.add(folder / member, member)
    for name in ("chromium", "swiftshader.tar", "al2023.tar"):
        with (folder / name).open("rb") as source, (folder / "package" / "bin" / f"{name}.br").open("wb") as target:
            script = "process.stdin.pipe(require('zlib').createBrotliCompress()).pipe(process.stdout)"
            subprocess.run([node.node, "-e", script], stdin=source, stdout=target, check=True)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder / "package", "package")
    return path


def test_headless_shell_is_unpacked_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, node: Node) -> None:
    """The archive becomes an executable with its libraries where they are looked for, once, and nothing partial stays."""
    monkeypatch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(environment_variable("chromium-headless-shell"), raising=False)
    archive = npm_archive(tmp_path / "package.tgz", node, tmp_path / "content")
    fetched: list[Path] = []

    def fetch(node: Node, folder: Path) -> Path:
        fetched.append(folder)
        return archive

    monkeypatch.setattr(install, "_fetch", fetch)
    for _ in range(2):
        answer = install.install(["chromium-headless-shell"])["chromium-headless-shell"]
        assert isinstance(answer, Browser) and answer.version == "1.2.3"
    assert len(fetched) == 1
    (folder,) = (tmp_path / "cache" / "browsers").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["chromium", "lib", "libEGL.so"]
    assert (folder / "libEGL.so").read_text() == "EGL"
    assert (folder / "lib" / "libnss3.so").read_text() == "NSS"


def test_broken_archive_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, node: Node) -> None:
    """An archive whose brotli data is damaged is told, and no half browser is left to be found."""
    monkeypatch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(environment_variable("chromium-headless-shell"), raising=False)
    (tmp_path / "damaged").write_bytes(b"no brotli" * 100)
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as archive:
        archive.add(tmp_path / "damaged", "package/bin/chromium.br")
    monkeypatch.setattr(install, "_fetch", lambda node, folder: tmp_path / "package.tgz")
    answer = install.install(["chromium-headless-shell"])["chromium-headless-shell"]
    assert isinstance(answer, Unavailable) and "Unpacking chromium failed" in answer.reason
    assert list((tmp_path / "cache" / "browsers").iterdir()) == []


def test_package_with_another_hash_is_refused(tmp_path: Path, node: Node) -> None:
    """A package that is not the pinned one is never unpacked."""
    npm = program(tmp_path / "npm", f"echo other > {tmp_path}/out/x.tgz")
    (tmp_path / "out").mkdir()
    with pytest.raises(UnavailableError, match="its SHA-512 differs"):
        install._fetch(Node(node.node, (str(npm),)), tmp_path / "out")


def test_headless_shell_elsewhere_is_unavailable(bare_debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another processor the reason is said and nothing is fetched."""
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    answer = install.install(["chromium-headless-shell"])["chromium-headless-shell"]
    assert isinstance(answer, Unavailable) and "not for linux on aarch64" in answer.reason


def test_unknown_browser_stops_before_anything_is_done() -> None:
    """A misspelt name among good ones is found first."""
    with pytest.raises(UserError, match="did you mean firefox"):
        install.install(["chromium", "firefx"], say=pytest.fail)
    assert install.main(["firefx"]) == 2
