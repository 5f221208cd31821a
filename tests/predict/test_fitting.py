"""The roofline and the fit of its four costs, on times that are made from known ones."""

from __future__ import annotations

import numpy as np
import pytest

from ipfs_accelerate_py.graph import Operator, PhaseCounts, count, describe
from ipfs_accelerate_py.predict.ceilings import Ceilings
from ipfs_accelerate_py.predict.fitting import Costs, Terms, fit, terms
from ipfs_accelerate_py.predict.roofline import phase_time

CEILINGS = Ceilings("probe", "x", {"float32": ((1.0, 1e11),), "float16": ((1.0, 4e11),)}, ((1.0, 1e10),))
PRIOR, SPREAD = Costs(1.0, 1.0, 5e-6, 1e-4), (1.0, 1.0, 1.5, 1.5)


def test_an_operator_takes_the_longer_of_arithmetic_and_traffic() -> None:
    """By hand: 1e9 FLOPs at 1e11 a second are 10 ms, 2e7 bytes at 1e10 a second 2 ms; 10 times in a row of layers."""
    product = Operator("matmul", "p", 10**9, 10**7, 10**7, count=10, shape=(1, 1, 1, 1))
    moved = Operator("elementwise", "e", 10, 10**7, 10**7)
    found = phase_time(PhaseCounts("forward", (product, moved)), CEILINGS, "torch", "float32")
    assert (found.arithmetic_s, found.traffic_s) == (pytest.approx(10 * 0.010), pytest.approx(0.002))
    assert found.kernels == 11
    assert phase_time(PhaseCounts("forward", (product,)), CEILINGS, "torch", "float16").arithmetic_s == pytest.approx(
        10 * 0.0025
    )


def test_an_engine_that_fuses_starts_and_moves_less() -> None:
    """OpenVINO does additions and activations with the product before them, torch does not."""
    phase = count(describe("bert", "tiny")).phases["forward"]
    fused, eager = (phase_time(phase, CEILINGS, engine, "float32") for engine in ("openvino", "torch"))
    assert fused.kernels < eager.kernels
    assert fused.traffic_s < eager.traffic_s


def test_a_generation_is_one_prefill_and_a_decode_for_each_further_token() -> None:
    """With 16 new tokens: 16 executions, of which 15 are decode; an encoder's result is not read back."""
    found = terms(count(describe("llama", "tiny"), new_tokens=16), CEILINGS, "torch", "float32")
    assert (found["total"].executions, found["first"].executions, found["token"].executions) == (16, 1, 1)
    assert found["total"].array == pytest.approx(found["first"].array + 15 * found["token"].array)
    assert terms(count(describe("whisper", "tiny"), new_tokens=16), CEILINGS, "torch", "float32")["total"].executions == 16


def test_the_fit_finds_the_costs_that_made_the_times() -> None:
    """From times without noise, whose work differs in kind: bound by arithmetic, by traffic, by kernels, and by executions."""
    true = Costs(1.7, 0.8, 12e-6, 3e-3)
    works = [Terms(0.5, 1e-3, 10, 1), Terms(1e-4, 1e-4, 2000, 1), Terms(1e-4, 1e-4, 10, 16), Terms(0.05, 0.5, 1000, 4)]
    found = fit([(work, work.seconds(true), 1.0) for work in works], PRIOR, SPREAD)
    assert found.logs == pytest.approx(true.logs, abs=0.02)


def test_what_the_times_do_not_say_stays_at_the_prior() -> None:
    """Times of arithmetic alone say nothing of the cost of a kernel; and without times all is the prior's."""
    work = Terms(1.0, 1e-9, 1e-9, 1e-9)
    found = fit([(work, 2.0, 1.0)], PRIOR, SPREAD)
    assert found.arithmetic == pytest.approx(2.0, rel=0.01)
    assert found.kernel_s == pytest.approx(PRIOR.kernel_s, rel=0.01)
    assert fit([], PRIOR, SPREAD) == PRIOR


def test_noise_moves_the_fit_little() -> None:
    """5 % of noise on 40 times: the costs that matter within 10 %."""
    generator = np.random.default_rng(0)
    true = Costs(1.5, 1.5, 10e-6, 1e-3)
    works = [Terms(*map(float, row)) for row in generator.uniform((1e-3, 1e-3, 50, 1), (0.1, 0.1, 2000, 16), (40, 4))]
    rows = [(work, work.seconds(true) * float(np.exp(generator.normal(0, 0.05))), 1.0) for work in works]
    found = fit(rows, PRIOR, SPREAD)
    assert found.arithmetic == pytest.approx(true.arithmetic, rel=0.1)
    assert found.kernel_s == pytest.approx(true.kernel_s, rel=0.25)
