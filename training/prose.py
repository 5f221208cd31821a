"""Paragraphs of English prose in documentation files: HTML, man pages, plain text with its mark-ups, and Python docstrings."""

from __future__ import annotations

import ast
import gzip
import html
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

WORD_LIST = (
    "a an and are as at be been but by can do does for from had has have he her his if in into is it its may more "
    "most must no not of on one only or other out should so some such than that the their them then there these "
    "they this to up use used was we were what when where which while who will with would you your"
)
COMMON_WORDS = frozenset(WORD_LIST.split())
PUNCTUATION = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": " - ", "…": "...", "\xa0": " ", "\xad": ""})
TEXT_SUFFIXES = {".txt", ".rst", ".md", ".asciidoc", ".adoc", ""}
HTML_SUFFIXES = {".html", ".htm", ".xhtml"}
BLOCKS = re.compile(
    r"<(p|li|dd|blockquote|td|h[1-6]|div|section|ul|ol|dl|dt|table|tr|pre|body|nav|br)\b[^>]*>|</(p|li|dd|div|pre)>", re.I
)
DROPPED = re.compile(r"<(script|style|nav|header|footer|table|pre|head|svg|math)\b.*?</\1\s*>|<!--.*?-->", re.I | re.S)
TAGS = re.compile(r"<[^>]+>")
TROFF_FONTS = re.compile(r"\\f(\[[^]]*\]|\(..|.)|\\s[+-]?\d+|\\[&|^%:c/,]|\\\".*$")
TROFF_CHARACTERS = {
    r"\-": "-",
    r"\(aq": "'",
    r"\(dq": '"',
    r"\(lq": '"',
    r"\(rq": '"',
    r"\(oq": "'",
    r"\(cq": "'",
    r"\e": "\\",
    r"\ ": " ",
}
TROFF_CHARACTERS |= {
    r"\(em": " - ",
    r"\(en": "-",
    r"\*(lq": '"',
    r"\*(rq": '"',
    r"\*(Aq": "'",
    r"\~": " ",
    r"\(bu": "",
    r"\0": " ",
}
TROFF_FONT_MACROS = re.compile(r"\.(B|I|R|BR|BI|RB|RI|IB|IR|SM|SB)\s+(.*)")


def is_prose(paragraph: str) -> bool:
    """Sentences, not code, tables or lists of options: at least 12 words, a fifth of them among the commonest, few signs."""
    words = paragraph.split()
    if not 12 <= len(words) <= 600 or len(paragraph) > 4000:
        return False
    if not paragraph[0].isupper() or paragraph.rstrip("\"')")[-1:] not in tuple(".!?"):
        return False
    plain = sum(character.isalpha() or character == " " for character in paragraph)
    if plain < 0.93 * len(paragraph) or max(map(len, words)) > 30 or not paragraph.isascii():
        return False
    return sum(word.lower().strip(".,;:()\"'") in COMMON_WORDS for word in words) >= 0.25 * len(words)


def clean(paragraph: str) -> str:
    """One line, plain quotes and dashes, accents kept only where they can be left out."""
    paragraph = paragraph.translate(PUNCTUATION)
    if not paragraph.isascii():
        paragraph = unicodedata.normalize("NFKD", paragraph)
        paragraph = "".join(character for character in paragraph if not unicodedata.combining(character))
    paragraph = re.sub(r"``?([^`']+?)(``?|'')", r"\1", paragraph)  # literals of reStructuredText and Markdown
    paragraph = re.sub(r"(?<!\w)[*]{1,2}([^*]+)[*]{1,2}(?!\w)", r"\1", paragraph)
    paragraph = re.sub(r":[\w:+-]+:`~?\.?([^`<]+?)(\s*<[^`]*>)?`", r"\1", paragraph)  # roles
    paragraph = re.sub(r"`([^`<]+?)\s*<[^`]*>`_+|`([^`]+)`_*", lambda found: found[1] or found[2], paragraph)
    paragraph = re.sub(r"\s*\[\d+\]_?", "", paragraph)
    return re.sub(r"\s+([.,;:!?)])(?=\s|$)", r"\1", " ".join(paragraph.split()))


def paragraphs(path: Path) -> list[str]:
    """The prose of one file, in its order; nothing where the file is of another kind."""
    name = path.name.removesuffix(".gz")
    suffix = Path(name).suffix.lower()
    if suffix in HTML_SUFFIXES:
        found = _of_html(_read(path))
    elif re.fullmatch(r"\.[1-9][a-z]*", suffix) and "/man/" in str(path):
        found = _of_troff(_read(path))
    elif suffix == ".py":
        return [paragraph for text in _docstrings(_read(path)) for paragraph in _kept(_of_text(text))]
    elif suffix in TEXT_SUFFIXES and name not in (
        "copyright",
        "changelog.Debian",
        "changelog",
        "NEWS.Debian",
        "LICENSE",
        "COPYING",
    ):
        found = _of_text(_read(path))
    else:
        return []
    return _kept(found)


def _kept(found: Iterator[str] | list[str]) -> list[str]:
    return [paragraph for paragraph in map(clean, found) if is_prose(paragraph)]


def _read(path: Path) -> str:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return data.decode(errors="replace")


def _of_html(text: str) -> Iterator[str]:
    text = DROPPED.sub("\0", text)
    for block in BLOCKS.sub("\0", text).split("\0"):
        yield html.unescape(TAGS.sub("", block))


def _of_text(text: str) -> Iterator[str]:
    """Blocks between empty lines; indented ones that follow a line of signs are code, which ``is_prose`` drops."""
    for block in re.split(r"\n\s*\n", text):
        lines = [line.strip().lstrip("*-+#>%; ") for line in block.splitlines()]
        if block.count(":param") or block.count(">>>") or block.lstrip().startswith((".. ", "|", "+--")):
            continue
        yield re.sub(r"(?<=[a-z])- (?=[a-z])", "-", " ".join(lines))


def _of_troff(text: str) -> Iterator[str]:
    """The man macros (groff_man(7)); pages in mdoc's macros, whose sentences are macros themselves, give nothing."""
    if re.search(r"^\.Dd", text, re.M):
        return
    block: list[str] = []
    literal = False
    for raw in text.splitlines():
        line = TROFF_FONTS.sub("", raw)
        for code, character in TROFF_CHARACTERS.items():
            line = line.replace(code, character)
        if line.startswith((".nf", ".EX")) or line.startswith((".fi", ".EE")):
            literal = line.startswith((".nf", ".EX"))
        font = TROFF_FONT_MACROS.match(line)
        if font:
            words = re.findall(r'"([^"]*)"|(\S+)', font[2])
            joint = " " if len(font[1]) == 1 or font[1] in ("SM", "SB") else ""  # two letters: fonts alternate, no spaces
            line = joint.join(quoted or word for quoted, word in words)
        if not font and (line.startswith((".", "'")) or not line.strip()):
            yield " ".join(block)
            block = []
        elif not literal:
            block.append(line)
    yield " ".join(block)


def _docstrings(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return  # a template or another version's Python: it has no docstrings to read
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
