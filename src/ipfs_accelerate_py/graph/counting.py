"""Operator counts of a described model at any batch size, length, precision and mode, without its weights."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from ..errors import UserError, nearest
from ..models.registry import model_class
from ..spec import MODES, PRECISIONS
from .description import ModelDescription
from .operator import ModelCounts, Operator, PhaseCounts
from .tape import ACTIVATION_BYTES, Tape
from .traces import trace_of

DEFAULT_SEQUENCE, DEFAULT_NEW_TOKENS = 128, 16  # where the class has none
# AdamW reads a weight, its gradient and two moments, and writes all but the gradient, each a float32 number.
OPTIMIZER_READS, OPTIMIZER_WRITES, OPTIMIZER_FLOPS = 4, 3, 12


def count(
    description: ModelDescription,
    *,
    batch_size: int = 1,
    sequence_length: int | None = None,
    new_tokens: int | None = None,
    precision: str = "float32",
    mode: str = "inference",
) -> ModelCounts:
    """Count one iteration: all phases of an inference, or forward, backward and optimizer of a training step.

    ``sequence_length`` is of the text (LLaVA's image comes on top), by default the class's own; ``new_tokens`` is for models that
    generate. UserError for a size below 1, and for a precision or mode that is not known.
    """
    for name, value in (("batch size", batch_size), ("sequence length", sequence_length), ("number of new tokens", new_tokens)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise UserError(f"The {name} must be a whole number of at least 1, not {value}.")
    for choice, known, what in ((precision, PRECISIONS, "precision"), (mode, MODES, "mode")):
        if choice not in known:
            raise nearest(choice, known, what)
    sequence, new = lengths(description, sequence_length, new_tokens)
    if description.graph is not None:
        from .onnx_graph import count_graph

        return count_graph(description.graph, batch_size, sequence, precision, mode)
    return _counted(description, batch_size, sequence, new, precision, mode)


def lengths(description: ModelDescription, sequence_length: int | None, new_tokens: int | None) -> tuple[int, int]:
    """What was asked for, with the class's own where nothing was."""
    kind = model_class(description.model_class)
    sequence = sequence_length or (kind.default_sequence_length if kind else None) or DEFAULT_SEQUENCE
    return sequence, new_tokens or (kind.default_new_tokens if kind else None) or DEFAULT_NEW_TOKENS


def within_limit(description: ModelDescription, sequence: int, new_tokens: int | None = None) -> None:
    """UserError where the model has no positions for so many tokens, as ``bench`` refuses them. A length that its class does not have
    is no limit, nor is one that the configuration does not tell."""
    kind = model_class(description.model_class)
    if kind is None:
        return
    try:
        longest = kind.longest(description.config)
    except KeyError:  # left to the library's default by this config.json
        return
    counted = {
        "input tokens": sequence if kind.default_sequence_length is not None else 0,
        "new tokens": (new_tokens or 0) if kind.default_new_tokens is not None else 0,
    }
    if longest is not None and sum(counted.values()) > longest:
        asked = " + ".join(f"{number} {what}" for what, number in counted.items() if number)
        raise UserError(f"{description.name} takes at most {longest} tokens, and {asked} were asked for.")


@lru_cache(maxsize=1024)
def _counted(
    description: ModelDescription, batch_size: int, sequence: int, new_tokens: int, precision: str, mode: str
) -> ModelCounts:
    tape = trace_of(
        description.architecture,
        description.config,
        batch=batch_size,
        sequence=sequence,
        new_tokens=new_tokens,
        precision=precision,
        mode=mode,
    )
    parameters = sum(tape.parameters.values())
    phases = dict(tape.phases)
    if mode == "training":
        forward = phases["forward"]
        phases["backward"] = backward(forward)
        phases["optimizer"] = optimizer(parameters)
    activations = max(
        operator.bytes_read - operator.weights_bytes + operator.bytes_written
        for phase in phases.values()
        for operator in phase.operators
        if operator.kind != "optimizer"
    )
    last = list(phases.values())[0 if mode == "training" else -1]
    return ModelCounts(
        parameters=parameters,
        weights_bytes=sum(tape.weights.values()),
        kv_cache_bytes=cache_bytes(tape) if mode == "inference" else 0,
        largest_activation_bytes=activations,
        phases=phases,
        output_bytes=last.operators[-1].bytes_written,
    )


def cache_bytes(tape: Tape) -> int:
    """Keys and values of all layers: what one pass of the decoder writes of its caches, and those of cross-attention."""
    if "prefill" not in tape.phases:
        return 0
    caches = [each for each in tape.phases["prefill"].operators if each.name.endswith(("keys_cache", "values_cache"))]
    encoder = tape.phases.get("encoder")
    cross = [each for each in encoder.operators if ".cross." in each.name] if encoder else []
    return sum(each.bytes_written * each.count for each in (*caches, *cross))


def backward(forward: PhaseCounts) -> PhaseCounts:
    """The gradients of a forward pass: for each matrix product two of the same size, for everything else one operator that reads the
    gradient besides."""
    operators: list[Operator] = []
    for each in forward.operators:
        if each.kind in ("matmul", "conv"):
            operators += [
                replace(each, name=f"{each.name}.input_gradient"),
                replace(
                    each,
                    name=f"{each.name}.weight_gradient",
                    bytes_read=each.bytes_read - each.weights_bytes + each.bytes_written,
                    bytes_written=each.weights_bytes or each.bytes_written,
                    weights_bytes=0,
                ),
            ]
        else:
            read = each.bytes_read + each.bytes_written
            operators.append(replace(each, name=f"{each.name}.gradient", flops=2 * each.flops, bytes_read=read))
    return PhaseCounts("backward", tuple(reversed(operators)))


def optimizer(parameters: int) -> PhaseCounts:
    """One step of AdamW over float32 weights and moments."""
    size = ACTIVATION_BYTES["float32"] * parameters
    step = Operator("optimizer", "adamw", OPTIMIZER_FLOPS * parameters, OPTIMIZER_READS * size, OPTIMIZER_WRITES * size)
    return PhaseCounts("optimizer", (step,))
