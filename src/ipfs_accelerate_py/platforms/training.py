"""Training with torch: an iteration is one step, from the forward pass to the changed weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import LaunchError
from ..spec import Workload
from .base import Memory, OpenOptions, Tensors
from .graph_session import engine_errors
from .torch_session import TorchSession

LEARNING_RATE = 1e-5  # small, because every step sees the same batch
INITIAL_SCALE = 2.0**10  # of the float16 loss; GradScaler's own 2^16 makes the first steps overflow and be skipped


class TorchTrainingSession(TorchSession):
    """Forward pass to the model class's loss, backward pass, AdamW (Loshchilov and Hutter, 2019, https://arxiv.org/abs/1711.05101).

    Weights, gradients and the optimizer's states are float32. At float16 and bfloat16 the forward and backward pass run under
    torch's automatic mixed precision, as people train, and float16's loss is scaled (Micikevicius et al., 2018,
    https://arxiv.org/abs/1710.03740). The model is in eval mode, so that a step is the same everywhere: no dropout and no masking of
    inputs, batch norms with their stored statistics. The gradient's norm is computed in every step, as for clipping.
    """

    def __init__(self, workload: Workload, device: str, options: OpenOptions) -> None:
        super().__init__(workload, device, options)
        self.inputs = options.inputs

    def start_engine(self) -> None:
        super().start_engine()
        self.compute_dtype, self.dtype = self.dtype, self.torch.float32

    def load_graphs(self) -> None:
        from ..models.prepare import load_model
        from ..models.registry import model_classes

        self.start_peak()
        self.model_class = model_classes()[self.manifest.model_class]
        self.model = load_model(self.folder, self.device)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def compile_graphs(self) -> None:
        """The optimizer. Where the reference is of the first items alone, their loss and gradient are computed here, for the check."""
        from ..models.reference import step_outputs

        torch, kind = self.torch, self.device.partition(":")[0]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=LEARNING_RATE, fused=kind == "cuda")
        self.mixed = torch.autocast(kind, self.compute_dtype, enabled=self.compute_dtype != torch.float32)
        scaled = self.compute_dtype == torch.float16
        self.scaler = torch.amp.GradScaler(kind, init_scale=INITIAL_SCALE, enabled=scaled)
        self.checked: dict[str, np.ndarray] = {}
        if self.manifest.reference_rows is not None:
            first = {name: array[: self.manifest.reference_rows] for name, array in self.inputs.items()}
            self.checked = step_outputs(*self._backward(first), of_first_rows=True)
            self.scaler.update()  # it unscales once between updates
            self.optimizer.zero_grad()

    @engine_errors("inference_failed")
    def infer(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """One step: ``loss`` and ``gradient_norm``, float32 [1], from before its change of the weights."""
        from ..models.reference import step_outputs

        loss, norm = self._backward(inputs)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        # Read back last: a wait between the backward pass and the optimizer would leave the device idle.
        return {**step_outputs(loss, norm), **self.checked}

    def _backward(self, inputs: Tensors) -> tuple[Any, Any]:
        """The loss and the gradient's norm, on the device."""
        from ..models.reference import gradient_norm

        feeds = {name: self.upload(array) for name, array in inputs.items()}
        with self.mixed:
            loss = self.model_class.loss(self.model, feeds)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        return loss, gradient_norm(self.parameters)

    def generate(self, inputs: Tensors, new_tokens: int, on_token: Any) -> dict[str, np.ndarray]:
        raise LaunchError("unsupported", "A training session does not generate.")

    def memory(self) -> Memory:
        """The weights at float32; the peak is of weights, gradients, optimizer states and activations together."""
        return Memory(sum(parameter.nbytes for parameter in self.parameters), self.peak_bytes())

    def close(self) -> None:
        self.parameters = []
        self.__dict__.pop("model", None)
        self.__dict__.pop("optimizer", None)
        super().close()

    def facts(self) -> dict[str, Any]:
        mixed = self.compute_dtype != self.torch.float32
        return {
            **super().facts(),
            "dtype": "float32 weights, gradients and optimizer states"
            + (f", {self.workload.precision} automatic mixed precision" if mixed else ""),
            "loss_scaling": self.scaler.is_enabled(),
            "loss_scale": self.scaler.get_scale(),  # below INITIAL_SCALE, steps were skipped for gradients beyond float16
            "optimizer": f"AdamW, fused {self.optimizer.defaults['fused']}, learning rate {LEARNING_RATE:g}",
            "model_mode": "eval: no dropout, batch norms with their stored statistics",
        }
