#!/usr/bin/env python3
"""Weights that do not lie on the GPU give what weights that do give.

    spill.py SPILLWAY MODEL [-n TOKENS] [--jobs N]

`verify --place` for several placements, each against the same rank with all weights on its GPU:
what is only copied there in every step must give the same bits, what the CPU multiplies a small KL
divergence, and both their own bits again when repeated. Then greedy text after a short and a long
prompt, twice. What lies on disk must give the text of what lies in host memory, also on several
ranks; a file of weights that ends while it is read must end the job. Several such jobs run beside
each other, in --jobs parts of the machine.
"""
import argparse
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile

os.environ.setdefault("SPILLWAY_E2E_GPUS", "1")  # harness' jobs see the GPU
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import harness  # noqa: E402

# For 30 layers, as the demo's model has; in_layers() makes them fit others. Placement, whether its
# bits are those of resident weights
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
# Up to how many rows the CPU multiplies, and in what steps a prompt is read, decides bits; a plan
# would choose by rates as measured.
CPU_ROWS = ["--cpu-rows", "8"]
PROMPTS = ["Once upon a time", "Water boils at one hundred degrees. " * 12]


def run(arguments):
    """(stdout, ""), or (None, what went wrong)."""
    command = " ".join(arguments)
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired as late:
        return None, f"{command}\nno end in 300 s: {late.stdout}{late.stderr}"
    if done.returncode != 0:
        return None, f"{command}\nexit code {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout, ""


def in_layers(places, layers):
    """The same of a model of so many layers instead of 30."""
    return re.sub(r"(?<=layers )[0-9]+-[0-9]+|(?<=layer )[0-9]+|(?<=layers )[0-9]+",
                  lambda found: "-".join(str(int(number) * layers // 30)
                                         for number in found.group().split("-")), places)


def verify(options, places, same_bits, *extra):
    out, error = run([options.spillway, "verify", "-m", options.model, "--device", "gpu", "--place",
                      places, "-n", str(options.tokens), *options.threads, *extra])
    if out is None:
        return error
    first = out.splitlines()[0]
    print(f"{' '.join(extra)} {places}: {first.split('max ')[-1]}", flush=True)
    if same_bits and ", same bits" not in first:
        return f"the bits are not those of resident weights: {out}"
    return ""


def text_twice(options, places):
    for prompt in PROMPTS:
        texts = [run([options.spillway, "run", "-m", options.model, "-p", prompt, "-n", "24",
                      "--temp", "0", "--ignore-eos", "-q", "--device", "gpu", "--place", places,
                      "--ubatch-size", "256", *CPU_ROWS, *options.threads])
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
                               places.format(home, home), *CPU_ROWS, *options.threads, *several])
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
            try:
                job.wait_for_text(1)
            except AssertionError as error:
                return str(error)
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


def layers_of(options):
    out, error = run([options.spillway, "inspect", "--json", "-m", options.model])
    if out is None:
        sys.exit(error)
    return next(value for key, value in json.loads(out)["metadata"].items()
                if key.endswith(".block_count"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("spillway")
    parser.add_argument("model")
    parser.add_argument("-n", dest="tokens", type=int, default=16)
    parser.add_argument("--jobs", type=int, default=max(1, len(os.sched_getaffinity(0)) // 4))
    options = parser.parse_args()
    options.jobs = min(options.jobs, 4)
    options.threads = [] if options.jobs == 1 else ["-t", "2"]
    layers = layers_of(options)
    checks = []  # what, a call that says what is wrong with it
    for places, same_bits in PLACES:
        places = in_layers(places, layers)
        checks.append((places, verify, (places, same_bits)))
        checks.append((places, text_twice, (places,)))
    for split, places in SPLITS:
        places = in_layers(places, layers)
        checks.append((f"--split {split}, {places}", verify,
                       (places, False, "--split", split, "--ranks", "2", "--share-gpus")))
    for split, places in ON_DISK:
        places = in_layers(places, layers)
        checks.append((f"{split}, {places}", as_from_host, (split, places)))
    checks += [("a file that ends", ends_early, ()), ("attention on the CPU", refused, ())]
    failed = False
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        jobs = [(what, pool.submit(call, options, *given)) for what, call, given in checks]
        for what, job in jobs:
            problem = job.result()
            if problem:
                failed = True
                print(f"FAILED, {what}: {problem}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
