"""``ipfs-accelerate run`` as a person meets it, without a browser: simulation by name, and what a mistake gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ipfs_accelerate_py import cli
from ipfs_accelerate_py.errors import UnavailableError, UserError
from ipfs_accelerate_py.web.errors import WebRuntimeError
from ipfs_accelerate_py.web.platform import UnifiedWebPlatform

TINY = ["--size", "tiny", "--weights", "synthetic"]


@pytest.fixture
def run(monkeypatch, capsys) -> Any:
    """``run(*words)``: standard output and standard error of ``ipfs-accelerate run WORDS``."""

    def call(*words: str) -> tuple[str, str]:
        cli.app(["run", *words], standalone_mode=False)
        captured = capsys.readouterr()
        return captured.out, captured.err

    return call


def test_json_is_alone_on_standard_output_and_says_simulated(run):
    """A program can read it, and nothing in it claims a browser."""
    out, _ = run("bert", *TINY, "--text", "one", "--text", "two", "--simulate", "--json")
    answer = json.loads(out)
    assert np.shape(answer["result"]["embeddings"]) == (2, 64)
    assert answer["metadata"]["provenance"] == "simulated"


def test_tokens_are_printed_as_text_and_what_ran_goes_to_standard_error(run):
    """A pipe gets the answer; the person is told that no browser ran."""
    out, err = run("llama", *TINY, "--text", "once", "--simulate", "--max-new-tokens", "4")
    whole = json.loads(run("llama", *TINY, "--text", "once", "--simulate", "--max-new-tokens", "4", "--json")[0])
    assert out.rstrip("\n").startswith(whole["result"]["text"][0].partition("\ufffd")[0])
    assert "SIMULATED, no browser ran" in err
    assert "4 tokens" in err


def test_a_video_is_a_folder_of_frames(run, tmp_path: Path):
    """Frames in the order of their names; a file instead is told."""
    for index in range(4):
        PIL.Image.fromarray(np.full((40, 40, 3), index * 50, np.uint8)).save(tmp_path / f"{index}.png")
    out, _ = run("xclip", *TINY, "--text", "a film", "--video", str(tmp_path), "--simulate", "--json")
    assert "video" in json.loads(out)["result"]["embeddings"]
    with pytest.raises(UserError, match="is no folder"):
        run("xclip", *TINY, "--text", "a film", "--video", str(tmp_path / "0.png"), "--simulate")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["bert"], "Nothing to run on: bert takes --text"),
        (["bert", "--image", "x.png"], "Unknown input of bert 'image'"),
        (["vit", "--image", "none.png"], "There is no image file 'none.png'"),
        (["bert", "--text", "x", "--browser", "netscape"], "Unknown browser 'netscape'"),
        (["bert", "--text", "x", "--platform", "cuda"], "platform is webgpu, webnn, wasm or auto"),
        (["bert", "--text", "x", "--precision", "high"], "number of bits"),
    ],
)
def test_a_mistake_is_one_sentence(run, words: list[str], sentence: str):
    """Told as a user's mistake, which the command line prints without a traceback and ends with status 2."""
    with pytest.raises((UserError, UnavailableError), match=sentence) as raised:
        run(words[0], *TINY, *words[1:])
    assert not isinstance(raised.value, WebRuntimeError)


def test_a_correction_is_told(run):
    """Three bits become four, and the person reads why."""
    _, err = run("llama", *TINY, "--text", "x", "--precision", "3", "--platform", "wasm", "--simulate", "--max-new-tokens", "1")
    assert "has no 3-bit weights. 4 bit was taken" in " ".join(err.split())


def test_a_failure_of_the_browser_is_its_reason_and_the_remedy(run, monkeypatch):
    """No traceback of ours for what a browser did."""

    def fail(self: Any, *_: Any) -> None:
        raise WebRuntimeError("Chromium was ended by SIGKILL.", recovery_actions=("Try again in a new browser.",))

    monkeypatch.setattr(UnifiedWebPlatform, "load", fail)
    with pytest.raises(UnavailableError, match=r"SIGKILL\. Try again in a new browser\."):
        run("bert", *TINY, "--text", "x", "--simulate")
