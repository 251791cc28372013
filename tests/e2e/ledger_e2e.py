"""Every allocation of a plan's ledger is refused in turn: the job ends soon with exit code 1, names
the line, the rank and a way out, and leaves no process, no file and no shared memory behind.

The refusals are simulated (kernels/core/simulated_fault.h, docs/failure.md), but for a full disk,
which a limit of the process makes. A ledger line that LINES does not know is a failure: whoever
adds one says which allocation lies behind it, or that it is an estimate.

With SPILLWAY_E2E_GPUS=N the ranks are on N GPUs (tests/gpu/run), and the model a real one; or on
dry ones, with DRY_GPU_COUNT=N (tests/dry_gpu).
"""

import concurrent.futures
import json
import os
import re
import subprocess
import tempfile
import unittest

import gguf_writer as gguf
import harness
from harness import GPUS, mpirun, on_device, program

DRY = "DRY_GPU_COUNT" in os.environ  # tests/dry_gpu
AT_ONCE = min(4, max(2, len(os.sched_getaffinity(0)) // 4))  # jobs of one thread a rank
LIMIT_S = 120.0  # a second or two on an idle machine; only a hang takes longer on a busy one
ON_DISK = ("allocate disk weights on disk of rank %d", "write disk weights on disk of rank %d",
           "read disk weights on disk of rank %d", "read disk weights on disk of rank %d #9")
ESTIMATE = ()  # the line is a measured bound, no allocation: docs/ARCHITECTURE.md, section 4

# place, name, detail of ledger lines; what is done for them on a rank on a CPU, and on a GPU. %d is
# the rank. Words of the message are the name in the fault, if no others are given here.
LINES = [
    ("host", "program", "pinned staging", None,
     ("pin pinned staging", "pin loading, a slot", "allocate gpu loading, a slot")),
    ("host", "program", ".*", ESTIMATE, ESTIMATE),  # program, libraries, heap, stacks
    ("gpu", "program", ".*", None, ESTIMATE),  # contexts and page tables of CUDA, NCCL
    ("host", "weights", ".*", ("allocate host weights",),
     ("allocate host weights spilled to the host", "pin weights spilled to the host")),
    ("disk", "weights", ".*", ON_DISK, ON_DISK),
    ("gpu", "weights", ".*", None, ("allocate gpu weights",)),
    ("host", "kv", ".*", ("allocate host kv",), None),
    ("gpu", "kv", ".*", None, ("allocate gpu kv",)),
    ("host", "activations", "disk slots", ("allocate host disk slots",),
     ("allocate host disk slots", "pin disk slots")),
    ("host", "activations", "halves on the CPU", None,
     ("pin halves on the CPU", "allocate host halves on the CPU")),
    ("host", "activations", "messages", None, ("allocate host activations",)),
    ("host", "activations", ".*", ("allocate host activations",), None),
    ("gpu", "activations", "streaming slots", None, ("allocate gpu weights, streaming slots",)),
    ("gpu", "activations", "hops", None,
     ("allocate gpu the slots of hops between stages", "pin the words of hops between stages")),
    ("gpu", "activations", "comm", None,
     ("allocate gpu the mailbox of GPU sums", "allocate gpu the bf16 rows of GPU sums",
      "pin the host's half of GPU sums")),
    ("gpu", "activations", ".*", None, ("allocate gpu activations",)),
]
DEED = re.compile(r"^(allocate (host|gpu|disk)|pin|(read|write) disk) ")
WAY_OUT = re.compile(r"\([^()]*(--host-memory|--spill-dir|ulimit -l|the context \(-c)")
NOISE = ("CHECK", "Segmentation", "backtrace", "terminate called", "bad_alloc", "core dumped")


def faults_of(line, on_gpu):
    for place, name, detail, on_cpus, on_gpus in LINES:
        if (line["place"], line["name"]) == (place, name) and re.fullmatch(detail, line["detail"]):
            found = on_gpus if on_gpu else on_cpus
            if found is not None:
                return found
    raise AssertionError("a ledger line without a class: give it one in LINES: %r" % line)


class Ledger(harness.EndToEnd):

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        if GPUS > 0 and not DRY:
            cls.model = harness.model()
        else:
            cls.model = gguf.llama(layers=2).write(os.path.join(cls.folder.name, "tiny.gguf"))

    def plan(self, ranks, *split):
        command = [program(), "plan", "-m", self.model, "--ranks", str(ranks), "--json",
                   *on_device(ranks), *split]
        # Without the rates that a probe may have kept, as the jobs.
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False,
                              env=dict(os.environ, XDG_CACHE_HOME=harness.NO_CACHE))
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def refusals(self, ranks, *split):
        """{(rank, fault)}: every allocation of the ledger of this plan."""
        plan = self.plan(ranks, *split)
        on_gpu = {rank["rank"]: rank["device"] == "gpu" for rank in plan["ranks"]}
        found = {}  # in the ledger's order
        for line in plan["ledger"]:
            for fault in faults_of(line, on_gpu[line["rank"]]) if line["bytes"] > 0 else ():
                found[line["rank"], fault % line["rank"] if "%" in fault else fault] = True
        return list(found)

    def command(self, ranks, split, spill, new_tokens=8):
        return (mpirun(ranks) if ranks > 1 else []) + [
            program(), "run", "-m", self.model, "-p", "he", "-n", str(new_tokens), "--temp", "0",
            "--ignore-eos", "-t", "1", "--spill-dir", spill, *split,
            *on_device(ranks)]

    def run_alone(self, ranks, split, env, wrap=()):
        """A job whose temporary files, shared memory and spill files lie in folders of its own."""
        with tempfile.TemporaryDirectory(prefix="sw") as own, \
                tempfile.TemporaryDirectory(prefix="sw", dir=harness.MEMORY) as shared:
            folders = {name: os.path.join(own, name) for name in ("tmp", "spill")}
            for folder in folders.values():
                os.mkdir(folder)
            full = {"TMPDIR": folders["tmp"], "OMPI_MCA_btl_vader_backing_directory": shared,
                    "OMPI_MCA_orte_tmpdir_base": shared, **env}
            command = [*wrap, *self.command(ranks, split, folders["spill"])]
            code, job = self.finish(command, timeout=LIMIT_S, env=full)
            left = [os.path.join(folder, name) for root in (own, shared)
                    for folder, _, names in os.walk(root) for name in names]
        return code, job, left

    def check_refused(self, ranks, split, rank, fault):
        env = {"SPILLWAY_SIMULATE_FAULT": "rank %d: %s" % (rank, fault)}
        code, job, left = self.run_alone(ranks, split, env)
        with self.subTest(ranks=ranks, split=split, rank=rank, fault=fault):
            self.check_words(job, code, left, re.sub(" #.*", "", DEED.sub("", fault)))
            if ranks > 1:
                self.assertRegex(job.said()[0], r"^spillway: rank %d\b" % rank, job.describe())

    def check_words(self, job, code, left, name):
        self.assertEqual(code, 1, "not refused: " + job.describe())
        said = job.said()
        self.assertEqual(len(said), 1, "not said once: " + job.describe())
        self.assertIn(name, said[0], job.describe())
        self.assertRegex(said[0], WAY_OUT, "no way out: " + job.describe())
        for noise in NOISE:
            self.assertNotIn(noise, job.errors(), job.describe())
        self.assertEqual(left, [], "left behind by " + job.describe())

    def refuse_each(self, ranks, *split):
        refusals = self.refusals(ranks, *split)
        self.assertGreaterEqual(len(refusals), 3 * ranks)
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            jobs = [pool.submit(self.check_refused, ranks, split, *one) for one in refusals]
            for job in jobs:
                job.result()
        print("  %d ranks %s: %d refusals" % (ranks, " ".join(split), len(refusals)))

    def test_a_sound_job_leaves_nothing_either(self):
        code, job, left = self.run_alone(2, [], {})
        self.assertEqual((code, left), (0, []), job.describe())

    def test_one_rank(self):
        self.refuse_each(1)

    def test_two_ranks_share_every_layer(self):
        self.refuse_each(2, "--tp", "2")

    @unittest.skipUnless(GPUS > 0, "ranks on GPUs hop")
    def test_two_stages(self):
        self.refuse_each(2, "--pp", "2")

    def test_weights_on_disk(self):
        self.refuse_each(1, "--place", "layers all = disk")

    @unittest.skipUnless(GPUS > 0, "a rank on a GPU")
    def test_weights_on_the_host(self):
        self.refuse_each(1, "--place", "layers all ffn = hybrid 0.5; layers 0-1 = streamed")

    @unittest.skipIf(GPUS > 0, "a rank on a CPU")
    def test_a_rank_loses_its_disk_in_a_step(self):
        split = ("--pp", "2", "--place", "layers all ffn = disk")
        for rank in (0, 1):
            self.check_refused(2, split, rank, "read disk weights on disk of rank %d #4" % rank)

    @unittest.skipIf(GPUS > 0, "a rank on a CPU")
    def test_disk_full(self):
        # As a full disk, for this process alone: 32 KiB where the file needs 66.
        wrap = ["bash", "-c", 'ulimit -f 32; exec "$@"', "bash"]
        code, job, left = self.run_alone(1, ["--place", "layers all = disk"], {}, wrap)
        self.check_words(job, code, left, "weights on disk of rank 0")
        self.assertIn("File too large", job.errors())

    def test_what_is_no_fault(self):
        for fault in ("kv", "rank 0: allocate host", "allocate host kv #0"):
            code, job, _ = self.run_alone(1, [], {"SPILLWAY_SIMULATE_FAULT": fault})
            self.assertEqual(code, 1, job.describe())
            self.assertIn("simulated fault", job.errors())


if __name__ == "__main__":
    harness.main()
