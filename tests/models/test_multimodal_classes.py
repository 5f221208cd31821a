"""LLaVA, LLaVA-NeXT and X-CLIP against transformers' own forward, generate and processors, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast
from transformers.generation import GenerationMixin
from transformers.models.llava.processing_llava import LlavaProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.models.llava import CLIP_L_336, Llava, with_image
from ipfs_accelerate_py.models.llava_next import PINPOINTS, LlavaNext, packing
from ipfs_accelerate_py.models.processing.image import example_images
from ipfs_accelerate_py.models.processing.processor import Preprocessed, Processor
from ipfs_accelerate_py.models.processing.video import example_videos
from ipfs_accelerate_py.models.reference import reference_outputs
from ipfs_accelerate_py.models.xclip import XClip

CLIP_TOWER = {
    **CLIP_L_336,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 28,
}
# fmt: off
TOWERS = {
    "siglip, all patches": {},
    "clip without class token": {"vision_config": CLIP_TOWER, "vision_feature_layer": -2, "vision_feature_select_strategy": "default"},
    "clip with class token": {"vision_config": CLIP_TOWER, "vision_feature_layer": 1, "vision_feature_select_strategy": "full"},
    "clip, two layers": {"vision_config": CLIP_TOWER, "vision_feature_layer": [0, -1], "vision_feature_select_strategy": "default"},
}
# fmt: on
WORDS = [
    "USER",
    ":",
    "ASSISTANT",
    "what",
    "is",
    "in",
    "this",
    "picture",
    "?",
    "a",
    "dog",
    "runs",
    "fast",
    "[INST]",
    "[/INST]",
    "\n",
]


def strong(model_class: Any, **changes: Any) -> Any:
    """The tiny model with activations near 1, so that a wrong place or a lost row of the image changes the tokens."""
    model = model_class.build(model_class.config({**model_class.sizes["tiny"].config, **changes}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15 + (parameter.ndim == 1))
    return model


def tensors(inputs: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in inputs.items()}


def greedy(model: Any, new_tokens: int, **inputs: Any) -> np.ndarray:
    everything = torch.ones_like(inputs["input_ids"])
    ids = GenerationMixin.generate(
        model,
        **inputs,
        attention_mask=everything,
        do_sample=False,
        max_new_tokens=new_tokens,
        eos_token_id=None,
        pad_token_id=0,
    )
    return ids[:, -new_tokens:].numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's processing files: a tokenizer of words in which ``<image>`` is a token, id 999."""
    vocabulary = {"<unk>": 0} | {word: index for index, word in enumerate(WORDS, 1)} | {"<image>": 999}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<image>"])
    path = tmp_path_factory.mktemp("folder")
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def fast(folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), unk_token="<unk>", pad_token="<unk>")


@pytest.mark.parametrize("changes", TOWERS.values(), ids=TOWERS.keys())
def test_llava_equals_transformers(changes: dict[str, Any]) -> None:
    """Image features, first logits and greedy tokens, with the image's block at another place in each row of the batch."""
    llava = Llava()
    model = strong(llava, **changes)
    inputs = llava.inputs(model.config, 2, 9, seed=4)
    starts = (inputs["input_ids"] == 999).argmax(1)
    assert starts[0] != starts[1]
    graphs, given = llava.graphs(model, inputs, 5), tensors(inputs)
    with torch.inference_mode():
        features = graphs["vision"].module(given["pixel_values"])
        torch.testing.assert_close(features, torch.stack(model.get_image_features(given["pixel_values"]).pooler_output))
        logits = model(**given).logits[:, -1]
    assert features.shape[1] == llava.image_tokens(model.config.to_dict())
    outputs = reference_outputs(graphs, 5)
    np.testing.assert_allclose(outputs["logits"], logits.numpy(), atol=1e-4, rtol=1e-4)
    np.testing.assert_array_equal(outputs["token_ids"], greedy(model, 5, **given))
    other = dict(inputs, pixel_values=inputs["pixel_values"][::-1].copy())
    swapped = reference_outputs(llava.graphs(model, other, 5), 1)["logits"]
    assert np.abs(swapped - outputs["logits"]).max() > 0.01  # the image counts, so the checks above could fail


