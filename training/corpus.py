"""The corpus of the language models: prose of freely licensed documentation, deduplicated and split by document.

    python training/corpus.py text WORK OUT     fetch and read the sources; where the package archive can be reached
    python training/corpus.py tokens OUT        train the tokenizer and encode; where there are processors to spare

``text`` fetches the Debian packages of sources.csv into WORK (apt-get download; nothing is installed), reads them and the docstrings of
the Python packages named there, and writes OUT/train.txt.gz and OUT/held_out.txt.gz (documents with END between) and OUT/corpus.json.
``tokens`` adds tokenizer.json, train.u16 and held_out.u16: uint16 little-endian tokens, END after each document.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import importlib.util
import json
import random
import re
import subprocess
import sysconfig
from collections import Counter
from collections.abc import Collection, Iterator
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from prose import paragraphs
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 8192
END = "<|endoftext|>"  # token 0: ends a document, and starts one
HELD_OUT_PERCENT = 1
LEAST_CHARACTERS = 300  # of a document
MOST_SHARE = 0.12  # of one source in the corpus
TOKENIZER_CHARACTERS = 40_000_000
MOST_BYTES = 1_500_000  # of a file; larger ones are indices and whole books that are there by chapter too
# Copies of sources, lists of names, generated references of functions (little prose for their size), other languages.
SKIPPED = re.compile(
    r"site-packages|/tests?/|genindex|/_(modules|sources|static|images)/|/changelog|/licenses/|/generated/|reference/api/"
    r"|html/(std|core|alloc|proc_macro|test|src|implementors)/|/[a-z]{2}-(?!US)[A-Z]{2}/"
)
PASSAGE_SOURCES = (
    "borgbackup-doc",
    "cmake-doc",
    "docker-doc",
    "nova-doc",
    "python-django-doc",
    "python3.11-doc",
    "rust-doc",
    "scipy",
)


def sources(only: Collection[str] = ()) -> list[dict[str, str]]:
    """Rows of sources.csv (those named in ``only``, if any): kind (debian, python), name, licence, content."""
    with (Path(__file__).parent / "sources.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if not only or row["name"] in only]


def fetch(name: str, work: Path) -> Path:
    """The unpacked Debian package."""
    folder = work / "packages" / name
    if not folder.is_dir():
        archives = work / "archives"
        archives.mkdir(parents=True, exist_ok=True)
        if not list(archives.glob(f"{name}_*.deb")):
            subprocess.run(["apt-get", "download", "-q", name], cwd=archives, check=True, stdout=subprocess.DEVNULL)
        (archive,) = archives.glob(f"{name}_*.deb")
        folder.parent.mkdir(exist_ok=True)
        subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)
        archive.unlink()
    return folder


def root_of(source: dict[str, str], work: Path) -> Path:
    if source["kind"] == "debian":
        return fetch(source["name"], work)
    if source["name"] == "python":
        return Path(sysconfig.get_path("stdlib"))
    spec = importlib.util.find_spec(source["name"])
    assert spec is not None and spec.submodule_search_locations, f"{source['name']} is not installed"
    return Path(spec.submodule_search_locations[0])


def files(root: Path, kind: str) -> list[Path]:
    pattern = "*.py" if kind == "python" else "*"
    found = (
        path for path in root.rglob(pattern) if path.is_file() and not path.is_symlink() and path.stat().st_size < 8_000_000
    )
    return sorted(path for path in found if not SKIPPED.search(str(path.relative_to(root))))


def read_documents(work: Path, only: Collection[str] = ()) -> Iterator[tuple[str, str, list[str]]]:
    """(source, document, paragraphs) of every file with prose."""
    with Pool() as pool:
        for source in sources(only):
            root = root_of(source, work)
            listed = files(root, source["kind"])
            for path, found in zip(listed, pool.imap(paragraphs, listed, chunksize=16), strict=True):
                if found:
                    yield source["name"], f"{source['name']}/{path.relative_to(root)}", found


def fingerprint(paragraph: str) -> bytes:
    """Equal for paragraphs whose first 300 letters are equal, whatever the numbers, case and signs between them."""
    return hashlib.blake2b(re.sub(r"[^a-z]", "", paragraph.lower())[:300].encode(), digest_size=8).digest()


def build(
    work: Path, only: Collection[str] = ()
) -> tuple[dict[str, list[str]], list[tuple[str, str]], dict[str, dict[str, int]]]:
    """Training documents by source, held-out (source, document), and counts by source."""
    seen: set[bytes] = set()
    training: dict[str, list[str]] = {}
    held_out: list[tuple[str, str]] = []
    sizes: dict[str, dict[str, int]] = {}
    for source, name, found in read_documents(work, only):
        new = []
        for paragraph in found:
            key = fingerprint(paragraph)
            if key not in seen:
                seen.add(key)
                new.append(paragraph)
        text = "\n".join(new)
        size = sizes.setdefault(source, Counter(documents=0, characters=0, repeated_paragraphs=0))
        size["repeated_paragraphs"] += len(found) - len(new)
        if len(text) < LEAST_CHARACTERS:
            continue
        size["documents"] += 1
        size["characters"] += len(text)
        if int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100 < HELD_OUT_PERCENT:
            held_out.append((source, text))
        else:
            training.setdefault(source, []).append(text)
    return training, held_out, sizes


def balanced(training: dict[str, list[str]]) -> list[str]:
    """The documents in a seeded order, none of the sources above its share of the whole."""
    shuffle = random.Random(0).shuffle
    limit = MOST_SHARE * sum(len(text) for texts in training.values() for text in texts)
    chosen = []
    for _, texts in sorted(training.items()):
        shuffle(texts)
        taken = 0
        for text in texts:
            if taken < limit:
                chosen.append(text)
                taken += len(text)
    shuffle(chosen)
    return chosen


def passages(held_out: list[tuple[str, str]]) -> list[dict[str, str]]:
    """Short held-out passages for the tests, one a source of PASSAGE_SOURCES, with its licence."""
    rows = {row["name"]: row for row in sources()}
    found: dict[str, dict[str, str]] = {}
    for source, text in sorted(held_out):
        start = "\n".join(text.split("\n")[:4])[:900]
        passage = start[: max(start.rfind(". "), start.rfind(".\n")) + 1]
        if source in PASSAGE_SOURCES and source not in found and len(passage) > 400:
            row = rows[source]
            found[source] = {"source": f"{row['content']} ({source})", "licence": row["licence"], "text": passage}
    return list(found.values())


def train_tokenizer(texts: list[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE (Sennrich et al., 2016, https://arxiv.org/abs/1508.07909; bytes as in GPT-2)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    sample, characters = [], 0
    for text in texts:
        sample.append(text)
        characters += len(text)
        if characters > TOKENIZER_CHARACTERS:
            break
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, min_frequency=20, show_progress=False
    )
    tokenizer.train_from_iterator(sample, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """uint16 tokens of all the texts, END after each."""
    parts = []
    for start in range(0, len(texts), 2000):
        for encoding in tokenizer.encode_batch_fast(texts[start : start + 2000]):
            parts.append(np.array([*encoding.ids, 0], dtype="<u2"))
    return np.concatenate(parts)


def write_text(work: Path, out: Path, only: Collection[str] = ()) -> dict[str, Any]:
    training, held_out, sizes = build(work, only)
    content: dict[str, Any] = {}
    (out / "held_out.json").write_text(json.dumps(passages(held_out), indent=1) + "\n")
    for split, texts in (("train", balanced(training)), ("held_out", [text for _, text in held_out])):
        (out / f"{split}.txt.gz").write_bytes(gzip.compress(END.join(texts).encode(), 6))
        content[split] = {"documents": len(texts), "characters": sum(map(len, texts))}
    (out / "corpus.json").write_text(json.dumps({**content, "sources": sizes}, indent=1) + "\n")
    return content


def write_tokens(out: Path, vocabulary: int) -> dict[str, Any]:
    texts = {
        split: gzip.decompress((out / f"{split}.txt.gz").read_bytes()).decode().split(END) for split in ("train", "held_out")
    }
    tokenizer = train_tokenizer(texts["train"], vocabulary)
    tokenizer.save(str(out / "tokenizer.json"))
    content = {}
    for split, listed in texts.items():
        tokens = encode(tokenizer, listed)
        tokens.tofile(out / f"{split}.u16")
        content[split] = {"documents": len(listed), "tokens": len(tokens)}
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    text = steps.add_parser("text")
    text.add_argument("work", type=Path)
    text.add_argument("out", type=Path)
    text.add_argument("--only", nargs="*", default=[], help="these sources alone, for a small model and a slow machine")
    tokens = steps.add_parser("tokens")
    tokens.add_argument("out", type=Path)
    tokens.add_argument("--vocabulary", type=int, default=VOCABULARY)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    text_step = chosen.step == "text"
    content = write_text(chosen.work, chosen.out, chosen.only) if text_step else write_tokens(chosen.out, chosen.vocabulary)
    print(json.dumps(content))


if __name__ == "__main__":
    main()
