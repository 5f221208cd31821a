"""A chain as a prepared model's folder, which every platform but torch's runs like any other model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ...models.prepared import Graph, Manifest, TensorInfo
from ...platforms.extras import load_extra
from ...spec import Workload
from .plan import Chain

OPSET, IR_VERSION = 17, 8  # what every engine here reads


def workload() -> Workload:
    """The workload that a session of a chain is opened with; it is of no model class, and never stored."""
    return Workload(model_class="probe", size="chain", weights="synthetic", origin="synthetic:0", task="probe")


def write(chain: Chain, folder: Path) -> dict[str, np.ndarray]:
    """Put the chain's graph and manifest into ``folder``, which exists. Returns its inputs."""
    onnx = load_extra("onnx", "onnx")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    shape = [chain.rows, chain.width]
    names = ["x", *(f"y{index}" for index in range(chain.length))]
    nodes = [
        helper.make_node("MatMul", [names[index], f"w{index}"], [names[index + 1]], name=f"product{index}")
        for index in range(chain.length)
    ]
    weights = [onnx.numpy_helper.from_array(array, f"w{index}") for index, array in enumerate(chain.weights())]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", float32, shape)],
        [helper.make_tensor_value_info(names[-1], float32, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    content = model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    tensors = [TensorInfo(name, "float32", tuple(shape)) for name in ("x", names[-1])]
    Manifest(
        model_class="probe",
        origin="synthetic:0",
        precision="float32",
        dimensions={},
        graphs={
            "model": Graph(
                ("model.onnx",), (hashlib.sha256(content).hexdigest(),), len(content), tuple(tensors[:1]), tuple(tensors[1:])
            )
        },
        parameters=chain.width * chain.width * chain.length,
        weights_bytes=chain.weights_bytes,
        facts={"torch_folder": None},
    ).save(folder)
    return {"x": chain.inputs()}
