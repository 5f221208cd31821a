"""Text of tokens as they come, against decoding everything at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from torch_engine import VOCABULARY, text_of

from ipfs_accelerate_py.models.processing.text import TextTokenizer, synthetic_tokenizer
from ipfs_accelerate_py.serve.detokenize import Decoding, Detokenizer, StopText

SYNTHETIC = synthetic_tokenizer(VOCABULARY)
DECODING = Decoding(SYNTHETIC)


def sentencepiece() -> TextTokenizer:
    """Like llama's: words with a mark for their space, and a token for each byte of what has none."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *"\u2581hello wrd,"]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return TextTokenizer(tokenizer)


@given(st.text(max_size=40))
def test_characters_come_whole(text: str):
    """Of a text in single bytes nothing comes before its character is complete, and nothing is lost."""
    stream = Detokenizer(DECODING)
    pieces = [stream.add(token) for token in SYNTHETIC.tokenizer.encode(text).ids]
    assert "".join(pieces) + stream.finish() == text
    assert [piece for piece in pieces if piece] == list(text)


@given(st.lists(st.integers(0, VOCABULARY - 1), max_size=60))
def test_bytes_that_are_no_text_are_replaced_as_python_does(tokens: list[int]):
    """Any tokens at all give what decoding all their bytes at once gives."""
    stream = Detokenizer(DECODING)
    assert "".join(stream.add(token) for token in tokens) + stream.finish() == text_of(tokens)


@pytest.mark.parametrize("text", ["hello world", "hello, wörld \U0001f600 é", "\U0001f600", " hello  hello"])
def test_byte_fallback_and_spaces(text: str):
    """A SentencePiece-like tokenizer: as the library decodes it, but in pieces; a continued text keeps its first space."""
    tokenizer = sentencepiece()
    ids = tokenizer.tokenizer.encode(text).ids
    whole = Detokenizer(Decoding(tokenizer), continues=False)
    assert "".join(whole.add(token) for token in ids) + whole.finish() == tokenizer.tokenizer.decode(ids) == text
    continued = Detokenizer(Decoding(tokenizer))
    assert "".join(continued.add(token) for token in ids) == " " + text


def test_a_character_that_is_cut_off_is_marked():
    """The first two of a character's three bytes, and no more to come."""
    stream = Detokenizer(DECODING)
    assert [stream.add(token) for token in SYNTHETIC.tokenizer.encode("€").ids[:2]] == ["", ""]
    assert stream.finish() == "\ufffd"


def test_special_and_silent_tokens_have_no_text():
    """An end token is not shown, whether the tokenizer calls it special or the model's configuration does."""
    tokenizer = synthetic_tokenizer(VOCABULARY)
    tokenizer.tokenizer.add_special_tokens([" <299>"])
    stream = Detokenizer(Decoding(tokenizer, silent=[2]))
    assert stream.add(tokenizer.tokenizer.token_to_id(" <299>")) == stream.add(2) == ""
    assert stream.add(1) == " <1>"


@given(st.text("ab<", max_size=30), st.lists(st.text("ab<", min_size=1, max_size=4), max_size=3), st.data())
def test_a_stop_is_found_across_pieces(text: str, stops: list[str], data: st.DataObject):
    """However the text is cut, it ends before the first stop that is complete, and no part of it was shown."""
    stop_text, shown, rest = StopText(stops), "", text
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    stopped = False
    while rest and not stopped:
        size = data.draw(st.integers(1, len(rest)))
        kept, stopped = stop_text.add(rest[:size])
        shown, rest = shown + kept, rest[size:]
    if not ends:
        assert not stopped
        assert shown + stop_text.finish() == text
    else:
        assert stopped
        assert text.startswith(shown)
        assert any(text.startswith(stop, len(shown)) for stop in stops)
        assert not any(stop in shown for stop in stops)
