"""The configuration of the web platform: its keys, and the report of what was wrong. The rules are in ``configuration_rules.py``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Configuration:
    """What the platform runs with. ``precision`` in bits, None: float16 on a GPU that has it, else float32. ``batch_size``: most rows
    in one pass, a longer batch takes several. ``context_length``: most tokens, prompt and new ones together (None: the model's).

    The optimisations (``use_compute_shaders`` to ``keep_profile``) are on where they were measured to pay on the live adapter, or by
    default, where they are None: see choices.py."""

    precision: int | None = None
    batch_size: int = 8
    use_kv_cache: bool = True
    kv_cache_bits: int = 32
    context_length: int | None = None
    max_new_tokens: int | None = None
    use_compute_shaders: bool | None = None
    use_shader_precompilation: bool | None = None
    enable_parallel_loading: bool | None = None
    readback: str | None = None
    keep_profile: bool | None = None
    use_model_sharding: bool = False
    workgroup_size: tuple[int, ...] | None = None
    memory_threshold_mb: float | None = None
    error_recovery: str = "auto"
    threads: int | None = None
    adapter: str = "auto"
    size: str | None = None
    weights: str = "auto"
    truncate: bool = False
    max_pending: int = 1000


@dataclass(frozen=True)
class Finding:
    """``rule`` is the name of a rule of configuration_rules.py, ``corrected_to`` what the value became (None where nothing was changed)."""

    rule: str
    message: str
    severity: Literal["warning", "error"]
    corrected_to: Any = None


@dataclass
class Validation:
    """``valid`` says whether all was right as it was given; an invalid one was corrected, or nothing would have come of it."""

    config: Configuration
    errors: list[Finding] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        return not any(finding.severity == "error" for finding in self.errors)

    @property
    def auto_corrected(self) -> bool:
        return any(finding.corrected_to is not None for finding in self.errors)

    def to_dict(self) -> dict[str, Any]:
        return {
            "valid": self.valid,
            "errors": [dataclasses.asdict(finding) for finding in self.errors],
            "auto_corrected": self.auto_corrected,
            "config": dataclasses.asdict(self.config),
        }
