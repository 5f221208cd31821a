"""The shapes that products have by default on each kind of adapter, as the compiled table gives them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSER = Path(__file__).parents[2] / "browser"
NVIDIA = {"vendor": "nvidia", "software": False, "subgroups": True, "lanes": 32, "mostInvocations": 1024}
PRODUCT = {"rows": 1536, "padded": 1536, "bits": 4, "int8": False, "gated": False, "merging": False, "vectors": 0}
DOWN, HEAD, GATED = {"padded": 8960}, {"rows": 151936}, {"gated": True, "rows": 8960}


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``shape(product, adapter)``: workgroup, lanes and rows, from the page's own module."""
    esbuild, node = BROWSER / "node_modules" / ".bin" / "esbuild", shutil.which("node")
    if not esbuild.exists() or node is None:
        pytest.skip("the browser code's tools are not installed")
    module = tmp_path_factory.mktemp("shapes") / "shapes.mjs"
    source = BROWSER / "src" / "engines" / "wgsl" / "shapes.ts"
    subprocess.run([esbuild, source, "--format=esm", f"--outfile={module}"], check=True, capture_output=True)

    def ask(product: dict[str, Any], adapter: dict[str, Any]) -> tuple[int, int, int]:
        given = f"{json.dumps(PRODUCT | product)}, {json.dumps(NVIDIA | adapter)}"
        code = (
            f"import {{ defaultShape }} from {json.dumps(module.as_uri())}; console.log(JSON.stringify(defaultShape({given})))"
        )
        found = subprocess.run([node, "--input-type=module", "-e", code], check=True, capture_output=True, text=True).stdout
        return tuple(json.loads(found)[name] for name in ("workgroup", "lanes", "rows"))  # type: ignore[return-value]

    return ask


def fastest(label: str, int8: bool) -> dict[str, int]:
    """The fastest shape of a product in the samples of the search on an H200."""
    lines = (BROWSER.parent / "benchmarks" / "results" / "language-model-nvidia-h200.jsonl").read_text().splitlines()
    found = next(
        each
        for each in map(json.loads, lines)
        if "products" in each and each["asked"]["activations"] == ("int8" if int8 else "float")
    )
    keys = {product["key"] for product in found["products"] if product["label"] == label}
    return next(shape for key, shape in found["fastest"].items() if key in keys)


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(("label", "product"), [("down", DOWN), ("output matrix", HEAD), ("gate and up", GATED)])
def test_an_nvidia_gpu_has_what_was_measured_there(shape: Any, label: str, product: dict[str, Any], int8: bool):
    """The table's entry is the fastest shape of the committed samples."""
    best = fastest(label, int8)
    assert shape(product | {"int8": int8}, {}) == (best["workgroup"], best["lanes"], best["rows"])


def test_where_nothing_was_measured_the_usual_shape_stays(shape: Any):
    """Another vendor, a masked one, another width, a software adapter, no subgroups, and limits that are too small."""
    usual = (256, 32, 1)  # of a long vector with few rows
    assert shape(DOWN, {"vendor": "intel"}) == usual
    assert shape(DOWN, {"vendor": ""}) == usual
    assert shape(DOWN | {"bits": 3}, {}) == usual
    assert shape(DOWN, {"subgroups": False}) == usual
    assert shape(DOWN, {"software": True}) == (128, 32, 1)
    assert shape(GATED, {"mostInvocations": 128}) == (128, 32, 2)
    assert shape({"vectors": 4}, {})[0] == 128
