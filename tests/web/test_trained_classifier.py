"""A model that the project trained, end to end in browsers: pictures in, their labels out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from product_model import require

from ipfs_accelerate_py.web.platform import UnifiedWebPlatform

FOLDER = Path(__file__).parents[2] / "data" / "trained" / "vit"


@pytest.mark.parametrize(
    ("platform", "browser"), [("wasm", "chromium"), ("webgpu", "firefox"), ("webnn", "chromium-headless-shell")]
)
def test_every_held_out_picture_gets_its_label(platform: str, browser: str):
    """Eight drawn pictures that training never saw, of which it names 99.8 % on a GPU: by file name, as a person has them."""
    require(browser)
    examples = json.loads((FOLDER / "examples.json").read_text())
    expected = [" ".join(example["objects"][0][part] for part in ("colour", "label")) for example in examples]
    with UnifiedWebPlatform(str(FOLDER), "vision", platform=platform, browser=browser) as model:
        answers = [model.run_inference({"image": str(FOLDER / example["file"])}) for example in examples]
    assert len(expected) == 8
    assert [answer["result"]["classifications"][0][0]["label"] for answer in answers] == expected
    assert {(answer["metadata"]["weights"], answer["metadata"]["platform"]) for answer in answers} == {("trained", platform)}