def test_llava_next_equals_transformers() -> None:
    """Packed features, first logits and greedy tokens, with tiles, newlines and a cut border, in a batch of two."""
    llava_next = LlavaNext()
    model = strong(llava_next)
    inputs = llava_next.inputs(model.config, 2, 9, seed=4)
    graphs, given = llava_next.graphs(model, inputs, 5), tensors(inputs)
    sizes = torch.tensor([llava_next.example_size(model.config.to_dict())] * 2)
    with torch.inference_mode():
        features = graphs["vision"].module(given["pixel_values"])
        expected = model.get_image_features(given["pixel_values"], sizes).pooler_output
        torch.testing.assert_close(features, torch.stack(list(expected)))
        logits = model(**given, image_sizes=sizes).logits[:, -1]
    outputs = reference_outputs(graphs, 5)
    np.testing.assert_allclose(outputs["logits"], logits.numpy(), atol=1e-4, rtol=1e-4)
    np.testing.assert_array_equal(outputs["token_ids"], greedy(model, 5, **given, image_sizes=sizes))


def test_the_block_may_begin_anywhere_and_a_generated_image_token_is_text() -> None:
    """Against a loop, with blocks at the start, in the middle and at the end, and a row without one; nothing changes after prefill."""
    hidden, features = torch.randn(4, 7, 3), torch.randn(4, 3, 3)
    ids = torch.tensor([[9, 9, 9, 1, 1, 1, 1], [1, 1, 9, 9, 9, 1, 1], [1, 1, 1, 1, 9, 9, 9], [1, 1, 1, 1, 1, 1, 1]])
    expected = hidden.clone()
    for row, start in ((0, 0), (1, 2), (2, 4)):
        expected[row, start : start + 3] = features[row]
    torch.testing.assert_close(with_image(hidden, ids, torch.arange(7), features, 9, 10), expected, rtol=0, atol=0)
    later = torch.full((4, 1), 9)
    torch.testing.assert_close(
        with_image(hidden[:, :1], later, torch.tensor([7]), features, 9, 10), hidden[:, :1], rtol=0, atol=0
    )


@pytest.mark.parametrize(
    "size", [(480, 640), (640, 480), (336, 336), (100, 1000), (1200, 300), (333, 777), (1, 50), (2000, 2100)]
)
def test_packing_equals_transformers_for_images_of_any_shape(folder: Path, size: tuple[int, int]) -> None:
    """The order of embeddings is that of pack_image_features, and their number what transformers' processor puts into the prompt."""
    arguments = {"image_grid_pinpoints": PINPOINTS, "vision_config": CLIP_L_336}
    config = SimpleNamespace(image_grid_pinpoints=PINPOINTS, vision_config=SimpleNamespace(image_size=336, patch_size=14))
    pixels = LlavaNextImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    tiles = len(pixels([np.zeros((*size, 3), np.uint8)])["pixel_values"][0])
    features, newline = torch.randn(tiles, 576, 2), torch.randn(2)
    part: Any = SimpleNamespace(config=config)  # all of the model that packing reads
    (expected,), _ = LlavaNextModel.pack_image_features(part, [features], torch.tensor([size]), "default", newline)
    order = packing(size, arguments)
    torch.testing.assert_close(torch.cat([features.flatten(0, 1), newline[None]])[torch.from_numpy(order)], expected)
    processor = LlavaNextProcessor(pixels, fast(folder), 14, "default", num_additional_image_tokens=1)
    ids = processor(images=Image.fromarray(np.zeros((*size, 3), np.uint8)), text="what <image> ?")["input_ids"]
    assert np.sum(np.array(ids) == 999) == len(order)


def test_the_published_tiles() -> None:
    """The one image size of the 7b model: 5 tiles, 36 rows of 48 patches and a newline, and the whole image's 576 patches."""
    llava_next = LlavaNext()
    arguments = llava_next.sizes["7b"].config
    assert llava_next.example_size(arguments) == (480, 640)
    assert llava_next.image_tokens(arguments) == 576 + 36 * 49
    assert llava_next.default_size in llava_next.sizes
    with pytest.raises(UserError, match="one embedding for each patch"):
        llava_next.image_tokens({**arguments, "vision_feature_select_strategy": "full"})


