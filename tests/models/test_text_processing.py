"""Tokenizers against transformers' own, the synthetic one, what bad text is told, and the text classes from text to result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.models.prepare import load_model
from ipfs_accelerate_py.models.processing.chat import image_prompt
from ipfs_accelerate_py.models.processing.processor import Processor
from ipfs_accelerate_py.models.processing.text import generated_text, load_tokenizer, synthetic_tokenizer
from ipfs_accelerate_py.models.reference import reference_outputs
from ipfs_accelerate_py.models.registry import model_classes
from ipfs_accelerate_py.models.text import SENTENCES

TEXTS = ["The ferry leaves at seven.", "Wild geese and smoke!  Prices rose by two percent, he said;\nthe train was late."]
KINDS = ("BertTokenizer", "CLIPTokenizer", "LlamaTokenizer", "Qwen2Tokenizer", "RobertaTokenizer", "T5Tokenizer")
SYNTHETIC = synthetic_tokenizer(1000)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """``trained(kind)``: a folder with a tokenizer of this kind of transformers, trained on our sentences, and transformers' own of it."""
    made: dict[str, tuple[Path, Any]] = {}

    def make(kind: str) -> tuple[Path, Any]:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            tokenizer = getattr(transformers, kind)
            tokenizer().train_new_from_iterator(SENTENCES, 400).save_pretrained(folder)
            made[kind] = folder, tokenizer.from_pretrained(folder)
        return made[kind]

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_mask_are_those_of_transformers(trained: Any, kind: str) -> None:
    """Special tokens, padding and truncation included."""
    folder, theirs = trained(kind)
    ours = load_tokenizer(folder, None)
    assert not ours.synthetic
    if theirs.pad_token is None:
        theirs.pad_token_id = 0  # as ours does where the folder names none
    theirs.padding_side = "right"
    for most in (None, 6):
        expected = theirs(TEXTS, padding=True, truncation=most is not None, max_length=most, return_tensors="np")
        actual = ours.encode(TEXTS, max_length=most, truncate=True)
        np.testing.assert_array_equal(actual.ids, expected["input_ids"])
        np.testing.assert_array_equal(actual.mask, expected["attention_mask"])
        assert sum("was cut from" in note for note in actual.notes) == (2 if most else 0)
    assert ours.encode(TEXTS, max_length=100, pad_to=100).ids.shape == (2, 100)


@pytest.mark.parametrize("kind", ["LlamaTokenizer", "Qwen2Tokenizer", "T5Tokenizer"])
def test_text_is_that_of_transformers(trained: Any, kind: str) -> None:
    """What generating classes decode, special tokens left out."""
    folder, theirs = trained(kind)
    ours = load_tokenizer(folder, None)
    for row in ours.encode(TEXTS, max_length=None).ids:
        assert ours.decode(row) == theirs.decode(row, skip_special_tokens=True)


def test_unknown_parts_of_a_text_are_noted(trained: Any) -> None:
    """What the tokenizer does not know becomes its unknown token, and the caller is told."""
    tokenizer = load_tokenizer(trained("BertTokenizer")[0], None)
    assert tokenizer.encode(["the train"], max_length=None).notes == ()
    (note,) = tokenizer.encode(["the train \u6c34"], max_length=None).notes
    assert "Text 1 has 1 parts" in note


def test_clip_end_tokens_are_not_unknown_ones(trained: Any) -> None:
    """CLIP's end token is also its unknown token."""
    assert load_tokenizer(trained("CLIPTokenizer")[0], None).encode(["the train was late"], max_length=None).notes == ()


