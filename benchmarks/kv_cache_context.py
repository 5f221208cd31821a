"""Perplexity and memory of the quantised key-value cache at a long context, in the reference.

    python benchmarks/kv_cache_context.py MODEL --held-out FILE [--length 1024] [--recent 128] [--device cuda] [--output result.json]

MODEL is a transformers folder of a trained decoder with its tokenizer. Each window of the text is read as a decoder reads it token by
token: every query sees the folded tokens decoded and the recent ones float. The first half of a window is context only, so that
what is scored has a long cache behind it. Ratios to the float cache are paired by window, with a 95 % interval (Student's t). ``tokens``
are those that fit the memory of the float16 cache of one window (exact bytes).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.measure.machine import fingerprint
from ipfs_accelerate_py.models.causal import longest_sequence
from ipfs_accelerate_py.models.registry import resolve
from ipfs_accelerate_py.quantize.kv import FOLD, CacheFormat
from ipfs_accelerate_py.quantize.quality import paired_ratio, perplexity
from ipfs_accelerate_py.quantize.recorded import FLOAT_BITS, QualityLog
from ipfs_accelerate_py.quantize.sources import open_source

WIDTHS = ((8, 8), (4, 4), (4, 3), (4, 2), (3, 3), (3, 2), (2, 4), (2, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--length", type=int, help="tokens of a window (as many as the model takes by default)")
    parser.add_argument("--recent", type=int, default=128, help="tokens that stay float")
    parser.add_argument("--windows", type=int, default=40, help="at most")
    parser.add_argument("--widths", nargs="*", help="bits of keys and values, as 4:2 (all by default)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="the mean negative log-likelihood of every window, as JSON")
    parser.add_argument("--store", type=Path, help="a store that gets a row for each width, for the dashboard")
    chosen = parser.parse_args()
    source = open_source(resolve(str(chosen.model)))
    assert source.folder is not None
    length = chosen.length or longest_sequence(source.config)
    if length > longest_sequence(source.config) or length < 4 * FOLD:
        raise UserError(f"--length is {4 * FOLD} to {longest_sequence(source.config)} tokens for this model, not {length}.")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(source.folder / "tokenizer.json"))
    ids = np.array(tokenizer.encode(chosen.held_out.read_text(encoding="utf-8"), add_special_tokens=False).ids, np.int64)
    held_out = ids[: len(ids) // length * length].reshape(-1, length)[: chosen.windows]
    if len(held_out) < 2:
        raise UserError(f"'{chosen.held_out}' has {len(ids)} tokens; two windows take {2 * length}.")
    scored = length // 2
    machine = fingerprint()
    reference = perplexity(source.config, held_out, source.read, chosen.device, skipped=scored)
    log = QualityLog(
        chosen.store, source, held_out, reference, device=chosen.device, scored_tokens=length - scored, recent=chosen.recent
    )
    budget = CacheFormat(16, 16).bytes_of(source.config, length)
    print(
        f"{source.origin} on {machine['cpu_model']}, {chosen.device}: {len(held_out)} windows of {length} tokens, "
        f"the last {length - scored} scored"
    )
    print(f"float cache: perplexity {reference.perplexity:.3f}, {budget:,} bytes; {chosen.recent} recent tokens float16")
    print(
        f"{'keys':>4}{'values':>7}{'bytes a token':>15}{'tokens':>8}{'times':>7}{'perplexity':>12}{'ratio':>9}  95 % interval"
    )
    samples = {"float": reference.nats.tolist()}
    asked = [tuple(int(bits) for bits in pair.split(":")) for pair in chosen.widths or []]
    for key_bits, value_bits in asked or WIDTHS:
        cache = CacheFormat(key_bits, value_bits, chosen.recent)
        found = perplexity(source.config, held_out, source.read, chosen.device, cache, scored)
        ratio, low, high = paired_ratio(found, reference)
        tokens = cache.tokens_in(source.config, budget)
        print(
            f"{key_bits:>4}{value_bits:>7}{cache.bytes_per_token(source.config):>15,.0f}{tokens:>8}{tokens / length:>7.2f}"
            f"{found.perplexity:>12.3f}{ratio:>9.4f}  {low:.4f} to {high:.4f}",
            flush=True,
        )
        samples[f"{key_bits}-{value_bits}"] = found.nats.tolist()
        bits = 16 * cache.bytes_per_token(source.config) / CacheFormat(16, 16).bytes_per_token(source.config)
        log.add(f"cache of {key_bits} and {value_bits} bits", FLOAT_BITS, found, bits_per_cached_value=bits)
    if chosen.output is not None:
        facts = {
            "model": source.origin,
            "machine": machine,
            "length": length,
            "recent": chosen.recent,
            "nats_by_window": samples,
        }
        chosen.output.write_text(json.dumps(facts, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
