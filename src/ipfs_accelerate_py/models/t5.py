"""T5 text-to-text generation (Raffel et al., 2020, https://arxiv.org/abs/1910.10683), its 1.1 and Flan variants included.

The encoder graph also computes the keys and values of the decoder's cross-attention, once; each step of the decoder reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..lazy_numpy import np
from .base import ExportGraph, ModelClass, Size
from .prepared import Generation
from .processing.processor import Preprocessed, Processor, check_raw
from .text import token_ids

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

IGNORED = -100  # a label that the cross-entropy of torch leaves out
COMMON = {
    "vocab_size": 32128,
    "d_kv": 64,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
    "n_positions": 512,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}


class T5(ModelClass):
    name = "t5"
    family = "text_generation"
    task = "text2text-generation"
    transformers_model_types = ("t5",)
    default_sequence_length = 64
    default_new_tokens = 16
    raw_inputs = ("text",)
    sizes: ClassVar[Mapping[str, Size]] = {
        "tiny": Size(
            None, {**COMMON, "vocab_size": 1000, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
        ),
        "small": Size("google-t5/t5-small", {**COMMON, "d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8}),
        "base": Size("google-t5/t5-base", {**COMMON, "d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}),
    }

    def config(self, arguments: Mapping[str, Any]) -> PretrainedConfig:
        from transformers import T5Config

        return T5Config(**arguments)

    def build(self, config: Any) -> PreTrainedModel:
        from transformers import T5ForConditionalGeneration

        return T5ForConditionalGeneration(config).eval()

    def inputs(
        self, config: PretrainedConfig, batch_size: int, sequence_length: int | None, seed: int
    ) -> dict[str, np.ndarray]:
        """``input_ids`` and ``attention_mask`` of the text, int64 [batch, source]; the mask is 0 on padding at the end of a row."""
        ids, lengths = token_ids(config, batch_size, sequence_length or self.default_sequence_length, seed, padded=True)
        mask = np.arange(ids.shape[1])[None, :] < lengths[:, None]
        return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}

    def preprocess(self, config: Any, raw: Mapping[str, Any], processor: Processor) -> Preprocessed:
        """The text as it is, with its task's prefix ("summarize: ") given by the caller. Relative positions have no last one; a text is
        held to the 512 tokens that the model was trained with (``n_positions``)."""
        texts = check_raw(raw, self.raw_inputs, self.name)["text"]
        ids, mask, notes = processor.tokenizer.encode(
            texts,
            max_length=getattr(config, "n_positions", None),
            truncate=processor.truncate,
            pad_id=config.pad_token_id,
            ends=((), (config.eos_token_id,)),
        )
        return Preprocessed({"input_ids": ids, "attention_mask": mask}, notes)

    def postprocess(
        self, config: Any, outputs: Mapping[str, np.ndarray], preprocessed: Preprocessed, processor: Processor
    ) -> dict[str, Any]:
        """``text`` and ``token_ids`` of what was generated, up to the end token; ``complete`` says whether it came to one."""
        from .processing.text import generated_text

        return generated_text(processor.tokenizer, outputs["token_ids"], processor.end_tokens(config.eos_token_id))

    def loss(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy, in nats, of repeating the text: the decoder's labels are the encoder's input, padding left out."""
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORED)
        return model(**inputs, labels=labels, use_cache=False).loss

    def generation(self, config: PretrainedConfig) -> Generation:
        return Generation(
            layers=config.num_decoder_layers,
            key_value_heads=config.num_heads,
            head_size=config.d_kv,
            vocabulary=config.vocab_size,
            cache_dtype="float32",
            start_token_ids=(config.decoder_start_token_id,),
        )

    def graphs(
        self, model: PreTrainedModel, inputs: Mapping[str, np.ndarray], new_tokens: int | None
    ) -> dict[str, ExportGraph]:
        from .modules import Forward, cache_names, decoder_graph

        generation = self.generation(model.config)
        cross = cache_names(generation.layers, "cross")
        text_axes = {name: {0: "batch", 1: "source"} for name in inputs}
        cross_axes = {name: {0: "batch", 2: "source"} for name in cross}
        encoder = ExportGraph(Forward(model, encode), dict(inputs), tuple(cross), text_axes)
        batch, source = inputs["input_ids"].shape
        shape = (batch, generation.key_value_heads, source, generation.head_size)
        generator = np.random.default_rng(0)
        others = {name: generator.standard_normal(shape, dtype=np.float32) for name in cross}
        others["attention_mask"] = inputs["attention_mask"]
        prompt = np.full((batch, 1), model.config.decoder_start_token_id, dtype=np.int64)
        cache = 1 + (new_tokens or self.default_new_tokens)
        decoder = decoder_graph(model, decode, generation, prompt, cache, others, cross_axes | text_axes)
        return {"encoder": encoder, "decoder": decoder}