def test_tokenizer_of_another_model_is_found_out(trained: Any) -> None:
    """An id that the model does not have is an error, in both directions."""
    folder, _ = trained("BertTokenizer")
    with pytest.raises(UserError, match=r"Unknown token .* the model has the ids 0 to 49; is the tokenizer of another model"):
        load_tokenizer(folder, 50).encode(TEXTS, max_length=None)
    with pytest.raises(UserError, match="Unknown token 1000"):
        SYNTHETIC.decode([5, 1000])
    with pytest.raises(UserError, match="Unknown token -1"):
        SYNTHETIC.decode([-1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Text 2 is empty"),
        (" \n\t", "Text 2 is empty"),
        (b"bytes", "Text 2 is a bytes, not a string"),
        (None, "Text 2 is a NoneType, not a string"),
        ("half \ud83d", "Text 2 is not valid Unicode: it has half of a surrogate pair at 5"),
        ("x" * 65, "Text 2 has 65 tokens, and the model takes at most 64: shorten it"),
    ],
)
def test_bad_text_is_told(text: Any, message: str) -> None:
    """One sentence that names the text of the batch and the numbers."""
    with pytest.raises(UserError, match=message):
        SYNTHETIC.encode(["good", text], max_length=64)


def test_text_that_vanishes_is_empty(trained: Any) -> None:
    """A text of which the tokenizer keeps nothing is as good as empty."""
    folder, _ = trained("LlamaTokenizer")
    tokenizer = load_tokenizer(folder, None)
    tokenizer.tokenizer.normalizer = normalizers.Replace("x", "")
    with pytest.raises(UserError, match="Text 1 is empty once it is tokenized"):
        tokenizer.encode(["xx"], max_length=None)


@given(st.text(min_size=1).filter(lambda text: bool(text.strip())))
def test_synthetic_tokenizer_gives_the_text_back(text: str) -> None:
    """Any text is made of bytes; each is a token."""
    encoded = SYNTHETIC.encode([text], max_length=None)
    assert encoded.ids.shape == (1, len(text.encode()))
    assert SYNTHETIC.decode(encoded.ids[0]) == text
    assert "synthetic" in encoded.notes[0]


def test_synthetic_tokenizer_decodes_every_id() -> None:
    """Ids that no byte has read as their number, so that what a synthetic model generates can be seen."""
    assert SYNTHETIC.decode([3, 999]) == " <3> <999>"
    assert "" not in [SYNTHETIC.decode([token]) for token in range(1000)]


def test_synthetic_tokenizer_puts_ends_and_pads() -> None:
    """The ends of the published tokenizer go round each text, truncated or not; the pad id fills the rest."""
    ends = ((998,), (999, 1))
    ids, mask, _ = SYNTHETIC.encode(["a", "abc"], max_length=8, ends=ends, pad_id=7, pad_to=8)
    assert ids[:, 0].tolist() == [998, 998]
    assert ids[0, 2:].tolist() == [999, 1, 7, 7, 7, 7]
    assert mask.sum(1).tolist() == [4, 6]
    cut = SYNTHETIC.encode(["abcdefghi"], max_length=8, ends=ends, truncate=True)
    assert SYNTHETIC.decode(cut.ids[0, 1:-2]) == "abcde"
    assert SYNTHETIC.encode(["a"], max_length=8).ids.shape == (1, 1)  # the ends are this call's only


def test_folder_without_a_usable_tokenizer_is_told(tmp_path: Path) -> None:
    """No tokenizer at all: the synthetic one. One in an older format, a broken one, a vocabulary too small: an error."""
    assert load_tokenizer(tmp_path, 1000).synthetic
    assert load_tokenizer(None, 1000).synthetic
    with pytest.raises(UserError, match="needs 260 token ids, and the model has 100"):
        load_tokenizer(None, 100)
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    with pytest.raises(UserError, match=r"only as vocab.txt; make a tokenizer.json"):
        load_tokenizer(tmp_path, 1000)
    for content in ("{", json.dumps({"model": "?"}), json.dumps([])):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(UserError, match=r"tokenizer.json' is not a tokenizer"):
            load_tokenizer(tmp_path, 1000)


def test_generated_text_ends_at_the_end_token() -> None:
    """The end token is kept as an id and left out of the text; what a row generated after it is gone."""
    rows = SYNTHETIC.encode(["abcd", "efgh"], max_length=None).ids
    rows[0, 2] = 999
    expected = {"text": ["ab", "efgh"], "token_ids": [rows[0, :3].tolist(), rows[1].tolist()], "complete": [True, False]}
    assert generated_text(SYNTHETIC, rows, {999}) == expected
    assert generated_text(SYNTHETIC, rows, {998, 999}) == expected
    assert generated_text(SYNTHETIC, rows[1:], set())["text"] == ["efgh"]


