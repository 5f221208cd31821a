"""What our engine is compared with in the same browser: how each peer's model is made ready beforehand, and one launch of it.

onnxruntime-web and onnxruntime-web-float16 run an int4 graph with random codes at the model's shape (blank_onnx.py), activations and cache
in float32 and in float16; onnxruntime-web-export runs this project's own int4 export, which needs many minutes and gigabytes at 1.5B.

Not there: WebLLM, whose npm package runs only models with a library compiled for their architecture, and these are not on npm; wllama,
because its npm package computes on the processor's threads and takes GGUF files, whose writer this benchmark does not have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from language_models.sides import Run, Shape

from ipfs_accelerate_py.campaign.preparation import prepare_in_child
from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.models.prepared import Generation, Graph, Manifest, load_tensors
from ipfs_accelerate_py.models.registry import ModelReference, workload
from ipfs_accelerate_py.platforms.base import OpenOptions
from ipfs_accelerate_py.platforms.registry import platform
from ipfs_accelerate_py.quantize.sources import open_source
from ipfs_accelerate_py.spec import Workload

GRAPH = "graph.json"
LONGEST = 8192  # positions with rotary angles


@dataclass(frozen=True)
class Peer:
    """``ready(reference, shape, folder)`` is the folder that it runs, made there where it is not yet."""

    name: str
    precision: str
    ready: Callable[[ModelReference, Shape, Path], Path]

    def work(self, reference: ModelReference, shape: Shape) -> Workload:
        work = workload(reference, batch_size=shape.batch, sequence_length=shape.prompt, new_tokens=shape.new_tokens)
        return replace(work, precision=self.precision)

    def run(self, browser: str, reference: ModelReference, shape: Shape, folder: Path, limit_s: float) -> Run:
        """Its cache is static and on the GPU, logits are read back for each token as its users do."""
        made = self.ready(reference, shape, folder)
        limits: Mapping[str, float] = dict.fromkeys(("default", "compile", "first_inference", "steady"), limit_s)
        options = OpenOptions(made, "onnxruntime-web", browser, None, load_tensors(made / "inputs.npz"), limits)
        session: Any = platform("webgpu").open(self.work(reference, shape), "default", options)
        try:
            phases = session.timed_phases()
            session.timed_first()
            samples = session.timed_samples(shape.generations)
            first = tuple(sample.token_ns[0] / 1e9 for sample in samples)
            each = tuple((sample.token_ns[-1] - sample.token_ns[0]) / (shape.new_tokens - 1) / 1e9 for sample in samples)
            return Run(first, each, session.facts(), phases)
        finally:
            session.close()


def exported(reference: ModelReference, shape: Shape, folder: Path) -> Path:
    work = workload(
        reference, batch_size=shape.batch, sequence_length=shape.prompt, new_tokens=shape.new_tokens, precision="int4"
    )
    return prepare_in_child(work, reference, folder / "exported", lambda phase: None)


def blank(activations: str) -> Callable[[ModelReference, Shape, Path], Path]:
    """The graph is made once, what depends on the prompt each time."""

    def ready(reference: ModelReference, shape: Shape, folder: Path) -> Path:
        made = folder / f"blank-{reference.model_class}-{reference.size}-{activations}"
        config = open_source(reference).config
        if not (made / GRAPH).is_file():
            write_graph(config, made, activations)
        size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        groups = config.get("num_key_value_heads") or config["num_attention_heads"]
        graph = Graph.from_dict(json.loads((made / GRAPH).read_text()))
        Manifest(
            model_class=reference.model_class,
            origin=reference.origin,
            precision="int4",
            dimensions={"batch": shape.batch},
            graphs={"decoder": graph},
            parameters=0,
            weights_bytes=graph.bytes,
            generation=Generation(config["num_hidden_layers"], groups, size, config["vocab_size"], activations),
            facts={"codes": "random", "new_tokens": shape.new_tokens, "torch_folder": None, "size": reference.size},
        ).save(made)
        ids = np.random.default_rng(0).integers(0, config["vocab_size"], (shape.batch, shape.prompt))
        np.savez(made / "inputs.npz", input_ids=ids)
        return made

    return ready


def write_graph(config: Mapping[str, Any], folder: Path, activations: str) -> None:
    from language_models.blank_onnx import write_blank_onnx

    from ipfs_accelerate_py.models.export import describe

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():  # of an attempt that was interrupted
        old.unlink()
    path = write_blank_onnx(config, folder, activations, LONGEST)
    (folder / GRAPH).write_text(json.dumps(asdict(describe(path))))


PEERS = {
    peer.name: peer
    for peer in (
        Peer("onnxruntime-web", "int4", blank("float32")),
        Peer("onnxruntime-web-float16", "int4", blank("float16")),
        Peer("onnxruntime-web-export", "int4", exported),
    )
}


def check_prepared(folder: Path, names: list[str], reference: ModelReference) -> None:
    """UserError unless the folder has what ``--prepare-only`` makes for these peers and this model."""
    for name, activations in (("onnxruntime-web", "float32"), ("onnxruntime-web-float16", "float16")):
        made = folder / f"blank-{reference.model_class}-{reference.size}-{activations}" / GRAPH
        if name in names and not made.is_file():
            raise UserError(f"{folder} has no {made.parent.name} for {name}: make it with --prepare-only {folder}.")
