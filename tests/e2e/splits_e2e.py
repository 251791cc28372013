"""verify: every legal split of four ranks computes what one rank computes."""

import harness
from harness import model, mpirun, program


class Splits(harness.EndToEnd):

    def verify(self, *arguments, mpi=()):
        return self.succeed([*mpi, program(), "verify", "-m", model(), *arguments], timeout=580)

    def test_all_splits_of_four_ranks(self):
        job = self.verify("--all-splits", "--ranks", "4")
        print("  " + job.text().strip().splitlines()[-1])

    def test_one_split(self):
        job = self.verify("--ranks", "4", "--tp", "2", "--pp", "2")
        self.assertTrue(job.text().strip())
        self.verify("--ranks", "5", "--tp", "5")


if __name__ == "__main__":
    harness.main()
