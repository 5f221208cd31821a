"""Native sessions where the suite of all platforms does not look: errors, threads, precision, memory."""

from __future__ import annotations

import json
import platform as machine
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.models.prepared import Graph, Manifest, TensorInfo, load_tensors
from ipfs_accelerate_py.platforms.base import OpenOptions
from ipfs_accelerate_py.platforms.cpu import Cpu
from ipfs_accelerate_py.platforms.cuda import Cuda
from ipfs_accelerate_py.platforms.graph_session import engine_errors
from ipfs_accelerate_py.platforms.onnxruntime_session import PROVIDER
from ipfs_accelerate_py.platforms.openvino import OpenVino
from ipfs_accelerate_py.platforms.processor import default_threads

ENGINES = {"torch": Cpu(), "onnxruntime": Cpu(), "openvino": OpenVino()}


@pytest.fixture(autouse=True)
def torch_threads():
    """Torch's thread count belongs to the process: put back after each test."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def open_session(prepared, workload_of):
    """``open_session(engine, model_class, threads=None, folder=None)``: not loaded yet, closed after the test."""
    sessions = []

    def open_(engine, model_class, threads=None, folder=None):
        options = OpenOptions(folder=folder or prepared(model_class), engine=engine, threads=threads)
        sessions.append(ENGINES[engine].open(workload_of(model_class), "default", options))
        return sessions[-1]

    yield open_
    for session in sessions:
        session.close()


def one_node_folder(folder: Path, operator: str, domain: str = "") -> Path:
    """A prepared folder whose only graph is one operator from int64 ``x`` [n] to float32 ``y``."""
    from onnx import TensorProto, helper, save

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], domain=domain)],
        "one",
        [value("x", TensorProto.INT64, [1])],
        [value("y", TensorProto.FLOAT, ["size"])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("nowhere", 1)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "model.onnx")
    tensors = (TensorInfo("x", "int64", (1,)),), (TensorInfo("y", "float32", ("size",)),)
    graphs = {"model": Graph(("model.onnx",), ("",), 0, *tensors)}
    Manifest("bert", "synthetic:0", "float32", {}, graphs, parameters=0, weights_bytes=0).save(folder)
    return folder


@pytest.mark.parametrize("engine", ENGINES)
def test_generation_length_is_free(engine, open_session, prepared):
    """Fewer tokens than the folder was prepared for are a prefix of its reference, announced one by one in between."""
    inputs, reference = (load_tensors(prepared("whisper") / name) for name in ("inputs.npz", "reference.npz"))
    session = open_session(engine, "whisper")
    session.load()
    session.compile()
    announced = []
    outputs = session.generate(inputs, 3, lambda: announced.append(len(announced)))
    assert announced == [0, 1, 2]
    assert outputs["token_ids"].dtype == np.int64
    assert outputs["token_ids"].tolist() == reference["token_ids"][:, :3].tolist()
    assert outputs["logits"].dtype == np.float32


@pytest.mark.parametrize("engine", ENGINES)
def test_outputs_outlive_the_next_iteration(engine, open_session, prepared):
    """What one iteration returned is not overwritten by the next, although engines reuse their buffers."""
    inputs = load_tensors(prepared("bert") / "inputs.npz")
    session = open_session(engine, "bert")
    session.load()
    session.compile()
    first = session.infer(inputs)["embeddings"]
    kept = first.copy()
    others = {**inputs, "input_ids": np.flip(inputs["input_ids"], axis=1)}
    for _ in range(3):
        assert not np.allclose(session.infer(others)["embeddings"], kept)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("threads", [1, None])
def test_threads_are_what_was_asked_for(engine, threads, open_session):
    """The engine itself reports the threads of the option, or as many as there are physical cores to use."""
    import torch

    session = open_session(engine, "bert", threads)
    session.load()
    session.compile()
    really = {
        "torch": lambda: torch.get_num_threads(),
        "onnxruntime": lambda: session.sessions["model"].get_session_options().intra_op_num_threads,
        "openvino": lambda: session.compiled["model"].get_property("INFERENCE_NUM_THREADS"),
    }[engine]()
    assert really == session.facts()["threads"] == (threads or default_threads())


def test_openvino_computes_float32_in_float32(open_session):
    """No node runs in bfloat16 or float16, which OpenVINO would choose by itself on a processor that has them."""
    session = open_session("openvino", "bert")
    session.load()
    session.compile()
    assert session.facts()["nodes_by_precision"]["f32"] > 10
    assert not {"bf16", "f16"} & session.facts()["nodes_by_precision"].keys()


def test_coverage_counts_the_nodes(open_session):
    """Onnxruntime's count is close to the nodes of the file (it only folds some), OpenVINO's far smaller (it fuses)."""
    import onnx

    counts = {}
    for engine in ("onnxruntime", "openvino"):
        session = open_session(engine, "bert")
        session.load()
        session.compile()
        counts[engine] = session.coverage()
    in_file = len(onnx.load(session.folder / "model.onnx").graph.node)
    assert counts["onnxruntime"].provider == PROVIDER
    assert in_file / 2 < counts["onnxruntime"].nodes[PROVIDER] <= in_file
    assert counts["openvino"].provider == "CPU"
    assert 10 < counts["openvino"].nodes["CPU"] < in_file


def test_torch_counts_weights_once(open_session, prepared):
    """Bytes of the weights are four a parameter, also where graphs share a model or tensors are tied."""
    for model_class in ("whisper", "bert"):
        session = open_session("torch", model_class)
        session.load()
        parameters = Manifest.read(prepared(model_class)).parameters
        assert session.memory().weights_bytes == pytest.approx(4 * parameters, rel=0.02)


@pytest.mark.parametrize("engine", ENGINES)
def test_missing_folder_is_load_failed(engine, open_session, tmp_path):
    """A folder without a model fails in load with the file's name, and the session can still be closed."""
    session = open_session(engine, "bert", folder=tmp_path)
    with pytest.raises(LaunchError, match=r"manifest\.json") as caught:
        session.load()
    assert caught.value.error_class == "load_failed"
    session.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_that_vanished_is_load_failed(engine, open_session, monkeypatch):
    """An engine that does not import any more fails the launch with the command that installs it."""
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(LaunchError, match=r"is not installed\. pip install") as caught:
        open_session(engine, "bert")
    assert caught.value.error_class == "load_failed"


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_truncated_model_is_load_failed(engine, open_session, tmp_path):
    """Half an ONNX file fails before the first inference, as a model that cannot be loaded."""
    folder = one_node_folder(tmp_path, "ConstantOfShape")
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])
    session = open_session(engine, "bert", folder=folder)
    with pytest.raises(LaunchError) as caught:
        session.load()
        session.compile()
    assert caught.value.error_class == "load_failed"


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_unknown_operator_is_unsupported(engine, open_session, tmp_path):
    """An operator that the engine lacks is unsupported, and the message names it."""
    session = open_session(engine, "bert", folder=one_node_folder(tmp_path, "Nope", "nowhere"))
    with pytest.raises(LaunchError, match="Nope") as caught:
        session.load()
        session.compile()
    assert caught.value.error_class == "unsupported"


