"""A prepared model that needs no torch, and a page with it in a real browser."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from product_model import INPUTS, WEIGHTS, WORKLOAD, require

from ipfs_accelerate_py.models.export import describe
from ipfs_accelerate_py.models.prepared import Manifest
from ipfs_accelerate_py.platforms.base import OpenOptions
from ipfs_accelerate_py.web.page_session import Page, PageSession
from ipfs_accelerate_py.web.web_model import importing


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """A prepared folder whose model is one matrix product, its weights in a file of their own."""
    folder = tmp_path / "product"
    folder.mkdir()
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(WEIGHTS, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    Manifest(
        model_class="product",
        origin="synthetic:0",
        precision="float32",
        dimensions={"batch": 2},
        graphs={"model": describe(folder / "model.onnx")},
        parameters=12,
        weights_bytes=48,
    ).save(folder)
    (folder / "secret.txt").write_text("not in the manifest")
    return folder


@pytest.fixture
def open_session(product: Path) -> Any:
    """``open_session(browser, provider, limits_s)``: a session with the product, closed at the end of the test."""
    sessions: list[PageSession] = []

    def open_one(key: str, provider: str, limits_s: dict[str, float] | None = None) -> PageSession:
        options = OpenOptions(folder=product, engine="onnxruntime-web", browser=key, inputs=INPUTS, limits_s=limits_s or {})
        device: dict[str, Any] = {"device_type": "cpu"} if provider == "webnn" else {}
        sessions.append(PageSession(require(key), provider, WORKLOAD, options, **device))  # type: ignore[arg-type]
        return sessions[-1]

    yield open_one
    for session in sessions:
        session.close()


@pytest.fixture(autouse=True, scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory, prepared: Callable[..., Path]) -> Iterator[None]:
    """ONNX files of the platform's models come from where the other tests' are, so that none is exported twice; what starts remember
    goes to a folder of this session, or of the test that names one."""
    patch = pytest.MonkeyPatch()

    def folder_of_graphs() -> Path:
        with importing:  # a platform that loads imports the same meanwhile
            return prepared("bert").parents[1]

    patch.setattr("ipfs_accelerate_py.web.web_model.cache_folder", folder_of_graphs)
    remembered = tmp_path_factory.mktemp("remembered")
    for module in ("chunks", "measured_effects", "profiles", "remembered"):
        patch.setattr(
            f"ipfs_accelerate_py.web.{module}.cache_folder", lambda: Path(os.environ.get("IPFS_ACCELERATE_CACHE") or remembered)
        )
    yield
    patch.undo()


@pytest.fixture(scope="module")
def page_of() -> Iterator[Callable[[str], Page]]:
    """``page_of(key)``: one page of each browser for all kernels of a module."""
    pages: dict[str, Page] = {}

    def get(key: str) -> Page:
        if key not in pages:
            pages[key] = Page(require(key))
        return pages[key]

    yield get
    for page in pages.values():
        page.close()
