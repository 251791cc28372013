"""spillway quantize with the real model: files that run, refusals, and interrupted runs."""

import json
import os
import shutil
import signal
import subprocess
import tempfile

import harness
from harness import model, program


def types_of(path):
    """{tensor: type} as `inspect --json` says."""
    said = subprocess.run([program(), "inspect", "-m", path, "--json"], check=True,
                          capture_output=True).stdout
    return {tensor["name"]: tensor["type"] for tensor in json.loads(said)["tensors"]}


class Quantize(harness.EndToEnd):

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.out = os.path.join(self.folder.name, "new.gguf")

    def quantize(self, kind, *flags, source=None):
        return [program(), "quantize", source or model(), self.out, kind, *flags]

    def assert_nothing_left(self):
        self.assertEqual(os.listdir(self.folder.name), [])

    def refused(self, command, *words):
        code, job = self.finish(command)
        self.assertEqual(code, 1, job.describe())
        for word in words:
            self.assertIn(word, job.errors(), job.describe())

    def test_a_mix_that_runs(self):
        job = self.succeed(self.quantize("Q4_K_M"))
        self.assertIn("quantised already", job.errors())  # the model's file is Q4_1
        self.assertRegex(job.text(), r"Q4_K_M: \S+ \S+ \(\d\.\d\d bits a weight\) from ")
        self.assertEqual(os.listdir(self.folder.name), ["new.gguf"])
        types = types_of(self.out)
        self.assertEqual(types["token_embd.weight"], "Q8_0")  # 576 columns, tied
        self.assertEqual(types["blk.0.ffn_down.weight"], "Q6_K")
        self.assertEqual(types["blk.4.ffn_down.weight"], "Q4_K")
        self.assertEqual(types["blk.0.attn_q.weight"], "Q5_0")
        self.assertEqual(types["blk.0.attn_norm.weight"], "F32")
        answer = self.succeed([program(), "run", "-m", self.out, "-t", "2", "-q",
                               *harness.greedy("The capital of France is", 12)])
        self.assertIn("Paris", answer.text(), answer.describe())

    def test_threads_make_no_difference(self):
        self.succeed(self.quantize("Q3_K_M", "-t", "1", "-q"))
        with open(self.out, "rb") as file:
            first = file.read()
        self.succeed(self.quantize("Q3_K_M", "-t", "3", "-q", "--force"))
        with open(self.out, "rb") as file:
            self.assertEqual(file.read(), first)

    def test_dry_run_writes_nothing(self):
        job = self.succeed(self.quantize("Q6_K", "--dry-run"))
        self.assertRegex(job.text(), r"blk\.0\.ffn_down\.weight +Q4_1 +Q6_K +\d+ +\d+")
        self.assert_nothing_left()

    def test_refusals(self):
        self.refused(self.quantize("Q4_K_XL"), "Q4_K_XL", "Q4_K_M", "Q8_0")
        self.refused(self.quantize("Q8_0", "--output-tensor-type", "IQ1_S"), "IQ1_S")
        self.refused([program(), "quantize", model(), model(), "Q8_0", "--force"], "another name")
        self.refused(self.quantize("Q8_0", source="/nonexistent.gguf"), "/nonexistent.gguf")
        self.refused([program(), "quantize", model()], "output")
        self.assert_nothing_left()
        with open(self.out, "w") as file:
            file.write("precious")
        self.refused(self.quantize("Q8_0"), "--force")
        with open(self.out) as file:
            self.assertEqual(file.read(), "precious")

    def test_interrupted_runs_leave_nothing(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            job = self.start(self.quantize("Q3_K_M", "-t", "1"))
            unfinished = self.out + ".unfinished"
            job.wait_for(lambda: os.path.exists(unfinished) and os.path.getsize(unfinished) > 1e6,
                         60, "a file that grows")
            job.process.send_signal(number)
            self.assertEqual(job.wait(harness.SOON_S), 1, job.describe())
            self.assertIn("stopped by " + number.name, job.errors())
            self.assert_nothing_left()

    def test_a_killed_run_leaves_no_half_file_and_the_next_one_replaces_its_rest(self):
        job = self.start(self.quantize("Q3_K_M", "-t", "1"))
        unfinished = self.out + ".unfinished"
        job.wait_for(lambda: os.path.exists(unfinished), 60, "a file that grows")
        job.process.kill()
        job.wait(harness.SOON_S)
        self.assertFalse(os.path.exists(self.out))
        self.succeed(self.quantize("Q8_0", "-q"))
        self.assertEqual(os.listdir(self.folder.name), ["new.gguf"])

    def test_a_source_that_shrinks_is_named(self):
        source = os.path.join(self.folder.name, "source.gguf")
        shutil.copyfile(model(), source)
        size = os.path.getsize(source)
        job = self.start(self.quantize("Q3_K_M", "-t", "1", source=source))
        unfinished = self.out + ".unfinished"
        job.wait_for(lambda: os.path.exists(unfinished) and os.path.getsize(unfinished) > 1e6,
                     60, "a file that grows")
        os.truncate(source, 4096)
        self.assertEqual(job.wait(harness.SOON_S), 1, job.describe())
        self.assertIn("spillway: the file became shorter while it was in use: 4096 of %d bytes "
                      "are left (%s)" % (size, source), job.errors())
        self.assertFalse(os.path.exists(self.out))

    def test_a_full_disk(self):
        command = "ulimit -f 20000 && exec " + " ".join(self.quantize("Q8_0"))
        self.refused(["bash", "-c", command], "make room")
        self.assert_nothing_left()


if __name__ == "__main__":
    harness.main()