def test_end_tokens_are_those_of_both_files(tmp_path: Path) -> None:
    """A chat model's generation_config.json has ends that its config.json lacks."""
    assert Processor(None).end_tokens(None) == Processor(tmp_path).end_tokens(None) == set()
    assert Processor(tmp_path).end_tokens([3, 4]) == {3, 4}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [151645, 151643]}')
    assert Processor(tmp_path).end_tokens(151645) == {151643, 151645}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": "</s>"}')
    with pytest.raises(UserError, match="neither a token id nor a list of them"):
        Processor(tmp_path).end_tokens(2)


def run(prepared: Any, name: str, raw: dict[str, Any], **options: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """From what a person gives to what a person reads, by the float32 reference on the tiny synthetic model; and the notes."""
    folder = prepared(name)
    model, model_class = load_model(folder), model_classes()[name]
    processor = Processor(folder / "torch", model.config.vocab_size, **options)
    given_ = model_class.preprocess(model.config, raw, processor)
    graphs = model_class.graphs(model, given_.arrays, 5)
    outputs = reference_outputs(graphs, 5 if model_class.default_new_tokens else None)
    return model_class.postprocess(model.config, outputs, given_, processor), given_.notes


def test_bert_embeds_each_text_by_itself(prepared: Any) -> None:
    """Padding and the other texts of a batch change nothing."""
    together, notes = run(prepared, "bert", {"text": TEXTS})
    assert together["embeddings"].shape == (2, 64)
    assert "synthetic" in notes[0]
    for text, row in zip(TEXTS, together["embeddings"], strict=True):
        alone, _ = run(prepared, "bert", {"text": text})
        np.testing.assert_allclose(alone["embeddings"][0], row, atol=1e-6)


@pytest.mark.parametrize("name", ["t5", "llama", "qwen2"])
def test_text_goes_in_and_text_comes_out(prepared: Any, name: str) -> None:
    """Generated ids and their text, the same for a text alone and in a batch."""
    texts = ["Repeat this.", "Measure it!!"]
    together, _ = run(prepared, name, {"text": texts})
    for index, text in enumerate(texts):
        alone, _ = run(prepared, name, {"text": text})
        assert alone["token_ids"][0] == together["token_ids"][index]
        assert alone["text"][0] == together["text"][index]
        assert 1 <= len(alone["token_ids"][0]) <= 5


def test_t5_text_ends_with_the_end_token_and_pads(prepared: Any) -> None:
    """Texts of different lengths make one batch, each encoded as it is alone."""
    folder = prepared("t5")
    config, model_class = load_model(folder).config, model_classes()["t5"]
    arrays = model_class.preprocess(config, {"text": ["ab", "abcd"]}, Processor(folder / "torch", config.vocab_size)).arrays
    assert arrays["input_ids"][:, -1].tolist() == [config.pad_token_id, config.eos_token_id]
    assert arrays["attention_mask"].sum(1).tolist() == [3, 5]
    together, _ = run(prepared, "t5", {"text": ["ab", "abcd"]})
    alone, _ = run(prepared, "t5", {"text": "ab"})
    assert together["token_ids"][0] == alone["token_ids"][0]


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_prompts_of_unequal_length_are_refused(prepared: Any, name: str) -> None:
    """The static cache has one position for all rows of a batch."""
    with pytest.raises(UserError, match="must have equally many tokens, and these have 2 to 4"):
        run(prepared, name, {"text": ["ab", "abcd"]})


@pytest.mark.parametrize(("name", "most"), [("bert", 512), ("t5", 512), ("llama", 255), ("qwen2", 255)])
def test_text_longer_than_the_model(prepared: Any, name: str, most: int) -> None:
    """Refused with both numbers, or cut with a note where the caller allows it."""
    folder = prepared(name)
    config, model_class = load_model(folder).config, model_classes()[name]
    raw = {"text": "x" * 600}
    with pytest.raises(UserError, match=f"Text 1 has 60[01] tokens, and the model takes at most {most}"):
        model_class.preprocess(config, raw, Processor(None, config.vocab_size))
    cut = model_class.preprocess(config, raw, Processor(None, config.vocab_size, truncate=True))
    assert cut.arrays["input_ids"].shape == (1, most)
    assert "was cut from" in cut.notes[1] and cut.notes[1].endswith("its end was left out.")


@pytest.mark.parametrize("name", ["bert", "t5", "llama", "qwen2"])
@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"text": []}, "The batch of text is empty"),
        ({"text": ["good", ""]}, "Text 2 is empty"),
        ({}, "text is missing"),
        ({"texts": "a"}, "Unknown input of .* 'texts': did you mean text?"),
    ],
)
def test_bad_input_of_a_class_is_told(prepared: Any, name: str, raw: dict[str, Any], message: str) -> None:
    """By every class that takes text."""
    with pytest.raises(UserError, match=message):
        run(prepared, name, raw)


