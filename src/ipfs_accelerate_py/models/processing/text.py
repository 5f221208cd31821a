"""Text to token ids and back: the tokenizer of a model's folder, or a synthetic one that stands in where there is none."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import UserError
from ...lazy_numpy import np
from ..loading import read_json

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

OLDER_FILES = ("tokenizer.model", "spiece.model", "vocab.txt", "vocab.json", "merges.txt")
FIRST_BYTE = 4  # the synthetic id of byte 0; the ids below are left to models' special tokens
NO_IDS: tuple[int, ...] = ()


class Encoded(NamedTuple):
    """``ids`` and ``mask`` int64 [batch, length]; the mask is 0 on the padding at the end of a row."""

    ids: np.ndarray
    mask: np.ndarray
    notes: tuple[str, ...]


class TextTokenizer:
    """A tokenizer with a model's ``vocabulary``, the number of ids that the model takes (None: whatever the tokenizer has).

    ``pad_id`` is None where the folder names no padding token. ``synthetic`` tokenizers stand in for one that is not at hand.
    """

    def __init__(
        self, tokenizer: Tokenizer, vocabulary: int | None = None, pad_id: int | None = None, synthetic: bool = False
    ) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary if vocabulary is not None else tokenizer.get_vocab_size()
        self.pad_id = pad_id
        self.synthetic = synthetic
        tokenizer.no_padding()
        tokenizer.no_truncation()

    def encode(
        self,
        texts: Sequence[str],
        *,
        max_length: int | None,
        truncate: bool = False,
        pad_to: int | None = None,
        pad_id: int = 0,
        ends: tuple[Sequence[int], Sequence[int]] = (NO_IDS, NO_IDS),
    ) -> Encoded:
        """Token ids with the special tokens that the folder's tokenizer adds, padded at the end to the longest or to ``pad_to``.

        ``pad_id`` pads where the folder names no padding token. ``ends`` are the ids that a synthetic tokenizer puts before and
        after each text, as the class's published one does. Raises UserError for an empty text, for one of more than ``max_length``
        tokens (with ``truncate`` it is cut, with a note) and for an id that the model does not have.
        """
        if self.synthetic:
            self._put_ends(*ends)
        notes = ["The model has no tokenizer of its own: a synthetic one made the token ids."] if self.synthetic else []
        rows = []
        for number, text in enumerate(texts, 1):
            _check_text(text, number)
            encoding = self.tokenizer.encode(text)
            length = len(encoding.ids)
            if max_length is not None and length > max_length:
                if not truncate:
                    raise UserError(f"Text {number} has {length} tokens, and the model takes at most {max_length}: shorten it.")
                notes.append(
                    f"Text {number} was cut from {length} to {max_length} tokens, the most that the model takes: its end was left out."
                )
                self.tokenizer.enable_truncation(max_length)
                encoding = self.tokenizer.encode(text)
                self.tokenizer.no_truncation()
            if unknown := self._unknown(encoding):
                notes.append(
                    f"Text {number} has {unknown} parts that the tokenizer does not know; each became its unknown token."
                )
            self._check_ids(encoding.ids)
            if not encoding.ids:
                raise UserError(f"Text {number} is empty once it is tokenized: give at least one word.")
            rows.append(encoding.ids)
        longest = max(len(row) for row in rows)
        width = longest if pad_to is None else pad_to
        if longest > width:
            raise ValueError(f"pad_to {width} is less than the {longest} tokens that max_length lets pass")
        ids = np.full((len(rows), width), self.pad_id if self.pad_id is not None else pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        return Encoded(ids, mask, tuple(notes))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of one row of ids, without special tokens. UserError for an id outside the model's vocabulary."""
        row = [int(token) for token in ids]
        self._check_ids(row)
        return self.tokenizer.decode(row, skip_special_tokens=True)

    def _check_ids(self, ids: Sequence[int]) -> None:
        outside = [token for token in ids if not 0 <= token < self.vocabulary]
        if outside:
            raise UserError(
                f"Unknown token {outside[0]}: the model has the ids 0 to {self.vocabulary - 1}; is the tokenizer of another model?"
            )

    def _unknown(self, encoding: Encoding) -> int:
        """How many parts of the text became the unknown token. Special tokens do not count: CLIP's end token is its unknown one too."""
        model = self.tokenizer.model
        name = getattr(model, "unk_token", None)
        token = self.tokenizer.token_to_id(name) if name is not None else getattr(model, "unk_id", None)
        pairs = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
        return sum(found == token and not special for found, special in pairs)

    def _put_ends(self, start: Sequence[int], end: Sequence[int]) -> None:
        from tokenizers.processors import TemplateProcessing

        names = {token: str(self.tokenizer.id_to_token(token)) for token in (*start, *end)}
        template = [*(names[token] for token in start), "$A", *(names[token] for token in end)]
        specials = [(name, token) for token, name in names.items()]
        self.tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=specials)


