"""A model as the web platform knows it: its class, what a person may give it, and its ONNX files at each precision."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UnavailableError, UserError
from ..models.base import ModelClass
from ..models.prepared import Generation, Graph
from ..models.registry import ModelReference, model_classes, resolve, workload
from ..paths import cache_folder
from ..platforms.registry import platform
from ..quantize.architecture import MODEL_TYPES as LOW_BIT_TYPES
from ..quantize.cached import GROUP_SIZE, cached_folder
from ..quantize.embedded import embedded_folder
from ..quantize.folder import Request
from ..quantize.sources import open_source
from ..quantize.stored import read_manifest
from ..spec import BROWSER_PLATFORMS, identity
from .audio_front_end import audio_spec
from .errors import ConfigurationError, ModelError
from .low_bit_reference import low_bit_folder, low_bit_processing, low_bit_reference

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from ..models.processing.processor import Preprocessed, Processor
    from .protocol import AudioSpec

# transformers imports its modules when they are first asked for, and of two threads that ask at once one may get half of them.
importing = threading.RLock()

MODEL_TYPES = ("text", "vision", "audio", "multimodal")
ENGINE = "onnxruntime-web"
WGSL = "wgsl"  # this project's own engine, of decoders with low-bit weights on WebGPU
LOW_BITS = {8: "int8", 4: "int4", 3: "int3", 2: "int2"}
BITS = {32: "float32", 16: "float16", **LOW_BITS}


def types_of(model_class: ModelClass) -> tuple[str, ...]:
    """The ``model_type`` values that fit a class, by what it takes: CLIP is vision and multimodal."""
    raw = model_class.raw_inputs
    fits = {
        "text": raw == ("text",),
        "vision": ("image" in raw or "video" in raw) and model_class.default_new_tokens is None,
        "audio": "audio" in raw,
        "multimodal": len(raw) > 1,
    }
    return tuple(name for name in MODEL_TYPES if fits[name])


class WebModel:
    """Resolving the name reads no weights. Raises ConfigurationError for a type that is not the model's, ModelError for a name that
    cannot be resolved.

    ``model_name`` None is the smallest published model of ``model_type``'s first class.
    """

    def __init__(
        self,
        model_name: str | None,
        model_type: str,
        *,
        size: str | None = None,
        weights: str = "auto",
        truncate: bool = False,
    ) -> None:
        if model_type not in MODEL_TYPES:
            raise ConfigurationError(
                f"Unknown model_type '{model_type}': known are {', '.join(MODEL_TYPES)}.",
                details={"rule": "model_type"},
            )
        classes = model_classes()
        if model_name is None:
            model_name = next(name for name, kind in classes.items() if model_type in types_of(kind))
        try:
            embedded = embedded_folder(model_name, size, weights)
            self.low_bit = embedded or low_bit_folder(model_name)
            self.reference: ModelReference = (
                low_bit_reference(self.low_bit, size, weights) if self.low_bit else resolve(model_name, size, weights)
            )
        except (UserError, UnavailableError) as unknown:
            raise ModelError(
                str(unknown),
                details={"model_name": model_name},
                recovery_actions=("'ipfs-accelerate models' lists those that are known.",),
            ) from unknown
        self.name = model_name
        self.model_class = classes[self.reference.model_class]
        self.truncate = truncate
        fits = types_of(self.model_class)
        if model_type not in fits:
            raise ConfigurationError(
                f"'{model_name}' is a {self.model_class.name} model and takes {' and '.join(self.model_class.raw_inputs)}: "
                f"its model_type is {' or '.join(fits)}, not {model_type}.",
                details={"rule": "model_type", "corrected_to": fits[0]},
                recovery_actions=(f"Set model_type='{fits[0]}'.",),
            )
        self.model_type = model_type

    @property
    def profile_name(self) -> str:
        """Tells the model's kept browser profile from those of others."""
        reference = self.reference
        return f"{self.model_class.name}-{reference.size}-{reference.weights}-{identity(reference.origin)[:8]}"

    @property
    def generates(self) -> bool:
        return self.model_class.default_new_tokens is not None

    @functools.cached_property
    def _processing(self) -> tuple[PretrainedConfig, Path | None]:
        with importing, model_errors(self.name):
            from ..models.prepare import processing

            return low_bit_processing(self.low_bit) if self.low_bit else processing(self.reference)

    @property
    def config(self) -> PretrainedConfig:
        return self._processing[0]

    @functools.cached_property
    def processor(self) -> Processor:
        with importing:
            from ..models.processing.processor import Processor

            return Processor(self._processing[1], self._vocabulary, self.truncate)

    @functools.cached_property
    def _recording_processor(self) -> Processor:
        from ..models.processing.processor import Processor

        return Processor(self._processing[1], self._vocabulary, self.truncate, recordings=True)

    def audio_spec(self) -> AudioSpec:
        """The front end that the page needs for ``preprocess(..., recordings=True)``; ModelError where it has none like it."""
        with model_errors(self.name):
            # Whisper's features follow from its configuration alone, as in models/whisper.py.
            settings = self.processor.settings({}) if self.model_class.name == "clap" else {}
            return audio_spec(self.model_class.name, self.config, settings)

    @property
    def _vocabulary(self) -> int | None:
        text = getattr(self.config, "text_config", None)
        return getattr(self.config, "vocab_size", None) or getattr(text, "vocab_size", None)

    @functools.cached_property
    def end_tokens(self) -> tuple[int, ...]:
        text = getattr(self.config, "text_config", None)
        ends = getattr(self.config, "eos_token_id", None) or getattr(text, "eos_token_id", None)
        return tuple(sorted(self.processor.end_tokens(ends)))

    def longest(self) -> int | None:
        """Most tokens, prompt and new ones together; None where the input size is fixed."""
        return self.model_class.longest(self.config.to_dict())

    def generation(self, precision: str) -> Generation | None:
        from dataclasses import replace

        made = self.model_class.generation(self.config)
        return replace(made, cache_dtype="float16") if made and precision == "float16" else made

    def graphs(self, precision: str, tell: Callable[[str], None]) -> tuple[Path, dict[str, Graph]]:
        """The folder of the ONNX files at ``precision``, made where it is not there yet, and the graphs."""
        from ..models.prepare import exported

        def told(step: str) -> None:
            self.processor  # noqa: B018 - what another thread imports already is complete before the export goes on
            tell(step)

        with model_errors(self.name):
            return exported(self.reference, precision, cache_folder(), told)

    @property
    def low_bit_bits(self) -> int | None:
        """Of a folder that ``ipfs-accelerate quantize`` made: the width that was asked for, which a budget may exceed in places."""
        return int(read_manifest(self.low_bit)["request"]["bits"]) if self.low_bit else None

    def low_bit_weights(self, precision: str, tell: Callable[[str], None]) -> tuple[Path, float]:
        """The folder of low-bit weights, made in the cache where it is not there yet, and its bits a weight, everything counted."""
        folder = self.low_bit
        if folder is None:
            bits = next(width for width, name in LOW_BITS.items() if name == precision)
            with model_errors(self.name):
                source = open_source(self.reference)
                folder = cached_folder(source, Request(source.origin, bits, GROUP_SIZE, "rtn"), lambda step: tell(step.name))
        return folder, float(read_manifest(folder)["totals"]["bits_per_weight"])

    def engine(self, platform_name: str, precision: str) -> str:
        """What runs the model there."""
        decodes = any(kind in LOW_BIT_TYPES for kind in self.model_class.transformers_model_types)
        return WGSL if decodes and platform_name == "webgpu" and precision in LOW_BITS.values() else ENGINE

    def engines(self, platform_name: str, precision: str | None) -> tuple[str, ...]:
        """Those that may run it on the platform, or of ``auto`` on any; ``precision`` None is one of the floating ones."""
        if precision is None:
            return (ENGINE,)
        names = BROWSER_PLATFORMS if platform_name == "auto" else (platform_name,)
        able = {self.engine(name, precision) for name in names if self.unsupported(name, precision) is None}
        return tuple(sorted(able)) or (ENGINE,)

    def unsupported(self, platform_name: str, precision: str) -> str | None:
        """Why the model cannot run at this precision on a platform, or None."""
        bits = next(width for width, name in BITS.items() if name == precision)
        if self.low_bit:
            if platform_name != "webgpu":
                return f"'{self.name}' holds low-bit weights, which only the {WGSL} engine runs, on webgpu."
            return None if bits == self.low_bit_bits else f"'{self.name}' holds weights of {self.low_bit_bits} bits."
        if self.engine(platform_name, precision) == WGSL:
            return None
        if bits in (2, 3):
            return f"{ENGINE} has no {bits}-bit weights."
        asked = workload(self.reference, sequence_length=1, new_tokens=1, precision=precision)
        return platform(platform_name).unsupported(asked, ENGINE)

    def precisions(self, platform_name: str) -> tuple[str, ...]:
        """Those that the platform runs, the widest first; of ``auto`` those of any platform in a browser."""
        names = BROWSER_PLATFORMS if platform_name == "auto" else (platform_name,)
        return tuple(
            precision for precision in BITS.values() if any(self.unsupported(name, precision) is None for name in names)
        )

    def only_on_webgpu(self, bits: int | None) -> bool:
        """Whether no other platform runs it at so many bits: weights of 2 or 3 bits, or a low-bit folder."""
        others = (name for name in BROWSER_PLATFORMS if name != "webgpu")
        return bits is not None and all(self.unsupported(name, BITS[bits]) is not None for name in others)

    def preprocess(self, inputs: Mapping[str, Any], recordings: bool = False) -> Preprocessed:
        """The arrays of the graphs, with ``recordings`` those in place of their features. Raises ModelError for what cannot be used,
        values that are not finite included."""
        if not isinstance(inputs, Mapping):
            first = self.model_class.raw_inputs[0]
            raise ModelError(f"Inputs are a dictionary such as {{'{first}': ...}}, not {type(inputs).__name__}.")
        with model_errors(self.name):
            processor = self._recording_processor if recordings else self.processor
            found = self.model_class.preprocess(self.config, inputs, processor)
        for name, array in found.arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ModelError(f"The {name} of the input hold values that are not finite (NaN or infinity): remove them.")
        return found

    def postprocess(self, outputs: Mapping[str, np.ndarray], preprocessed: Preprocessed) -> dict[str, Any]:
        floats = {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in outputs.items()}
        with model_errors(self.name):
            return self.model_class.postprocess(self.config, floats, preprocessed, self.processor)


@contextlib.contextmanager
def model_errors(model_name: str) -> Iterator[None]:
    """Turns the sentence for a person's mistake into a ModelError with the same sentence."""
    try:
        yield
    except (UserError, UnavailableError) as error:
        raise ModelError(str(error), details={"model_name": model_name}) from error
