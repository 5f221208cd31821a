"""Configurations: the script runs as printed, the files are what the tools read, and what has none says so."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from ipfs_accelerate_py.errors import UnavailableError, UserError
from ipfs_accelerate_py.graph import describe
from ipfs_accelerate_py.recommend.configuration import configuration, default_kind
from ipfs_accelerate_py.recommend.layout import Layout

TINY = describe("llama", "tiny")
NEXT_BATCH = "seed += dist.get_world_size()"


def run(tmp_path, layout, steps=2):
    """Losses of the printed script, run by torchrun with as many processes as the layout has devices; every step has the same batch, as
    the losses of different random tokens need not fall."""
    script = tmp_path / f"{layout.strategy}.py"
    printed = configuration(layout, TINY, 16)
    assert NEXT_BATCH in printed
    script.write_text(printed.replace(NEXT_BATCH, "pass"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(layout.devices)]
    done = subprocess.run(
        [*command, str(script), "--steps", str(steps)],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["loss"] for line in done.stdout.splitlines() if line.startswith("{")]


def test_fsdp_script_trains_as_ddp_does(tmp_path):
    """Two gloo processes, two accumulated micro-batches: the sharded run's losses fall and are those of the copied run."""
    common = {"data": 2, "micro_batch": 2, "accumulation": 2, "precision": "float32"}
    sharded = run(tmp_path, Layout(strategy="fsdp", **common))
    copied = run(tmp_path, Layout(strategy="ddp", **common))
    assert len(sharded) == 2 and sharded[1] < sharded[0]
    assert sharded == pytest.approx(copied, rel=1e-4)


def test_script_in_16_bits_with_checkpointing(tmp_path):
    """The other switches run too: bfloat16 and checkpointing, on one process."""
    losses = run(tmp_path, Layout(strategy="single", micro_batch=2, precision="bfloat16", checkpointing=True))
    assert losses[1] < losses[0]


def test_deepspeed_file():
    """Batch sizes multiply up as DeepSpeed demands, the stage is the strategy's, offload names both parts."""
    layout = Layout(strategy="zero-3", data=4, micro_batch=2, accumulation=8, offload=True)
    assert default_kind(layout) == "deepspeed"
    value = json.loads(configuration(layout, TINY, None))
    micro, steps = value["train_micro_batch_size_per_gpu"], value["gradient_accumulation_steps"]
    assert value["train_batch_size"] == micro * steps * 4 == 64
    assert value["zero_optimization"]["stage"] == 3 and value["bf16"] == {"enabled": True}
    assert value["zero_optimization"]["offload_param"]["device"] == "cpu"
    plain = json.loads(configuration(Layout(strategy="zero-1", data=2, precision="float32"), TINY, None))
    assert "bf16" not in plain and "offload_optimizer" not in plain["zero_optimization"]


@pytest.mark.parametrize(
    ("strategy", "kind", "section"), [("fsdp", "FSDP", "fsdp_config"), ("zero-2", "DEEPSPEED", "deepspeed_config")]
)
def test_accelerate_file(strategy, kind, section):
    """YAML with the type of distribution and as many processes as there are devices."""
    yaml = pytest.importorskip("yaml", reason="PyYAML, which transformers brings, is not installed")
    value = yaml.safe_load(configuration(Layout(strategy=strategy, data=4), TINY, None, "accelerate"))
    assert (value["distributed_type"], value["num_processes"], value["mixed_precision"]) == (kind, 4, "bf16")
    assert isinstance(value[section], dict)


def test_what_has_no_configuration_says_so():
    """Tensor parallelism has none; ZeRO is not torch's; an unknown tool is a mistake."""
    with pytest.raises(UnavailableError, match="No ready configuration is written for tensor 2"):
        configuration(Layout(strategy="tensor", tensor=2), TINY, None)
    with pytest.raises(UnavailableError, match="is DeepSpeed's"):
        configuration(Layout(strategy="zero-2", data=2), TINY, None, "torchrun")
    with pytest.raises(UnavailableError, match="needs loss scaling"):
        configuration(Layout(strategy="fsdp", data=2, precision="float16"), TINY, None)
    with pytest.raises(UserError, match="did you mean deepspeed"):
        configuration(Layout(strategy="fsdp", data=2), TINY, None, "deepsped")


def test_a_path_with_backslashes_or_quotes_is_still_a_script():
    """The model's name stands in the script's docstring, where a Windows path would be an escape and quotes would end it."""
    name = r'C:\Users\me\"""; raise SystemExit(3)'
    text = configuration(Layout(strategy="single", precision="float32"), replace(TINY, name=name), 16)
    body = ast.parse(text).body
    assert "C:/Users/me" in ast.get_docstring(ast.parse(text))
    assert not any(isinstance(node, ast.Raise) for node in body)
