"""Decoder-only language models with rotary positions and grouped-query attention: what Llama, Qwen2 and Mistral share.

Su et al., 2021, https://arxiv.org/abs/2104.09864 (rotary positions); Ainslie et al., 2023, https://arxiv.org/abs/2305.13245
(grouped queries). Also the language models inside LLaVA, which embeds its input itself and then calls ``decode_embedded``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..lazy_numpy import np
from .base import ExportGraph, ModelClass
from .prepared import Generation
from .processing.processor import Preprocessed, Processor, check_raw
from .text import token_ids

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

STATIC_ROTARY = ("default", "linear", "llama3", "yarn")  # kinds of rotary scaling that do not depend on the sequence's length


class CausalModel(ModelClass):
    """A class whose transformers model is a ``...ForCausalLM`` of this architecture."""

    family = "text_generation"
    task = "text-generation"
    default_sequence_length = 64
    default_new_tokens = 16
    raw_inputs = ("text",)

    def longest(self, arguments: Mapping[str, Any]) -> int:
        return longest_sequence(arguments)

    def inputs(
        self, config: PretrainedConfig, batch_size: int, sequence_length: int | None, seed: int
    ) -> dict[str, np.ndarray]:
        """The prompt: ``input_ids`` int64 [batch, sequence], every row full."""
        ids, _ = token_ids(config, batch_size, sequence_length or self.default_sequence_length, seed, padded=False)
        return {"input_ids": ids}

    def preprocess(self, config: Any, raw: Mapping[str, Any], processor: Processor) -> Preprocessed:
        """Prompts as they are: a chat model's template is the caller's. All of a batch must have the same number of tokens."""
        texts = check_raw(raw, self.raw_inputs, self.name)["text"]
        most = longest_sequence(config.to_dict()) - 1  # one token must be left to generate
        ids, mask, notes = processor.tokenizer.encode(texts, max_length=most, truncate=processor.truncate)
        if not mask.all():
            lengths = sorted({int(length) for length in mask.sum(1)})
            raise UserError(
                f"The prompts of a batch must have equally many tokens, and these have {lengths[0]} to {lengths[-1]}: "
                "give them one at a time."
            )
        return Preprocessed({"input_ids": ids}, notes)

    def postprocess(
        self, config: Any, outputs: Mapping[str, np.ndarray], preprocessed: Preprocessed, processor: Processor
    ) -> dict[str, Any]:
        """``text`` and ``token_ids`` of what was generated, up to the end token; ``complete`` says whether it came to one."""
        from .processing.text import generated_text

        return generated_text(processor.tokenizer, outputs["token_ids"], processor.end_tokens(config.eos_token_id))

    def loss(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy, in nats, of each token of the prompt after the first, given those before it."""
        return model(input_ids=inputs["input_ids"], labels=inputs["input_ids"], use_cache=False).loss

    def generation(self, config: PretrainedConfig) -> Generation:
        return causal_generation(config)

    def graphs(
        self, model: PreTrainedModel, inputs: Mapping[str, np.ndarray], new_tokens: int | None
    ) -> dict[str, ExportGraph]:
        from .modules import decoder_graph

        prompt = inputs["input_ids"]
        cache = prompt.shape[1] + (new_tokens or self.default_new_tokens)
        return {"decoder": decoder_graph(model, decode, self.generation(model.config), prompt, cache)}


def longest_sequence(arguments: Mapping[str, Any]) -> int:
    """Most tokens, prompt and new ones together. A sliding window is a limit too: up to its length it hides nothing."""
    window = arguments.get("sliding_window") if arguments.get("use_sliding_window", True) else None
    return min(int(arguments["max_position_embeddings"]), int(window or arguments["max_position_embeddings"]))


def causal_generation(config: Any) -> Generation:
    """How to generate with a language model of this configuration. UserError for positions that cannot be exported."""
    rotary = (config.rope_parameters or {}).get("rope_type", "default")
    if rotary not in STATIC_ROTARY:
        raise UserError(
            f"Rotary positions of type '{rotary}' change with the sequence's length, which an exported graph cannot."
        )
    return Generation(
        layers=config.num_hidden_layers,
        key_value_heads=config.num_key_value_heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        vocabulary=config.vocab_size,
        cache_dtype="float32",
    )


def decode(model: Any, input_ids: torch.Tensor, positions: torch.Tensor, *past: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Logits [batch, vocabulary] of the last position, then the new keys and values. Shapes as in ``prepared.py``."""
    return decode_embedded(model.model, model.lm_head, model.model.embed_tokens(input_ids), positions, past)


def decode_embedded(
    language_model: Any, lm_head: Any, hidden: torch.Tensor, positions: torch.Tensor, past: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """``decode`` of embedded tokens ``hidden`` [batch, sequence, hidden_size]; ``language_model`` is a LlamaModel, Qwen2Model or
    MistralModel, ``lm_head`` its output matrix."""
    from .modules import StaticCache

    cache = StaticCache(past, positions)
    rotary = language_model.rotary_emb(hidden, positions[None, :])
    for layer in language_model.layers:
        hidden = layer(hidden, attention_mask=cache.bias, past_key_values=cache, position_embeddings=rotary)
    last = language_model.norm(hidden[:, -1:])
    return lm_head(last)[:, 0], *cache.present
