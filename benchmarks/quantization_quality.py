"""Perplexity of our low-bit formats and solvers on held-out text, against llama.cpp's formats of the same model.

    python benchmarks/quantization_quality.py MODEL --held-out FILE [--text FILE] [--device cuda] [--output result.json]

MODEL is a transformers folder of a trained llama, qwen2 or mistral decoder with its tokenizer. --text (not the held-out one) calibrates
gptq. All formats are dequantised by their own reference decoders and run in float32 by the same code on the same windows, so that only
the weights differ. The ratio of perplexities to the float weights' is paired by window, with a 95 % interval (Student's t); below
each of ours, the same to those of theirs with as many bits or somewhat more.

llama.cpp's formats are made by its own quantiser, in the library of the extra llama-cpp (``ggml.py``; without it they are said to
be unavailable): uniform ones, and its named file types with their mixtures (``llama_cpp_recipes.py``). With --text they get an
importance matrix from the same windows that calibrate gptq, as llama-imatrix --process-output collects it. Ours are then mixed within
the bits of each of theirs. Widths must be multiples of 256. Bytes are exact on both sides and count every tensor.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import ggml
import numpy as np
from llama_cpp_recipes import BASE, recipe

from ipfs_accelerate_py.measure.machine import fingerprint
from ipfs_accelerate_py.models.registry import resolve
from ipfs_accelerate_py.quantize import architecture
from ipfs_accelerate_py.quantize.calibration import STAGES, TOKENS, LayerStream, windows
from ipfs_accelerate_py.quantize.folder import Request, quantize_folder, windows_digest
from ipfs_accelerate_py.quantize.formats import Format
from ipfs_accelerate_py.quantize.plan import uniform
from ipfs_accelerate_py.quantize.quality import Quality, paired_ratio, perplexity
from ipfs_accelerate_py.quantize.recorded import QualityLog
from ipfs_accelerate_py.quantize.sources import Source, open_source
from ipfs_accelerate_py.quantize.stored import QuantizedFolder
from ipfs_accelerate_py.store.quality import OURS

Read = Callable[[str], np.ndarray]
GROUP_SIZE = 64
BITS_BESIDE = 0.6  # more bits a weight that a format of theirs may take to be set beside one of ours
MOST_BUDGET = 5.0  # bits a weight: a wider format of theirs gets no mixed plan of ours beside it
UNIFORM = ("Q2_K", "IQ3_XXS", "Q3_K", "Q4_0", "Q4_K", "Q6_K")


@dataclass(frozen=True)
class Candidate:
    """``bits_per_weight`` over all the tensors; ``read`` gives the decoded ones."""

    name: str
    bits_per_weight: float
    read: Read


def ours(
    source: Source, text: np.ndarray | None, device: str, work: Path, budgets: list[float], only: str
) -> Iterator[Candidate]:
    """Uniform formats by every solver, and mixed plans within each of ``budgets``."""
    solvers = ("rtn", "hqq") if text is None else ("rtn", "hqq", "gptq")
    plans: list[tuple[int, str, float | None]] = [(bits, solver, None) for bits in (2, 3, 4) for solver in solvers]
    for budget in budgets:
        fits = [
            bits
            for bits in (2, 3, 4)
            if uniform(source.config, Format(bits, GROUP_SIZE)).bits_per_weight(source.config) < budget
        ]
        plans += [(bits, "rtn" if text is None else "gptq", budget) for bits in fits]
    for bits, solver, budget in plans:
        name = f"{bits} bits, {solver}" if budget is None else f"mixed from {bits} bits within {budget:.3f}, {solver}"
        if not re.search(only, name):
            continue
        calibration = text if solver == "gptq" else None
        request = Request(source.origin, bits, GROUP_SIZE, solver, budget, windows_digest(calibration))
        folder = work / f"{bits}-{solver}-{budget}"
        manifest = quantize_folder(source, request, folder, calibration, device)
        yield Candidate(name, manifest["totals"]["bits_per_weight"], QuantizedFolder(folder).read)


def theirs(source: Source, importance: Mapping[str, np.ndarray], only: str) -> Iterator[Candidate]:
    """Uniform formats, and llama.cpp's file types as its quantiser mixes them where there is an importance matrix."""
    config = source.config
    matrices = [name for name in architecture.shapes(config) if architecture.role(name) is not None]
    made = {f"llama.cpp {kind}, every matrix": dict.fromkeys(matrices, kind) for kind in UNIFORM}
    if importance:  # the rules for its mixtures are those with an importance matrix
        made |= {f"llama.cpp {file_type} file": recipe(file_type, config) for file_type in BASE}
    shapes = architecture.shapes(config)
    weights = sum(math.prod(shape) for shape in shapes.values())
    for name, kinds in made.items():
        if not re.search(only, name):
            continue
        total = sum(
            shape[0] * ggml.row_bytes(kinds[key], shape[1]) if key in kinds else 4 * math.prod(shape)
            for key, shape in shapes.items()
        )

        def read(key: str, kinds: dict[str, str] = kinds) -> np.ndarray:
            values = source.read(key)
            if key not in kinds:
                return values
            packed = ggml.quantize(values, kinds[key], importance.get(key))
            return ggml.dequantize(packed, kinds[key], values.shape[1])

        yield Candidate(name, 8 * total / weights, read)


