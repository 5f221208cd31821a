"""The smallest model there is: one matrix product."""

from __future__ import annotations

import numpy as np
import pytest

from ipfs_accelerate_py.errors import UnavailableError, UserError
from ipfs_accelerate_py.spec import Workload
from ipfs_accelerate_py.web import bridge
from ipfs_accelerate_py.web.browsers import Browser, find_browser

WEIGHTS = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
INPUTS = {"x": np.random.default_rng(1).standard_normal((2, 4)).astype(np.float32)}
WORKLOAD = Workload(model_class="product", size="tiny", weights="synthetic", origin="synthetic:0", task="product")


def require(key: str) -> Browser:
    """The browser, or a skip with the reason."""
    try:
        return find_browser(key)
    except UnavailableError as missing:
        pytest.skip(str(missing))


def require_network() -> None:
    """A skip with the reason where no other machine could reach this one."""
    try:
        bridge._address_of_this_machine()
    except UserError as alone:
        pytest.skip(str(alone))