def test_memory_that_runs_out_is_out_of_memory(open_session, tmp_path):
    """A tensor of 64 TiB runs out of memory in the engine, and is stored as that."""
    session = open_session("onnxruntime", "bert", folder=one_node_folder(tmp_path, "ConstantOfShape"))
    session.load()
    session.compile()
    with pytest.raises(LaunchError, match="Failed to allocate") as caught:
        session.infer({"x": np.array([2**44])})
    assert caught.value.error_class == "out_of_memory"


def test_wrong_input_is_inference_failed(open_session, prepared):
    """An engine's other errors keep their message and their class."""
    session = open_session("onnxruntime", "bert")
    session.load()
    session.compile()
    inputs = load_tensors(prepared("bert") / "inputs.npz")
    with pytest.raises(LaunchError, match="out of data bounds") as caught:
        session.infer({**inputs, "input_ids": inputs["input_ids"] + 10**9})
    assert caught.value.error_class == "inference_failed"


def allocate_with_torch():
    import torch

    torch.empty(2**46)


def gpu_out_of_memory():
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def not_on_this_device():
    raise NotImplementedError("The operator 'aten::nope' is not currently implemented for the MPS device.")


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (allocate_with_torch, "out_of_memory"),
        (gpu_out_of_memory, "out_of_memory"),
        (lambda: np.zeros(2**46), "out_of_memory"),
        (not_on_this_device, "unsupported"),
        (lambda: {}["weight"], "load_failed"),
    ],
)
def test_errors_get_their_class(work, expected):
    """Real errors of torch and NumPy become LaunchErrors of the right class that keep the message and the cause."""
    with pytest.raises(LaunchError) as caught, engine_errors("load_failed"):
        work()
    assert caught.value.error_class == expected
    assert type(caught.value.__cause__).__name__ in str(caught.value)


