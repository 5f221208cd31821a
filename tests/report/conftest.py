"""Stores for the dashboard's tests, made once."""

from __future__ import annotations

from pathlib import Path

import dashboard_stores
import pytest


@pytest.fixture(scope="session")
def full_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference measurements, and beside them every kind of cell, on every platform of ``campaign_fixture``."""
    return dashboard_stores.full(tmp_path_factory.mktemp("dashboard") / "full.duckdb")
