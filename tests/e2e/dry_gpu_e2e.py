"""GPU ranks where no GPU is: the program with the CUDA runtime of tests/dry_gpu, whose header says
what is checked and what is not. Every job must end well, which means without a breach. Each runs
with a thread a stream, and those of few ranks with work done at once as well. About a minute.

  SPILLWAY_E2E_DRY_GPU  spillway_dry_gpu; set by CMake
"""

import os
import sys
import tempfile

import gguf_writer
import harness
from harness import mpirun

PROGRAM = os.environ.get("SPILLWAY_E2E_DRY_GPU",
                         os.path.join(harness.ROOT, "build", "release", "spillway_dry_gpu"))
LIBRARIES = os.pathsep.join([os.path.join(os.path.dirname(PROGRAM), "dry_gpu"),
                             os.environ.get("LD_LIBRARY_PATH", "")]).rstrip(os.pathsep)
# More rows than a step of decoding has, than a small sum between GPUs takes and than a tile.
PROMPT = "Water boils at one hundred degrees. " * 5
# Token 0, which comes of logits that are zeros, is one that is seen.
WORDS = ["z"] + gguf_writer.WORDS[1:]
KINDS = [1, 3, 3] + [6] * 256 + [1] * (len(WORDS) - 259)
SEED = os.environ.get("SPILLWAY_SEED", "1")  # of the delays


def write_models(folder):
    shape = {"dim": 128, "ff": 256, "heads": 4, "kv_heads": 2, "head_dim": 32, "layers": 4}
    odd = {"dim": 96, "ff": 160, "heads": 6, "kv_heads": 3, "head_dim": 32, "layers": 3,
           "kind": gguf_writer.Q_F16}
    for name, file in (("llama", gguf_writer.llama(**shape)), ("gemma", gguf_writer.gemma(**shape)),
                       ("odd", gguf_writer.llama(**odd))):
        architecture = "gemma3" if name == "gemma" else "llama"
        file.set("tokenizer.ggml.tokens", gguf_writer.array(gguf_writer.STRING, WORDS))
        file.set("tokenizer.ggml.token_type", gguf_writer.array(gguf_writer.I32, KINDS))
        file.set(architecture + ".context_length", gguf_writer.u32(8192))
        file.write(os.path.join(folder, name + ".gguf"))


