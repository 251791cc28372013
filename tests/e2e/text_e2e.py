"""The same text on every number of ranks, from every kind of prompt."""

import harness
from harness import generate, greedy, program

PROMPTS = ["The capital of France is", "Once upon a time, in a village by the sea,"]
SKY = "Explain in three sentences why the sky is blue."


class Text(harness.EndToEnd):

    def test_same_greedy_text_on_one_two_and_three_ranks(self):
        for prompt in PROMPTS:
            texts = {}
            for ranks in (1, 2, 3):
                job = self.succeed(generate(ranks, *greedy(prompt, 48)))
                texts[ranks] = job.text()
            self.assertGreater(len(texts[1]), 20, texts)
            self.assertEqual(texts[1], texts[2])
            self.assertEqual(texts[1], texts[3])

    def test_splits_by_hand_give_the_same_text(self):
        arguments = greedy(PROMPTS[0], 32)
        expected = self.succeed(generate(1, *arguments)).text()
        for split in (["--tp", "2"], ["--pp", "2"], ["--tp", "2", "--pp", "2"]):
            ranks = 2 ** split.count("2")
            with self.subTest(split=split):
                self.assertEqual(self.succeed(generate(ranks, *split, *arguments)).text(), expected)

    def test_without_mpirun(self):
        command = [program(), "run", "-m", harness.model(), "-t", "1"] + greedy(PROMPTS[0], 16)
        alone = self.succeed(command).text()
        self.assertIn("Paris", alone)
        self.assertEqual(alone, self.succeed(generate(1, *greedy(PROMPTS[0], 16))).text())

    def test_prompt_from_standard_input(self):
        arguments = ["-n", "24", "--temp", "0"]
        from_stdin = self.succeed(generate(2, *arguments), stdin=PROMPTS[0])
        from_flag = self.succeed(generate(2, "-p", PROMPTS[0], *arguments))
        self.assertEqual(from_stdin.text(), from_flag.text())

    def test_one_chat_message(self):
        job = self.succeed(generate(2, "--chat", "-p", SKY, "-n", "40", "--temp", "0"))
        self.assertIn("Rayleigh", job.text())
        self.assertNotIn("<|im_", job.text())

    def test_conversation_on_standard_input_remembers(self):
        chat = generate(2, "--chat", "-n", "24", "--temp", "0")
        both = self.succeed(chat, stdin=SKY + "\nWhat did I ask?\n").text()
        first = self.succeed(chat, stdin=SKY + "\n").text()
        fresh = self.succeed(chat, stdin="What did I ask?\n").text()
        self.assertTrue(both.startswith(first), (both, first))
        self.assertNotEqual(both[len(first):], fresh)
        self.assertTrue(both[len(first):].strip())
        self.assertNotIn("<|im_", both)

    def test_same_seed_same_text_on_every_split(self):
        arguments = ["-p", PROMPTS[1], "-n", "32", "--temp", "0.9", "--top-k", "40", "--seed", "7"]
        first = self.succeed(generate(1, *arguments)).text()
        self.assertEqual(first, self.succeed(generate(1, *arguments)).text())
        self.assertEqual(first, self.succeed(generate(3, *arguments)).text())
        arguments[-1] = "8"
        self.assertNotEqual(first, self.succeed(generate(1, *arguments)).text())

    def test_quiet_says_nothing_but_the_text(self):
        job = self.succeed(generate(2, "-q", *greedy(PROMPTS[0], 8)))
        self.assertTrue(job.text().strip())
        self.assertEqual(job.errors().strip(), "")

    def test_a_reader_that_leaves_ends_the_run(self):
        command = generate(1, "-p", PROMPTS[1], "-n", "1500", "--ignore-eos")
        command = command[command.index(program()):]
        _, job = self.finish(["bash", "-c", '"$@" | head -c 1', "bash"] + command)
        self.assertIn("end: cancelled", job.errors(), job.describe())


if __name__ == "__main__":
    harness.main()
