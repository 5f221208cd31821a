"""vit, clip and detr: modules against transformers' forward, and from a person's images to results and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.models.prepare import load_model
from ipfs_accelerate_py.models.prepared import load_tensors
from ipfs_accelerate_py.models.processing.image import example_images
from ipfs_accelerate_py.models.processing.processor import Preprocessed, Processor
from ipfs_accelerate_py.models.registry import model_classes, resolve

Prepared = Callable[..., Path]
NO_FOLDER = Processor(None, vocabulary=1000)
PHOTOS = list(example_images(3, (48, 60), seed=11))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in load_tensors(folder / "inputs.npz").items()}


def embeddings(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    from ipfs_accelerate_py.models.clip import embed

    with torch.no_grad():
        return embed(model, *(inputs[name] for name in ("input_ids", "attention_mask", "pixel_values")))


def run(
    prepared: Prepared, name: str, raw: dict[str, Any], processor: Processor = NO_FOLDER
) -> tuple[Preprocessed, dict[str, Any]]:
    """What a user does: raw inputs in, results out, by the exported graph."""
    folder, model_class = prepared(name), model_classes()[name]
    config = model_class.config(model_class.sizes["tiny"].config)
    preprocessed = model_class.preprocess(config, raw, processor)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, preprocessed.arrays), strict=True))
    return preprocessed, model_class.postprocess(config, outputs, preprocessed, processor)


def test_clip_equals_transformers(prepared: Prepared) -> None:
    """Embeddings equal those of CLIPModel, whose logits per image are then the products, with padding in the batch."""
    folder = prepared("clip")
    inputs, reference = tensors(folder), load_tensors(folder / "reference.npz")
    assert (inputs["attention_mask"] == 0).any()
    with torch.no_grad():
        expected = load_model(folder)(**inputs)
    np.testing.assert_allclose(reference["text_embeds"], expected.text_embeds, atol=1e-6)
    np.testing.assert_allclose(reference["image_embeds"], expected.image_embeds, atol=1e-6)


@pytest.mark.parametrize("end_of_config", [999, 2], ids=["current", "older configuration"])
def test_clip_pools_at_the_first_end_token(prepared: Prepared, end_of_config: int) -> None:
    """As transformers does: padding with end tokens, or one inside the text, changes nothing, in either kind of configuration."""
    folder = prepared("clip")
    model, inputs = load_model(folder), tensors(folder)
    model.config.text_config.eos_token_id = model.text_model.config.eos_token_id = model.text_model.eos_token_id = end_of_config
    inputs["input_ids"][0, 4] = 999
    inputs["input_ids"][inputs["attention_mask"] == 0] = 999
    with torch.no_grad():
        expected = model(**inputs).text_embeds
    torch.testing.assert_close(embeddings(model, inputs)[0], expected, atol=1e-6, rtol=0)


def test_clip_rows_are_independent(prepared: Prepared) -> None:
    """An item's embeddings are the same alone and in a batch."""
    folder = prepared("clip")
    model, inputs = load_model(folder), tensors(folder)
    alone = embeddings(model, {name: tensor[1:] for name, tensor in inputs.items()})
    for one, both in zip(alone, embeddings(model, inputs), strict=True):
        torch.testing.assert_close(one, both[1:], atol=1e-6, rtol=0)


def test_clip_classifies_images_by_texts(prepared: Prepared) -> None:
    """One image and three texts: embeddings of each, and the texts as labels with the softmax that transformers' logits give."""
    texts = ["a cat", "a photograph of a dog", "rain"]
    preprocessed, result = run(prepared, "clip", {"text": texts, "image": PHOTOS[0]})
    model = load_model(prepared("clip"))
    with torch.no_grad():
        model.logit_scale.fill_(model.config.logit_scale_init_value)
        theirs = model(**{name: torch.from_numpy(array) for name, array in preprocessed.arrays.items()})
    expected = theirs.logits_per_image[0].softmax(-1).numpy()
    assert result["embeddings"]["text"].shape == (3, 32)
    assert result["embeddings"]["image"].shape == (1, 32)
    (classes,) = result["classifications"]
    assert [entry["label"] for entry in classes] == [texts[index] for index in np.argsort(-expected)]
    np.testing.assert_allclose([entry["score"] for entry in classes], np.sort(expected)[::-1], rtol=1e-4)


