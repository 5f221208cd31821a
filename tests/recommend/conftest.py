"""A predictor of known answers, and places to choose from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.predict import Interval, Prediction
from ipfs_accelerate_py.predict.ceilings import Ceilings
from ipfs_accelerate_py.recommend.places import Place


class KnownTimes:
    """Milliseconds by platform, engine or browser, with intervals of this relative half-width. What is not listed is not known."""

    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __init__(
        self, ms: dict[str, float], spread: float = 0.01, others: tuple[Place, ...] = (), regime: str = "measured"
    ) -> None:
        self.ms, self.spread, self.elsewhere, self.regime = ms, spread, others, regime

    def others(self) -> list[Place]:
        return list(self.elsewhere)

    def ceilings(self, place: Place) -> Ceilings:
        """A probed device whose memory moves 10 GB/s."""
        return Ceilings("probe", place.label, {"float32": ((1.0, 1e11),)}, ((1.0, 1e10),))

    def predict(self, description: Any, **where: Any) -> Prediction:
        key = next((name for name in (where.get("browser"), where["engine"], where["platform"]) if name in self.ms), None)
        if key is None:
            raise UserError(f"Nothing is known of {where['platform']}.")
        value, batch = self.ms[key] * where["batch_size"], where["batch_size"]
        latency = Interval(value, value * (1 - self.spread), value * (1 + self.spread))
        return Prediction(
            model=description.name,
            platform=where["platform"],
            engine=where["engine"],
            device=where["device"],
            browser=where.get("browser"),
            machine=None,
            batch_size=batch,
            sequence_length=where["sequence_length"],
            new_tokens=None,
            precision=where["precision"],
            mode=where["mode"],
            latency_ms=latency,
            throughput_per_s=latency.inverse(1000 * batch),
            time_to_first_token_ms=None,
            time_per_output_token_ms=None,
            memory_bytes=Interval(1e9, 0.9e9, 1.1e9),
            energy_j=None,
            energy_reason="no counter",
            regime=self.regime,
            provenance="measured" if self.regime == "measured" else "predicted",
            model_version="test",
        )


@pytest.fixture
def known() -> Callable[..., KnownTimes]:
    """``known({"torch": 20.0, "openvino": 10.0})``: a knowledge of exactly these times."""
    return KnownTimes


@pytest.fixture
def places() -> list[Place]:
    """A CPU with two engines and 16 GB, and a browser."""
    common = {"memory_bytes": 16_000_000_000, "description": "Test CPU"}
    return [
        Place(platform="cpu", engine="torch", **common),
        Place(platform="openvino", engine="openvino", **common),
        Place(platform="wasm", engine="onnxruntime-web", browser="firefox", memory_bytes=16_000_000_000, description="Firefox"),
    ]


@pytest.fixture
def gpus() -> list[Place]:
    """Four GPUs of 40 GB on this machine."""
    return [
        Place(platform="cuda", engine="torch", description="NVIDIA A100 40 GB", memory_bytes=40_000_000_000, count=4),
    ]
