#!/usr/bin/env python3
"""Measures splits of every model of a folder side by side: the table of docs/bench/gpus.md.

    split_table.py SPILLWAY FOLDER [--gpus N] [--staged]

One GPU, all of them as one TP group, all of them as a pipeline, and with --staged the TP group once
more with its sums through host memory, as on a host whose GPUs cannot reach each other. Of each
decode of one sequence and of sequences together, prefill in one step and in chunks that follow each
other through the stages.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

TESTS = [
    ("decode, 1 sequence", ["-p", "0", "-n", "128", "-r", "3"], "decode_tok_per_s"),
    ("decode, 8 sequences, 512 tokens each",
     ["-p", "0", "-n", "64", "-d", "512", "--sequences", "8", "-r", "2"], "decode_tok_per_s"),
    ("decode, 32 sequences, 512 tokens each",
     ["-p", "0", "-n", "64", "-d", "512", "--sequences", "32", "-r", "2"], "decode_tok_per_s"),
    ("prefill 2048", ["-p", "2048", "-n", "0", "-r", "3"], "prefill_tok_per_s"),
    ("prefill 4096 in steps of 512",
     ["-p", "4096", "-n", "0", "-r", "3", "--ubatch-size", "512"], "prefill_tok_per_s"),
    ("prefill 16384 in steps of 2048", ["-p", "16384", "-n", "0", "-r", "2"],
     "prefill_tok_per_s"),
]


def measure(options, model, ranks, split, arguments):
    launcher = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks)]
    if os.geteuid() == 0:
        launcher.append("--allow-run-as-root")
    done = subprocess.run(
        (launcher if ranks > 1 else []) +
        [options.spillway, "bench", "-m", str(model), "--device", "gpu", "--json",
         "--step-timeout", "600", *split, *arguments],
        capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0 and "was trained with" in done.stderr:
        return {}  # the model's context is shorter than the test
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("spillway: ")]
        print(f"{model.stem} {split} {arguments}: {' '.join(said) or done.stderr.strip()[-600:]}",
              file=sys.stderr)
        return None
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("spillway")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--staged", action="store_true")
    options = parser.parse_args()
    n = options.gpus
    splits = [("TP1", 1, []), (f"TP{n}", n, ["--tp", str(n)]), (f"PP{n}", n, ["--pp", str(n)])]
    if options.staged:
        splits.append((f"TP{n} staged", n, ["--tp", str(n), "--comm", "staged"]))
    failed = False
    print("| model | test | " + " | ".join(name for name, _, _ in splits) + " |\n|---|---|" +
          "---|" * len(splits))
    for model in sorted(options.folder.glob("*.gguf")):
        for name, arguments, key in TESTS:
            cells = []
            for _, ranks, split in splits:
                result = measure(options, model, ranks, split, arguments)
                failed = failed or result is None
                cells.append("failed" if result is None else
                             f"{result[key]['median']:.0f}" if result else "-")
            print(f"| {model.stem} | {name} | " + " | ".join(cells) + " |", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
