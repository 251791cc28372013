"""tokenize and template: one process, no ranks, text in and text out."""

import json
import os
import subprocess
import tempfile

import harness
from harness import model, mpirun, program

HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hé 日本?"}]
# SmolLM2's template, written out by hand.
HELLO_TEXT = ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHé 日本?<|im_end|>\n")


class OneProcess(harness.EndToEnd):

    def run_bytes(self, *arguments, stdin=b""):
        done = subprocess.run([program(), *arguments], input=stdin, capture_output=True, timeout=60)
        return done.returncode, done.stdout, done.stderr.decode(errors="replace")

    def output(self, *arguments, stdin=b""):
        code, out, errors = self.run_bytes(*arguments, stdin=stdin)
        self.assertEqual((code, errors), (0, ""), out)
        return out

    def refused(self, *arguments, stdin=b"", words=()):
        code, out, errors = self.run_bytes(*arguments, stdin=stdin)
        self.assertEqual((code, out), (1, b""), errors)
        self.assertEqual(len(errors.splitlines()), 1, errors)
        for word in words:
            self.assertIn(word, errors)

    def file(self, text, name="file.jinja"):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path


class Tokenize(OneProcess):

    def tokenize(self, text, *flags):
        return self.output("tokenize", "-m", model(), *flags, stdin=text)

    def test_ids_on_one_line(self):
        # The ids of SmolLM2's tokenizer.json: <|im_start|> is 1, <|im_end|> 2.
        line = self.tokenize(b"<|im_start|>a<|im_end|>")
        self.assertRegex(line, rb"\A1 \d+ 2\n\Z")
        self.assertEqual(self.tokenize(b""), b"\n")
        letters = self.tokenize(b"<|im_end|>", "--no-parse-special").split()
        self.assertGreater(len(letters), 2)
        self.assertNotIn(b"2", letters)

    def test_text_comes_back(self):
        # Also what is not UTF-8; but SmolLM2 has no token for some bytes that never are (ff).
        for text in (b"", b" ", b"Hello world", "Été 日本 👍🏽".encode(), bytes(range(0x20, 0x7f)),
                     b"\xc3\x00\xe6\x97", b"<|im_start|>user\nx<|im_end|>", b"\n\n  \r\n\t" * 50,
                     b"x" * 100_000, b" " * 100_000):
            with self.subTest(text=text[:40]):
                for flags in ((), ("--no-bos",)):
                    ids = self.tokenize(text, *flags)
                    self.assertEqual(self.tokenize(ids, "--decode", *flags), text)

    def test_ids_that_are_none(self):
        decode = ("tokenize", "-m", model(), "--decode")
        self.refused(*decode, stdin=b"1 2 x3 4", words=["byte 4", "word 3", '"x3"'])
        self.refused(*decode, stdin=b"1.5", words=['"1.5"'])
        self.refused(*decode, stdin=b"1,2", words=['"1,2"'])
        self.refused(*decode, stdin=b"7\n99999999", words=["word 2", "99999999", "0 to 49151"])
        self.refused(*decode, stdin=b"-1", words=["-1", "out of range"])
        self.refused(*decode, stdin=b"1" * 40, words=["out of range"])
        self.assertEqual(self.output(*decode, stdin=b" \n"), b"")

    def test_flags_that_do_not_go_together(self):
        self.refused("tokenize", words=["--model"])
        self.refused("tokenize", "-m", model(), "--decode", "--no-parse-special",
                     words=["--no-parse-special"])
        self.refused("tokenize", "-m", "/nonexistent.gguf", words=["/nonexistent.gguf"])

    def test_a_full_disk_is_an_error(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([program(), "tokenize", "-m", model()], input=b"a", stdout=full,
                                  stderr=subprocess.PIPE, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"standard output", done.stderr)

    def test_under_mpirun(self):
        job = self.succeed(mpirun(1) + [program(), "tokenize", "-m", model()], stdin="a")
        self.assertEqual(job.stdout, self.tokenize(b"a"))


class Template(OneProcess):

    def template(self, conversation, *flags):
        text = json.dumps(conversation, ensure_ascii=False).encode()
        return self.output("template", *flags, stdin=text).decode()

    def test_the_models_template(self):
        self.assertEqual(self.template(HELLO, "-m", model()), HELLO_TEXT)
        self.assertEqual(self.template(HELLO, "-m", model(), "--add-generation-prompt"),
                         HELLO_TEXT + "<|im_start|>assistant\n")
        self.assertEqual(self.template({"messages": HELLO}, "-m", model()), HELLO_TEXT)

    def test_variables(self):
        path = self.file("{{ bos_token }}|{{ eos_token }}|{{ messages|length }}|{{ tools|tojson }}|"
                         "{{ thinking }}|{{ add_generation_prompt }}")
        tools = self.file('[{"z": 1, "a": {"y": "é<", "b": null}}]', "tools.json")
        self.assertEqual(self.template([], "--template", path), "||0|null||False")
        self.assertEqual(
            self.template({"messages": [], "tools": [3], "thinking": True}, "--template", path,
                          "--tools", tools, "--bos", "<b>", "--eos", "</e>"),
            '<b>|</e>|0|[{"z": 1, "a": {"y": "é<", "b": null}}]|True|False')
        self.assertEqual(self.template({"messages": [1], "tools": [3], "bos_token": "x"},
                                       "--template", path, "--add-generation-prompt"),
                         "x||1|[3]||True")
        # With a model and a template: the template's text, the model's BOS and EOS.
        self.assertEqual(self.template([], "--template", path, "-m", model()),
                         "<|im_start|>|<|im_end|>|0|null||False")

    def test_nothing_is_added(self):
        path = self.file("\n\n  x \n\n")
        self.assertEqual(self.template([], "--template", path), "\n\n  x \n")

    def test_templates_that_fail(self):
        for source, words in (("a\n{% for x in y %}", ["line 2", "endfor"]),
                              ("\n\n{% include 'x' %}", ["line 3", "{% include %}"]),
                              ("{{ x|wordwrap }}", ["line 1", "wordwrap"]),
                              ("{{ raise_exception('no tools') }}", ["line 1", "no tools"]),
                              ("{% for i in range(10**9) %}{% endfor %}", ["line 1", "bytes"]),
                              ("{{ 'x' * 10**12 }}", ["line 1", "limit"]),
                              ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", ["line 1"])):
            with self.subTest(source=source):
                path = self.file(source)
                self.refused("template", "--template", path, stdin=b"[]", words=[path, *words])

    def test_input_that_is_none(self):
        path = self.file("x")
        for text, words in ((b"", ["no JSON"]), (b" \n", ["no JSON"]), (b"[{]", ["byte 3"]),
                            (b"{}", ['no "messages"']), (b"3", ["not an array"]),
                            (b'{"messages": {}}', ["not an array"]), (b'"\xff"', ["byte"]),
                            (b"[1e999]", ["too large"]), (b"[" * 99, ["not JSON"]),
                            (b"[" * 400_000 + b"]" * 400_000, ["nested deeper"]),
                            (b"[" * 100_000, ["nested deeper"])):
            with self.subTest(text=text[:40]):
                self.refused("template", "--template", path, stdin=text,
                             words=["standard input", *words])
        tools = self.file('{"a": 1}', "tools.json")
        self.refused("template", "--template", path, "--tools", tools, stdin=b"[]",
                     words=[tools, "array"])
        deep = self.file("[" * 400_000 + "]" * 400_000, "deep.json")
        self.refused("template", "--template", path, "--tools", deep, stdin=b"[]",
                     words=[deep, "nested deeper"])
        self.refused("template", "--template", "/nonexistent", stdin=b"[]", words=["/nonexistent"])
        self.refused("template", stdin=b"[]", words=["-m", "--template"])


if __name__ == "__main__":
    harness.main()