def test_clip_takes_a_pair_and_several_images(prepared: Prepared) -> None:
    """One text has nothing to choose from; two images and three texts give two lists of three."""
    assert "classifications" not in run(prepared, "clip", {"text": "a cat", "image": PHOTOS[0]})[1]
    _, result = run(prepared, "clip", {"text": ["a cat", "a dog", "a tree"], "image": PHOTOS[:2]})
    assert [len(classes) for classes in result["classifications"]] == [3, 3]
    assert result["embeddings"]["image"].shape == (2, 32)


def test_clip_scale_is_the_trained_one(tmp_path: Path) -> None:
    """The learned temperature comes from the weights of the folder, not from the configuration's initial value."""
    from safetensors.torch import save_file

    from ipfs_accelerate_py.models.processing.processor import learned_scale

    save_file({"other": torch.ones(2)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"logit_scale": torch.tensor(4.5, dtype=torch.bfloat16)}, tmp_path / "model-00002-of-00002.safetensors")
    assert learned_scale(Processor(tmp_path), "logit_scale", 2.6592) == 4.5
    assert learned_scale(Processor(None), "logit_scale", 2.6592) == 2.6592


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("clip", {"text": "a " * 80, "image": PHOTOS[0]}, "162 tokens, and the model takes at most 77"),
        ("clip", {"text": [], "image": PHOTOS[0]}, "batch of text is empty"),
        ("clip", {"text": "a cat"}, "image is missing"),
        ("clip", {"text": "a cat", "imag": PHOTOS[0]}, r"Unknown input of clip 'imag': did you mean image\?"),
        ("clip", {"text": "a cat", "image": np.zeros((0, 4, 3), np.uint8)}, "zero size"),
        ("vit", {"image": []}, "batch of image is empty"),
        ("vit", {"picture": PHOTOS[0]}, "Unknown input of vit 'picture'"),
        ("detr", {"image": [PHOTOS[0], np.full((4, 4, 3), np.nan)]}, "not numbers"),
    ],
)
def test_bad_input_is_one_sentence(name: str, raw: dict[str, Any], message: str) -> None:
    """What cannot be used is refused with a sentence that says why."""
    model_class = model_classes()[name]
    with pytest.raises(UserError, match=message):
        model_class.preprocess(model_class.config(model_class.sizes["tiny"].config), raw, NO_FOLDER)


def test_vit_names_the_five_likeliest(prepared: Prepared) -> None:
    """Labels of the configuration with transformers' probabilities, best first, for each image."""
    preprocessed, result = run(prepared, "vit", {"image": PHOTOS})
    model = load_model(prepared("vit"))
    with torch.no_grad():
        expected = model(torch.from_numpy(preprocessed.arrays["pixel_values"])).logits.softmax(-1)
    assert len(result["classifications"]) == 3
    for classes, row in zip(result["classifications"], expected, strict=True):
        scores, labels = row.topk(5)
        assert [entry["label"] for entry in classes] == [model.config.id2label[label] for label in labels.tolist()]
        np.testing.assert_allclose([entry["score"] for entry in classes], scores, rtol=1e-4)


def test_detr_equals_transformers(prepared: Prepared) -> None:
    """Logits and boxes equal DetrForObjectDetection's with no pixel masked, and queries differ from each other."""
    folder = prepared("detr")
    reference = load_tensors(folder / "reference.npz")
    with torch.no_grad():
        expected = load_model(folder)(**tensors(folder))
    np.testing.assert_allclose(reference["logits"], expected.logits, atol=1e-5)
    np.testing.assert_allclose(reference["pred_boxes"], expected.pred_boxes, atol=1e-6)
    assert reference["pred_boxes"].std(axis=1).max() > 1e-3


def test_detr_position_embedding_at_the_published_size() -> None:
    """The constant has the shape of the backbone's features for 800 x 1066 pixels: 25 x 34."""
    from ipfs_accelerate_py.models.detr import PUBLISHED_SIZE, position_embedding

    model_class = model_classes()["detr"]
    arguments = {key: value for key, value in model_class.sizes["tiny"].config.items() if key != "image_size"}
    model = model_class.build(model_class.config(arguments))
    with torch.no_grad():
        features = model.model.backbone.model(torch.zeros(1, 3, *PUBLISHED_SIZE)).feature_maps[-1]
    assert features.shape[2:] == (25, 34)
    assert position_embedding(model).shape == (1, 25 * 34, 32)


