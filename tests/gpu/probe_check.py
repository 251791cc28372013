#!/usr/bin/env python3
"""spillway probe where GPUs are: everything measured, in time, kept, and taken from there.

    tests/gpu/probe_check.py SPILLWAY N_GPUS [FILE]    FILE: a large one, for the disk's rate

Prints the tables. Called by tests/gpu/run.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

MOST_SECONDS = 10


def main():
    program, n_gpus = sys.argv[1], int(sys.argv[2])
    model = ["-m", sys.argv[3]] if len(sys.argv) > 3 else []
    wrong = []

    def check(fine, what):
        if not fine:
            wrong.append(what)

    with tempfile.TemporaryDirectory() as folder:
        env = dict(os.environ, XDG_CACHE_HOME=folder,
                   OMPI_MCA_btl_vader_single_copy_mechanism="none")

        def spillway(ranks, *arguments):
            mpi = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np",
                   str(ranks)] if ranks > 1 else []
            begin = time.monotonic()
            ran = subprocess.run([*mpi, program, *arguments], env=env, capture_output=True,
                                 text=True, timeout=150, check=False)
            seconds = time.monotonic() - begin
            if ran.returncode != 0:
                sys.exit("probe_check: %s\n%s" % (" ".join(arguments), ran.stderr))
            return ran, seconds

        for ranks in sorted({1, n_gpus}):
            saved = os.path.join(folder, "saved.toml")
            ran, seconds = spillway(ranks, "probe", *model, "--save", saved)
            print("%d ranks, %.1f s with start and end:\n%s" % (ranks, seconds, ran.stdout))
            measured = float(ran.stdout.rpartition("measured in ")[2].split()[0])
            check(measured < MOST_SECONDS, "%d ranks: %.1f s" % (ranks, measured))
            ran, seconds = spillway(ranks, "probe", "--json")
            print("  again, from what is kept: %.1f s" % seconds)
            found = json.loads(ran.stdout)
            for rank in found["ranks"]:
                who = "rank %d of %d: " % (rank["rank"], ranks)
                for key in ("read_gb_per_s", "matrix_gop_per_s", "pin_gb_per_s"):
                    check(rank[key] > 0, who + key)
                for key in ("read_gb_per_s", "matrix_tflops", "h2d_gb_per_s", "d2h_gb_per_s",
                            "launch_gap_us", "free_bytes"):
                    check(rank["gpu"][key] > 0, who + "gpu." + key)
                for key in ("host_read_beside_bus_gb_per_s", "bus_beside_host_read_gb_per_s"):
                    check(min(rank[key]) > 0, who + key)
            check(len(found.get("pairs", [])) == ranks * (ranks - 1) // 2, "pairs of GPUs")
            for pair in found.get("pairs", []):
                check(pair["gb_per_s"] > 0 and pair["small_sum_us"] > 0, "pair %s" % pair)
            plan, _ = spillway(1, "plan", "-m", "llama-8b:Q4_K_M", "--ranks", str(ranks))
            check("rates measured" in plan.stderr, "plan takes the rates: " + plan.stderr)
            spillway(1, "plan", "-m", "llama-8b:Q4_K_M", "--cluster", saved)
    for what in wrong:
        print("probe_check: " + what, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
