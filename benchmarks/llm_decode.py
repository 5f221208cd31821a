"""Decoding speed of our WGSL engine against onnxruntime-web, in the same browser and run, launches interleaved.

    python benchmarks/llm_decode.py --model qwen2 --size 1.5b --bits 2 3 4 --prompt 128 --new-tokens 128

Both sides have synthetic weights of the same shape and generate greedily; a launch is a fresh browser profile. The time of a token is the
page's: from the first token of an answer to its last, over their number, so readbacks are in it. The ratio is theirs over ours (above 1:
ours is faster), with its interval over launches. ``--peers`` chooses who is compared (language_models/peers.py says how each runs), and
``--batch 4`` decodes so many sequences at once on both sides. Beside the speed stand the bytes that a step must read and what copies reach
on the same device (kernels may read faster). Refused on software adapters unless --allow-software, and then marked.

For a GPU that is there for a short time: ``--prepare-only DIR`` on any machine makes all models, ``--prepared DIR`` takes them; every
launch is appended to ``--samples`` and stored in ``--store`` when it ends, and no wait is longer than ``--limit-s``.
"""

from __future__ import annotations

from language_models.compare import parser, run

if __name__ == "__main__":
    run(parser(__doc__, "llm_decode", 128, 128).parse_args(), "llm_decode", lambda launch: launch.token_s, "decoded", 1)