def test_llava_preprocessing_equals_transformers(folder: Path) -> None:
    """Pixels and prompt, the image's place expanded, are those of LlavaProcessor with the same tokenizer."""
    llava = Llava()
    config = llava.config(llava.sizes["tiny"].config)
    image = Image.fromarray(example_images(1, (50, 70), 0)[0])
    prompt = "USER : <image> what is this ? ASSISTANT :"
    ours = llava.preprocess(config, {"text": prompt, "image": image}, Processor(folder, 1000))
    processor = LlavaProcessor(SiglipImageProcessorPil(size={"height": 32, "width": 32}), fast(folder), 8, "full")
    theirs = processor(images=image, text=prompt, return_tensors="np")
    np.testing.assert_array_equal(ours.arrays["input_ids"], theirs["input_ids"])
    np.testing.assert_array_equal(ours.arrays["pixel_values"], theirs["pixel_values"])
    assert ours.arrays.keys() == llava.inputs(config, 1, 9, 0).keys()


def test_llava_next_preprocessing_equals_transformers(folder: Path) -> None:
    """Tiles and prompt are those of LlavaNextProcessor for an image of the graph's size; another one is brought to it, with a note."""
    llava_next = LlavaNext()
    config = llava_next.config(llava_next.sizes["tiny"].config)
    image = Image.fromarray(example_images(1, (60, 80), 0)[0])
    ours = llava_next.preprocess(config, {"text": "what <image> ?", "image": image}, Processor(folder, 1000))
    pixels = LlavaNextImageProcessorPil(
        size={"shortest_edge": 42}, crop_size={"height": 42, "width": 42}, image_grid_pinpoints=config.image_grid_pinpoints
    )
    processor = LlavaNextProcessor(pixels, fast(folder), 14, "default", num_additional_image_tokens=1)
    theirs = processor(images=image, text="what <image> ?", return_tensors="np")
    np.testing.assert_array_equal(ours.arrays["input_ids"], theirs["input_ids"])
    np.testing.assert_allclose(ours.arrays["pixel_values"], theirs["pixel_values"], atol=1e-6)
    assert ours.notes == ()

    wide = np.full((30, 80, 3), 255, np.uint8)
    other = llava_next.preprocess(config, {"text": "what <image> ?", "image": wide}, Processor(folder, 1000))
    assert other.arrays["pixel_values"].shape == ours.arrays["pixel_values"].shape
    assert other.notes == (
        "Image 1 was scaled from 80 x 30 to 80 x 60 pixels with a black border, the size that the graph was made for.",
    )
    whole = other.arrays["pixel_values"][0, 0, 0]  # 42 rows: a quarter of them border above, a quarter below
    assert whole[21].min() > whole[0].max()
    assert whole[21].min() > whole[-1].max()


def test_prompts(folder: Path, tmp_path: Path) -> None:
    """A question goes into the folder's chat template, or LLaVA's own prompt where it has none; both keep the image's place."""
    llava = Llava()
    config = llava.config(llava.sizes["tiny"].config)
    image = np.zeros((8, 8, 3), np.uint8)

    def words(path: Path) -> str:
        ids = llava.preprocess(config, {"text": "what is this ?", "image": image}, Processor(path, 1000)).arrays["input_ids"][0]
        assert (ids == 999).sum() == 16
        names = {index: word for index, word in enumerate(WORDS, 1)} | {0: "?!", 999: "*"}
        return " ".join(names[token] for token in ids).replace("* " * 16, "<image> ")

    assert words(folder) == "?! <image> what is this ? ?!"  # "USER:" is not a word of this tokenizer
    (tmp_path / "tokenizer.json").write_text((folder / "tokenizer.json").read_text())
    part = "{% for c in m.content %}{{ '<image>' if c.type == 'image' else c.text }} {% endfor %}"
    template = f"{{% for m in messages %}}[INST] {part}[/INST]{{% endfor %}}"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert words(tmp_path) == "[INST] <image> what is this ? [/INST]"
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": template}]
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": named}))
    assert words(tmp_path) == "[INST] <image> what is this ? [/INST]"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": named[:1]}))
    with pytest.raises(UserError, match="neither a text nor a list with one named 'default'"):
        words(tmp_path)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "no place"}))
    with pytest.raises(UserError, match="no place for the image"):
        words(tmp_path)


