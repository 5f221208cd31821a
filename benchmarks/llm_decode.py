"""Decoding speed of our WGSL engine against onnxruntime-web, in the same browser and run, launches interleaved.

    python benchmarks/llm_decode.py --model qwen2 --size 1.5b --bits 2 3 4 --prompt 128 --new-tokens 128

Both sides have synthetic weights of the same shape and generate greedily, batch 1; a launch is a fresh browser profile. The time
of a token is the page's: from the first token of an answer to its last, over their number, so readbacks are in it. onnxruntime-web runs
the int4 export with a static cache on the GPU and reads logits back for each token. The ratio is theirs over ours (above 1: ours is
faster), with its interval over launches. Beside it stand the bytes that a token must read
and what copies reach on the same device (kernels may read faster). Refused on software adapters unless --allow-software, and then marked.
"""

from __future__ import annotations

from language_models.compare import parser, run

if __name__ == "__main__":
    run(parser(__doc__, "llm_decode", 128, 128).parse_args(), lambda launch: launch.token_s, "decoded", 1)
