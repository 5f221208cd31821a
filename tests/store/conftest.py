"""A store, and a campaign on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ipfs_accelerate_py.store.writer import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create_or_open(tmp_path / "s.duckdb")


@pytest.fixture
def begin() -> Callable[..., str]:
    """Begin a campaign on a store and return its id."""

    def begin_on(store: Store, request: str = "request", launches: int = 3) -> str:
        return store.begin_campaign({"launches": launches}, request_hash=request, command="bench", seed=0)

    return begin_on
