"""Prompts as token ids: a text as it is, or the messages of a chat in the template of the model's folder."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..models.loading import read_json
from ..models.processing.chat import chat_template
from ..models.processing.text import TextTokenizer
from .errors import ApiError

ROLES = ("system", "developer", "user", "assistant")
TOKEN_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")
# Where a model has no template of its own; nothing was trained on it.
PLAIN = "a plain one, 'role: text' in lines, because the model has none"


class Prompts:
    """For one model: its tokenizer, and the chat template of ``folder``. Safe to use from several threads."""

    def __init__(self, tokenizer: TextTokenizer, folder: Path) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()  # TextTokenizer changes its truncation while it encodes
        self._template = chat_template(folder)
        self.template = PLAIN if self._template is None else "the model's own"
        path = folder / "tokenizer_config.json"
        config = read_json(path) if path.is_file() else {}
        self._tokens = {name: _content(config[name]) for name in TOKEN_NAMES if config.get(name) is not None}

    def completion(self, prompt: Any) -> Sequence[int]:
        """A text, or token ids; or a list of one of them."""
        if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
            prompt = prompt[0]
        if (
            isinstance(prompt, list)
            and prompt
            and all(isinstance(token, int) and not isinstance(token, bool) for token in prompt)
        ):
            outside = [token for token in prompt if not 0 <= token < self._tokenizer.vocabulary]
            if outside:
                raise ApiError(
                    400, f"Token {outside[0]} is not one of the model's {self._tokenizer.vocabulary}.", param="prompt"
                )
            return prompt
        if not isinstance(prompt, str) or not prompt:
            raise ApiError(400, "prompt must be one text, or one list of token ids, and not be empty.", param="prompt")
        return self._encode(prompt, "prompt", special=True)

    def chat(self, messages: Any) -> Sequence[int]:
        """Messages of text, ending where the assistant's answer begins."""
        if not isinstance(messages, list) or not messages:
            raise ApiError(400, "messages must be a list of at least one message.", param="messages")
        turns = [_turn(message, number) for number, message in enumerate(messages)]
        if self._template is None:
            lines = [f"{turn['role']}: {turn['content']}" for turn in turns]
            return self._encode("\n".join([*lines, "assistant:"]), "messages", special=True)
        return self._encode(self._render(turns), "messages", special=False)

    def _render(self, turns: list[dict[str, str]]) -> str:
        import jinja2
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            names: dict[str, Any] = {**self._tokens}
            rendered: Any = render_jinja_template([turns], chat_template=self._template, add_generation_prompt=True, **names)
        except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as refused:
            raise ApiError(400, f"The model's chat template refuses these messages: {refused}", param="messages") from refused
        return rendered[0][0]

    def _encode(self, text: str, param: str, *, special: bool) -> Sequence[int]:
        check_text(text, param)
        if special:
            try:
                with self._lock:
                    return self._tokenizer.encode([text], max_length=None).ids[0].tolist()
            except UserError as error:
                raise ApiError(400, str(error), param=param) from error
        return self._tokenizer.tokenizer.encode(text, add_special_tokens=False).ids


def check_text(text: str, param: str) -> None:
    """ApiError for half of a surrogate pair, which JSON may hold and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as broken:
        raise ApiError(400, f"The text has half of a surrogate pair at character {broken.start}.", param=param) from None


def _turn(message: Any, number: int) -> dict[str, str]:
    where = f"messages[{number}]"
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise ApiError(400, f"{where} must have a role, one of {', '.join(ROLES)}.", param=where)
    content = message.get("content")
    if isinstance(content, list):
        texts = [text for part in content if isinstance(text := _text_of(part), str)]
        if len(texts) < len(content):
            raise ApiError(
                400, f"{where} has a part that is not text; this model reads text alone.", param=where, code="unsupported"
            )
        content = "".join(texts)
    if not isinstance(content, str):
        raise ApiError(400, f"{where} must have a text as its content.", param=where)
    role = "system" if message["role"] == "developer" else message["role"]
    return {"role": role, "content": content}


def _text_of(part: Any) -> Any:
    return part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)
