"""Measure what the predictor has too little of: other batches, lengths, sizes and thread counts, and a probe of every device.

    python benchmarks/prediction_data.py --store prediction.duckdb [--platforms cpu,openvino] [--list]
    ipfs-accelerate export data/reference/NAME --store prediction.duckdb

Runs calibrate and bench one after the other; a campaign that was interrupted is resumed by the same command. For an idle machine:
what runs beside it is measured too. ``--list`` prints the commands and runs nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

CALIBRATIONS = ([], ["--threads", "1", "--platforms", "cpu,openvino"])
# Small models at several batches and lengths teach interpolation; base sizes and further classes teach new models; one thread is a device.
CAMPAIGNS = (
    ["--models", "bert", "--batch-sizes", "1,4", "--sequence-lengths", "32,64,128,256"],
    ["--models", "t5,llama", "--batch-sizes", "1,4", "--sequence-lengths", "32,128"],
    ["--models", "vit,clip,whisper", "--size", "small", "--batch-sizes", "1,4"],
    ["--models", "bert,vit,clip,t5", "--size", "base", "--batch-sizes", "1"],
    ["--models", "wav2vec2,clap,detr,xclip", "--size", "base", "--batch-sizes", "1"],
    ["--models", "bert,vit,t5,llama,whisper,clip", "--batch-sizes", "1,2", "--threads", "1"],
)


def commands(store: Path, platforms: str) -> list[list[str]]:
    """The command lines, in order."""
    program = [sys.executable, "-m", "ipfs_accelerate_py.cli"]
    chosen = ["--platforms", platforms] if platforms else []
    probes = [[*program, "calibrate", "--store", str(store), *(chosen if not extra else []), *extra] for extra in CALIBRATIONS]
    return probes + [[*program, "bench", "--store", str(store), "--resume", *chosen, *campaign] for campaign in CAMPAIGNS]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--platforms", default="cpu,openvino", help="empty for every platform that is here")
    parser.add_argument("--list", action="store_true", help="print the commands and run nothing")
    arguments = parser.parse_args()
    failed = 0
    for command in commands(arguments.store, arguments.platforms):
        print(" ".join(command[2:]), flush=True)
        if not arguments.list:
            failed += subprocess.run(command, check=False).returncode != 0
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