@pytest.mark.parametrize("name", ["llama", "qwen2", "t5"])
def test_loss_is_the_cross_entropy_of_the_text(prepared: Any, name: str) -> None:
    """By hand from the logits of transformers' forward: next tokens for a decoder, the same text for an encoder-decoder."""
    model, model_class = load_model(prepared(name)), model_classes()[name]
    inputs = {key: torch.from_numpy(array) for key, array in model_class.inputs(model.config, 2, 12, 5).items()}
    ids = inputs["input_ids"]
    if name == "t5":
        assert (inputs["attention_mask"] == 0).any()
        shifted = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], 1)
        logits, labels, counted = model(**inputs, decoder_input_ids=shifted).logits, ids, inputs["attention_mask"] == 1
    else:
        logits, labels, counted = model(ids).logits[:, :-1], ids[:, 1:], torch.ones_like(ids[:, 1:], dtype=torch.bool)
    chosen = logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0][counted]
    loss = model_class.loss(model, inputs)
    torch.testing.assert_close(loss, -chosen.mean())
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_bert_loss_falls_as_it_learns(prepared: Any) -> None:
    """A few steps of the contrastive loss tell the texts of a batch apart; one text alone has nothing to be told from."""
    model, model_class = load_model(prepared("bert")), model_classes()["bert"]
    inputs = {key: torch.from_numpy(array) for key, array in model_class.inputs(model.config, 4, 12, 5).items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = model_class.loss(model, inputs)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        assert float(model_class.loss(model, {key: value[:1] for key, value in inputs.items()})) == 0


def test_settings_are_read_where_transformers_saves_them(tmp_path: Path) -> None:
    """A whole processor of transformers 5 is one file, whose part goes before the older file, as transformers reads them."""
    defaults = {"size": 3, "resample": 2}
    assert Processor(tmp_path).settings(defaults) == defaults
    (tmp_path / "preprocessor_config.json").write_text('{"size": 4}')
    (tmp_path / "processor_config.json").write_text('{"patch_size": 14}')
    assert Processor(tmp_path).settings(defaults) == {"size": 4, "resample": 2}
    (tmp_path / "processor_config.json").write_text('{"image_processor": {"size": 5}}')
    assert Processor(tmp_path).settings(defaults) == {"size": 5, "resample": 2}
    (tmp_path / "processor_config.json").write_text('{"image_processor": {"size": null, "resample": 3}}')
    assert Processor(tmp_path).settings(defaults) == {"size": 3, "resample": 3}
    (tmp_path / "processor_config.json").write_text("[]")
    with pytest.raises(UserError, match="holds no names with values"):
        Processor(tmp_path).settings(defaults)


@pytest.mark.parametrize(
    "template", ["{{ 1 / 0 }}", "{{ messages + 3 }}", "{% for i in range(10**9) %}{% endfor %}", "{% if %}"]
)
def test_a_chat_template_that_fails(tmp_path: Path, template: str) -> None:
    """One sentence, whatever it raises; transformers runs it in a sandbox."""
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    with pytest.raises(UserError, match=r"^The chat template of '.*' cannot be used: .*\.$"):
        image_prompt("what", tmp_path)
