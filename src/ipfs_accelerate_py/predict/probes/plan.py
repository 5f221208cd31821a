"""What is measured of every device, native or in a browser: the same little graphs, and what each one's time says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SEED = 0
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Chain:
    """``length`` matrix products after each other, [rows, width] times [width, width], each with weights of its own.

    ``kind`` is what its time says: ``execution`` (a run with next to nothing in it), ``dispatch`` (one more small operator),
    ``matmul`` (arithmetic, at the FLOPs of one product) or ``bandwidth`` (traffic of weights, at the bytes of all of them together, since
    a pass goes through all).
    """

    kind: str
    rows: int
    width: int
    length: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.rows}x{self.width}x{self.length}"

    @property
    def flops(self) -> int:
        """Of one product."""
        return 2 * self.rows * self.width * self.width

    @property
    def weights_bytes(self) -> int:
        """Of all products."""
        return FLOAT_BYTES * self.width * self.width * self.length

    def inputs(self) -> np.ndarray:
        return np.random.default_rng(SEED).standard_normal((self.rows, self.width), dtype=np.float32)

    def weights(self) -> list[np.ndarray]:
        """Scaled so that the values stay of the same size along the chain."""
        generator = np.random.default_rng(SEED + 1)
        shape = (self.width, self.width)
        return [generator.standard_normal(shape, dtype=np.float32) / np.float32(self.width**0.5) for _ in range(self.length)]


EMPTY = Chain("execution", 1, 16, 1)
CHAINS = (
    EMPTY,
    Chain("dispatch", 1, 16, 129),
    Chain("matmul", 64, 256, 16),
    Chain("matmul", 128, 384, 16),
    Chain("matmul", 128, 768, 8),
    Chain("matmul", 512, 768, 4),
    Chain("matmul", 1024, 1024, 2),
    Chain("bandwidth", 1, 256, 4),
    Chain("bandwidth", 1, 1024, 4),
    Chain("bandwidth", 1, 2048, 4),
    Chain("bandwidth", 1, 4096, 4),  # 268 MB: beyond the caches of most processors
)
# In a browser each chain is a fresh profile, which takes seconds to start, and a software adapter takes seconds for the large ones.
BROWSER_CHAINS = (EMPTY, CHAINS[1], CHAINS[3], CHAINS[5], CHAINS[8], CHAINS[9])
SOFTWARE_CHAINS = (EMPTY, CHAINS[1], CHAINS[2], CHAINS[3], CHAINS[8])


def evaluate(
    times_ns: Mapping[Chain, Sequence[int]], precision: str = "float32", element_bytes: int = FLOAT_BYTES
) -> list[dict[str, Any]]:
    """Rows of the ``probe`` table from the times of each chain's runs, less what an empty run takes.

    What disturbs a run only makes it longer, and a ceiling is what can be reached: rates are of the fastest run. Costs are of the lower
    quartile, as each iteration pays them, and the luckiest one says too little.

    A chain that is not slower than the empty run says nothing, and gives no row.
    """
    quartile_s = {chain: float(np.quantile(times, 0.25)) * 1e-9 for chain, times in times_ns.items()}
    fastest_s = {chain: float(np.min(times)) * 1e-9 for chain, times in times_ns.items()}
    rows = []
    for chain in times_ns:
        costs = chain.kind in ("execution", "dispatch")
        chosen = quartile_s if costs else fastest_s
        taken = chosen[chain]
        beyond = taken - chosen[EMPTY]
        if chain.kind == "execution":
            size, value = 0.0, taken
        elif beyond <= 0:
            continue
        elif chain.kind == "dispatch":
            size, value = 0.0, beyond / (chain.length - 1)
        elif chain.kind == "matmul":
            size, value = float(chain.flops), chain.flops * chain.length / beyond
        else:
            moved = chain.weights_bytes * element_bytes / FLOAT_BYTES
            size, value = moved, moved / beyond
        samples = [int(each) for each in times_ns[chain]]
        facts = {"rows": chain.rows, "width": chain.width, "length": chain.length}
        rows.append(
            {
                "kind": chain.kind,
                "precision": precision,
                "size": size,
                "value": value,
                "samples_ns": samples,
                "facts": facts,
            }
        )
    return rows
