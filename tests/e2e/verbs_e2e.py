"""inspect, plan, verify, bench and status against the model and a running job."""

import json
import os
import re
import time

import harness
from harness import generate, greedy, model, mpirun, program


def resident_bytes(pid):
    with open("/proc/%d/status" % pid) as file:
        return int(re.search(r"VmRSS:\s+(\d+) kB", file.read()).group(1)) * 1024


class Verbs(harness.EndToEnd):

    def as_json(self, *arguments):
        return json.loads(self.succeed([program(), *arguments, "--json"]).text())

    def test_inspect(self):
        table = self.succeed([program(), "inspect", "-m", model()]).text()
        for word in ("general.architecture", "llama", "token_embd.weight", "Q4_1"):
            self.assertIn(word, table)
        self.assertIn("token_embd.weight", json.dumps(self.as_json("inspect", "-m", model())))

    def test_plan_on_any_machine(self):
        for ranks in (1, 2, 3, 5):
            with self.subTest(ranks=ranks):
                arguments = ["plan", "-m", model(), "--ranks", str(ranks)]
                self.assertIn("weights", self.succeed([program(), *arguments]).text())
                self.as_json(*arguments)

    def test_plan_is_the_same_every_time(self):
        command = ["plan", "-m", model(), "--ranks", "4", "--tp", "2", "--pp", "2"]
        first, second = self.as_json(*command), self.as_json(*command)
        for key in ("title", "stages", "ledger", "fingerprint"):
            self.assertEqual(first[key], second[key], key)
        self.assertEqual(len(first["ranks"]), 4)

    def test_bench(self):
        found = self.as_json("bench", "-m", model(), "-p", "64", "-n", "16", "-t", "1")
        self.assertTrue(found)

    def test_profile_without_a_gpu(self):
        """Ranks on CPUs tell themselves what they do; with two ranks too."""
        arguments = ["bench", "-m", model(), "-p", "8", "-n", "2", "-t", "1", "-r", "1",
                     "--profile", "--device", "cpu"]
        for mpi in ((), mpirun(2)):
            job = self.succeed([*mpi, program(), *arguments])
            self.assertIn("decode ", job.text())
            self.assertRegex(job.text(), r"a prefill step, mean of 1: .*\n rank .*matrix")
            self.assertRegex(job.text(), r"(?m)^ matrix +\d.*\n(.*\n)+furthest off: \w+$")
        found = self.as_json(*arguments)
        (rank,) = found["profile"]["decode"]["ranks"]
        terms = sum(ms for name, ms in rank.items() if name not in ("rank", "traced", "total_ms",
                                                                    "dropped"))
        self.assertAlmostEqual(terms, rank["total_ms"], delta=1e-6 + 1e-3 * rank["total_ms"])
        self.assertGreater(rank["matrix_ms"], 0)
        self.assertGreater(found["profile"]["predicted"]["matrix_ms"], 0)
        self.assertIn("launch_ms", found["profile"]["measured"])
        self.assertGreater(found["decode_tok_per_s"]["median"], 0)

    def test_bench_of_three_stages_and_six_sequences(self):
        """Three groups of two in flight, prompts of several chunks behind each other."""
        found = json.loads(self.succeed(
            [*mpirun(3), program(), "bench", "-m", model(), "--split", "1+1+1", "-t", "1", "-p",
             "1100", "-n", "16", "--depth", "20", "--sequences", "6", "-r", "1", "--device", "cpu",
             "--json"]).text())
        self.assertEqual(found["sequences"], 6)
        self.assertGreater(found["prefill_tok_per_s"]["median"], 0)
        self.assertGreater(found["decode_tok_per_s"]["median"], 0)

    def perplexity(self, *arguments, mpi=()):
        text = os.path.join(harness.ROOT, "LICENSE")
        return json.loads(self.succeed(
            [*mpi, program(), "perplexity", "-m", model(), "-f", text, "-t", "1", "-q", "--json",
             *arguments]).text())

    def test_perplexity_of_two_splits(self):
        alone = self.perplexity("-c", "128", "--chunks", "3")
        self.assertEqual(alone["tokens_scored"], 3 * 63)
        # Licences are known by heart; a model that reads garbage is near its 49152 tokens.
        self.assertGreater(alone["perplexity"], 1)
        self.assertLess(alone["perplexity"], 20)
        for ranks, split in ((2, "1:1"), (3, "2:1+1")):
            with self.subTest(split=split):
                found = self.perplexity("-c", "128", "--chunks", "3", "--split", split,
                                        mpi=mpirun(ranks))
                for key in ("perplexity", "error", "nll", "tokens_scored"):
                    self.assertEqual(found[key], alone[key], key)

    def test_perplexity_by_stride(self):
        """A first window alone scores all it predicts; more context for each token helps."""
        side_by_side = self.perplexity("-c", "64", "--stride", "64", "--chunks", "8")
        self.assertEqual(side_by_side["tokens_scored"], 8 * 63)
        overlapping = self.perplexity("-c", "64", "--stride", "16", "--chunks", "29")
        self.assertEqual(overlapping["tokens_scored"], 63 + 28 * 16)
        self.assertLess(overlapping["perplexity"], side_by_side["perplexity"])

    def test_status_of_a_job_that_waits_for_a_person(self):
        def says(address, words):
            return words in self.succeed([program(), "status", address]).text()

        for chat, words in (([], "waiting for the prompt, up"),
                            (["--chat"], "waiting for a line of the chat, up")):
            with self.subTest(chat=chat):
                job = self.start([*mpirun(2), program(), "run", "-m", model(), "-t", "1", "-n", "2",
                                  "--temp", "0", *chat], stdin="", keep_stdin=True)
                address = job.coordinator()
                job.wait_for(lambda: says(address, words), harness.SOON_S, words)
                job.process.stdin.write(b"Once")
                job.process.stdin.close()
                self.assertEqual(job.wait(120), 0, job.describe())
                self.assertTrue(job.text().strip())

    def test_status_of_a_running_job(self):
        job = self.start(generate(3, "-p", "Once", "-n", "1500", "--ignore-eos"))
        address = job.coordinator()
        job.wait_for_text(1)

        def running():  # once a heartbeat of every rank has said so
            table = self.succeed([program(), "status", address]).text()
            return table if "running, up" in table else None
        table = job.wait_for(running, harness.SOON_S, "status that says running")
        for rank, pid in job.wait_for_workers(3).items():
            self.assertRegex(table, r"(?m)^\W*%d\b.*\b%d\b" % (rank, pid), table)
        self.assertIsNone(job.process.poll(), "status ended the job: " + job.describe())


