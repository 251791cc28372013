"""Ranks that fail, hang, die or fall silent while the ranks connect, between loading and the first
step: named soon, exit code not 0, nothing left running. The hang and the failure are simulated
(launch/simulated_connect.h), since ranks on CPUs do next to nothing there. With SPILLWAY_E2E_GPUS
the other ranks connect GPUs meanwhile."""

import os
import signal
import tempfile
import time

import gguf_writer as gguf
import harness
from harness import SOON_S, mpirun, on_device, program

SIMULATED = r"a fault is simulated: .* while connecting"


class Connect(harness.EndToEnd):

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.model = gguf.llama(layers=2).write(os.path.join(cls.folder.name, "tiny.gguf"))

    def connecting(self, ranks, fault, step_timeout):
        """A job whose ranks connect now, and the moment when they began."""
        job = self.start(
            mpirun(ranks) + [program(), "run", "-m", self.model, "-p", "he", "-n", "4", "-t", "1",
                             "--tp", str(ranks), "--step-timeout", str(step_timeout),
                             *on_device(ranks)],
            env={"SPILLWAY_SIMULATE_CONNECT": fault})
        workers = job.wait_for_workers(ranks)
        job.wait_for_words(SIMULATED)
        return job, workers, time.monotonic()

    def check_end(self, job, since, patience=SOON_S):
        self.assertNotEqual(job.wait(patience), 0, job.describe())
        print("  gone after %.1f s" % (time.monotonic() - since))
        self.assertEqual(job.left_over(), {}, "left running by " + job.describe())
        self.assertEqual(job.text(), "", job.describe())

    def test_a_rank_that_hangs_is_named(self):
        for rank in (0, 1):
            with self.subTest(rank=rank):
                # 40 step timeouts are 10 s. Those that wait for it would say so 3 s later.
                job, _, since = self.connecting(2, "rank %d hangs" % rank, 0.25)
                self.check_end(job, since, 10 + SOON_S)
                self.assertEqual(len(job.said()), 1, "not said once: " + job.describe())
                self.assertRegex(job.said()[0], r"^spillway: rank %d \([^()]*\) reports: "
                                 r"connecting takes more than 10\.0 s, computing" % rank)

    def test_a_failure_that_the_others_do_not_hear_of(self):
        for rank in (0, 1):
            with self.subTest(rank=rank):
                job, _, since = self.connecting(2, "rank %d fails" % rank, 3)
                self.check_end(job, since)
                self.assertEqual(len(job.said()), 1, "not said once: " + job.describe())
                self.assertRegex(job.said()[0], r"^spillway: rank %d \([^()]*\) reports: "
                                 "connecting: it was told to fail" % rank)

    def test_killed_or_silent_while_connecting(self):
        # Rank 1 hangs, so that the others wait for it, the one that something happens to as well.
        for rank, number in ((0, signal.SIGKILL), (1, signal.SIGKILL), (0, signal.SIGSTOP),
                             (1, signal.SIGSTOP)):
            with self.subTest("rank %d gets signal %d" % (rank, number)):
                job, workers, since = self.connecting(2, "rank 1 hangs", 60)
                os.kill(workers[rank], number)
                job.wait_for_words(r"\brank %d\b(?! hangs)" % rank, since)
                self.check_end(job, since)


if __name__ == "__main__":
    harness.main()
