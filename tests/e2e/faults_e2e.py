"""Ranks that die or fall silent: named soon, exit code 1, nothing left running."""

import os
import random
import re
import signal
import tempfile
import time

import harness
from harness import SOON_S, generate

# GPUs are quick: as many tokens as the model's context holds.
LONG = ["-p", "Once upon a time", "--ignore-eos"] + (
    ["-n", "8000", "-c", "8192"] if harness.GPUS > 0 else ["-n", "1500"])
MOST_RANKS = max(2, harness.GPUS) if harness.GPUS > 0 else 3
TRIES = int(os.environ.get("SPILLWAY_E2E_KILLS", "10"))


class Faults(harness.EndToEnd):

    def running(self, ranks, *extra):
        job = self.start(generate(ranks, *LONG, *extra))
        job.wait_for_text(1)
        return job, job.wait_for_workers(ranks)

    def check_end(self, job, rank, since, exit_codes=(1,)):
        """The job ends by itself in time, names the rank, and leaves nothing."""
        code = job.wait(SOON_S)
        took = time.monotonic() - since
        self.assertIn(code, exit_codes, job.describe())
        self.assertRegex(job.errors(since=since), r"\brank %d\b" % rank, job.describe())
        self.assertEqual(job.left_over(), {}, "left running by " + job.describe())
        return took

    def test_killed_at_a_random_step(self):
        seed = int(os.environ.get("SPILLWAY_E2E_SEED", time.time_ns() % 100000))
        chance = random.Random(seed)
        for number in range(TRIES):
            ranks = chance.randint(2, MOST_RANKS)
            rank, delay = chance.randrange(ranks), chance.uniform(0, 1.5)
            what = "seed %d, try %d: rank %d of %d after %.2f s" % (
                seed, number, rank, ranks, delay)
            with self.subTest(what):
                job, workers = self.running(ranks)
                time.sleep(delay)
                since = self.kill_worker(workers[rank])
                took = self.check_end(job, rank, since)
                print("  %s: gone in %.2f s" % (what, took))

    def test_killed_while_starting(self):
        """As soon as a rank lives: it may be connecting to mpirun, in MPI_Init. All ranks end and
        the words are said; that mpirun itself ends is not asked here: the PMIx server of Open MPI
        4.1 can wait for ever for a lock that such a half connection holds (one time in 20)."""
        for rank in (0, 1):
            with self.subTest(rank=rank):
                job = self.start(generate(2, *LONG))
                since = self.kill_worker(job.wait_for_workers(2)[rank])
                while job.ranks() and time.monotonic() - since < SOON_S:
                    time.sleep(0.02)
                self.assertEqual(job.ranks(), {}, job.describe())
                job.wait_for_words(r"\brank %d\b" % rank, since)
                job.end()

    def test_killed_while_loading(self):
        for rank in (0, 1):
            with self.subTest(rank=rank):
                job = self.start(generate(2, *LONG))
                workers = job.wait_for_workers(2)
                # The model is opened after MPI_Init.
                job.wait_for(lambda: harness.maps(workers[rank], harness.model()),
                             60, "rank that loads the model")
                since = self.kill_worker(workers[rank])
                self.check_end(job, rank, since)

    def kill_worker(self, pid):
        since = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        return since

    def test_silent_rank_is_named(self):
        for rank in range(1, MOST_RANKS):
            with self.subTest(rank=rank):
                job, workers = self.running(MOST_RANKS)
                since = time.monotonic()
                os.kill(workers[rank], signal.SIGSTOP)
                job.wait_for_words(r"\brank %d\b" % rank, since)
                print("  rank %d named after %.2f s" % (rank, time.monotonic() - since))
                self.assertNotEqual(job.wait(SOON_S), 0, job.describe())
                self.assertEqual(job.left_over(), {}, "left running by " + job.describe())

    def test_neighbours_in_a_pipeline(self):
        # Each is waited for by the stage beside it: on GPUs by a kernel, not by the host.
        last = MOST_RANKS - 1
        for rank, number in ((0, signal.SIGKILL), (last, signal.SIGKILL), (last, signal.SIGSTOP)):
            with self.subTest("rank %d of %d gets signal %d" % (rank, MOST_RANKS, number)):
                job, workers = self.running(MOST_RANKS, "--pp", str(MOST_RANKS))
                time.sleep(0.3)
                since = time.monotonic()
                os.kill(workers[rank], number)
                job.wait_for_words(r"\brank %d\b" % rank, since)
                self.assertNotEqual(job.wait(SOON_S), 0, job.describe())
                self.assertEqual(job.left_over(), {}, "left running by " + job.describe())

    def test_a_job_that_is_stopped_goes_on(self):
        """All its processes at once, for longer than a rank may be silent and a step may take."""
        # A second of two GPUs; ranks that share one are a hundred times slower.
        some = "2000" if harness.GPUS > 0 else "300"
        job = self.start(generate(2, *LONG[:3], "-n", some))
        job.wait_for_text(1)
        pids = list(job.ranks())
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in pids:
                os.kill(pid, number)
            if number == signal.SIGSTOP:
                time.sleep(6)
        self.assertEqual(job.wait(300 if harness.GPUS > 0 else 120), 0, job.describe())
        self.assertNotIn("silent", job.errors())

    def test_silent_front_ends_the_job(self):
        job, workers = self.running(2)
        since = time.monotonic()
        os.kill(workers[0], signal.SIGSTOP)
        job.wait_for_words(r"\brank 0\b", since)
        self.assertNotEqual(job.wait(SOON_S), 0, job.describe())
        self.assertEqual(job.left_over(), {}, "left running by " + job.describe())

    def test_a_disk_that_fails(self):
        with tempfile.TemporaryDirectory() as folder:
            # One rank: nobody is silent, however busy the machine.
            job = self.start(generate(1, "-p", "Once upon a time", "--ignore-eos", "-n", "8000",
                                      "-c", "8192", "--place", "layers all = disk", "--spill-dir",
                                      folder))
            job.wait_for_text(1, 200)
            (rank,) = job.wait_for_workers(1).values()
            self.assertTrue(harness.cut_spill_file(rank, folder), job.describe())
            self.assertEqual(job.wait(200), 1, job.describe())
            self.assertEqual(job.left_over(20), {}, "left running by " + job.describe())
            self.assertRegex(job.errors(), r"reading the spill file failed at byte \d+")
            self.assertRegex(job.errors(), re.escape(folder) + r", weights on disk of rank 0\b")
            self.assertEqual(os.listdir(folder), [])

    def test_front_killed(self):
        job, workers = self.running(MOST_RANKS)
        since = time.monotonic()
        os.kill(workers[0], signal.SIGKILL)
        self.check_end(job, 0, since)

    def test_guard_killed(self):
        job, _ = self.running(2)
        guards = {rank: pid for pid, (name, rank) in job.processes().items()
                  if name == "spillway-guard"}
        self.assertEqual(sorted(guards), [0, 1], job.processes())
        os.kill(guards[1], signal.SIGKILL)
        self.assertNotEqual(job.wait(SOON_S), 0, job.describe())
        self.assertEqual(job.left_over(), {}, "left running by " + job.describe())

    def test_mpirun_killed(self):
        job, _ = self.running(2)
        job.process.kill()
        job.process.wait(10)
        self.assertEqual(job.left_over(), {}, "left running by " + job.describe())

    def test_interrupt_ends_all_quietly(self):
        job, _ = self.running(2)
        since = time.monotonic()
        job.process.send_signal(signal.SIGINT)
        self.assertNotEqual(job.wait(SOON_S), 0)
        self.assertEqual(job.left_over(), {}, "left running by " + job.describe())
        for noise in ("CHECK", "Segmentation", "backtrace", "terminate called"):
            self.assertNotIn(noise, job.errors(since=since))


if __name__ == "__main__":
    harness.main()
