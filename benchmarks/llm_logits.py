"""How far our WGSL engine's logits are from PyTorch's on the same dequantised weights, over a long sequence.

    python benchmarks/llm_logits.py --model llama --size small --bits 4 --tokens 256 --paths prefill decode --browser firefox

Synthetic weights at the shape of the size. Prints the greatest difference relative to the greatest logit, and how often the most probable
token is the same, for each path and width of the cache. Says nothing about speed, so software adapters are welcome.
"""

from __future__ import annotations

import argparse

import numpy as np
from language_models.sides import low_bit_folder

from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.models.registry import model_classes, resolve
from ipfs_accelerate_py.quantize.stored import QuantizedFolder
from ipfs_accelerate_py.web.language_model import LanguageModel


def expected(folder: QuantizedFolder, model_class: str, size: str, ids: np.ndarray) -> np.ndarray:
    """float32 [tokens, vocabulary] of transformers with the dequantised weights."""
    import torch

    kind = model_classes()[model_class]
    model = kind.build(kind.config(kind.sizes[size].config))
    weights = {name: torch.from_numpy(folder.read(name).copy()) for name in folder.tensors}
    missing = set(model.load_state_dict(weights, strict=False).missing_keys)
    assert missing <= {"lm_head.weight"}, missing  # tied to the embedding
    with torch.no_grad():
        return model(torch.from_numpy(ids)[None]).logits[0].numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama", choices=["llama", "qwen2"])
    parser.add_argument("--size", default="small")
    parser.add_argument("--bits", type=int, default=4, choices=[2, 3, 4, 8])
    parser.add_argument("--group-size", type=int, default=64, choices=[32, 64])
    parser.add_argument("--tokens", type=int, default=256, help="at most the size's positions")
    parser.add_argument("--cache", nargs="+", default=["32,32", "16,16"], help="bits of keys and values: 4,2")
    parser.add_argument("--paths", nargs="+", default=["prefill"], choices=["prefill", "decode"])
    parser.add_argument("--activations", default="float", choices=["float", "int8"])
    parser.add_argument("--browser", default="chromium")
    arguments = parser.parse_args()

    reference = resolve(arguments.model, size=arguments.size, weights="synthetic")
    folder = low_bit_folder(reference, arguments.bits, arguments.group_size)
    low = QuantizedFolder(folder)
    ids = np.random.default_rng(0).integers(0, int(low.config["vocab_size"]), arguments.tokens)
    right = expected(low, reference.model_class, reference.size, ids)
    print(f"machine: {machine.fingerprint()}")
    for cache in arguments.cache:
        key_bits, value_bits = (int(bits) for bits in cache.split(","))
        with LanguageModel(
            arguments.browser,
            folder,
            key_bits=key_bits,
            value_bits=value_bits,
            context_length=arguments.tokens,
            activations=arguments.activations,
        ) as model:
            model.load()
            adapter = model.metrics()["device"]
            for path in arguments.paths:
                found = model.logits(ids, path=path)
                error = np.abs(found - right).max() / np.abs(right).max()
                same = (found.argmax(-1) == right.argmax(-1)).mean()
                print(
                    f"{arguments.model} {arguments.size}, {arguments.bits} bits, cache {cache}, {path}, {arguments.tokens} tokens, "
                    f"{model.browser.name} {model.browser.version} ({adapter['vendor'] or 'adapter masked'}): "
                    f"relative error {error:.1e}, the same token at {100 * same:.1f} % of positions"
                )


if __name__ == "__main__":
    main()
