"""Prompt speed of our WGSL engine against onnxruntime-web, in the same browser and run, launches interleaved.

    python benchmarks/llm_prefill.py --model qwen2 --size 1.5b --bits 4 --prompt 512

As llm_decode.py, but what is compared is the time from the prompt to its first token, read back.
"""

from __future__ import annotations

import sys

from language_models.compare import parser, run

if __name__ == "__main__":
    given = parser(__doc__, "llm_prefill", 512, 2).parse_args()
    if given.batch > 1:
        sys.exit("Prompts are computed one after the other: leave --batch out.")
    run(given, "llm_prefill", lambda launch: launch.first_token_s, "prompt", given.prompt)