class DryGpu(harness.EndToEnd):

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        write_models(cls.folder.name)

    def command(self, model, *arguments, n_tokens=3, prompt=PROMPT):
        if "--device" not in arguments:
            arguments += ("--device", "gpu")
        return [PROGRAM, "run", "-m", os.path.join(self.folder.name, model + ".gguf"), "-t", "1",
                "-p", prompt, "-n", str(n_tokens), "-c", str(n_tokens + 120 + len(prompt)),
                "--temp", "0", "--ignore-eos", *arguments]

    def environment(self, seed=None, **more):
        env = {"DRY_GPU_COUNT": "4", "LD_LIBRARY_PATH": LIBRARIES, **more}
        return env if seed is None else {"DRY_GPU_SEED": seed, **env}

    def passes(self, ranks, model, *arguments, seeds=(SEED,), prompt=PROMPT, **env):
        launcher = mpirun(ranks, "--bind-to", "none") if ranks > 1 else []
        for seed in seeds:
            with self.subTest(ranks=ranks, model=model, arguments=arguments, seed=seed):
                job = self.succeed([*launcher, *self.command(model, *arguments, prompt=prompt)],
                                   env=self.environment(seed, **env))
                if "gpu,cpu" not in arguments:  # there the head is a CPU's
                    self.assertEqual(job.text(), "zzz\n", job.describe())

    def test_one_gpu(self):
        self.passes(1, "gemma", seeds=(None, SEED))
        self.passes(1, "odd", "--kv-type", "q8_0")
        self.passes(1, "llama", DRY_GPU_CAPABILITY="86")

    def test_sums_by_peers(self):
        self.passes(2, "gemma", "--tp", "2", "--comm", "peer", seeds=(None, SEED))

    def test_sums_through_the_hosts(self):
        self.passes(2, "gemma", "--tp", "2", "--comm", "staged", seeds=(None, SEED))

    def test_nccl_that_does_not_connect(self):
        libraries = os.path.join(os.path.dirname(PROGRAM), "dry_gpu", "nccl")
        for told, words in (("nothing", r"a sum of 1 rows came out wrong"),
                            ("rank 1 fails", r"NCCL: ncclCommInitRank: refused"),
                            # Within 40 step timeouts.
                            ("hangs", r"rank [01] \(.*connecting takes more than 10\.0 s, "
                             "waiting in ncclCommInitRank with ranks 0, 1")):
            with self.subTest(told):
                timeout = ("--step-timeout", "0.25") if told == "hangs" else ()
                job = self.start(
                    mpirun(2, "--bind-to", "none") +
                    self.command("llama", "--tp", "2", "--comm", "nccl", *timeout),
                    env=self.environment(SEED, DRY_NCCL=told,
                                         LD_LIBRARY_PATH=libraries + os.pathsep + LIBRARIES))
                self.assertNotEqual(job.wait(120), 0, job.describe())
                if "built without NCCL" in job.errors():
                    self.skipTest("nccl.h was not there")
                self.assertRegex(job.errors(), words, job.describe())
                self.assertEqual(job.left_over(20), {}, job.describe())

    def test_sums_beside_products(self):
        # From 1024 rows on, on a stream of their own.
        for comm in ("peer", "staged"):
            self.passes(2, "gemma", "--tp", "2", "--comm", comm, prompt=PROMPT * 8)
        self.passes(2, "llama", "--tp", "2", "--comm", "peer", "--place",
                    "layers all ffn = streamed; layer 1 = disk", "--spill-dir", self.folder.name,
                    prompt=PROMPT * 8)

    def test_hidden_streams_compared(self):
        self.passes(2, "gemma", "--tp", "2", "--comm", "peer", "--check-hidden", "sums")
        self.passes(2, "llama", "--tp", "2", "--comm", "staged", "--check-hidden", "stage",
                    prompt=PROMPT * 8)

    def test_stages(self):
        self.passes(2, "odd", "--pp", "2", "--ubatch-size", "64")
        self.passes(2, "llama", "--pp", "2", DRY_GPU_NO_IPC="1")

    def test_stages_of_groups(self):
        self.passes(4, "gemma", "--split", "1:1+1:1", "--comm", "peer")

    def test_uneven(self):
        self.passes(3, "odd", "--split", "2:1+1", "--comm", "staged")

    def test_spilled_halves(self):
        self.passes(1, "llama", "--place", "layers all = streamed", seeds=(None, SEED))
        self.passes(1, "gemma", "--place",
                    "layers all ffn = hybrid 0.4; layer 1 = streamed; layer 2 ffn = cpu")
        self.passes(2, "llama", "--tp", "2", "--comm", "staged", "--place",
                    "layers all ffn = hybrid 0.5; layers 0-1 = streamed")

    def test_halves_on_disk(self):
        disk = ("--spill-dir", self.folder.name, "--place")
        self.passes(1, "gemma", *disk,
                    "layers all = disk; layer 1 ffn = cpu; layer 2 ffn = hybrid 0.5",
                    seeds=(None, SEED))
        self.passes(2, "llama", "--tp", "2", "--comm", "staged", *disk,
                    "layers all = disk; layers 0-1 ffn = cpu")
        self.passes(2, "llama", "--pp", "2", "--ubatch-size", "16", *disk,
                    "layers all = disk; layer 2 = streamed")

    def test_a_disk_that_fails_ends_the_job(self):
        with tempfile.TemporaryDirectory() as spill:
            job = self.start(self.command(
                "llama", "--place", "layers all = disk; layer 1 ffn = cpu", "--spill-dir", spill,
                n_tokens=7000), env=self.environment(SEED))
            job.wait_for_text(1)
            self.assertTrue([pid for pid in job.processes() if harness.cut_spill_file(pid, spill)],
                            job.describe())
            self.assertEqual(job.wait(120), 1, job.describe())
            self.assertIn("reading the spill file failed", job.errors(), job.describe())

    def test_stages_on_cpus_beside(self):
        self.passes(2, "llama", "--pp", "2", "--device", "gpu,cpu")
        self.passes(3, "gemma", "--split", "1+1:1", "--device", "cpu,gpu,gpu", "--comm", "peer")

    def test_memory_that_one_rank_does_not_get_ends_the_job(self):
        command = self.command("llama", "--tp", "2", "--comm", "staged")
        launcher = mpirun(1, "--bind-to", "none")
        code, job = self.finish([*launcher, *command, ":", "-np", "1", "env",
                                 "DRY_GPU_REFUSES=200000", *command], env=self.environment())
        self.assertNotEqual(code, 0, job.describe())
        self.assertIn("out of GPU memory", job.errors(), job.describe())
        self.assertNotIn("dry GPU:", job.errors(), job.describe())


if __name__ == "__main__":
    if not os.access(PROGRAM, os.X_OK):
        print("no program at %s: build the target spillway_dry_gpu" % PROGRAM, file=sys.stderr)
        sys.exit(1)
    os.environ.setdefault("SPILLWAY_E2E_PROGRAM", PROGRAM)
    harness.main()
