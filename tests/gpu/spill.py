#!/usr/bin/env python3
"""Weights that do not lie on the GPU give what weights that do give.

    spill.py SPILLWAY MODEL [-n TOKENS]

`verify --place` for several placements, each against the same rank with all weights on its GPU:
what is only copied there in every step must give the same bits, what the CPU multiplies a small KL
divergence, and both their own bits again when repeated. Then greedy text after a short and a long
prompt, twice.
"""
import argparse
import re
import subprocess
import sys

# placement, whether its bits are those of resident weights
PLACES = [
    ("layers all = streamed", True),
    ("layers all ffn = streamed; layers 0-2 attn = streamed", True),
    ("layers all ffn = cpu", False),
    ("layers all ffn = hybrid 0.5", False),
    ("layers all ffn = hybrid 0.3; layers 0-3 = streamed; layers 4-9 ffn = cpu; "
     "layers 10-11 ffn = resident; layer 12 attn = streamed", False),
]
# The same on several ranks, which may share the GPU: sums between them go through host memory.
SPLITS = [
    ("1:1", "layers all ffn = cpu"),
    ("2:1", "layers all ffn = hybrid 0.5; layers 0-3 = streamed"),
    ("1+1", "layers all ffn = hybrid 0.5; layers 2-5 ffn = cpu"),
]
PROMPTS = ["Once upon a time", "Water boils at one hundred degrees. " * 12]


def run(arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        return None, f"{' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout, ""


def verify(options, places, same_bits, *extra):
    out, error = run([options.spillway, "verify", "-m", options.model, "--device", "gpu", "--place",
                      places, "-n", str(options.tokens), *extra])
    if out is None:
        return error
    first = out.splitlines()[0]
    print(f"{places}: {first.split('max ')[-1]}", flush=True)
    if same_bits and ", same bits" not in first:
        return "the bits are not those of resident weights"
    return ""


def text_twice(options, places):
    for prompt in PROMPTS:
        texts = [run([options.spillway, "run", "-m", options.model, "-p", prompt, "-n", "24",
                      "--temp", "0", "--ignore-eos", "-q", "--device", "gpu", "--place", places])
                 for _ in range(2)]
        for text, error in texts:
            if text is None:
                return error
        if texts[0] != texts[1]:
            return f"two runs differ: {texts}"
    return ""


def refused(options):
    """A place that the rank cannot give is refused by name."""
    out, error = run([options.spillway, "run", "-m", options.model, "-p", "a", "-n", "1",
                      "--device", "gpu", "--place", "layers all attn = cpu"])
    if out is not None or not re.search("attention stays on the GPU", error):
        return f"attention on the CPU was not refused: {error}"
    return ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("spillway")
    parser.add_argument("model")
    parser.add_argument("-n", dest="tokens", type=int, default=16)
    options = parser.parse_args()
    failed = False
    for places, same_bits in PLACES:
        for problem in (verify(options, places, same_bits), text_twice(options, places)):
            if problem:
                failed = True
                print(f"FAILED, {places}: {problem}", flush=True)
    for split, places in SPLITS:
        problem = verify(options, places, False, "--split", split, "--ranks", "2", "--share-gpus")
        if problem:
            failed = True
            print(f"FAILED, --split {split}, {places}: {problem}", flush=True)
    problem = refused(options)
    if problem:
        failed = True
        print(f"FAILED: {problem}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
