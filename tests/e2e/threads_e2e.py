"""A machine without threads to give (ulimit -u): the job ends soon with exit code 1 and one
sentence with the rank, who wanted a thread and which limit to raise; nothing aborts, gRPC neither.

Of one rank every limit is tried, with a library before libpthread (tests/support/
refuse_threads.cc); with two the refusals are simulated, one owner of threads after the other."""

import concurrent.futures
import os
import tempfile
import unittest

import gguf_writer as gguf
import harness
from harness import mpirun, program

LIMIT_S = 120.0
REFUSE = os.environ.get("SPILLWAY_E2E_REFUSE_THREADS", "")
WORDS = r"(cannot start a thread|only \d+ of \d+ threads could be started): .*ulimit -u"
NOISE = ("CHECK", "assertion failed", "terminate called", "Aborted", "signal 6")
# The fault gate's and one of the pool, and eight at the least that gRPC must have.
SURELY_TOO_FEW = 10
ENOUGH = 200
# All of them in a job of two stages, by rank.
OWNERS = [(0, "coordinator's server"), (0, "coordinator's watch")] + [
    (rank, owner) for rank in (0, 1)
    for owner in ("signals", "thread pool", "gRPC", "connection to the coordinator", "heartbeats",
                  "watchdog", "readers of the spill file")]


class Threads(harness.EndToEnd):

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.model = gguf.llama(layers=2).write(os.path.join(cls.folder.name, "tiny.gguf"))

    def run_job(self, env, before=(), split=()):
        command = [*before, program(), "run", "-m", self.model, "-p", "he", "-n", "4", "-t", "2",
                   "--device", "cpu", "--temp", "0", "--ignore-eos",
                   "--spill-dir", self.folder.name, "--place", "layers all ffn = disk", *split]
        code, job = self.finish(command, timeout=LIMIT_S, env=env)
        for noise in NOISE:
            self.assertNotIn(noise, job.errors(), job.describe())
        return code, job

    @unittest.skipUnless(REFUSE, "no library that refuses threads")
    def test_whatever_the_limit_is(self):
        for most in range(ENOUGH):
            env = {"LD_PRELOAD": REFUSE, "SPILLWAY_MOST_THREADS": str(most)}
            code, job = self.run_job(env)
            if code == 0:
                break
            self.assertEqual(code, 1, job.describe())
            self.assertEqual(len(job.said()), 1, job.describe())
            if most < SURELY_TOO_FEW:
                self.assertRegex(job.said()[0], WORDS, job.describe())
        self.assertEqual(code, 0, job.describe())
        self.assertGreaterEqual(most, SURELY_TOO_FEW)
        print("  %d threads are enough" % most)

    def check_refused(self, rank, owner):
        env = {"SPILLWAY_SIMULATE_FAULT": "rank %d: start %s" % (rank, owner)}
        code, job = self.run_job(env, mpirun(2), ("--pp", "2"))
        with self.subTest(rank=rank, owner=owner):
            self.assertEqual(code, 1, job.describe())
            self.assertEqual(len(job.said()), 1, "not said once: " + job.describe())
            self.assertRegex(job.said()[0], r"^spillway: rank %d\b.*: %s: %s"
                             % (rank, owner, WORDS), job.describe())

    def test_every_owner_of_threads(self):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for job in [pool.submit(self.check_refused, *one) for one in OWNERS]:
                job.result()

    def test_what_all_ranks_miss_is_said_once_and_without_a_rank(self):
        code, job = self.run_job({"SPILLWAY_SIMULATE_FAULT": "start thread pool"}, mpirun(2))
        self.assertEqual(code, 1, job.describe())
        self.assertEqual(len(job.said()), 1, job.describe())
        self.assertRegex(job.said()[0], "^spillway: thread pool: " + WORDS)


if __name__ == "__main__":
    harness.main()
