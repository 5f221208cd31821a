"""The package's own model classes are found without reading what else is installed."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

from ipfs_accelerate_py.models.registry import BUILT_IN, built_in, model_class, model_classes


def test_the_built_in_classes_are_the_entry_points() -> None:
    """The table says what the package's metadata says, so neither can be forgotten."""
    points = importlib.metadata.distribution("ipfs_accelerate_py").entry_points.select(group="ipfs_accelerate_py.models")
    assert {point.name: point.value for point in points} == {
        name: f"ipfs_accelerate_py.models.{name}:{kind}" for name, kind in BUILT_IN.items()
    }
    assert {name: type(kind) for name, kind in built_in().items()} == {
        name: type(kind) for name, kind in model_classes().items() if name in BUILT_IN
    }
    assert model_class("bert") is built_in()["bert"] and model_class("no such") is None and model_class(None) is None


def test_a_known_model_needs_no_metadata_of_packages() -> None:
    """Neither a published name, nor a class, nor a prediction reads the metadata of installed packages, or imports numpy."""
    program = (
        "import sys, json; from ipfs_accelerate_py.graph import describe; from ipfs_accelerate_py.predict import Predictor; "
        "found = [Predictor.from_stores().predict(describe(name), platform='cpu').model for name in ('bert-base-uncased', 'bert')]; "
        "print(json.dumps([found, sorted({'importlib.metadata', 'numpy', 'torch', 'statistics', 'email', 'csv'} & set(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found, imported = json.loads(done.stdout)
    assert found == ["bert-base-uncased", "bert small"] and imported == []
