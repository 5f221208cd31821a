"""How each kind of browser is asked to start: headless, quiet, with WebGPU and WebNN, in its own profile."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import nearest
from .browsers import Browser, library_environment, on_virtual_display

ADAPTERS = ("auto", "hardware", "software")

_QUIET = (
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-quic",
    "--disable-sync",
    "--metrics-recording-only",
    "--mute-audio",
    "--password-store=basic",
    "--use-mock-keychain",
)
# A measurement may keep a page or the GPU busy for seconds: neither is a hang, and no timer may be slowed.
_STEADY = (
    "--disable-backgrounding-occluded-windows",
    "--disable-background-timer-throttling",
    "--disable-gpu-watchdog",
    "--disable-hang-monitor",
    "--disable-renderer-backgrounding",
)
# The page's memory is measured when it is asked for, not at the next garbage collection, some 20 s later.
_MEASURES = "--enable-blink-features=ForceEagerMeasureMemory"
_WEB = ("--enable-unsafe-webgpu", "--ignore-gpu-blocklist")
_SOFTWARE = ("--use-webgpu-adapter=swiftshader",)
# Vulkan without a window system, and half precision, which Dawn offers on NVIDIA only when told to.
_LINUX_HARDWARE = (
    "--use-angle=vulkan",
    "--use-vulkan=native",
    "--disable-vulkan-surface",
    "--enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia",
)
# A socket's path has at most 107 characters, and Chromium makes one at org.chromium.Chromium.XXXXXX/SingletonSocket.
_LONGEST_TMPDIR = 107 - len("/org.chromium.Chromium.XXXXXX/SingletonSocket")

_FIREFOX_PREFERENCES: dict[str, bool | int | str] = {
    "dom.webgpu.enabled": True,
    "dom.webgpu.workers.enabled": True,
    "gfx.webgpu.ignore-blocklist": True,
    # quiet: nothing asked, nothing sent, nothing fetched
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.newtabpage.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.sessionstore.resume_from_crash": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.startup.page": 0,
    "datareporting.healthreport.uploadEnabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.startup.max_resumed_crashes": -1,
    "toolkit.telemetry.enabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
    # a long task is not a hang
    "dom.ipc.processHangMonitor": False,
    "dom.max_script_run_time": 0,
}


def has_gpu_device() -> bool:
    """Whether the system shows a GPU device. Linux shows it as a device file; macOS and Windows browsers find theirs themselves."""
    if sys.platform != "linux":
        return True
    return any(Path("/dev").glob("nvidia[0-9]*")) or any(Path("/dev").glob("dri/renderD*"))


def software_vulkan_driver() -> Path | None:
    """Mesa's llvmpipe, with which Firefox on Linux has WebGPU without a GPU; None where it is not installed."""
    folders = (Path("/usr/share/vulkan/icd.d"), Path("/usr/local/share/vulkan/icd.d"))
    return next((driver for folder in folders for driver in sorted(folder.glob("lvp_icd*.json"))), None)


def command(browser: Browser, url: str, profile: Path, adapter: str, extra_flags: Sequence[str]) -> list[str]:
    """The command line that opens ``url``. Writes preferences into ``profile`` where the browser reads them from there.

    ``adapter``: ``hardware``, ``software`` (SwiftShader in Chromium, llvmpipe in Firefox), or ``auto``: software where no GPU is.
    """
    if adapter not in ADAPTERS:
        raise nearest(adapter, ADAPTERS, "adapter")
    if browser.kind == "safari":
        return ["/usr/bin/open", "-W", "-a", str(browser.executable.parents[2]), url]
    if browser.kind == "firefox":
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in _FIREFOX_PREFERENCES.items()]
        (profile / "user.js").write_text("".join(lines))
        return [str(browser.executable), "--headless", "--no-remote", "--profile", str(profile), *extra_flags, url]
    if browser.kind == "webkit":
        # What a page stores goes where XDG says, which for a kept profile is its folder.
        folders = [f"XDG_{name}_HOME={profile / name.lower()}" for name in ("DATA", "CACHE", "CONFIG")]
        return ["env", *folders, *on_virtual_display([str(browser.executable), *extra_flags, url])]
    features = ["WebMachineLearningNeuralNetwork"]
    flags = [
        "--headless",
        _MEASURES,
        f"--user-data-dir={profile}",
        *_QUIET,
        *_STEADY,
        *_WEB,
        "--enable-logging=stderr",
        "--log-level=0",
    ]
    if _uses_software(adapter):
        flags += _SOFTWARE
    elif sys.platform == "linux":
        features.append("Vulkan")
        flags += _LINUX_HARDWARE
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium refuses to start its sandbox as root
    # Chromium takes only the last --enable-features, so those asked for are joined to ours.
    asked = "--enable-features="
    features += [flag.removeprefix(asked) for flag in extra_flags if flag.startswith(asked)]
    others = [flag for flag in extra_flags if not flag.startswith(asked)]
    return [str(browser.executable), *flags, *others, asked + ",".join(features), url]


def environment(browser: Browser, work: Path, adapter: str) -> dict[str, str]:
    """The environment to start in: a home of its own, so that nothing of an earlier start (caches, settings) is found, and
    a folder for temporary files, of which a killed browser leaves some (where the path of that folder is short enough)."""
    variables = os.environ | library_environment(browser.executable)
    if sys.platform == "linux" and "snap" not in browser.executable.resolve().parts:
        # Not for a snap, which may only live in the user's home; macOS keeps its keychain by home.
        (work / "home").mkdir(exist_ok=True)
        variables |= {"HOME": str(work / "home")}
        if len(str(work)) < _LONGEST_TMPDIR:
            variables |= {"TMPDIR": str(work)}
        variables = {name: value for name, value in variables.items() if not name.startswith("XDG_")}
    if browser.kind == "firefox":
        variables |= {"MOZ_HEADLESS": "1", "MOZ_CRASHREPORTER_DISABLE": "1"}
        driver = software_vulkan_driver()
        if driver and _uses_software(adapter):
            variables |= {"VK_DRIVER_FILES": str(driver)}
    return variables


def _uses_software(adapter: str) -> bool:
    return adapter == "software" or (adapter == "auto" and not has_gpu_device())
