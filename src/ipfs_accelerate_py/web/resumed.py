"""An answer that goes on where it was when its browser died: what is known of it is prefilled with the prompt."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from .served_model import OnToken, Run, ServedModel


@dataclass
class ResumableAnswer:
    """One row's answer by one engine at one precision. ``prompt`` int64 [1, tokens]; times leave out what a recovery took."""

    prompt: np.ndarray
    ends: Collection[int]
    ids: list[int] = field(default_factory=list)
    ns: list[int] = field(default_factory=list)

    def run(self, served: ServedModel, new_tokens: int, cache_tokens: int, limit_s: float, on_token: OnToken) -> Run:
        """The whole answer of at most ``new_tokens``, of which only what is missing is asked of ``served``. Raises LaunchError, after
        which it may be called again with a model that was opened anew."""
        before, before_ns, reused = len(self.ids), self.ns[-1] if self.ns else 0, 0

        def known(index: int, row: Sequence[int], ns: int) -> bool:
            self.ids.append(row[0])
            self.ns.append(before_ns + ns)
            return on_token(before + index, row, before_ns + ns)

        if before < new_tokens and not (self.ids and self.ids[-1] in self.ends):
            ids = np.concatenate([self.prompt, np.array([self.ids], self.prompt.dtype)], axis=1)
            reused = served.decode({"input_ids": ids}, new_tokens - before, cache_tokens, limit_s, known).reused_tokens
        return Run({"token_ids": np.array([self.ids])}, self.ns[-1], tuple(self.ns), reused)
