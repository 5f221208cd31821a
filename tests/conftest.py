"""Fixtures that every part's tests share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from ipfs_accelerate_py.models.registry import resolve, workload
from ipfs_accelerate_py.spec import Workload


@cache
def _workload(model_class: str, size: str = "tiny", precision: str = "float32") -> Workload:
    reference = resolve(model_class, size=size, weights="synthetic")
    return workload(reference, batch_size=2, sequence_length=16, new_tokens=6, precision=precision)


@pytest.fixture(scope="session")
def workload_of() -> Callable[..., Workload]:
    """``workload_of(model_class, size="tiny", precision="float32")``: synthetic weights, batches of 2, 16 tokens and 6 new ones."""
    return _workload


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``prepared(model_class, size="tiny", precision="float32")``: the folder of that workload, made once a session."""
    folder = tmp_path_factory.mktemp("prepared")

    @cache
    def make(model_class: str, size: str = "tiny", precision: str = "float32") -> Path:
        from ipfs_accelerate_py.models.prepare import prepare

        return prepare(_workload(model_class, size, precision), resolve(model_class, size=size, weights="synthetic"), folder)

    return make