def encode(model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Cross-attention keys and values of every decoder layer, [batch, heads, source, head_size]."""
    import torch

    from .modules import attended, mask_bias

    encoder = model.encoder
    hidden = encoder.embed_tokens(input_ids)
    places = torch.arange(input_ids.shape[1], dtype=torch.int32, device=input_ids.device)
    distances = places[None, :] - places[:, None]
    bias = relative_bias(encoder.block[0].layer[0].SelfAttention, distances) + mask_bias(attended(attention_mask, hidden.dtype))
    for block in encoder.block:
        self_layer, feed_forward = block.layer
        attention, normed = self_layer.SelfAttention, self_layer.layer_norm(hidden)
        key, value = _heads(attention, attention.k(normed)), _heads(attention, attention.v(normed))
        hidden = hidden + _attend(attention, normed, key, value, bias)
        hidden = feed_forward(hidden)
    hidden = encoder.final_layer_norm(hidden)
    attentions = [block.layer[1].EncDecAttention for block in model.decoder.block]
    return tuple(_heads(attention, linear(hidden)) for attention in attentions for linear in (attention.k, attention.v))


def decode(model: Any, input_ids: torch.Tensor, positions: torch.Tensor, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Logits [batch, vocabulary] of the last position, then the new keys and values. ``states`` is past, then cross, then the
    encoder's attention_mask [batch, source]."""
    from .modules import StaticCache, attended, mask_bias

    decoder = model.decoder
    caches = 2 * len(decoder.block)
    past, cross, attention_mask = states[:caches], states[caches:-1], states[-1]
    cache = StaticCache(past, positions)
    hidden = decoder.embed_tokens(input_ids)
    bias = relative_bias(decoder.block[0].layer[0].SelfAttention, cache.distances) + cache.bias
    source_bias = mask_bias(attended(attention_mask, hidden.dtype))
    for index, block in enumerate(decoder.block):
        self_layer, cross_layer, feed_forward = block.layer
        attention, normed = self_layer.SelfAttention, self_layer.layer_norm(hidden)
        key, value = cache.update(_heads(attention, attention.k(normed)), _heads(attention, attention.v(normed)), index)
        hidden = hidden + _attend(attention, normed, key, value, bias)
        attention, normed = cross_layer.EncDecAttention, cross_layer.layer_norm(hidden)
        hidden = hidden + _attend(attention, normed, cross[2 * index], cross[2 * index + 1], source_bias)
        hidden = feed_forward(hidden)
    last = decoder.final_layer_norm(hidden[:, -1:])
    if model.config.scale_decoder_outputs:
        last = last * model.config.d_model**-0.5
    return model.lm_head(last)[:, 0], *cache.present


def relative_bias(attention: Any, distances: torch.Tensor) -> torch.Tensor:
    """The bias [1, heads, queries, keys] of int32 ``distances`` [queries, keys], the key's position minus the query's.

    From ``relative_attention_max_distance`` on, all distances share a bucket, so a table of those below it gives every one, and
    no engine computes the logarithm that divides them into buckets.
    """
    import torch
    from torch.nn.functional import embedding

    far = attention.relative_attention_max_distance
    buckets = attention._relative_position_bucket(
        torch.arange(-far, far + 1),
        bidirectional=not attention.is_decoder,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=far,
    )
    table = attention.relative_attention_bias(buckets.to(distances.device))
    # The sum stands between Max and Min, or they would become a Clip, which onnxruntime-web 1.30 has no integers for in WebNN.
    places = (distances.clamp(min=-far) + far).clamp(max=2 * far)
    return embedding(places, table).permute(2, 0, 1)[None]


def _heads(attention: Any, projected: torch.Tensor) -> torch.Tensor:
    """[batch, sequence, heads * head_size] to [batch, heads, sequence, head_size]."""
    return projected.unflatten(-1, (attention.n_heads, attention.key_value_proj_dim)).transpose(1, 2)


def _attend(attention: Any, normed: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Attention of ``normed`` [batch, sequence, d_model] over ``key`` and ``value``; T5 does not scale the scores."""
    scores = _heads(attention, attention.q(normed)) @ key.transpose(2, 3) + bias
    return attention.o((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