def importance_matrix(source: Source, text: np.ndarray, device: str) -> dict[str, np.ndarray]:
    """float32 [columns] of each matrix: the mean square of its inputs with float weights; of a tied embedding those of the logits."""
    stream = LayerStream(source.config, text, source.read, device)
    names = [name for name in architecture.shapes(source.config) if architecture.role(name) is not None]
    found = {}
    for layer in range(int(source.config["num_hidden_layers"])):
        module = stream.layer(layer, source.read)
        squares = stream.squares(module, [part for stage in STAGES for part in stage], diagonal=True)
        for name in names:
            if architecture.layer_of(name) == layer:
                found[name] = squares[architecture.role(name) or ""]
        stream.advance(module)
    head = "lm_head.weight" if "lm_head.weight" in names else "model.embed_tokens.weight"
    found[head] = stream.head_squares(source.read, diagonal=True)
    return {name: (squares / text.size).float().cpu().numpy() for name, squares in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--text", type=Path, help="calibrates gptq; it must not be the held-out one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--windows", type=int, help="of the held-out text, at most (as many as 32,768 tokens have by default)")
    parser.add_argument("--calibration-tokens", type=int, default=TOKENS, help="of the text, at most")
    parser.add_argument("--only", default="", help="a regular expression: only formats whose name it finds")
    parser.add_argument("--output", type=Path, help="the mean negative log-likelihood of every window, as JSON")
    parser.add_argument("--store", type=Path, help="a store that gets a row for each format, for the dashboard")
    chosen = parser.parse_args()
    source = open_source(resolve(str(chosen.model)))
    held_out = windows(chosen.held_out, source.folder, source.config)[: chosen.windows]
    text = None
    if chosen.text is not None:
        text = windows(chosen.text, source.folder, source.config, chosen.calibration_tokens)
    reference = perplexity(source.config, held_out, source.read, chosen.device)
    log = QualityLog(chosen.store, source, held_out, reference, device=chosen.device)
    machine = fingerprint()
    print(
        f"{source.origin}: {architecture.float16_bytes(source.config) // 2:,} weights on {machine['cpu_model']}, {chosen.device}"
    )
    print(f"{len(held_out)} windows of {held_out.shape[1]} tokens; perplexity with float weights {reference.perplexity:.3f}")
    print(f"{'format':<44}{'bits a weight':>14}{'perplexity':>12}{'ratio':>9}  95 % interval")
    samples = {"float": reference.nats.tolist()}
    with tempfile.TemporaryDirectory() as work:
        peers: list[Candidate] = []
        if (why := ggml.missing()) is not None:
            print(f"llama.cpp's formats: unavailable, {why}.")
        else:
            importance = {} if text is None else importance_matrix(source, text, chosen.device)
            peers = list(theirs(source, importance, chosen.only))
        least = uniform(source.config, Format(2, GROUP_SIZE)).bits_per_weight(source.config)
        budgets = sorted({peer.bits_per_weight for peer in peers if least < peer.bits_per_weight <= MOST_BUDGET})
        own = ours(source, text, chosen.device, Path(work), budgets, chosen.only)
        theirs_found: list[tuple[Candidate, Quality]] = []
        for candidate in chain(peers, own):
            found = perplexity(source.config, held_out, candidate.read, chosen.device)
            print(line(candidate, found, reference), flush=True)
            samples[candidate.name] = found.nats.tolist()
            maker, solver = ("llama.cpp", None) if candidate in peers else (OURS, candidate.name.rpartition(", ")[2])
            log.add(candidate.name, candidate.bits_per_weight, found, made_by=maker, solver=solver)
            if candidate in peers:
                theirs_found.append((candidate, found))
            else:
                for sentence in against_peers(candidate, found, theirs_found):
                    print(f"  {sentence}", flush=True)
    if chosen.output is not None:
        facts = {"model": source.origin, "machine": machine, "held_out_tokens": reference.tokens, "nats_by_window": samples}
        chosen.output.write_text(json.dumps(facts, indent=1, default=str) + "\n")


def against_peers(candidate: Candidate, found: Quality, peers: list[tuple[Candidate, Quality]]) -> Iterator[str]:
    """One of ours paired by window with every format of theirs that takes as many bits or more, up to BITS_BESIDE more."""
    for peer, other in peers:
        if candidate.bits_per_weight <= peer.bits_per_weight <= candidate.bits_per_weight + BITS_BESIDE:
            ratio, low, high = paired_ratio(found, other)
            yield f"against {peer.name} ({peer.bits_per_weight:.3f} bits): {ratio:.4f}  {low:.4f} to {high:.4f}"


def line(candidate: Candidate, found: Quality, reference: Quality) -> str:
    ratio, low, high = paired_ratio(found, reference)
    return (
        f"{candidate.name:<44}{candidate.bits_per_weight:>14.3f}{found.perplexity:>12.3f}{ratio:>9.4f}  {low:.4f} to {high:.4f}"
    )


if __name__ == "__main__":
    main()