def load_tokenizer(folder: Path | None, vocabulary: int | None) -> TextTokenizer:
    """The tokenizer.json of ``folder``; where it has no tokenizer at all, a synthetic one of ``vocabulary`` ids.

    Raises UserError for a tokenizer.json that cannot be read and for a folder that has its tokenizer only in an older format.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json" if folder else None
    if folder is None or path is None or not path.is_file():
        older = [name for name in OLDER_FILES if folder and (folder / name).is_file()]
        if older:
            raise UserError(
                f"'{folder}' has its tokenizer only as {older[0]}; make a tokenizer.json with transformers' "
                "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)."
            )
        if vocabulary is None:
            raise ValueError("a synthetic tokenizer needs the model's vocabulary")
        return synthetic_tokenizer(vocabulary)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_str(json.dumps(raw))
    except Exception as broken:  # the library raises nothing narrower
        raise UserError(f"'{path}' is not a tokenizer: {broken}.") from broken
    return TextTokenizer(tokenizer, vocabulary, _pad_id(tokenizer, raw, folder))


def synthetic_tokenizer(vocabulary: int) -> TextTokenizer:
    """One token a UTF-8 byte, so that any text can be encoded and decoded; an id that no byte has reads as `` <ID>``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    if vocabulary < FIRST_BYTE + 256:
        raise UserError(f"A synthetic tokenizer needs {FIRST_BYTE + 256} token ids, and the model has {vocabulary}.")
    tokens = {f"Ġ<{token}>": token for token in range(vocabulary) if not FIRST_BYTE <= token < FIRST_BYTE + 256}
    tokens |= {letter: FIRST_BYTE + index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return TextTokenizer(tokenizer, vocabulary, synthetic=True)


def generated_text(tokenizer: TextTokenizer, token_ids: np.ndarray, end_ids: Collection[int]) -> dict[str, Any]:
    """``text``, ``token_ids`` and ``complete`` of each row of generated ids [batch, new_tokens], up to the first of ``end_ids``.

    ``token_ids`` has the end token, as transformers' generate gives it. ``complete`` says whether there was one: a row without was
    cut off by the number of new tokens.
    """
    texts, kept, complete = [], [], []
    for row in token_ids.tolist():
        stop = next((index for index, token in enumerate(row) if token in end_ids), len(row))
        texts.append(tokenizer.decode(row[:stop]))
        kept.append(row[: stop + 1])
        complete.append(stop < len(row))
    return {"text": texts, "token_ids": kept, "complete": complete}


def _check_text(text: Any, number: int) -> None:
    if not isinstance(text, str):
        raise UserError(f"Text {number} is a {type(text).__name__}, not a string.")
    if not text.strip():
        raise UserError(f"Text {number} is empty: give at least one word.")
    try:
        text.encode()
    except UnicodeEncodeError as broken:
        raise UserError(f"Text {number} is not valid Unicode: it has half of a surrogate pair at {broken.start}.") from broken


def _pad_id(tokenizer: Tokenizer, raw: dict[str, Any], folder: Path) -> int | None:
    """The id of the padding token, as tokenizer_config.json, special_tokens_map.json or tokenizer.json itself says."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        token = read_json(path).get("pad_token") if path.is_file() else None
        if token is not None:
            return tokenizer.token_to_id(token["content"] if isinstance(token, dict) else token)
    return (raw.get("padding") or {}).get("pad_id")
