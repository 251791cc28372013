#!/usr/bin/env python3
"""A real model on the GPU against the CPU: perplexity, greedy texts of ten prompts, equal bits.

    end_to_end.py SPILLWAY MODEL [--text FILE]

Perplexities must be within 0.2 %, and a second run on the GPU must give what the first one gave.
Texts of the quantised model are compared and counted, no more: they part at near-ties, since int8
codes of activations amplify any rounding (docs/numerics.md). With the same weights as F32, where
nothing is coded, all ten texts must be equal to the CPU's. Prompts run beside each other.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile

PROMPTS = [
    "The capital of France is",
    "Once upon a time there was a small robot who",
    "Water boils at",
    "def fibonacci(n):",
    "The three primary colours are",
    "In the year 1969,",
    "Dear customer, thank you for",
    "A triangle has",
    "The best way to learn a language is",
    "List of animals: cat, dog,",
]
JOBS = max(1, min(4, len(os.sched_getaffinity(0)) // 4))
THREADS = [] if JOBS == 1 else ["-t", "4"]


def run(arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)}\n{done.stderr}")
    return done.stdout


def text_of(options, prompt, device, model=None, *extra):
    return run([options.spillway, "run", "-m", model or options.model, "-p", prompt, "-n", "64",
                "--temp", "0", "--ignore-eos", "-q", "--device", device, *THREADS, *extra])


def in_order(call):
    """What it says about each prompt."""
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        return list(pool.map(call, PROMPTS))


def plain_texts(options):
    """Prompts whose texts are equal on CPU and GPU with F32 weights and an F32 cache, read 8 tokens
    a step: more rows would go through bf16."""
    exact = ("-k", "f32", "--ubatch-size", "8")
    with tempfile.TemporaryDirectory() as folder:
        plain = str(pathlib.Path(folder) / "plain.gguf")
        run([options.spillway, "quantize", "-q", options.model, plain, "F32"])

        def texts(prompt):
            return [text_of(options, prompt, device, plain, *exact) for device in ("cpu", "gpu")]

        equal = 0
        for prompt, (cpu, gpu) in zip(PROMPTS, in_order(texts)):
            equal += cpu == gpu
            if cpu != gpu:
                print(f"F32 parts: {prompt}\n  CPU: {cpu!r}\n  GPU: {gpu!r}")
        return equal


def perplexity_of(options, device):
    out = run([options.spillway, "perplexity", "-m", options.model, "-f", options.text, "--device",
               device, "--step-timeout", "600"])
    return float(re.search(r"PPL = ([0-9.]+)", out).group(1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("spillway")
    parser.add_argument("model")
    parser.add_argument("--text")
    options = parser.parse_args()
    failed = 0
    equal = 0

    def texts(prompt):
        return [text_of(options, prompt, device) for device in ("cpu", "gpu", "gpu")]

    for prompt, (cpu, gpu, again) in zip(PROMPTS, in_order(texts)):
        same = cpu == gpu
        equal += same
        failed += gpu != again or not gpu.strip()
        repeated = "" if gpu == again else ", NOT REPEATED"
        print(f"{'equal' if same else 'parts'}{repeated}: {prompt}")
        if not same:
            print(f"  CPU: {cpu!r}\n  GPU: {gpu!r}")
    print(f"{equal} of {len(PROMPTS)} texts are equal to the CPU's for 64 tokens")
    equal = plain_texts(options)
    failed += equal < len(PROMPTS)
    print(f"{equal} of {len(PROMPTS)} texts are equal to the CPU's with F32 weights")
    if options.text:
        cpu = perplexity_of(options, "cpu")
        gpu = perplexity_of(options, "gpu")
        off = abs(gpu / cpu - 1)
        failed += off > 0.002
        print(f"perplexity: CPU {cpu}, GPU {gpu}, {100 * off:.3f} % apart")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
