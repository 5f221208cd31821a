"""A ready configuration for a layout: a torchrun script, DeepSpeed's JSON or accelerate's YAML."""

from __future__ import annotations

import json
from importlib.resources import files
from string import Template
from typing import Any

from ..errors import UnavailableError, UserError, nearest
from ..graph import ModelDescription
from .layout import Layout

KINDS = ("torchrun", "deepspeed", "accelerate")
_ACCELERATE_PRECISION = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def default_kind(layout: Layout) -> str:
    """The tool that runs this strategy."""
    return "deepspeed" if layout.zero_stage else "torchrun"


def configuration(layout: Layout, description: ModelDescription, sequence_length: int | None, kind: str | None = None) -> str:
    """The text of the file. UnavailableError where the tool has no such strategy, UserError for an unknown tool."""
    kind = kind or default_kind(layout)
    if kind not in KINDS:
        raise nearest(kind, KINDS, "kind of configuration")
    if layout.tensor * layout.pipeline > 1:
        raise UnavailableError(
            f"No ready configuration is written for {layout.label}: tensor and pipeline parallelism need a plan for each module;",
            "its degrees go into torchtitan's or Megatron's configuration as they are.",
        )
    if kind == "torchrun":
        return _torchrun(layout, description, sequence_length)
    return _deepspeed(layout) if kind == "deepspeed" else _accelerate(layout)


def _torchrun(layout: Layout, description: ModelDescription, sequence_length: int | None) -> str:
    if layout.zero_stage:
        raise UnavailableError(f"{layout.label} is DeepSpeed's;", "torch's own sharding is fsdp.")
    if description.model_class is None:
        raise UserError(f"{description.name} is of no known model class, so no script can be written for its training.")
    if layout.precision == "float16":
        raise UnavailableError(
            "The script trains in float32 or bfloat16; float16 needs loss scaling;", "take --precision bfloat16."
        )
    # A model class has a default for what a configuration leaves out; null would overwrite it.
    config = {key: value for key, value in description.config.items() if key != "model_type"}
    return Template((files(__package__) / "templates" / "train.py.txt").read_text(encoding="utf-8")).substitute(
        model=description.name.replace("\\", "/").replace('"', "'"),  # a path, in the script's docstring
        model_class=description.model_class,
        config=json.dumps(_plain(config), indent=1),
        label=layout.label,
        strategy=layout.strategy,
        micro_batch=layout.micro_batch,
        accumulation=layout.accumulation,
        sequence=sequence_length,
        devices=layout.devices,
        precision=layout.precision,
        checkpointing=layout.checkpointing,
        offload=layout.offload,
    )


def _plain(value: Any) -> Any:
    """Mappings and sequences of any kind as JSON has them."""
    if hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _deepspeed(layout: Layout) -> str:
    """https://www.deepspeed.ai/docs/config-json/; the stage of a torch strategy is the one that shards as it does."""
    stage = layout.zero_stage or (3 if layout.strategy == "fsdp" else 0)
    zero: dict[str, Any] = {"stage": stage}
    if stage:
        zero |= {"overlap_comm": True, "contiguous_gradients": True}
    if layout.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
        if stage == 3:
            zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    value: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": layout.micro_batch,
        "gradient_accumulation_steps": layout.accumulation,
        "train_batch_size": layout.micro_batch * layout.accumulation * layout.data,
        "gradient_clipping": 1.0,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}},
        "zero_optimization": zero,
    }
    if layout.precision != "float32":
        value["bf16" if layout.precision == "bfloat16" else "fp16"] = {"enabled": True}
    if layout.checkpointing:
        value["activation_checkpointing"] = {"partition_activations": False}
    return json.dumps(value, indent=2) + "\n"


def _accelerate(layout: Layout) -> str:
    """A file for ``accelerate launch --config_file``; https://huggingface.co/docs/accelerate/package_reference/cli."""
    kinds = {"single": "NO", "ddp": "MULTI_GPU", "fsdp": "FSDP"}
    lines = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": kinds.get(layout.strategy, "DEEPSPEED"),
        "num_machines": 1,
        "num_processes": layout.devices,
        "machine_rank": 0,
        "mixed_precision": f"'{_ACCELERATE_PRECISION[layout.precision]}'",
    }
    text = "".join(f"{key}: {value}\n" for key, value in lines.items())
    if layout.strategy == "fsdp":
        options = {
            "fsdp_version": 2,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_reshard_after_forward": "true",
            "fsdp_offload_params": str(layout.offload).lower(),
            "fsdp_activation_checkpointing": str(layout.checkpointing).lower(),
        }
        text += "fsdp_config:\n" + "".join(f"  {key}: {value}\n" for key, value in options.items())
    elif layout.zero_stage:
        options = {
            "zero_stage": layout.zero_stage,
            "gradient_accumulation_steps": layout.accumulation,
            "gradient_clipping": 1.0,
            "offload_optimizer_device": "cpu" if layout.offload else "none",
            "offload_param_device": "cpu" if layout.offload and layout.zero_stage == 3 else "none",
        }
        text += "deepspeed_config:\n" + "".join(f"  {key}: {value}\n" for key, value in options.items())
    return text
