#!/usr/bin/env python3
"""Weights that do not lie on the GPU give what weights that do give.

    spill.py SPILLWAY MODEL [-n TOKENS]

`verify --place` for several placements, each against the same rank with all weights on its GPU:
what is only copied there in every step must give the same bits, what the CPU multiplies a small KL
divergence, and both their own bits again when repeated. Then greedy text after a short and a long
prompt, twice. What lies on disk must give the text of what lies in host memory, also on several
ranks; a file of weights that ends while it is read must end the job.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

os.environ.setdefault("SPILLWAY_E2E_GPUS", "1")  # harness' jobs see the GPU
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import harness  # noqa: E402

# placement, whether its bits are those of resident weights
PLACES = [
    ("layers all = streamed", True),
    ("layers all ffn = streamed; layers 0-2 attn = streamed", True),
    ("layers all ffn = cpu", False),
    ("layers all ffn = hybrid 0.5", False),
    ("layers all ffn = hybrid 0.3; layers 0-3 = streamed; layers 4-9 ffn = cpu; "
     "layers 10-11 ffn = resident; layer 12 attn = streamed", False),
    ("layers all = disk", True),
    ("layers 5 ffn = disk", True),
    ("layers all ffn = streamed; layers 0-3 = disk; layers 9-11 attn = disk; layer 20 ffn = disk",
     True),
    ("layers all ffn = cpu; layers 0-9 ffn = disk; layers 14-15 = disk; layers 20-24 ffn = "
     "hybrid 0.4; layer 29 = streamed", False),
]
# The same on several ranks, which may share the GPU: sums between them go through host memory.
SPLITS = [
    ("1:1", "layers all ffn = cpu"),
    ("2:1", "layers all ffn = hybrid 0.5; layers 0-3 = streamed"),
    ("1+1", "layers all ffn = hybrid 0.5; layers 2-5 ffn = cpu"),
    ("1:1", "layers all = disk; layers 8-11 ffn = cpu"),
    ("1+1", "layers all = disk; layers 8-11 ffn = cpu; layers 20-21 = streamed"),
]
# Split and places with halves on disk. The same with `streamed` in their stead must give the same
# text: with two stages chunks of the prompt follow each other, steps of both in flight.
ON_DISK = [
    (None, "layers all = {}"),
    (None, "layers all ffn = cpu; layers 0-9 = {}; layers 25-29 ffn = {}"),
    ("1+1", "layers all = {}; layers 8-11 ffn = hybrid 0.5; layers 22-23 = resident"),
    ("1:1", "layers all ffn = {}; layers 8-11 ffn = cpu"),
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


def as_from_host(options, split, places):
    """Halves on disk give the text of the same halves in host memory."""
    several = ["--split", split, "--share-gpus"] if split else []
    launcher = harness.mpirun(2, "--bind-to", "none") if split else []
    for prompt in PROMPTS:
        texts = []
        for home in ("streamed", "disk"):
            text, error = run([*launcher, options.spillway, "run", "-m", options.model, "-p",
                               prompt, "-n", "24", "--temp", "0", "--ignore-eos", "-q", "--device",
                               "gpu", "--ubatch-size", "16", "--place",
                               places.format(home, home), *several])
            if text is None:
                return error
            texts.append(text)
        if texts[0] != texts[1]:
            return f"from disk comes another text: {texts}"
    print(f"{split or 'one rank'}, {places.format('disk', 'disk')}: the text of streamed halves",
          flush=True)
    return ""


def ends_early(options):
    """A file of weights that ends while it is read: an error, exit code 1, nothing left."""
    with tempfile.TemporaryDirectory() as folder:
        with harness.Job([options.spillway, "run", "-m", options.model, "-p", "Once upon a time",
                          "-n", "8000", "-c", "8192", "--ignore-eos", "--device", "gpu", "--place",
                          "layers all = disk; layers 3-4 ffn = cpu", "--spill-dir", folder]) as job:
            job.wait_for_text(1)
            if not any([harness.cut_spill_file(pid, folder) for pid in job.processes()]):
                return f"no spill file in {folder}: {job.describe()}"
            code = job.wait(200)
            said = re.search(r"layer \d+ \S+: reading the spill file failed at byte \d+: it "
                             r"ends there", job.errors())
            if code != 1 or not said or job.left_over(8) or os.listdir(folder):
                return f"not ended well: {job.describe()}, {job.left_over()}"
            print(said.group(0), flush=True)
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
    for split, places in ON_DISK:
        problem = as_from_host(options, split, places)
        if problem:
            failed = True
            print(f"FAILED, {split}, {places}: {problem}", flush=True)
    for problem in (ends_early(options), refused(options)):
        if problem:
            failed = True
            print(f"FAILED: {problem}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
