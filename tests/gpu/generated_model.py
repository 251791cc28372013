#!/usr/bin/env python3
"""Writes the model that tests/gpu/run takes where no real one can be had: 30 layers, as many as the
demo's has, of random weights, 24 MB; it speaks nonsense.

    generated_model.py FILE
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
import gguf_writer as gguf  # noqa: E402  found by the line above


def main():
    file = gguf.llama(dim=256, ff=768, heads=4, kv_heads=2, head_dim=64, layers=30)
    file.set("general.name", gguf.string("generated"))
    file.set("llama.context_length", gguf.u32(8192))
    # A program without kernels (tests/dry_gpu) speaks the first token alone: one that is seen.
    words = ["z"] + gguf.WORDS[1:]
    kinds = [1, 3, 3] + [6] * 256 + [1] * (len(words) - 259)
    file.set("tokenizer.ggml.tokens", gguf.array(gguf.STRING, words))
    file.set("tokenizer.ggml.token_type", gguf.array(gguf.I32, kinds))
    file.write(sys.argv[1])


if __name__ == "__main__":
    main()
