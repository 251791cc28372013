"""Bad flags and bad files: a non-zero exit code, one clear line, nothing left running."""

import json
import os
import pty
import re
import subprocess
import tempfile

import harness
from harness import generate, greedy, model, mpirun, program

# Open MPI adds a notice of its own when a rank exits non-zero; a person reads past it.
MPI_NOTICE = re.compile(r"^(-+|Primary job.*|mpirun .*|\s*Process name:.*|\s*Exit code:.*|\s*)$"
                        r"|a non-zero exit code|job to be terminated|Per user-direction")


def spoken(job):
    return [line for line in job.errors().splitlines() if not MPI_NOTICE.search(line)]


class Misuse(harness.EndToEnd):

    def refused(self, command, *words, stdin=None, max_lines=3, as_words=False):
        """Ends soon with an error that has all the words, and no text on stdout."""
        code, job = self.finish(command, stdin=stdin)
        self.assertNotEqual(code, 0, "accepted: " + job.describe())
        self.assertGreaterEqual(code, 0, "died of a signal: " + job.describe())
        self.assertLess(code, 126, "crashed: " + job.describe())
        lines = spoken(job)
        self.assertTrue(lines, "says nothing: " + job.describe())
        self.assertLessEqual(len(lines), max_lines, job.describe())
        said = "\n".join(lines)
        for word in words:
            self.assertIn(word, said.replace("_", "-") if as_words else said, job.describe())
        self.assertEqual(job.text().strip(), "", job.describe())

    def run_with(self, *arguments):
        return [program(), "run", "-m", model()] + list(arguments)

    def test_unknown_flag(self):
        self.refused(self.run_with("-p", "x", "--frobnicate"), "--frobnicate")
        self.refused(generate(2, "-p", "x", "--frobnicate"), "--frobnicate")

    def test_unknown_verb_and_no_verb(self):
        self.refused([program(), "frobnicate"], "frobnicate")
        code, job = self.finish([program()])
        self.assertNotEqual(code, 0)
        self.assertTrue(job.errors().strip())

    def test_split_that_does_not_fit_the_ranks(self):
        self.refused(self.run_with("-p", "x", "--tp", "2"), "2")
        self.refused(generate(2, "-p", "x", "--tp", "3"), "3")
        self.refused(generate(2, "-p", "x", "--tp", "2", "--pp", "2"), "2")

    def test_contradictory_flags(self):
        self.refused(self.run_with("-p", "x", "--system", "be brief"), "--system")
        self.refused(generate(2, "-p", "x", "--tp", "2", "--split", "nonsense"), "split")

    def test_numbers_out_of_range(self):
        for flag, value in (("-n", "-2"), ("-n", "x"), ("-c", "0"), ("--temp", "-1"),
                            ("--top-p", "1.5"), ("--min-p", "-0.1"), ("--top-k", "-2"),
                            ("-t", "0"), ("--repeat-penalty", "0"), ("--logit-bias", "nonsense")):
            with self.subTest(flag=flag, value=value):
                # top_p is as clear as --top-p.
                self.refused(self.run_with("-p", "x", flag, value),
                             flag.lstrip("-"), as_words=True)

    def test_spill_file_without_room(self):
        on_disk = self.run_with("-p", "x", "-n", "2", "--place", "layers all = disk")
        self.refused([*on_disk, "--spill-dir", "/dev/null/x"], "/dev/null/x", "--spill-dir",
                     "weights on disk of rank 0")
        with tempfile.TemporaryDirectory() as folder:
            limited = ["bash", "-c", 'ulimit -f 1024; exec "$@"', "bash", *on_disk]
            self.refused([*limited, "--spill-dir", folder], "File too large", "MiB", folder)
            self.assertEqual(os.listdir(folder), [])

    def test_places_that_are_none(self):
        for text, word in (("layers 0-99 = disk", "layer 99"), ("layer 0 ffn = streamed", "CPU"),
                           ("layers = cpu", "character"), ("layer 0 = nowhere", "resident")):
            with self.subTest(place=text):
                self.refused(self.run_with("-p", "x", "--place", text, "--device", "cpu"), word)

    def test_no_file(self):
        missing = "/nonexistent/model.gguf"
        self.refused([program(), "run", "-m", missing, "-p", "x"], missing)
        self.refused(mpirun(2) + [program(), "run", "-m", missing, "-p", "x"], missing)
        self.refused([program(), "run", "-p", "x"], "-m")
        self.refused([program(), "inspect", "-m", missing], missing)

    def test_truncated_and_foreign_files(self):
        with tempfile.TemporaryDirectory() as folder, open(model(), "rb") as whole:
            for size in (0, 3, 24, 5000, 2_000_000, os.path.getsize(model()) - 1000):
                path = os.path.join(folder, "cut-%d.gguf" % size)
                whole.seek(0)
                with open(path, "wb") as cut:
                    cut.write(whole.read(size))
                with self.subTest(size=size):
                    self.refused([program(), "run", "-m", path, "-p", "x"], path)
            path = os.path.join(folder, "text.gguf")
            with open(path, "w") as file:
                file.write("This is no model. " * 1000)
            self.refused([program(), "run", "-m", path, "-p", "x"], path)
            self.refused(mpirun(2) + [program(), "run", "-m", path, "-p", "x"], path)
            self.refused([program(), "run", "-m", folder, "-p", "x"], folder)

    def test_text_without_a_perplexity(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "text")
            with open(path, "w"):
                pass
            verb = [program(), "perplexity", "-m", model(), "-q"]
            self.refused(verb, "--file")
            self.refused(verb + ["-f", "/nonexistent/text"], "/nonexistent/text")
            self.refused(verb + ["-f", path], path, "empty")
            self.refused(verb + ["-f", folder], folder, "regular")
            with open(path, "w") as text:
                text.write("Once upon a time")
            self.refused(verb + ["-f", path], "4 tokens", "512")
            self.refused(mpirun(2) + verb + ["-f", path], "4 tokens", "512")
            for flags in (["-c", "2"], ["--stride", "0"], ["--stride", "513"], ["--chunks", "0"]):
                with self.subTest(flags=flags):
                    self.refused(verb + ["-f", path] + flags, flags[0])

    def test_a_prompt_that_cannot_be_costs_no_loading(self):
        chat = ["--chat", "-c", "16", "-p", "What do you say of one and two and three?"]
        bias = ["-p", "x", "--logit-bias", "99999999=1"]
        for arguments in (["-n", "4"], ["-c", "4", "-p", "one two three four five"], chat, bias):
            for command in (self.run_with(*arguments), generate(2, *arguments)):
                with self.subTest(command=command):
                    code, job = self.finish(command)
                    self.assertEqual(code, 1, job.describe())
                    self.assertNotIn("loading", job.errors(), job.describe())

    def test_one_token_has_no_speed(self):
        job = self.succeed(self.run_with("-t", "1", "-p", "Once", "-n", "1"))
        self.assertIn("| new 1 token | first token after", job.errors())

    def test_a_conversation_longer_than_the_context(self):
        question = "What is the meaning of life, the universe and everything?\n"
        chat = self.run_with("-t", "1", "--chat", "--temp", "0", "-c", "70", "-n", "20")
        code, job = self.finish(chat, stdin=question * 3)
        self.assertEqual(code, 1, job.describe())
        self.assertIn("the conversation so far has", job.errors(), job.describe())

    def test_a_terminal_is_told_what_is_awaited(self):
        # What is typed, the Ctrl-D too, waits in the terminal. Nothing is computed: no prompt.
        for verb, typed, code in ((["run"], b"\x04", 1), (["tokenize"], b"Once\n\x04", 0)):
            with self.subTest(verb=verb):
                terminal, standard_input = pty.openpty()
                self.addCleanup(os.close, terminal)
                self.addCleanup(os.close, standard_input)
                os.write(terminal, typed)
                done = subprocess.run([program(), *verb, "-m", model()], stdin=standard_input,
                                      capture_output=True, text=True, timeout=120, check=False)
                self.assertEqual(done.returncode, code, done)
                self.assertIn("comes from standard input: type it, then Ctrl-D", done.stderr)

    def test_prompt_longer_than_the_context(self):
        prompt = "one two three four five six seven eight nine ten " * 20
        self.refused(self.run_with("-c", "64", "-p", prompt), "64")
        self.refused(generate(2, "-c", "64", "-p", prompt), "64", max_lines=40)

    def test_no_prompt_at_all(self):
        self.refused(self.run_with("-n", "4"), "-p")
        self.refused(generate(2, "-n", "4"), "-p", max_lines=40)
        self.refused(["bash", "-c", '"$@" <&-', "bash"] + self.run_with("-n", "4"), "-p")

    def test_sweeps_that_would_be_in_vain(self):
        sweep = [program(), "sweep", "-m", model(), "-p", "8", "-n", "2", "-r", "1", "-q"]
        for flag in ("--csv", "--svg"):
            self.refused([*sweep, flag, "/nonexistent/x"], flag, "/nonexistent/x")
        self.refused([*sweep, "--offload", "--device", "cpu"], "--offload", "no rank has one")

    def test_a_file_with_a_type_of_its_own(self):
        self.refused([program(), "plan", "-m", model() + ":Q8_0"], model(), ":Q8_0", "quantize")

    def test_status_of_nobody(self):
        self.refused([program(), "status", "127.0.0.1:9"], "127.0.0.1:9")
        self.refused([program(), "status", "nonsense"], "nonsense")
        self.refused([program(), "status"])

    def test_coordinator_at_a_strange_address(self):
        self.refused(self.run_with("--coordinator", "203.0.113.7:0", *greedy("x", 4)),
                     "203.0.113.7", max_lines=40)

    def test_a_gpu_that_is_not_there(self):
        verbs = (["run", "-m", model(), "-p", "x"], ["plan", "-m", model()],
                 ["bench", "-m", model(), "-p", "8", "-n", "1"])
        for verb in verbs:
            with self.subTest(verb=verb[0]):
                self.refused([program()] + verb + ["--device", "gpu"], "--device gpu",
                             "--device cpu")
        self.refused(self.run_with("-p", "x", "--device", "tpu"), "--device", "tpu")
        self.refused(generate(2, "-p", "x", "--device", "gpu"), "--device cpu", max_lines=40)
        self.refused(generate(2, "-p", "x", "--device", "cpu,gpu"), "rank 1: ", "--device cpu",
                     max_lines=40)
        job = self.succeed(self.run_with("--device", "cpu", *greedy("Once", 4)))
        self.assertTrue(job.text().strip())

    def test_flags_that_only_gpus_follow(self):
        # Whether the program was built with CUDA or not.
        for verb in (["run", "-m", model(), "-p", "x"], ["plan", "-m", model()]):
            self.refused([program()] + verb + ["-ngl", "20"], "-ngl 20")
            self.refused([program()] + verb + ["--comm", "nccl", "--device", "cpu"], "--comm nccl",
                         max_lines=40)
        self.refused(generate(2, "-p", "x", "--comm", "peer"), "--comm peer", max_lines=40)
        self.succeed(self.run_with("--comm", "staged", *greedy("Once", 2)))

    def test_more_threads_than_cores_are_said_once(self):
        job = self.succeed(generate(2, *greedy("Once", 2), threads=(os.cpu_count() or 1) + 1))
        self.assertEqual(job.errors().count("more threads than the "), 1, job.describe())
        self.assertNotIn("more threads", self.succeed(generate(2, *greedy("Once", 2))).errors())

    def test_a_spill_folder_in_memory(self):
        if subprocess.run(["stat", "-f", "-c", "%T", "/dev/shm"], capture_output=True, text=True,
                          check=False).stdout.strip() != "tmpfs":
            self.skipTest("/dev/shm is no tmpfs here")
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            on_disk = ["--place", "layers all = disk", "--spill-dir", folder, *greedy("Once", 2)]
            job = self.succeed(generate(2, *on_disk))
            self.assertEqual(job.errors().count("lies in memory (tmpfs)"), 1, job.describe())
            # Enough for what lies in memory anyway, and not for the layers beside it.
            planned = json.loads(self.succeed(
                [program(), "plan", "-m", model(), "--device", "cpu", "--json", "-t", "1",
                 "--place", "layers all = disk"]).text())
            host = sum(line["bytes"] for line in planned["ledger"] if line["place"] == "host")
            self.refused(self.run_with(*on_disk, "-t", "1", "--host-memory",
                                       "%dB" % (host + (8 << 20))),
                         "memory (tmpfs)", folder, "--spill-dir", max_lines=40)
            self.assertEqual(os.listdir(folder), [])

    def test_devices_by_rank(self):
        self.refused(self.run_with("-p", "x", "--device", "cpu,tpu"), "--device", "tpu", "cpu")
        self.refused(self.run_with("-p", "x", "--device", "cpu,cpu"), "names 2 devices", "1 rank")
        self.refused(generate(3, "-p", "x", "--device", "cpu,cpu"), "names 2 devices", "3 ranks",
                     max_lines=40)
        for device in ("cpu,cpu", "cpu,auto"):
            with self.subTest(device=device):
                job = self.succeed(generate(2, "--device", device, *greedy("Once", 4)))
                self.assertTrue(job.text().strip())

    def test_help_is_no_error(self):
        for arguments in (["--help"], ["run", "--help"], ["plan", "--help"], ["verify", "--help"],
                          ["inspect", "--help"], ["bench", "--help"], ["status", "--help"],
                          ["perplexity", "--help"], ["tokenize", "--help"],
                          ["template", "--help"], ["--version"]):
            with self.subTest(arguments=arguments):
                job = self.succeed([program()] + arguments)
                self.assertTrue(job.text().strip())


if __name__ == "__main__":
    harness.main()
