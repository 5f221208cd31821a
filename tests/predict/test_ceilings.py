"""Ceilings: between measured points, from probes with absurd rows, and from datasheets."""

from __future__ import annotations

import math

import pytest

from ipfs_accelerate_py.predict.ceilings import Ceilings, at, datasheets, from_datasheet, from_probe


def row(kind: str, size: float, value: float, precision: str = "float32") -> dict[str, object]:
    return {"kind": kind, "precision": precision, "size": size, "value": value}


def test_rates_are_read_between_points_in_the_logarithm() -> None:
    """Halfway between 10 and 1000 in the logarithm is 100, with the geometric mean of the rates; beyond the ends nothing is invented."""
    curve = ((10.0, 1e9), (1000.0, 4e9))
    assert at(curve, 100) == pytest.approx(2e9)
    assert (at(curve, 1), at(curve, 1e6)) == (1e9, 4e9)


def test_a_probe_with_absurd_rows_keeps_the_good_ones() -> None:
    """NaN, infinite, zero and negative rates are no ceilings; of two runs of a size the faster one is."""
    rows = [row("matmul", 1e6, value) for value in (math.nan, math.inf, -1.0, 0.0, 5e9, 6e9)]
    rows += [row("bandwidth", 1e6, 1e10), row("dispatch", 0, 2e-6), row("execution", 0, math.nan)]
    ceilings = from_probe(rows, "x")
    assert ceilings is not None
    assert ceilings.flops_per_s("float32", 1e6) == 6e9
    assert (ceilings.dispatch_s, ceilings.execution_s) == (2e-6, None)


def test_a_probe_without_products_or_traffic_is_none() -> None:
    """Costs alone are no ceilings."""
    assert from_probe([row("dispatch", 0, 1e-6), row("bandwidth", 1e6, 1e9)], "x") is None


@pytest.mark.parametrize(
    ("name", "row_name"),
    [
        ("NVIDIA H200", "NVIDIA H200 SXM"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80 GB SXM"),
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100 40 GB"),
        ("NVIDIA H100 PCIe", "NVIDIA H100 PCIe"),
        ("Apple M1 Max", "Apple M1 Max GPU"),
        ("NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4090"),
    ],
)
def test_devices_by_the_names_that_drivers_give(name: str, row_name: str) -> None:
    """The row with most of the name's words is meant."""
    ceilings = from_datasheet(name)
    assert ceilings is not None
    assert (ceilings.name, ceilings.source) == (row_name, "datasheet")


def test_an_unknown_device_has_no_datasheet() -> None:
    """Nothing is taken for something like it."""
    assert from_datasheet("Intel(R) Xeon(R) Processor") is None
    assert from_datasheet("Voodoo 2") is None


def test_every_datasheet_states_its_source_and_what_it_must() -> None:
    """A page of the maker, arithmetic and bandwidth."""
    makers = ("nvidia.com", "amd.com", "intel.com", "apple.com")
    for each in datasheets():
        assert any(maker in each["source"] for maker in makers), each["name"]
        assert float(each["float32_tflops"]) > 0 and float(each["bandwidth_gb_per_s"]) > 0
        assert from_datasheet(each["words"]) is not None


def test_ceilings_survive_their_own_json() -> None:
    """What is stored with a predictor is what it was made of."""
    ceilings = Ceilings("probe", "x", {"float32": ((1.0, 2.0), (3.0, 4.0))}, ((1.0, 5.0),), 1e-6, 1e-3)
    assert Ceilings.from_dict(ceilings.to_dict()) == ceilings
