"""Prompts with an image: a question in the chat template of a model's folder, and token ids with the image's place in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...lazy_numpy import np
from ..loading import read_json
from .text import TextTokenizer

IMAGE = "<image>"
# The prompt of LLaVA 1.5 (https://huggingface.co/llava-hf/llava-1.5-7b-hf), where the folder has no template of its own.
DEFAULT_PROMPT = "USER: <image>\n{question} ASSISTANT:"


def image_prompt(question: Any, folder: Path | None, number: int = 1) -> str:
    """The prompt in which ``question`` is asked about an image; a text that has ``<image>`` in it is a prompt already."""
    if not isinstance(question, str) or not question.strip():
        return question  # for the tokenizer to refuse
    if (count := question.count(IMAGE)) > 1:
        raise UserError(f"Text {number} has {count} places for an image, and there is one image for each text.")
    if count == 1:
        return question
    template = chat_template(folder)
    if template is None:
        return DEFAULT_PROMPT.format(question=question)
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    try:
        prompt: str = render_jinja_template([[message]], chat_template=template, add_generation_prompt=True)[0][0]
    except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as broken:
        raise UserError(f"The chat template of '{folder}' cannot be used: {str(broken).rstrip('.')}.") from broken
    if prompt.count(IMAGE) != 1:
        raise UserError(
            f"The chat template of '{folder}' leaves no place for the image: give a text with {IMAGE} in it instead."
        )
    return prompt


def chat_template(folder: Path | None) -> str | None:
    """The folder's template, where transformers' processors keep it."""
    if folder is None:
        return None
    if (path := folder / "chat_template.jinja").is_file():
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as broken:
            raise UserError(f"'{path}' is not a text file: {broken}.") from broken
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        if (path := folder / name).is_file():
            template = read_json(path).get("chat_template")
            if isinstance(template, list):  # the older form, of several with names
                entries = [entry for entry in template if isinstance(entry, dict) and entry.get("name") == "default"]
                template = entries[0].get("template") if entries else template
            if isinstance(template, str):
                return template
            if template is not None:
                raise UserError(f"The chat template of '{path}' is neither a text nor a list with one named 'default'.")
    return None


def image_prompt_ids(
    tokenizer: TextTokenizer, prompts: Sequence[str], *, image_token: int, image_tokens: int, start: Sequence[int], most: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Token ids int64 [batch, tokens] of prompts in which ``<image>`` stands for ``image_tokens`` times ``image_token``; and notes.

    ``start`` are the ids that a synthetic tokenizer puts first. Raises UserError for more than ``most`` tokens, the image's among them,
    and for prompts of different lengths, because the decoder has one position for a column.
    """
    encoded = tokenizer.encode(prompts, max_length=None, ends=(start, ()))
    place = tokenizer.tokenizer.encode(IMAGE, add_special_tokens=False).ids
    rows = []
    for number, (ids, mask) in enumerate(zip(encoded.ids, encoded.mask, strict=True), 1):
        row = ids[: mask.sum()].tolist()
        found = [index for index in range(len(row)) if row[index : index + len(place)] == place]
        if len(found) != 1:
            raise UserError(
                f"The tokenizer does not keep {IMAGE} of text {number} as one place: is it the tokenizer of another model?"
            )
        before, after = row[: found[0]], row[found[0] + len(place) :]
        if image_token in before + after:
            raise UserError(f"Text {number} has the token {image_token}, which stands for the image alone: leave it out.")
        rows.append([*before, *[image_token] * image_tokens, *after])
    lengths = sorted({len(row) for row in rows})
    if lengths[-1] > most:
        raise UserError(
            f"The longest prompt has {lengths[-1] - image_tokens} text and {image_tokens} image tokens, and the model takes at most "
            f"{most} together: shorten it."
        )
    if len(lengths) > 1:
        raise UserError(
            f"The prompts of a batch must have equally many tokens, and these have {lengths[0]} to {lengths[-1]}: give them one at a time."
        )
    return np.array(rows, dtype=np.int64), encoded.notes
