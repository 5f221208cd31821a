"""The stacks of equal layers that a model is made of: what training memory and sharded training are reckoned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ..errors import UserError

Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """``layers`` equal transformer layers that see ``tokens`` tokens of each item of the batch.

    ``keys`` is the number of keys that a query attends to (a window's tokens where attention is windowed), ``cross_tokens`` that of a
    cross-attention's memory, None without one. ``gated`` feed-forwards have three matrices (SwiGLU), others two. ``saves_input`` is False
    for an activation whose derivative follows from its output (ReLU). ``fused`` attention never writes its scores.
    """

    layers: int
    tokens: int
    hidden: int
    heads: int
    feed_forward: int
    head_size: int = 0  # 0: hidden / heads
    key_value_heads: int = 0  # 0: heads
    keys: int = 0  # 0: tokens
    cross_tokens: int | None = None
    gated: bool = False
    saves_input: bool = True
    root_mean_square_norm: bool = False
    fused: bool = True

    @property
    def width(self) -> int:
        """All heads together."""
        return self.heads * (self.head_size or self.hidden // self.heads)

    @property
    def key_value_width(self) -> int:
        return (self.key_value_heads or self.heads) * (self.head_size or self.hidden // self.heads)

    @property
    def attentions(self) -> int:
        return 1 if self.cross_tokens is None else 2

    @property
    def layer_parameters(self) -> int:
        """Of the matrices of one layer; norms and biases are below 0.1 % of them."""
        attention = 2 * self.hidden * self.width + 2 * self.hidden * self.key_value_width
        return self.attentions * attention + (3 if self.gated else 2) * self.hidden * self.feed_forward


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What training needs to know of a model. ``parameters`` is exact. ``head_tokens`` rows of ``vocabulary`` scores an item go into the
    loss (0 where the loss needs none). ``other_elements`` are saved beside the stacks, by convolutions, for each item.
    ``passes`` counts how often the loss runs the model on each item. ``tied``: the scores' product is with the embedding of the tokens.
    ``dropout``: the configuration trains with it, so masks are saved."""

    parameters: int
    stacks: tuple[Stack, ...]
    vocabulary: int = 0
    head_tokens: int = 0
    largest_tensor: int = 0
    other_elements: int = 0
    passes: int = 1
    tied: bool = False
    dropout: bool = False

    @property
    def stack_parameters(self) -> int:
        return min(self.parameters, sum(stack.layers * stack.layer_parameters for stack in self.stacks))

    @property
    def multiplied_parameters(self) -> int:
        """Of the matrices that products read: not of embeddings that are only looked up."""
        head = self.vocabulary * self.stacks[-1].hidden if self.head_tokens else 0
        return min(self.parameters, self.stack_parameters + head)

    @property
    def layers(self) -> int:
        return sum(stack.layers for stack in self.stacks)


def shape_of(model_class: str | None, config: Config, parameters: int, sequence_length: int) -> Shape:
    """The shape of a model of one of the classes by its configuration (as in a config.json). UserError for another."""
    if model_class not in BUILDERS:
        known = ", ".join(sorted(BUILDERS))
        raise UserError(f"Training is planned for the model classes {known}; this model is of none of them.")
    name, rate = DROPOUT.get(model_class, ("", 0.0))
    return replace(BUILDERS[model_class](config, parameters, sequence_length), dropout=bool(config.get(name, rate)))


# Where a configuration says how much is dropped in training, and transformers' default. The other classes drop nothing by default.
DROPOUT = {
    "bert": ("hidden_dropout_prob", 0.1),
    "t5": ("dropout_rate", 0.1),
    "wav2vec2": ("hidden_dropout", 0.1),
    "detr": ("dropout", 0.1),
    "whisper": ("dropout", 0.0),
}


def _text(config: Config, tokens: int, **more: Any) -> Stack:
    return Stack(
        layers=config["num_hidden_layers"],
        tokens=tokens,
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        feed_forward=config["intermediate_size"],
        **more,
    )


def _vision(config: Config, extra: int = 1, **more: Any) -> Stack:
    """``extra`` tokens beside the patches: the class token."""
    return _text(config, (config["image_size"] // config["patch_size"]) ** 2 + extra, **more)


def _bert(config: Config, parameters: int, sequence: int) -> Shape:
    # The contrastive loss of this class embeds each text twice, its first half and the whole.
    return Shape(
        parameters=parameters,
        stacks=(_text(config, sequence),),
        largest_tensor=config["vocab_size"] * config["hidden_size"],
        passes=2,
    )


def _vit(config: Config, parameters: int, sequence: int) -> Shape:
    return Shape(
        parameters=parameters, stacks=(_vision(config),), largest_tensor=config["hidden_size"] * config["intermediate_size"]
    )


def _decoder_layers(config: Config, tokens: int) -> Stack:
    key_value_heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    return _text(
        config,
        tokens,
        key_value_heads=key_value_heads,
        head_size=config.get("head_dim") or 0,
        gated=True,
        root_mean_square_norm=True,
    )


def _causal(config: Config, parameters: int, sequence: int) -> Shape:
    return Shape(
        parameters=parameters,
        stacks=(_decoder_layers(config, sequence),),
        vocabulary=config["vocab_size"],
        head_tokens=sequence,
        largest_tensor=config["vocab_size"] * config["hidden_size"],
        tied=bool(config.get("tie_word_embeddings")),
    )


def _t5(config: Config, parameters: int, sequence: int) -> Shape:
    gated = str(config.get("feed_forward_proj", "relu")).startswith("gated")
    common = {
        "tokens": sequence,
        "hidden": config["d_model"],
        "heads": config["num_heads"],
        "head_size": config["d_kv"],
        "feed_forward": config["d_ff"],
        "gated": gated,
        "saves_input": gated,
        "root_mean_square_norm": True,
        "fused": False,  # the learned bias of distances needs a gradient, which fused attention gives none
    }
    decoder_layers = config.get("num_decoder_layers") or config["num_layers"]
    return Shape(
        parameters=parameters,
        stacks=(
            Stack(layers=config["num_layers"], **common),
            Stack(layers=decoder_layers, cross_tokens=sequence, **common),
        ),
        vocabulary=config["vocab_size"],
        head_tokens=sequence,
        largest_tensor=config["vocab_size"] * config["d_model"],
        tied=bool(config.get("tie_word_embeddings", True)),
    )


def _clip(config: Config, parameters: int, sequence: int) -> Shape:
    text = config["text_config"]
    return Shape(
        parameters=parameters,
        stacks=(_text(text, sequence), _vision(config["vision_config"])),
        largest_tensor=text["vocab_size"] * text["hidden_size"],
    )


def _xclip(config: Config, parameters: int, sequence: int) -> Shape:
    text, vision = config["text_config"], config["vision_config"]
    frames = vision["num_frames"]
    tower = _vision(vision)
    with_message = tower.tokens + 1
    every_frame = replace(tower, tokens=frames * with_message, keys=with_message, fused=False)
    return Shape(
        parameters=parameters,
        stacks=(_text(text, sequence, fused=False), every_frame),
        largest_tensor=text["vocab_size"] * text["hidden_size"],
    )


def _clap(config: Config, parameters: int, sequence: int) -> Shape:
    """A text encoder beside Swin stages (Liu et al., 2021, https://arxiv.org/abs/2103.14030): windows, widths that double."""
    text, audio = config["text_config"], config["audio_config"]
    side = audio["spec_size"] // audio["patch_stride"][0]
    stages = tuple(
        Stack(
            layers=depth,
            tokens=(side >> level) ** 2,
            hidden=audio["patch_embeds_hidden_size"] << level,
            heads=audio["num_attention_heads"][level],
            feed_forward=4 * (audio["patch_embeds_hidden_size"] << level),
            keys=min(audio["window_size"], side >> level) ** 2,
            fused=False,
        )
        for level, depth in enumerate(audio["depths"])
    )
    return Shape(
        parameters=parameters,
        stacks=(_text(text, sequence), *stages),
        largest_tensor=text["vocab_size"] * text["hidden_size"],
    )


def _whisper(config: Config, parameters: int, sequence: int) -> Shape:
    from ..models.whisper import LABELS

    frames, labels, width = config["max_source_positions"], min(LABELS, config["max_target_positions"]), config["d_model"]
    stacks = tuple(
        Stack(
            layers=config[f"{part}_layers"],
            tokens=tokens,
            hidden=width,
            heads=config[f"{part}_attention_heads"],
            feed_forward=config[f"{part}_ffn_dim"],
            cross_tokens=cross,
        )
        for part, tokens, cross in (("encoder", frames, None), ("decoder", labels, frames))
    )
    convolutions = 2 * frames * (config["num_mel_bins"] + 2 * width) + 2 * frames * width  # each one's input and its GELU's
    return Shape(
        parameters=parameters,
        stacks=stacks,
        vocabulary=config["vocab_size"],
        head_tokens=labels,
        largest_tensor=config["vocab_size"] * width,
        other_elements=convolutions,
        tied=True,
    )


def _wav2vec2(config: Config, parameters: int, sequence: int) -> Shape:
    from ..models.wav2vec2 import INPUT_SAMPLES

    length, saved = config.get("input_samples", INPUT_SAMPLES), 0
    for index, (width, kernel, stride) in enumerate(
        zip(config["conv_dim"], config["conv_kernel"], config["conv_stride"], strict=True)
    ):
        length = (length - kernel) // stride + 1
        # The convolution's output is the norm's or the GELU's input; the GELU's output is the next convolution's input.
        saved += length * width * (3 if index == 0 or config["feat_extract_norm"] == "layer" else 2)
    encoder = _text(config, length)
    return Shape(
        parameters=parameters,
        stacks=(encoder,),
        largest_tensor=max(
            config["hidden_size"] * config["intermediate_size"],
            config["hidden_size"] ** 2 * config["num_conv_pos_embeddings"] // config["num_conv_pos_embedding_groups"],
        ),
        other_elements=saved,
    )


def _detr(config: Config, parameters: int, sequence: int) -> Shape:
    from ..models.detr import PUBLISHED_SIZE

    height, width = config.get("image_size", PUBLISHED_SIZE)
    backbone = config["backbone_config"]
    tokens = prod((side + 31) // 32 for side in (height, width))
    common = {"hidden": config["d_model"], "saves_input": False}
    encoder = Stack(
        layers=config["encoder_layers"],
        tokens=tokens,
        heads=config["encoder_attention_heads"],
        feed_forward=config["encoder_ffn_dim"],
        **common,
    )
    decoder = Stack(
        layers=config["decoder_layers"],
        tokens=config["num_queries"],
        heads=config["decoder_attention_heads"],
        feed_forward=config["decoder_ffn_dim"],
        cross_tokens=tokens,
        **common,
    )
    return Shape(
        parameters=parameters,
        stacks=(encoder, decoder),
        largest_tensor=(backbone["hidden_sizes"][-1] // 4) ** 2 * 9,  # the last 3 x 3 convolution
        other_elements=_resnet_elements(backbone, height, width),
    )


def _resnet_elements(backbone: Config, height: int, width: int) -> int:
    """What a bottleneck ResNet (He et al., 2015, https://arxiv.org/abs/1512.03385) saves of one image: the inputs of its convolutions,
    which are the outputs of its ReLUs as well. Frozen norms save nothing of the image."""
    area = (height // 2) * (width // 2)
    saved = height * width * 3 + area * backbone["embedding_size"]
    area //= 4  # the pooling
    channels = backbone["embedding_size"]
    for stage, (depth, out) in enumerate(zip(backbone["depths"], backbone["hidden_sizes"], strict=True)):
        for block in range(depth):
            before, area = area, area // (4 if stage and block == 0 else 1)
            saved += before * channels + (before + area) * (out // 4)
            channels = out
    return saved + area * channels


def _llava(config: Config, parameters: int, sequence: int) -> Shape:
    vision, text = config["vision_config"], config["text_config"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    tower = _vision(vision, extra=0 if vision["model_type"].startswith("siglip") else 1)
    return _image_and_text(text, parameters, tower, patches, sequence)


def _llava_next(config: Config, parameters: int, sequence: int) -> Shape:
    """The image and four tiles of it, as for a square picture at the published grid."""
    vision, text = config["vision_config"], config["text_config"]
    side = vision["image_size"] // vision["patch_size"]
    tower = _vision(vision)
    tiles = replace(tower, tokens=5 * tower.tokens, keys=tower.tokens)
    return _image_and_text(text, parameters, tiles, side * side + 2 * side * (2 * side + 1), sequence)


def _image_and_text(text: Config, parameters: int, tower: Stack, image_tokens: int, sequence: int) -> Shape:
    tokens = image_tokens + sequence
    return Shape(
        parameters=parameters,
        stacks=(tower, _decoder_layers(text, tokens)),
        vocabulary=text["vocab_size"],
        head_tokens=tokens,
        largest_tensor=text["vocab_size"] * text["hidden_size"],
    )


BUILDERS = {
    "bert": _bert,
    "vit": _vit,
    "llama": _causal,
    "qwen2": _causal,
    "t5": _t5,
    "clip": _clip,
    "xclip": _xclip,
    "clap": _clap,
    "whisper": _whisper,
    "wav2vec2": _wav2vec2,
    "detr": _detr,
    "llava": _llava,
    "llava_next": _llava_next,
}
