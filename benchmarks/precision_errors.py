"""How far each precision is from float32, by model class: the errors that the rules of measure/accuracy.py must allow.

    python benchmarks/precision_errors.py                    # tiny models with random weights, and MiniLM with its trained ones
    python benchmarks/precision_errors.py --models bert:small,llama:small --precisions int4 --sequence-length 128

Synthetic weights are the worst case: nothing in them is redundant, and their scores have more ties than a trained model's. ``noise`` is
sqrt(1/cosine^2 - 1), root mean square relative to the signal; ``choices`` the share of equal tokens or classes. float16's file runs on
onnxruntime's CPU for its rounded weights and caches; the arithmetic there is float32, in torch it is float16.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ipfs_accelerate_py.measure.accuracy import check
from ipfs_accelerate_py.models.prepare import prepare
from ipfs_accelerate_py.models.prepared import load_tensors
from ipfs_accelerate_py.models.registry import model_classes, resolve, workload
from ipfs_accelerate_py.platforms.base import OpenOptions, Session
from ipfs_accelerate_py.platforms.registry import platform
from ipfs_accelerate_py.spec import Workload

TARGETS = {
    "float32": (("cpu", "onnxruntime"), ("openvino", "openvino")),
    "float16": (("cpu", "torch"), ("cpu", "onnxruntime")),
    "bfloat16": (("cpu", "torch"),),
    "int8": (("cpu", "onnxruntime"), ("openvino", "openvino")),
    "int4": (("cpu", "onnxruntime"), ("openvino", "openvino")),
}


def rows(model: str, precisions: list[str], length: int, tokens: int, cache: Path) -> Iterator[str]:
    name, _, size = model.partition(":")
    reference = resolve(name, size=size or "tiny")
    full = workload(reference, batch_size=2, sequence_length=length, new_tokens=tokens)
    for precision in precisions:
        for place, engine in TARGETS[precision]:
            work = replace(full, precision=precision)
            folder = prepare(work, reference, cache, exported=engine != "torch")
            options = OpenOptions(folder=folder, engine=engine)
            session = platform(place).open(work, "default", options)
            assert isinstance(session, Session)
            try:
                yield f"{name:<11}{reference.size:<7}{precision:<10}{engine:<12} {row(session, work, folder)}"
            finally:
                session.close()


def row(session: Session, work: Workload, folder: Path) -> str:
    session.load()
    session.compile()
    inputs = load_tensors(folder / "inputs.npz")
    outputs = session.infer(inputs) if work.new_tokens is None else session.generate(inputs, work.new_tokens, lambda: None)
    found = check(outputs, load_tensors(folder / "reference.npz"), work.precision, work.task)
    noise = math.sqrt(max(0.0, 1 / found.cosine**2 - 1)) if found.cosine > 0 else math.nan
    agreement = "" if found.top1_agreement is None else f"{found.top1_agreement:.2f}"
    megabytes = (session.memory().weights_bytes or 0) / 1e6
    verdict = "passes" if found.passed else found.rule.partition("failed")[2]
    return f"{found.cosine:.6f} {noise:>8.3%} {found.relative_error:>9.5f} {agreement:>7} {megabytes:>8.2f}  {verdict}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", default="", help="CLASS or CLASS:SIZE, comma-separated; all classes at tiny, and bert:small"
    )
    parser.add_argument("--precisions", default=",".join(TARGETS))
    parser.add_argument("--sequence-length", type=int, default=16, help="in tokens, where the input has a length")
    parser.add_argument("--new-tokens", type=int, default=8)
    parser.add_argument("--cache", type=Path, help="keeps what is prepared; a temporary folder by default")
    arguments = parser.parse_args()
    models = arguments.models.split(",") if arguments.models else [*model_classes(), "bert:small"]
    print(
        f"{'class':<11}{'size':<7}{'precision':<9}{'engine':<12} {'cosine':>8} {'noise':>8} {'rel.err.':>9} {'choices':>7} {'MB':>8}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        cache = arguments.cache or Path(temporary)
        for model in models:
            for line in rows(model, arguments.precisions.split(","), arguments.sequence_length, arguments.new_tokens, cache):
                print(line, flush=True)


if __name__ == "__main__":
    main()
