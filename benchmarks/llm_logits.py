"""How far our WGSL engine's logits are from PyTorch's on the same dequantised weights, over a long sequence.

    python benchmarks/llm_logits.py --model llama --size small --bits 4 --tokens 256 --paths prefill decode --browser firefox
    python benchmarks/llm_logits.py --model FOLDER --text FOLDER/held_out.json --tokens 300 --prefill-arithmetic float32 int8

Synthetic weights at the shape of the size and random tokens; or a folder of trained weights, and a text or random tokens. Prints the
greatest difference relative to the greatest logit, the root mean square of the differences relative to that of the logits, and how often
the most probable token is the same, for each path, arithmetic and width of the cache; for a text also the perplexity, with PyTorch's
in brackets. Says nothing about speed, so software adapters are welcome.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
from language_models.sides import low_bit_folder

from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.models.registry import resolve
from ipfs_accelerate_py.quantize.stored import QuantizedFolder
from ipfs_accelerate_py.web.language_model import LanguageModel


def expected(folder: QuantizedFolder, ids: np.ndarray) -> np.ndarray:
    """float32 [tokens, vocabulary] of transformers with the dequantised weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**folder.config), dtype=torch.float32).eval()
    weights = {name: torch.from_numpy(folder.read(name).copy()) for name in folder.tensors}
    missing = set(model.load_state_dict(weights, strict=False).missing_keys)
    assert missing <= {"lm_head.weight"}, missing  # tied to the embedding
    with torch.no_grad():
        return model(torch.from_numpy(ids)[None]).logits[0].numpy()


def perplexity(logits: np.ndarray, ids: np.ndarray) -> float:
    """Of each token after the first, from the logits [tokens, vocabulary] of the one before."""
    import torch

    return float(torch.nn.functional.cross_entropy(torch.tensor(logits[:-1]), torch.tensor(ids[1:])).exp())


def compared(found: np.ndarray, right: np.ndarray) -> str:
    greatest = np.abs(found - right).max() / np.abs(right).max()
    mean_square = np.sqrt(np.square(found - right).mean() / np.square(right).mean())
    same = (found.argmax(-1) == right.argmax(-1)).mean()
    return (
        f"greatest relative error {greatest:.1e}, root mean square {mean_square:.1e}, "
        f"the same token at {100 * same:.1f} % of positions"
    )


def tokens_of(folder: Path, text: Path, most: int) -> np.ndarray:
    """int64 [at most ``most`` tokens] of a text, or of the passages of a ``held_out.json`` one after the other."""
    from transformers import AutoTokenizer

    said = text.read_text()
    if text.suffix == ".json":
        said = "\n\n".join(passage["text"] for passage in json.loads(said))
    return np.array(AutoTokenizer.from_pretrained(folder)(said)["input_ids"][:most])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama", help="llama or qwen2 with synthetic weights, or a folder with trained ones")
    parser.add_argument("--size", help="of synthetic weights; small where nothing is said")
    parser.add_argument("--text", type=Path, help="first tokens of this text file or held_out.json, by the folder's tokenizer")
    parser.add_argument("--bits", type=int, default=4, choices=[2, 3, 4, 8])
    parser.add_argument("--group-size", type=int, default=64, choices=[32, 64])
    parser.add_argument("--tokens", type=int, default=256, help="at most the size's positions")
    parser.add_argument("--cache", nargs="+", default=["32,32", "16,16"], help="bits of keys and values: 4,2")
    parser.add_argument("--paths", nargs="+", default=["prefill"], choices=["prefill", "decode"])
    parser.add_argument("--activations", default="float", choices=["float", "int8"])
    parser.add_argument(
        "--prefill-arithmetic",
        nargs="+",
        default=["float32"],
        choices=["float32", "float16", "int8"],
        help="each one's own line",
    )
    parser.add_argument("--browser", default="chromium")
    arguments = parser.parse_args()

    if Path(arguments.model).is_dir():
        reference = resolve(arguments.model, size=arguments.size)
    elif arguments.text:
        parser.error("--text needs a folder as --model: synthetic weights have no tokenizer.")
    else:
        reference = resolve(arguments.model, size=arguments.size or "small", weights="synthetic")
    folder = low_bit_folder(reference, arguments.bits, arguments.group_size)
    low = QuantizedFolder(folder)
    if arguments.text:
        ids = tokens_of(Path(arguments.model), arguments.text, arguments.tokens)
    else:
        ids = np.random.default_rng(0).integers(0, int(low.config["vocab_size"]), arguments.tokens)
    right = expected(low, ids)
    print(f"machine: {machine.fingerprint()}")
    shape = f"{arguments.model} {reference.size}, {arguments.bits} bits in groups of {arguments.group_size}, {len(ids)} tokens"
    for cache, arithmetic in itertools.product(arguments.cache, arguments.prefill_arithmetic):
        key_bits, value_bits = (int(bits) for bits in cache.split(","))
        with LanguageModel(
            arguments.browser,
            folder,
            key_bits=key_bits,
            value_bits=value_bits,
            context_length=len(ids),
            activations=arguments.activations,
            prefill_arithmetic=arithmetic,
        ) as model:
            model.load()
            adapter = model.metrics()["device"]
            for path in arguments.paths:
                found = model.logits(ids, path=path)
                how = f"prefill in {arithmetic}" if path == "prefill" else f"decode with {arguments.activations} activations"
                print(
                    f"{shape}, cache {cache}, {how}, "
                    f"{model.browser.name} {model.browser.version} ({adapter['vendor'] or 'adapter masked'}): {compared(found, right)}"
                    + (f", perplexity {perplexity(found, ids):.3f} ({perplexity(right, ids):.3f})" if arguments.text else "")
                )


if __name__ == "__main__":
    main()