def test_model_that_does_not_generate_says_so(open_session, prepared):
    """Asking an encoder for tokens is unsupported."""
    session = open_session("onnxruntime", "bert")
    session.load()
    with pytest.raises(LaunchError, match="bert does not generate tokens"):
        session.generate(load_tensors(prepared("bert") / "inputs.npz"), 1, lambda: None)


@pytest.mark.parametrize(
    ("platform", "engine", "precision", "words"),
    [
        (Cpu(), "torch", "int8", "needs onnxruntime or openvino"),
        (Cuda(), "torch", "int8", "needs onnxruntime or openvino"),
        (Cpu(), "onnxruntime", "float16", "needs torch or openvino"),
    ],
)
def test_unsupported_precisions_say_what_has_them(platform, engine, precision, words, workload_of):
    """A precision that an engine lacks is refused before a launch, with the engines that have it."""
    assert words in platform.unsupported(workload_of("bert", precision=precision), engine)


@pytest.mark.skipif(machine.machine() not in ("x86_64", "AMD64"), reason="onnxruntime has other float16 kernels on Arm")
def test_onnxruntime_still_lacks_float16_on_the_cpu(tmp_path):
    """The reason for refusing float16: the optimised graph casts to float32 around a product. Fails when that changes."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    value = helper.make_tensor_value_info
    weights = numpy_helper.from_array(np.ones((8, 8), np.float16), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [value("x", TensorProto.FLOAT16, [8, 8])],
        [value("y", TensorProto.FLOAT16, [8, 8])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[PROVIDER])
    assert [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node] == ["Cast", "MatMul", "Cast"]


def test_openvino_refuses_another_precision_than_asked_for(open_session, monkeypatch):
    """If OpenVINO compiles for another precision than was asked for, the launch ends instead of measuring that."""
    session = open_session("openvino", "bert")
    session.load()
    compile_model = session.core.compile_model

    class Disobedient:
        def compile_model(self, model, device, config):
            return compile_model(model, device, {**config, "INFERENCE_PRECISION_HINT": "f16"})

    monkeypatch.setattr(session, "core", Disobedient())
    if "FP16" not in OpenVino().probe().devices[0].facts["capabilities"]:
        pytest.skip("This processor has no float16 for OpenVINO to choose.")
    with pytest.raises(LaunchError, match="computes in f16 where f32 was asked for") as caught:
        session.compile()
    assert caught.value.error_class == "unsupported"


def test_facts_name_the_engine_and_its_version(open_session):
    """Stored facts say which engine, at which version, on which device and with how many threads."""
    for engine in ENGINES:
        session = open_session(engine, "bert")
        session.load()
        session.compile()
        facts = session.facts()
        assert facts["engine"] == engine
        assert facts[engine].split(".")[0].isdigit()
        assert facts["threads"] >= 1
        assert json.dumps(facts)


def test_workload_precision_decides_torch_dtype(open_session, prepared, workload_of):
    """float16 on torch really is float16: the session's own tensors are, and weights take half the bytes."""
    work = replace(workload_of("bert"), precision="float16")
    session = Cpu().open(work, "default", OpenOptions(folder=prepared("bert"), engine="torch"))
    session.load()
    full = open_session("torch", "bert")
    full.load()
    assert session.infer(load_tensors(prepared("bert") / "inputs.npz"))["embeddings"].dtype == np.float16
    assert session.memory().weights_bytes < 0.6 * full.memory().weights_bytes
    session.close()