def test_llava_without_a_tokenizer() -> None:
    """The synthetic tokenizer makes a prompt with the whole block in it, and a note says so; answers end at the end token."""
    llava = Llava()
    config = llava.config(llava.sizes["tiny"].config)
    processor = Processor(None, 1000)
    made = llava.preprocess(config, {"text": ["one", "two"], "image": [np.zeros((8, 8, 3), np.uint8)] * 2}, processor)
    ids = made.arrays["input_ids"]
    assert ids.shape == (2, len("USER: \none ASSISTANT:") + 16)
    assert ((ids == 999).sum(1) == 16).all()
    assert any("synthetic" in note for note in made.notes)
    config.text_config.eos_token_id = 2
    answer = processor.tokenizer.encode(["Yes"], max_length=None).ids[0].tolist()
    outputs = {"token_ids": np.array([[*answer, 2, 7], [2, 7, 7, 7, 7]])}
    expected = {"text": ["Yes", ""], "token_ids": [[*answer, 2], [2]], "complete": [True, True]}
    assert llava.postprocess(config, outputs, made, processor) == expected


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"text": "what"}, "llava needs text and image; image is missing"),
        ({"text": [], "image": []}, "The batch of text is empty"),
        ({"text": ["a", "b"], "image": [np.zeros((8, 8, 3), np.uint8)]}, "2 of text and 1 of image"),
        ({"text": "what", "image": np.zeros((0, 8, 3), np.uint8)}, "zero size"),
        ({"text": "", "image": np.zeros((8, 8, 3), np.uint8)}, "Text 1 is empty"),
        ({"text": "<image> or <image>", "image": np.zeros((8, 8, 3), np.uint8)}, "Text 1 has 2 places for an image"),
        ({"text": "why " * 80, "image": np.zeros((8, 8, 3), np.uint8)}, "16 image tokens, and the model takes at most 255"),
        ({"text": ["a", "bc"], "image": [np.zeros((8, 8, 3), np.uint8)] * 2}, "must have equally many tokens"),
    ],
)
def test_llava_refuses(raw: dict[str, Any], message: str) -> None:
    """Each mistake is one sentence with the numbers."""
    llava = Llava()
    with pytest.raises(UserError, match=message):
        llava.preprocess(llava.config(llava.sizes["tiny"].config), raw, Processor(None, 1000))


@pytest.mark.parametrize("model_class", [Llava(), LlavaNext()], ids=lambda model_class: model_class.name)
def test_llava_loss_is_the_text_s_cross_entropy(model_class: Any) -> None:
    """Mean over the text tokens after the first, image tokens left out; gradients reach the tower and the language model."""
    model = strong(model_class)
    inputs = tensors(model_class.inputs(model.config, 2, 9, seed=4))
    sizes = {}
    if model_class.name == "llava_next":
        sizes["image_sizes"] = torch.tensor([model_class.example_size(model.config.to_dict())] * 2)
    logits = model(**inputs, **sizes).logits[:, :-1].flatten(0, 1)
    labels = inputs["input_ids"][:, 1:].flatten()
    text = labels != 999
    assert text.sum() == 16
    loss = model_class.loss(model, inputs)
    torch.testing.assert_close(loss, cross_entropy(logits[text], labels[text]))
    loss.backward()
    for part in (model.model.vision_tower.embeddings.patch_embedding, model.model.language_model.layers[0].mlp.up_proj):
        assert part.weight.grad.abs().max() > 0


