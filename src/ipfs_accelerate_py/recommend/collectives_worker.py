"""One process of the probe of collectives: times each operation by size, and the products and memory that compute beside it.

Run by ``collectives.probe`` as ``python -m`` this module with RENDEZVOUS RANK PROCESSES BACKEND THREADS REPEATS; rank 0 prints what was
measured as JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

SIZES = (4_096, 65_536, 1_048_576, 16_777_216)  # bytes of the whole tensor
LARGE_SIZES = (67_108_864, 268_435_456)  # a GPU's link is full only with these
OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter")


def main(rendezvous: str, rank: int, processes: int, backend: str, threads: int, repeats: int) -> None:
    import torch
    import torch.distributed as dist

    if backend == "nccl" and torch.cuda.device_count() < processes:
        sys.exit(f"torch sees {torch.cuda.device_count()} of the {processes} NVIDIA GPUs that {processes} processes need")
    torch.set_num_threads(threads)
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, init_method=f"file://{rendezvous}", rank=rank, world_size=processes)

    def timed(action: Callable[[], Any]) -> float:
        """Seconds, the median over repeats of the slowest process's time."""
        times = []
        for _ in range(repeats + 1):
            dist.barrier()
            began = time.perf_counter()
            action()
            if device.type == "cuda":
                torch.cuda.synchronize()
            longest = torch.tensor(time.perf_counter() - began, device=device)
            dist.all_reduce(longest, dist.ReduceOp.MAX)
            times.append(longest.item())
        return statistics.median(times[1:])  # the first one sets up buffers and connections

    measured: dict[str, Any] = {name: {} for name in OPERATIONS}
    for size in (*SIZES, *LARGE_SIZES) if device.type == "cuda" else SIZES:
        whole = torch.ones(size // 4 // processes * processes, device=device)
        part = torch.ones(len(whole) // processes, device=device)
        actions = {
            "all_reduce": partial(dist.all_reduce, whole),
            "all_gather": partial(dist.all_gather_into_tensor, whole, part),
            "reduce_scatter": partial(dist.reduce_scatter_tensor, part, whole),
        }
        for name, action in actions.items():
            measured[name][size] = timed(action)
    rates = {}
    for precision in ("float32", "bfloat16"):
        side = 8192 if device.type == "cuda" else 768
        matrix = torch.rand(side, side, device=device).to(getattr(torch, precision))
        rates[precision] = 2 * side**3 / timed(partial(torch.matmul, matrix, matrix))
    block = torch.ones(16_777_216, device=device)  # 64 MiB, beyond the caches of most processors
    result = torch.empty_like(block)
    bandwidth = 2 * block.nbytes / timed(partial(torch.add, block, 1.0, out=result))
    if rank == 0:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        print(json.dumps({"seconds": measured, "matmul_flops_per_s": rates, "memory_bytes_per_s": bandwidth, "device": name}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))