def test_detr_results_equal_transformers(prepared: Prepared) -> None:
    """Labels, scores and boxes in pixels of the original equal those of transformers' own postprocessing."""
    model_class = model_classes()["detr"]
    config = model_class.config(model_class.sizes["tiny"].config)
    generator = np.random.default_rng(0)
    logits = 4 * generator.standard_normal((2, 10, 11)).astype(np.float32)
    boxes = generator.uniform(0.2, 0.8, (2, 10, 4)).astype(np.float32)
    sizes = [(480, 640), (300, 200)]
    ours = model_class.postprocess(
        config, {"logits": logits, "pred_boxes": boxes}, Preprocessed({}, facts={"sizes": sizes}), NO_FOLDER
    )["detections"]
    theirs = DetrImageProcessorPil().post_process_object_detection(
        SimpleNamespace(logits=torch.from_numpy(logits), pred_boxes=torch.from_numpy(boxes)), 0.5, sizes
    )
    for found, expected in zip(ours, theirs, strict=True):
        order = expected["scores"].argsort(descending=True)
        assert 0 < len(found) < 10
        assert [entry["label"] for entry in found] == [config.id2label[i] for i in expected["labels"][order].tolist()]
        np.testing.assert_allclose([entry["score"] for entry in found], expected["scores"][order], rtol=1e-5)
        np.testing.assert_allclose(
            [list(entry["box"].values()) for entry in found], expected["boxes"][order], rtol=1e-4, atol=1e-3
        )
        assert list(found[0]["box"]) == ["xmin", "ymin", "xmax", "ymax"]


def test_scores_that_are_not_numbers_are_refused() -> None:
    """Instead of a first label with the score NaN, or no detection at all."""
    vit, detr = model_classes()["vit"], model_classes()["detr"]
    config = vit.config(vit.sizes["tiny"].config)
    with pytest.raises(UserError, match="scores that are not numbers"):
        vit.postprocess(config, {"logits": np.full((1, 10), np.nan)}, Preprocessed({}), NO_FOLDER)
    outputs = {"logits": np.zeros((1, 10, 11)), "pred_boxes": np.full((1, 10, 4), np.inf)}
    with pytest.raises(UserError, match="scores that are not numbers"):
        detr.postprocess(config, outputs, Preprocessed({}, facts={"sizes": [(4, 4)]}), NO_FOLDER)


def test_vit_takes_inputs_that_are_no_squares() -> None:
    """``image_size`` of a configuration is one number, or height and width."""
    vit = model_classes()["vit"]
    config = vit.config({**vit.sizes["tiny"].config, "image_size": [16, 32]})
    for arrays in (vit.inputs(config, 1, None, 0), vit.preprocess(config, {"image": PHOTOS[0]}, NO_FOLDER).arrays):
        assert arrays["pixel_values"].shape == (1, 3, 16, 32)


def test_detr_says_when_it_stretches(prepared: Prepared) -> None:
    """A square image fits the square input of tiny; another is stretched, with a note that says from what to what."""
    preprocessed, result = run(prepared, "detr", {"image": [PHOTOS[0], PHOTOS[1][:, :48]]})
    assert preprocessed.notes == ("Image 1 of 60 x 48 pixels was stretched to the model's 64 x 64.",)
    assert preprocessed.facts["sizes"] == [(48, 60), (48, 48)]
    assert len(result["detections"]) == 2


def test_detr_with_a_timm_backbone_is_refused_with_the_remedy() -> None:
    """The published model's main revision needs the timm library; the error names the revision that does not."""
    from transformers import DetrConfig

    with pytest.raises(UserError, match="detr-resnet-50@no_timm"):
        model_classes()["detr"].build(DetrConfig(use_timm_backbone=True))


def test_detr_comes_from_its_revision_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset pins the revision; another may be asked for by name."""
    asked = []

    def hub_config(reference: str) -> tuple[dict[str, str], str]:
        asked.append(reference)
        return {"model_type": "detr"}, "c0ffee"

    monkeypatch.setattr("ipfs_accelerate_py.models.hub.hub_config", hub_config)
    for reference in (resolve("detr", weights="trained"), resolve("facebook/detr-resnet-50")):
        assert (reference.size, reference.origin) == ("base", "hub:facebook/detr-resnet-50@c0ffee")
    resolve("facebook/detr-resnet-50@main")
    assert asked == ["facebook/detr-resnet-50@no_timm"] * 2 + ["facebook/detr-resnet-50@main"]


@pytest.mark.parametrize("name", ["vit", "clip", "detr"])
def test_training_lowers_the_loss(prepared: Prepared, name: str) -> None:
    """The loss of the example inputs is finite, reaches weights by its gradient and falls over a few steps."""
    model, inputs = load_model(prepared(name)), tensors(prepared(name))
    model_class = model_classes()[name]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = model_class.loss(model, inputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]
