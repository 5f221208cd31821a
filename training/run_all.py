"""Train all the models at the same time, on one GPU or spread over several, and pack what comes out.

    python training/run_all.py --data DATA --out OUT

DATA has what corpus.py text and speech.py wrote; the corpus is made into tokens first. OUT gets trained.tar.part.NN (every model's
folder and log; joined with cat) and summary.json. A model that fails or goes past the limit does not keep the others from being packed;
the exit status then is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import torch

PART_BYTES = 15 * 2**20
HERE = Path(__file__).parent
LANGUAGE_MODELS = ("llama", "qwen2")


def commands(chosen: argparse.Namespace, work: Path) -> dict[str, list[str]]:
    """The command of each model; language models first, as they take the longest."""
    data, scale = str(chosen.data), chosen.scale
    language = [
        "--data",
        data,
        "--size",
        chosen.size,
        "--minutes",
        str(4 * scale),
        *(["--compile"] if chosen.compile else []),
    ]
    plan = {
        "llama": ["language_model.py", "llama", *language],
        "qwen2": ["language_model.py", "qwen2", *language],
        "wav2vec2": ["transcriber.py", "--data", data, "--minutes", str(4 * scale)],
        "detr": ["detector.py", "--minutes", str(4 * scale)],
        "vit": ["classifier.py", "--minutes", str(2 * scale)],
    }
    extra = ["--steps", str(chosen.steps)] if chosen.steps else []
    names = chosen.only or list(plan)
    return {
        name: [sys.executable, str(HERE / plan[name][0]), *plan[name][1:], "--out", str(work / name), *extra] for name in names
    }


def pack(work: Path, out: Path) -> list[str]:
    """The folders as one tar, in parts; checkpoints stay behind."""
    whole = work.with_suffix(".tar")
    with tarfile.open(whole, "w") as archive:
        for path in sorted(work.iterdir()):
            archive.add(path, path.name, filter=lambda member: None if member.name.endswith("checkpoint.pt") else member)
    names = []
    with whole.open("rb") as stream:
        while part := stream.read(PART_BYTES):
            names.append(f"trained.tar.part.{len(names):02}")
            (out / names[-1]).write_bytes(part)
    whole.unlink()
    return names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="these models alone")
    parser.add_argument("--size", choices=("small", "medium"), default="medium", help="of the language models")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on every model's minutes")
    parser.add_argument("--steps", type=int, help="train this many steps instead")
    parser.add_argument("--compile", action="store_true", help="torch.compile for the language models")
    parser.add_argument("--limit-minutes", type=float, default=8.5, help="what still runs then is stopped")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix="training-")) / "trained"
    work.mkdir()
    gpus = torch.cuda.device_count()
    if not (chosen.data / "train.u16").is_file() and set(chosen.only or LANGUAGE_MODELS) & set(LANGUAGE_MODELS):
        subprocess.run([sys.executable, str(HERE / "corpus.py"), "tokens", str(chosen.data)], check=True)
        print(f"tokens after {time.monotonic() - started:.0f} s", flush=True)
    running = {}
    for index, (name, command) in enumerate(commands(chosen, work).items()):
        (work / name).mkdir()
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "2"}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = str(index % gpus)
        with (work / name / "training.log").open("w") as log:
            running[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    finished: dict[str, dict[str, object]] = {}
    while running:
        time.sleep(1)
        late = time.monotonic() - started > 60 * chosen.limit_minutes
        for name, process in list(running.items()):
            if late:
                process.kill()
                process.wait()
            if process.poll() is None:
                continue
            del running[name]
            seconds = round(time.monotonic() - started)
            lines = (work / name / "training.log").read_text().splitlines()
            finished[name] = {"exit_status": process.returncode, "seconds": seconds, "last_lines": lines[-3:]}
            print(f"{name}: exit status {process.returncode} after {seconds} s", *lines[-3:], sep="\n  ", flush=True)
    parts = pack(work, chosen.out)
    summary = {"gpus": [torch.cuda.get_device_name(index) for index in range(gpus)], "models": finished, "parts": parts}
    (chosen.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(f"packed {', '.join(parts)} after {time.monotonic() - started:.0f} s")
    return int(any(entry["exit_status"] != 0 for entry in finished.values()))


if __name__ == "__main__":
    sys.exit(main())