def test_xclip_is_the_diagonal_of_transformers_forward() -> None:
    """Embeddings of each video, and of its own text with its prompt, padding included; a row does not depend on the others."""
    xclip = XClip()
    model = strong(xclip)
    inputs = xclip.inputs(model.config, 3, 12, seed=1)
    assert (inputs["attention_mask"] == 0).any()
    outputs = reference_outputs(xclip.graphs(model, inputs, None), None)
    with torch.inference_mode():
        expected = model(**tensors(inputs))
    np.testing.assert_allclose(outputs["video_embeds"], expected.video_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(outputs["text_embeds"], expected.text_embeds.numpy()[range(3), range(3)], atol=1e-5)
    assert np.abs(expected.text_embeds.numpy()[0, 1] - outputs["text_embeds"][1]).max() > 1e-3  # the video's prompt counts
    alone = {name: array[1:2] for name, array in inputs.items()}
    row = reference_outputs(xclip.graphs(model, alone, None), None)
    for name, values in row.items():
        np.testing.assert_allclose(values, outputs[name][1:2], atol=1e-6)


def test_xclip_classifies_as_transformers_does(tmp_path: Path) -> None:
    """Two videos with three texts each: labels and scores are the softmax of logits_per_video, with the trained scale of the folder."""
    xclip = XClip()
    model = strong(xclip)
    with torch.no_grad():
        model.logit_scale.fill_(2.0)
    model.save_pretrained(tmp_path)
    labels = ["a dog", "two cats", "an aeroplane"]
    films = example_videos(2, 4, 40, seed=2)
    processor = Processor(tmp_path, 1000)
    made = xclip.preprocess(model.config, {"text": [labels, labels], "video": list(films)}, processor)
    assert made.arrays["input_ids"].shape[0] == 6
    result = xclip.postprocess(model.config, reference_outputs(xclip.graphs(model, made.arrays, None), None), made, processor)
    given = tensors(made.arrays)
    with torch.inference_mode():
        expected = model(given["input_ids"][:3], given["pixel_values"][::3], given["attention_mask"][:3])
    for video, scores in enumerate(expected.logits_per_video.softmax(1)):
        found = {entry["label"]: entry["score"] for entry in result["classifications"][video]}
        np.testing.assert_allclose([found[label] for label in labels], scores.numpy(), atol=1e-5)
        assert [entry["score"] for entry in result["classifications"][video]] == sorted(found.values(), reverse=True)
        np.testing.assert_allclose(result["embeddings"]["text"][video], expected.text_embeds[video].numpy(), atol=1e-5)
    np.testing.assert_allclose(result["embeddings"]["video"], expected.video_embeds.numpy(), atol=1e-5)


def test_xclip_pixels_equal_transformers() -> None:
    """Frames are resized, cropped and normalised as the published processor does; one video with one text is a batch of one."""
    xclip = XClip()
    config = xclip.config(xclip.sizes["tiny"].config)
    film = example_videos(1, 4, 50, seed=2)[0][:, :40]
    made = xclip.preprocess(
        config, {"text": "a dog", "video": [Image.fromarray(frame) for frame in film]}, Processor(None, 1000)
    )
    processor = VideoMAEImageProcessorPil(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    np.testing.assert_array_equal(made.arrays["pixel_values"], processor(list(film), return_tensors="np")["pixel_values"])
    outputs = {"text_embeds": np.ones((1, 4)), "video_embeds": np.ones((1, 4))}
    assert "classifications" not in xclip.postprocess(config, outputs, made, Processor(None, 1000))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"text": "a", "video": np.zeros((3, 8, 8, 3), np.uint8)}, "Video 1 has 3 frames, and the model takes 4"),
        ({"text": "a", "video": []}, "The batch of video is empty"),
        ({"text": [[], ["a"]], "video": [np.zeros((4, 8, 8, 3), np.uint8)] * 2}, "Video 1 has no text"),
        ({"text": ["a", "b"], "video": [np.zeros((4, 8, 8, 3), np.uint8)] * 3}, "2 of text and 3 of video"),
        ({"text": "a" * 90, "video": np.zeros((4, 8, 8, 3), np.uint8)}, "Text 1 has 92 tokens, and the model takes at most 77"),
        ({"text": "a", "vidoe": []}, "Unknown input of xclip 'vidoe'"),
    ],
)
def test_xclip_refuses(raw: dict[str, Any], message: str) -> None:
    """Each mistake is one sentence that says what is wrong."""
    xclip = XClip()
    with pytest.raises(UserError, match=message):
        xclip.preprocess(xclip.config(xclip.sizes["tiny"].config), raw, Processor(None, 1000))


def test_xclip_repeats_frames_where_the_folder_asks_for_it(tmp_path: Path) -> None:
    """``repeat_frames`` in preprocessor_config.json makes of too few frames a note."""
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"repeat_frames": True}))
    xclip = XClip()
    made: Preprocessed = xclip.preprocess(
        xclip.config(xclip.sizes["tiny"].config),
        {"text": "a", "video": np.zeros((3, 8, 8, 3), np.uint8)},
        Processor(tmp_path, 1000),
    )
    assert made.arrays["pixel_values"].shape == (1, 4, 3, 32, 32)
    assert any("some were repeated" in note for note in made.notes)


def test_xclip_loss_is_contrastive() -> None:
    """The mean of both directions' cross-entropy over all pairs of the batch."""
    xclip = XClip()
    model = strong(xclip)
    inputs = tensors(xclip.inputs(model.config, 3, 12, seed=1))
    with torch.no_grad():
        scores, own = model(**inputs).logits_per_video, torch.arange(3)
    torch.testing.assert_close(xclip.loss(model, inputs), (cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2)