class Memory(harness.EndToEnd):

    def test_as_planned(self):
        """Each rank's resident memory is within 5 % of its total in the plan's ledger. The split is
        pinned by shares: left free, it follows rates measured at the start of each job."""
        for split in ("1:1", "15@1+15@1"):
            with self.subTest(split=split):
                job = self.start(generate(2, "--split", split, "-p", "Once", "-n", "1500",
                                          "--ignore-eos"))
                workers = job.wait_for_workers(2)
                job.wait_for_text(200)
                seen = {rank: resident_bytes(pid) for rank, pid in sorted(workers.items())}
                self.assertIsNone(job.process.poll(), job.describe())
                job.end()
                planned = self.planned_bytes(split)
                self.assertEqual(sorted(planned), sorted(seen))
                off = {rank: seen[rank] / planned[rank] - 1 for rank in seen}
                for rank in seen:
                    print("  %s rank %d: planned %.1f MiB, resident %.1f MiB, %+.1f %%" %
                          (split, rank, planned[rank] / 2**20, seen[rank] / 2**20,
                           100 * off[rank]))
                self.assertLess(max(map(abs, off.values())), 0.05, off)

    def planned_bytes(self, split):
        plan = json.loads(self.succeed(
            [program(), "plan", "-m", model(), "--ranks", "2", "--split", split, "-t", "1",
             "--json"]).text())
        totals = {}
        for line in plan["ledger"]:
            totals[line["rank"]] = totals.get(line["rank"], 0) + line["bytes"]
        return totals


class Speed(harness.EndToEnd):
    """Prints the figures; the bounds are loose, for machines that do other things too."""

    def test_two_ranks_of_one_thread(self):
        n_tokens = 96
        job = self.succeed(generate(2, *greedy("Once upon a time", n_tokens), "--ignore-eos"))
        first_s = job.output_times[0] - job.started
        token_ms = 1000 * (job.output_times[-1] - job.output_times[0]) / (n_tokens - 1)
        print("  first token %.2f s after start, then %.1f ms a token (2 ranks, 1 thread each)" %
              (first_s, token_ms))
        self.assertLess(first_s, 60)
        self.assertLess(token_ms, 4000)


if __name__ == "__main__":
    harness.main()
