"""The roofline and the fit of its costs, on times that are made from known ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ipfs_accelerate_py.graph import Operator, PhaseCounts, count, describe
from ipfs_accelerate_py.predict.ceilings import Ceilings
from ipfs_accelerate_py.predict.fitting import Costs, Terms, fit, terms
from ipfs_accelerate_py.predict.roofline import PhaseTime, phase_time

CEILINGS = Ceilings("probe", "x", {"float32": ((1.0, 1e11),), "float16": ((1.0, 4e11),)}, ((1.0, 1e10),))
PRIOR, SPREAD = Costs.plain(1.0, 1.0, 5e-6, 1e-4), (1.0, 0.1, 0.1, 0.1, 1.0, 0.1, 1.0, 0.1, 0.1, 1.5, 1.5)


def work_of(arithmetic: float, traffic: float, kernels: float, executions: float) -> Terms:
    """All arithmetic in products with weights, all traffic in reading them."""
    return Terms(arithmetic, 0.0, 0.0, 0.0, traffic, 0.0, 0.0, 0.0, 0.0, kernels, executions)


def test_an_operator_takes_the_longer_of_arithmetic_and_traffic() -> None:
    """By hand: 1e9 FLOPs at 1e11 a second are 10 ms, 2e7 bytes at 1e10 a second 2 ms; 10 times in a row of layers."""
    product = Operator("matmul", "p", 10**9, 10**7, 10**7, count=10, shape=(1, 1, 1, 1))
    moved = Operator("elementwise", "e", 10, 10**7, 10**7)
    found = phase_time(PhaseCounts("forward", (product, moved)), CEILINGS, "torch", "float32")
    assert (found.product_s, found.moved_s) == (pytest.approx(10 * 0.010), pytest.approx(0.002))
    assert found.kernels == 11
    assert phase_time(PhaseCounts("forward", (product,)), CEILINGS, "torch", "float16").product_s == pytest.approx(10 * 0.0025)


def test_an_engine_that_fuses_starts_and_moves_less() -> None:
    """OpenVINO does additions and activations with the product before them, torch does not."""
    phase = count(describe("bert", "tiny")).phases["forward"]
    fused, eager = (phase_time(phase, CEILINGS, engine, "float32") for engine in ("openvino", "torch"))
    assert fused.kernels < eager.kernels
    assert fused.moved_s < eager.moved_s and fused.computed_s < eager.computed_s


def test_a_generation_is_one_prefill_and_a_decode_for_each_further_token() -> None:
    """With 16 new tokens: 16 executions, of which 15 are decode; an encoder's result is not read back."""
    found = terms(count(describe("llama", "tiny"), new_tokens=16), CEILINGS, "torch", "float32")
    assert (found["total"].executions, found["first"].executions, found["token"].executions) == (16, 1, 1)
    assert np.array(found["total"].array) == pytest.approx(np.array(found["first"].array) + 15 * np.array(found["token"].array))
    assert terms(count(describe("whisper", "tiny"), new_tokens=16), CEILINGS, "torch", "float32")["total"].executions == 16


def test_the_fit_finds_the_costs_that_made_the_times() -> None:
    """From times without noise, whose work differs in kind: bound by arithmetic, by traffic, by kernels, and by executions."""
    true = Costs.plain(1.7, 0.8, 12e-6, 3e-3)
    works = [work_of(0.5, 1e-3, 10, 1), work_of(1e-4, 1e-4, 2000, 1), work_of(1e-4, 1e-4, 10, 16), work_of(0.05, 0.5, 1000, 4)]
    found = fit([(work, work.seconds(true), 1.0) for work in works], PRIOR, SPREAD)
    for name in ("linear", "weights", "kernel_s", "execution_s"):
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=0.02), name


def test_what_the_times_do_not_say_stays_at_the_prior() -> None:
    """Times of arithmetic alone say nothing of the cost of a kernel; and without times all is the prior's."""
    work = work_of(1.0, 1e-9, 1e-9, 1e-9)
    found = fit([(work, 2.0, 1.0)], PRIOR, SPREAD)
    assert found.linear == pytest.approx(2.0, rel=0.01)
    assert found.kernel_s == pytest.approx(PRIOR.kernel_s, rel=0.01)
    assert fit([], PRIOR, SPREAD) == PRIOR


def test_kinds_of_work_have_costs_of_their_own_where_times_tell_them_apart() -> None:
    """Convolutions twice as far from the roofline as products with weights: found where both were timed; where only products were, and they
    are half as fast as believed, convolutions follow them, and what is read of weights does not."""
    loose = (1.0,) * 9 + (1.5, 1.5)
    products, convolutions = work_of(1.0, 0.0, 0.0, 0.0), replace(work_of(0.0, 0.0, 0.0, 0.0), conv_s=1.0)
    found = fit([(products, 1.5, 1.0), (convolutions, 3.0, 1.0)], PRIOR, loose)
    assert (found.linear, found.conv) == (pytest.approx(1.5, rel=0.02), pytest.approx(3.0, rel=0.02))
    alone = fit([(products, 2.0, 1.0)], PRIOR, loose)
    assert (alone.linear, alone.conv, alone.weights) == (pytest.approx(2.0, rel=0.02), pytest.approx(2.0, rel=0.02), 1.0)


def test_products_of_few_rows_take_their_arithmetic_and_their_weights() -> None:
    """By hand: 4 rows times 1000 x 1000 weights are 8e6 FLOPs, 80 us, beside 4 MB at 1e10 a second, 400 us. Of a single row the arithmetic
    is hidden, and of 64 rows the weights are. A working set beyond what was measured is streamed."""

    def of(rows: int, ceilings: Ceilings = CEILINGS) -> PhaseTime:
        flops, weights = 2 * rows * 10**6, 4 * 10**6
        product = Operator("matmul", "p", flops, weights, 0, weights, shape=(1, rows, 1000, 1000))
        return phase_time(PhaseCounts("decode", (product,)), ceilings, "torch", "float32")

    near = replace(CEILINGS, bandwidth=((1e6, 1e10), (1e7, 1e10)))
    few = of(4, near)
    assert (few.few_rows_s, few.weights_s, few.linear_s) == (pytest.approx(80e-6), pytest.approx(400e-6), 0.0)
    assert (of(1, near).few_rows_s, of(1, near).weights_s) == (0.0, pytest.approx(400e-6))
    assert (of(64, near).linear_s, of(64, near).weights_s) == (pytest.approx(1280e-6), 0.0)
    far = of(1, replace(CEILINGS, bandwidth=((1e6, 1e10),)))
    assert (far.streamed_s, far.weights_s) == (pytest.approx(400e-6), 0.0)


def test_noise_moves_the_fit_little() -> None:
    """5 % of noise on 40 times: the costs that matter within 10 %."""
    generator = np.random.default_rng(0)
    true = Costs.plain(1.5, 1.5, 10e-6, 1e-3)
    works = [work_of(*map(float, row)) for row in generator.uniform((1e-3, 1e-3, 50, 1), (0.1, 0.1, 2000, 16), (40, 4))]
    rows = [(work, work.seconds(true) * float(np.exp(generator.normal(0, 0.05))), 1.0) for work in works]
    found = fit(rows, PRIOR, SPREAD)
    assert found.linear == pytest.approx(true.linear, rel=0.1)
    assert found.kernel_s == pytest.approx(true.kernel_s, rel=0.25)
