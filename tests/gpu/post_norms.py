#!/usr/bin/env python3
"""Splits of a model with norms behind its halves, as Gemma's: their sums over ranks are normed
before they reach the residual stream, which no Llama-like model shows.

    post_norms.py SPILLWAY GPUS

`verify` of every split of three ranks that share a GPU, then, with two GPUs, of two ranks by every
fabric. Then a prompt of 1500 tokens on two ranks, whose sums go beside the products: it is read, no
more, since a step so long is nothing that verify takes.
"""
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
import gguf_writer  # noqa: E402  found by the line above


def passes(arguments):
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=100, check=False)
    except subprocess.TimeoutExpired as late:
        print("FAILED, no end in 100 s:", *arguments, late.stdout, late.stderr, flush=True)
        return False
    print("ok" if done.returncode == 0 else "FAILED", *arguments[-9:], flush=True)
    if done.returncode != 0:
        print(done.stdout + done.stderr)
    return done.returncode == 0


def main():
    spillway, gpus = sys.argv[1], int(sys.argv[2])
    ways = [["--share-gpus"]]
    if gpus > 1:
        ways += [["--comm", comm] for comm in ("peer", "nccl", "staged")]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        file = gguf_writer.gemma(dim=256, ff=512, heads=4, kv_heads=2, head_dim=64, layers=3)
        file.set("gemma3.context_length", gguf_writer.u32(2048))
        model = ["-m", file.write(str(pathlib.Path(folder) / "gemma.gguf"))]
        for way in ways:
            ranks = "3" if way[0] == "--share-gpus" else "2"
            failed += not passes([spillway, "verify", *model, "--all-splits", "--ranks", ranks,
                                  "-n", "8", "--device", "gpu", *way])
            failed += not passes(["mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2",
                                  spillway, "bench", *model, "-p", "1500", "-n", "8", "--tp", "2",
                                  "--device", "gpu", *way])
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
