#!/usr/bin/env python3
"""Measures every model of a folder on the GPU and prints the table of docs/bench/gpu.md.

    bench_table.py SPILLWAY FOLDER [--only NAME]

Decode of one sequence (128 tokens), at 32 000 tokens of context, of 32 sequences with 512 tokens
each, and prefill of 2048 tokens, as far as the model and the device allow.
"""
import argparse
import json
import pathlib
import subprocess
import sys

TESTS = [
    ("decode, 1 sequence, 128 tokens", ["-p", "0", "-n", "128"], "decode_tok_per_s"),
    ("decode at 32 000 tokens", ["-p", "0", "-n", "64", "-d", "32000", "-r", "1"],
     "decode_tok_per_s"),
    ("decode, 32 sequences, 512 tokens each",
     ["-p", "0", "-n", "64", "-d", "512", "--sequences", "32", "-r", "2"], "decode_tok_per_s"),
    ("prefill 512", ["-p", "512", "-n", "0"], "prefill_tok_per_s"),
    ("prefill 2048", ["-p", "2048", "-n", "0"], "prefill_tok_per_s"),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("spillway")
    parser.add_argument("folder", type=pathlib.Path)
    options = parser.parse_args()
    failed = False
    print("| model | test | tok/s | least | most | GB/s of weights |\n|---|---|---|---|---|---|")
    for model in sorted(options.folder.glob("*.gguf")):
        for name, arguments, key in TESTS:
            done = subprocess.run(
                [options.spillway, "bench", "-m", str(model), "--device", "gpu", "--json",
                 "--step-timeout", "600", *arguments],
                capture_output=True, text=True, timeout=600, check=False)
            if done.returncode != 0 and "was trained with" in done.stderr:
                continue  # the model's context is shorter than the test
            if done.returncode != 0:
                print(f"| {model.stem} | {name} | failed: {done.stderr.strip()[-300:]} |")
                failed = True
                continue
            result = json.loads(done.stdout)
            rate = result[key]
            gb = f"{result['decode_gb_per_s']:.0f}" if key.startswith("decode") else "-"
            print(f"| {model.stem} | {name} | {rate['median']:.0f} | {rate['least']:.0f} | "
                  f"{rate['most']:.0f} | {gb} |", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
