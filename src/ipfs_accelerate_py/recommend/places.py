"""Where a model could run: this machine's own places by cheap facts, and those that are known from elsewhere.

Nothing here imports torch, OpenVINO or a browser: packages are looked for, not loaded, and what a place can really do is asked by
``ipfs-accelerate detect``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from ..errors import UserError, nearest
from ..measure import nvidia_smi
from ..predict.prediction import Candidate
from ..spec import BROWSER_PLATFORMS, PLATFORMS

HERE = "this machine"
GPU_PLATFORMS = ("cuda", "rocm", "mps")
# Which browsers are built with a WebNN backend (platforms/webnn.py); whether it works is asked by starting one.
WEBNN_BROWSERS = ("chrome", "edge", "chromium-headless-shell")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A platform, engine and device, on this machine or on another that is known. ``machine`` is the predictor's name of the machine,
    None for this one. ``memory_bytes`` is what the device (or the host) has, None where it is not known; ``count`` is how many equal
    devices there are. ``known`` is here, measured, probed or datasheet."""

    platform: str
    engine: str
    device: str = "default"
    browser: str | None = None
    machine: str | None = None
    description: str = ""
    memory_bytes: int | None = None
    count: int = 1
    known: str = "here"
    software_adapter: bool = False
    lacking: str = ""  # what is missing for this place to be used, a sentence

    @property
    def here(self) -> bool:
        return self.known == "here"

    @property
    def separate_memory(self) -> bool:
        """The device has a memory of its own."""
        return self.platform in ("cuda", "rocm")

    @property
    def label(self) -> str:
        parts = [self.platform, self.browser or self.engine]
        if self.device != "default" and not self.here:
            parts.append(self.device)
        label = " · ".join(dict.fromkeys(parts))
        return label if self.here else f"{label} ({self.description or self.machine})"


def here() -> list[Place]:
    """What this machine seems to have."""
    memory = host_memory_bytes()
    found = [
        Place(platform="cpu", engine=engine, description=_processor(), memory_bytes=memory, lacking=_missing(engine))
        for engine in ("torch", "onnxruntime")
    ]
    found.append(
        Place(
            platform="openvino",
            engine="openvino",
            description=_processor(),
            memory_bytes=memory,
            lacking=_missing("openvino"),
        )
    )
    return [*found, *_nvidia(), *_amd(), *_apple(memory), *_browsers(memory)]


def _missing(module: str) -> str:
    extras = {"torch": "torch", "onnxruntime": "onnx", "openvino": "openvino"}
    if find_spec(module):
        return ""
    return f'{module} is not installed: pip install "ipfs_accelerate_py[{extras[module]}]".'


def host_memory_bytes() -> int:
    """Of the machine, or what this process's control group may use, the less of the two."""
    import psutil

    total = psutil.virtual_memory().total
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return total if text == "max" else min(total, int(text))


def _processor() -> str:
    from ..platforms.processor import processor_facts

    facts = processor_facts()
    return f"{facts['model']}, {facts['usable_cores']} cores"


def _nvidia() -> list[Place]:
    rows = nvidia_smi.query("gpu", ("name", "memory.total")) or []
    if not rows:
        return []
    build = torch_build("cuda")
    lacking = "" if build else "The installed torch is built without CUDA." if find_spec("torch") else _missing("torch")
    return [
        Place(
            platform="cuda",
            engine="torch",
            device="default",
            description=rows[0]["name"] or "NVIDIA GPU",
            memory_bytes=int(rows[0]["memory.total"]) * 2**20 if rows[0]["memory.total"] else None,
            count=len([row for row in rows if row["name"] == rows[0]["name"]]),
            lacking=lacking,
        )
    ]


def _amd() -> list[Place]:
    sizes = [int(file.read_text()) for file in sorted(Path("/sys/class/drm").glob("card*/device/mem_info_vram_total"))]
    if not Path("/dev/kfd").exists() or not sizes:
        return []
    lacking = (
        "" if torch_build("hip") else "The installed torch is not built for ROCm." if find_spec("torch") else _missing("torch")
    )
    return [
        Place(
            platform="rocm",
            engine="torch",
            description="AMD GPU",
            memory_bytes=max(sizes),
            count=len(sizes),
            lacking=lacking,
        )
    ]


def _apple(memory: int) -> list[Place]:
    if sys.platform != "darwin" or not find_spec("torch"):
        return []
    return [Place(platform="mps", engine="torch", description=_processor(), memory_bytes=memory)]


def torch_build(kind: str) -> str | None:
    """The CUDA or HIP version that the installed torch is built for, read from its file; None where it has none or is not there."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / "version.py"
    found = re.search(rf"^{kind}\b[^=]*=\s*'([^']+)'", file.read_text(), re.MULTILINE) if file.is_file() else None
    return found[1] if found else None


def _browsers(memory: int) -> list[Place]:
    from ..web.browsers import KNOWN, on_disk

    gpu = bool(nvidia_smi.query("gpu", ("name",))) or any(Path("/dev/dri").glob("renderD*")) or sys.platform != "linux"
    places = []
    for key in on_disk():
        for platform in BROWSER_PLATFORMS:
            if (platform == "webnn" and key not in WEBNN_BROWSERS) or (platform == "webgpu" and key == "webkitgtk"):
                continue
            places.append(
                Place(
                    platform=platform,
                    engine="onnxruntime-web",
                    browser=key,
                    description=KNOWN[key].name,
                    memory_bytes=memory,
                    software_adapter=platform == "webgpu" and not gpu,
                )
            )
    return places


def from_candidates(candidates: Iterable[Candidate]) -> list[Place]:
    """The places of other machines that the predictor knows, each once."""
    places: dict[Place, None] = {}
    for each in candidates:
        places.setdefault(
            Place(
                platform=each.platform,
                engine=each.engine,
                device=each.device,
                browser=each.browser,
                machine=each.machine,
                description=each.name,
                memory_bytes=each.memory_bytes,
                known=each.known,
                software_adapter=each.software_adapter,
            )
        )
    return list(places)


def chosen(names: Sequence[str], own: Sequence[Place], others: Sequence[Place]) -> list[Place]:
    """The places that ``names`` mean: platforms (cpu, cuda, webgpu), browsers (firefox) or devices (h200, a100 80gb). A platform of this
    machine is meant before one of another. UserError for a name that means nothing."""
    found: dict[Place, None] = {}
    for name in names:
        plain = _plain(name)
        key = name.strip().lower()
        matching = [place for place in own if key in (place.platform, place.browser)]
        if not matching:
            matching = [place for place in others if key in (place.platform, place.browser)]
        if not matching and (words := set(plain.split())):
            matching = [place for place in (*own, *others) if words <= set(_plain(place.description).split())]
        if not matching and key in PLATFORMS:
            raise UserError(f"There is no {key} on this machine, and no measurement or datasheet of one is known.")
        if not matching:
            known = {*PLATFORMS, *(place.browser for place in own if place.browser), *(place.description for place in others)}
            raise nearest(name, (each for each in known if each), "hardware")
        found.update(dict.fromkeys(matching))
    return list(found)


def _plain(text: str) -> str:
    """Words in lower case."""
    return re.sub(r"[^a-z0-9+]+", " ", text.lower()).strip()


def limited(place: Place, max_memory_gb: float | None) -> Place:
    """The place with no more than ``max_memory_gb`` (10^9 bytes) to use."""
    if max_memory_gb is None:
        return place
    limit = round(max_memory_gb * 1e9)
    return replace(place, memory_bytes=limit if place.memory_bytes is None else min(limit, place.memory_bytes))
