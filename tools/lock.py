"""Write requirements.lock: the exact version of everything that ``make`` installs, as pip resolves it today.

No hashes and no index: torch has CPU and CUDA builds of one version, and which one it is depends on where pip looks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A release of which there is a CPU build and CUDA builds for the drivers in use; a newer one is chosen here, by hand.
TORCH = "torch==2.13.0"
HEADER = """\
# Written by `make lock` (Python {version}, {platform}); used as pip constraints. Do not edit.
"""


def main() -> None:
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    report = json.loads(
        subprocess.run([*command, TORCH, ".[all,dev,llama-cpp]"], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    )
    pins = set()
    for item in report["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        if item.get("requested") and "dir_info" in item["download_info"]:
            continue  # the project itself
        # Drivers of one accelerator come with torch's CUDA build only, which pins them itself; so does a local version (+cpu).
        if not name.startswith(("nvidia-", "cuda-", "triton")):
            pins.add(f"{name.lower().replace('_', '-')}=={version.split('+')[0]}")
    version = ".".join(map(str, sys.version_info[:2]))
    lines = sorted(pins)
    (ROOT / "requirements.lock").write_text(HEADER.format(version=version, platform=sys.platform) + "\n".join(lines) + "\n")
    print(f"requirements.lock: {len(lines)} packages.")


if __name__ == "__main__":
    main()
