"""verify: every legal split of four ranks computes what one rank computes."""

import os
import tempfile

import harness
from harness import generate, greedy, model, mpirun, program


class Splits(harness.EndToEnd):

    def verify(self, *arguments, mpi=()):
        return self.succeed([*mpi, program(), "verify", "-m", model(), *arguments], timeout=1700)

    def test_all_splits_of_four_ranks(self):
        job = self.verify("--all-splits", "--ranks", "4")
        print("  " + job.text().strip().splitlines()[-1])

    def test_one_split(self):
        job = self.verify("--ranks", "4", "--tp", "2", "--pp", "2")
        self.assertTrue(job.text().strip())
        self.verify("--ranks", "5", "--tp", "5")

    def test_weights_on_disk(self):
        arguments = greedy("The capital of France is", 12)
        expected = self.succeed(generate(1, *arguments)).text()
        self.assertTrue(expected.strip())
        with tempfile.TemporaryDirectory() as folder:
            for ranks in (1, 2):
                job = self.succeed(generate(ranks, *arguments, "--spill-dir", folder, "--place",
                                            "layers all = disk; layers 3-9 attn = resident"))
                self.assertEqual(job.text(), expected)
                self.assertEqual(os.listdir(folder), [])


if __name__ == "__main__":
    harness.main()
