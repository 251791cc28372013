"""Hostile files before every verb that reads one: exit code 1, one line with file and reason, no
crash, no hang, no memory beyond the file's size; never an answer made of garbage.

The files are made here (gguf_writer.py). The verbs are those of `spillway --help`: one that this
test does not know is a failure, so that none is left out in silence.
"""

import concurrent.futures
import json
import os
import random
import resource
import struct
import subprocess
import tempfile
import unittest

import gguf_writer as gguf
import harness
from every_verb import (COMMANDS, COMPUTE, LONG_TEXT, NO_FILE, SPEC, TIMEOUT_S, WORDS, Ran,
                        peak_bytes, verbs)
from gguf_writer import array, f32, llama, nested, scalar, string, u32
from harness import program

HEADER_ALONE = {"inspect", "plan"}

# Beyond what the same verb takes for a sound file of 78 kB: the arenas of another shape.
SLACK_BYTES = 24 << 20

class Hostile(harness.EndToEnd):

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.verbs = [verb for verb in verbs() if verb not in NO_FILE]
        cls.good = llama().write(cls.path("good.gguf"))

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder.name, name)

    def check(self, ran, path, refused, words=("",)):
        """refused: must be; else an exit code of 0 is as good as a refusal in one line."""
        self.assertIsNotNone(ran.code, "hangs: %s" % ran)
        self.assertIn(ran.code, (0, 1), "crashes: %s" % ran)
        if refused:
            self.assertEqual(ran.code, 1, "takes it: %s" % ran)
        if ran.code == 0:
            return
        # verify and bench may say FAIL on standard output; run and the others say nothing there.
        self.assertEqual(len(ran.said), 1, "not one line: %s" % ran)
        for word in words if refused else ():
            self.assertIn(word, ran.said[0], str(ran))
        if refused and path is not None:
            self.assertIn(path, ran.said[0], "does not name the file: %s" % ran)
        self.assertNotIn("out.gguf", ran.left, "leaves half a file: %s" % ran)

    def everywhere(self, files, refusing, words=None):
        """files: {name: gguf_writer.File or bytes}. Every verb before every file, two at a time."""
        jobs = []
        for name, content in files.items():
            path = self.path(name + ".gguf")
            with open(path, "wb") as file:
                file.write(content if isinstance(content, bytes) else content.bytes())
            jobs += [(name, path, verb) for verb in self.verbs]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            done = list(pool.map(lambda job: Ran(job[2], job[1]), jobs))
        for (name, path, verb), ran in zip(jobs, done):
            with self.subTest(file=name, verb=verb):
                self.check(ran, path, verb in refusing, (words or {}).get(name, ("",)))
        for name in files:
            os.remove(self.path(name + ".gguf"))

    def test_every_verb_is_known_and_takes_the_sound_file(self):
        self.assertEqual(set(self.verbs) - set(COMMANDS), set(),
                         "a verb that this test does not know")
        for verb in sorted(set(COMMANDS) - set(self.verbs)):
            print("  not in this program yet: %s" % verb)
        for verb in self.verbs:
            ran = Ran(verb, self.good)
            self.assertEqual(ran.code, 0, str(ran))

    def test_no_model_at_all(self):
        os.mkdir(self.path("folder.gguf"))
        os.mkfifo(self.path("pipe.gguf"))
        for name in ("missing.gguf", "folder.gguf", "pipe.gguf", "good.gguf/below"):
            for verb in self.verbs:
                with self.subTest(file=name, verb=verb):
                    self.check(Ran(verb, self.path(name)), self.path(name), True)
        if os.geteuid() != 0:
            closed = llama().write(self.path("closed.gguf"))
            os.chmod(closed, 0)
            for verb in self.verbs:
                self.check(Ran(verb, closed), closed, True)
        self.everywhere({"empty": b"", "text": b"This is no model. " * 500, "short": b"GGUF"},
                        set(self.verbs))

    def test_cut_at_every_border_and_anywhere(self):
        whole = llama()
        content = whole.bytes()
        header = len(whole.header())
        random.seed(3)
        cuts = set(whole.borders[:8] + whole.borders[-40:] + whole.borders[8:-40:7])
        cuts |= {random.randrange(1, len(content) - 32) for _ in range(24)}
        cut = self.path("cut.gguf")
        for size in sorted(cuts):
            with open(cut, "wb") as file:
                file.write(content[:size])
            with self.subTest(size=size):
                self.check(Ran("inspect", cut), cut, size < header, (", offset ",))
        some = random.sample(sorted(cuts), 3) + [header]
        for size in some:
            # A whole header is enough for the verbs that look at nothing else.
            refusing = set(self.verbs) - (HEADER_ALONE if size >= header else set())
            self.everywhere({"cut_%d" % size: content[:size]}, refusing)

    def broken_containers(self):
        files = {}

        def make(name, change, *words):
            file = llama()
            change(file)
            files[name] = (file, (", offset ",) + words)

        make("magic", lambda f: setattr(f, "magic", b"GGML"), "not a GGUF file")
        make("version", lambda f: setattr(f, "version", 77), "version 77")
        make("big_endian", lambda f: setattr(f, "version", 3 << 24), "big-endian")
        make("tensors", lambda f: f.claims.update(tensors=2 ** 60), "tensors")
        make("keys", lambda f: f.claims.update(keys=2 ** 64 - 1), "metadata entries")
        make("one_more_key", lambda f: f.claims.update(keys=len(f.metadata) + 1))
        make("long_key", lambda f: f.metadata.insert(0, ["k" * 70000, u32(1)]))
        make("twice", lambda f: f.metadata.append(["general.name", string("again")]), "twice")
        make("kind", lambda f: f.set("x", (99, b"")), "unknown type 99")
        make("bool", lambda f: f.set("x", (gguf.BOOL, b"\x02")), "bool")
        make("endless_string", lambda f: f.set("x", (gguf.STRING, struct.pack("<Q", 2 ** 63))))
        for kind in (gguf.U8, gguf.F64, gguf.STRING, gguf.ARRAY):
            make("array_%d" % kind,
                 lambda f, kind=kind: f.set("x", (gguf.ARRAY, struct.pack("<IQ", kind, 2 ** 60))),
                 "elements")
        make("deep", lambda f: f.set("x", nested(100000)), "nested")
        for bytes_ in (0, 1, 24, 2 ** 31):
            make("alignment_%d" % bytes_,
                 lambda f, n=bytes_: f.set("general.alignment", u32(n)), "alignment")
        make("same_tensor", lambda f: f.tensors.append(f.tensors[0]), "twice")
        make("overlap", lambda f: setattr(f.tensors[1], "offset", 0), "overlap")
        make("misaligned", lambda f: setattr(f.tensors[1], "offset", 1), "multiple")
        make("far", lambda f: setattr(f.tensors[2], "offset", 2 ** 62), "needs")
        make("tensor_kind", lambda f: setattr(f.tensors[0], "kind", 1234), "unknown type")
        make("zero", lambda f: setattr(f.tensors[0], "dims", [64, 0]), "dimension")
        make("no_dims", lambda f: setattr(f.tensors[0], "dims", []), "dimensions")
        make("five_dims", lambda f: setattr(f.tensors[0], "dims", [1] * 5), "dimensions")
        make("product", lambda f: setattr(f.tensors[0], "dims", [2 ** 32] * 3), "too large")
        make("huge", lambda f: setattr(f.tensors[0], "dims", [64, 2 ** 50]), "needs")
        make("odd_row", lambda f: setattr(f.tensors[0], "dims", [63, 4]), "multiple")
        return files

    def test_broken_containers(self):
        files = self.broken_containers()
        self.everywhere({name: file for name, (file, _) in files.items()}, set(self.verbs),
                        {name: words for name, (_, words) in files.items()})

    def test_random_damage(self):
        """Bytes of the header overwritten at random: any verb may take it or not, but cleanly."""
        content = llama().bytes()
        header = len(llama().header())
        random.seed(5)
        files = {}
        for i in range(24):
            damaged = bytearray(content)
            for _ in range(random.choice((1, 1, 4, 64))):
                damaged[random.randrange(header)] = random.choice((0, 1, 127, 128, 255))
            files["damaged_%d" % i] = bytes(damaged)
        self.everywhere(files, set())

    def test_models_that_cannot_be(self):
        def changed(change):
            file = llama()
            change(file)
            return file

        keys = {
            "no_layers": ("llama.block_count", u32(0)),
            "more_layers": ("llama.block_count", u32(2)),
            "endless_layers": ("llama.block_count", scalar(gguf.U64, 2 ** 63)),
            "wrong_width": ("llama.embedding_length", u32(96)),
            "negative_width": ("llama.embedding_length", scalar(gguf.I32, -64)),
            "width_of_text": ("llama.embedding_length", string("64")),
            "no_heads": ("llama.attention.head_count", u32(0)),
            "odd_heads": ("llama.attention.head_count_kv", u32(3)),
            "odd_head": ("llama.attention.key_length", u32(15)),
            "eps_nan": ("llama.attention.layer_norm_rms_epsilon", f32(float("nan"))),
            "eps_inf": ("llama.attention.layer_norm_rms_epsilon", f32(float("inf"))),
            "base_nan": ("llama.rope.freq_base", f32(float("nan"))),
            "base_inf": ("llama.rope.freq_base", f32(float("inf"))),
            "base_negative": ("llama.rope.freq_base", f32(-1.0)),
            "scale_nan": ("llama.rope.scale_linear", f32(float("nan"))),
            "turn": ("llama.rope.dimension_count", u32(999)),
            "unknown": ("general.architecture", string("frobnicator")),
            "endless_name": ("general.architecture", string("x" * (1 << 20))),
            "escapes": ("general.architecture", string("a\nb\x1b[2J\r\x00c")),
            "no_architecture": ("general.architecture", None),
            "words_short": ("tokenizer.ggml.tokens", array(gguf.STRING, gguf.WORDS[:-1])),
        }
        files = {name: changed(lambda f, kv=pair: f.set(*kv)) for name, pair in keys.items()}
        # The file has no room for what wrong metadata asks for, and shapes are compared.
        files["shape"] = changed(lambda f: f.tensors.__setitem__(
            -1, gguf.matrix("blk.0.ffn_down.weight", 32, 96)))
        files["turned"] = changed(lambda f: f.tensors.__setitem__(
            -1, gguf.matrix("blk.0.ffn_down.weight", 96, 64)))
        files["missing"] = changed(lambda f: f.tensors.pop())
        files["norm_q8"] = changed(lambda f: f.tensors.__setitem__(
            1, gguf.matrix("output_norm.weight", 1, 64)))
        self.everywhere(files, SPEC)

    def test_odd_shapes_compute_or_are_refused(self):
        files = {
            "narrow": llama(dim=4, ff=4, heads=2, kv_heads=1, head_dim=2, kind=gguf.Q_F32),
            "odd": llama(dim=36, ff=20, heads=6, kv_heads=3, head_dim=6, kind=gguf.Q_F32),
            "halves": llama(dim=36, ff=20, heads=6, kv_heads=2, head_dim=6, kind=gguf.Q_F16),
            "one": llama(dim=2, ff=1, heads=1, kv_heads=1, head_dim=2, kind=gguf.Q_F32),
            "wide_heads": llama(dim=32, ff=32, heads=2, kv_heads=1, head_dim=256),
        }
        self.everywhere(files, set())

    def test_vocabularies_that_cannot_be(self):
        n = len(gguf.WORDS)
        keys = {
            "bos": ("tokenizer.ggml.bos_token_id", u32(n)),
            "eos": ("tokenizer.ggml.eos_token_id", u32(2 ** 31)),
            "unknown": ("tokenizer.ggml.unknown_token_id", scalar(gguf.U64, 2 ** 40)),
            "eot": ("tokenizer.ggml.eot_token_id", scalar(gguf.I32, -5)),
            "model": ("tokenizer.ggml.model", string("frobnicate")),
            "model_number": ("tokenizer.ggml.model", u32(1)),
            "scores_short": ("tokenizer.ggml.scores", array(gguf.F32, [0.0])),
            "scores_nan": ("tokenizer.ggml.scores", array(gguf.F32, [float("nan")] * n)),
            "types_short": ("tokenizer.ggml.token_type", array(gguf.I32, [1])),
            "types_wild": ("tokenizer.ggml.token_type", array(gguf.I32, [99] * n)),
            "no_words": ("tokenizer.ggml.tokens", None),
            "numbers": ("tokenizer.ggml.tokens", array(gguf.I32, list(range(n)))),
            "same": ("tokenizer.ggml.tokens", array(gguf.STRING, ["same"] * n)),
        }
        files = {name: llama().set(*pair) for name, pair in keys.items()}
        for name, pre, merges in (("merge_unknown", "qwen2", ["qq zz"]),
                                  ("merge_alone", "qwen2", ["e"]),
                                  ("merges_numbers", "qwen2", None),
                                  ("pre", "frobnicate", ["h e"])):
            file = llama().set("tokenizer.ggml.model", string("gpt2"))
            file.set("tokenizer.ggml.pre", string(pre))
            file.set("tokenizer.ggml.merges", array(gguf.STRING, merges) if merges else u32(3))
            files[name] = file
        self.everywhere(files, WORDS)

    def test_text_that_is_not_text(self):
        """Tokens, names and templates that are no UTF-8 or full of control characters: taken."""
        words = list(gguf.WORDS)
        words[-1], words[-2] = b"\xff\xfe\xc3", b"\xed\xa0\x80"
        file = llama().set("tokenizer.ggml.tokens", array(gguf.STRING, words))
        file.set("general.name", string(b"\xff\x1b[31m\n" * 50)).set(b"k\xffey", string(b"\xc0"))
        path = file.write(self.path("bytes.gguf"))
        for verb in self.verbs:
            with self.subTest(verb=verb):
                self.check(Ran(verb, path), path, False)
        for verb in ("inspect", "plan", "bench", "perplexity"):
            ran = Ran(verb, path, "--json")
            self.assertEqual(ran.code, 0, str(ran))
            json.loads(ran.stdout)
        templates = {"bytes": string(b"{{\xff"), "number": u32(1), "open": string("{% if")}
        self.everywhere({name: llama().set("tokenizer.chat_template", value)
                         for name, value in templates.items()}, {"template"})

    def test_names_of_tensors_keep_to_their_line(self):
        """Tables are for terminals: a name may neither break the line nor reach the terminal."""
        file = llama().set("k", u32(1))
        file.tensors.append(gguf.matrix("plain.weight", 4, 64))
        plain = file.write(self.path("plain.gguf"))
        file.metadata[-1][0] = b"k\n\x1b[0m"
        file.tensors[-1].name = b"a\nb\x1b[31m\x7f.weight"
        strange = file.write(self.path("strange.gguf"))
        for verb, more in (("inspect", ()), ("quantize", ("--dry-run",))):
            with self.subTest(verb=verb):
                usual, ran = Ran(verb, plain, *more), Ran(verb, strange, *more)
                self.assertEqual(ran.code, 0, str(ran))
                self.assertEqual(ran.stdout.count(b"\n"), usual.stdout.count(b"\n"), str(ran))
                self.assertNotRegex(ran.stdout + ran.stderr.encode(), rb"[\x1b\x7f]")

    def test_weights_that_are_not_numbers(self):
        """Errors that name the weight, not garbage: a NaN or an infinity reaches every logit."""
        files = {}
        for name, half in (("nan", b"\x00\x7e"), ("inf", b"\x00\x7c"), ("minus", b"\x00\xfc")):
            for tensor in ("token_embd.weight", "blk.0.attn_v.weight", "blk.0.ffn_down.weight"):
                file = llama()
                data = bytearray(file.tensor(tensor).data)
                for at in range(0, len(data), 34):
                    data[at:at + 2] = half
                file.tensor(tensor).data = bytes(data)
                files["%s_%s" % (name, tensor)] = file
        for name, value in (("nan", float("nan")), ("inf", float("inf"))):
            file = llama()
            file.tensor("output_norm.weight").data = struct.pack("<64f", *[value] * 64)
            files["%s_norm" % name] = file
        self.everywhere(files, COMPUTE,
                        {name: (", offset ", "holds", "NaN") for name in files})

    def test_parts_that_do_not_match(self):
        def part(no, count, tensors):
            file = llama() if no == 0 else gguf.File()
            file.tensors = llama().tensors[6 * no:6 * no + 6]
            return (file.set("split.no", scalar(gguf.U16, no))
                    .set("split.count", scalar(gguf.U16, count))
                    .set("split.tensors.count", scalar(gguf.I32, tensors)))

        def name(no, count):
            return self.path("m-%05d-of-%05d.gguf" % (no, count))

        for first, second in (((0, 2, 12), None), ((0, 2, 12), (0, 2, 12)),
                              ((0, 2, 13), (1, 2, 13)), ((0, 2, 12), (1, 3, 12)),
                              ((0, 65535, 12), (1, 65535, 12))):
            part(*first).write(name(1, 2))
            if os.path.exists(name(2, 2)):
                os.remove(name(2, 2))
            if second is not None:
                part(*second).write(name(2, 2))
            for verb in self.verbs:
                with self.subTest(first=first, second=second, verb=verb):
                    self.check(Ran(verb, name(1, 2)), self.path("m-0000"), True)
        part(0, 2, 12).write(name(1, 2))
        part(1, 2, 12).write(name(2, 2))
        self.assertEqual(Ran("run", name(2, 2)).code, 0)

    def test_a_terabyte_of_nothing(self):
        """A sparse file of 1 TiB whose embedding fills it: sound, but nothing can hold it."""
        file = llama(dim=1 << 14, ff=32, heads=4, kv_heads=2, head_dim=16)
        file.set("tokenizer.ggml.tokens", None)
        embedding = file.tensors.pop(0)
        embedding.dims, embedding.kind, embedding.data = [1 << 14, 1 << 24], gguf.Q_F32, b""
        file.tensors = [t for t in file.tensors if t.name != "output.weight"] + [embedding]
        path = file.write(self.path("sparse.gguf"))
        try:
            os.truncate(path, os.path.getsize(path) + (1 << 40) + 64)
        except OSError as error:
            raise unittest.SkipTest("no file of 1 TiB here: %s" % error) from None
        for verb in self.verbs:
            if verb == "quantize":
                print("  quantize is not asked to copy a terabyte")
                continue
            with self.subTest(verb=verb):
                self.check(Ran(verb, path), None, verb in COMPUTE)
        os.remove(path)

    @staticmethod
    def long_specials(file):
        """As many bytes of control tokens as a trie over them would make expensive."""
        generator = random.Random(7)
        words = gguf.WORDS + [generator.randbytes(1000) for _ in range(16000)]
        file.set("tokenizer.ggml.tokens", array(gguf.STRING, words))
        file.set("tokenizer.ggml.scores", array(gguf.F32, [0.0] * len(words)))
        file.set("tokenizer.ggml.token_type", array(gguf.I32, [3] * len(words)))
        for name in ("token_embd.weight", "output.weight"):
            file.tensors = [t if t.name != name else gguf.Tensor(
                name, [64, len(words)], gguf.Q_Q8_0, bytes(68 * len(words))) for t in file.tensors]

    def test_memory_stays_within_the_files_size(self):
        """Claims cost nothing: 16 MiB of header, most of it lies or padding."""
        lies = {
            "names": lambda f: f.set("x", array(gguf.STRING, [""] * (1 << 20))),
            "claims": lambda f: f.set("x", array(gguf.STRING, [""] * (1 << 20), 1 << 21)),
            "specials": self.long_specials,
            "keys": lambda f: f.metadata.extend([["k%d" % i, u32(i)] for i in range(65000)]),
            "tensors": lambda f: f.tensors.extend(
                [gguf.Tensor("t%d" % i, [1], gguf.Q_F32, b"1234" * 8) for i in range(100000)]),
        }
        for verb in self.verbs:
            usual = peak_bytes(verb, self.good)
            for name, lie in lies.items():
                file = llama()
                lie(file)
                path = file.write(self.path(name + ".gguf"))
                with self.subTest(verb=verb, lie=name):
                    # Entries of 30 bytes become entries of 200 in tables; 8 times leaves room.
                    allowed = usual + 8 * os.path.getsize(path) + SLACK_BYTES
                    self.assertLessEqual(peak_bytes(verb, path), allowed)

    def test_a_file_that_shrinks_in_use(self):
        """The vocabulary is read from the mapping when the prompt comes: by then it is gone."""
        for ranks in (0, 2):
            path = llama().write(self.path("shrinks.gguf"))
            size = os.path.getsize(path)
            command = (harness.mpirun(ranks) if ranks else []) + [
                program(), "run", "-m", path, "--chat", "-n", "4", "-t", "1"]
            with self.subTest(ranks=ranks):
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                           stderr=subprocess.PIPE)
                self.addCleanup(process.kill)
                heard = b""
                while b"> " not in heard:
                    piece = os.read(process.stderr.fileno(), 4096)
                    self.assertTrue(piece, heard)
                    heard += piece
                os.truncate(path, 100)
                out, errors = process.communicate(b"hello\n", TIMEOUT_S)
                said = errors.decode()
                self.assertEqual(process.returncode, 1, said)
                self.assertEqual(out, b"")
                self.assertIn("spillway: the file became shorter while it was in use: 100 of %d "
                              "bytes are left (%s)" % (size, path), said)

    def test_a_text_that_shrinks_in_use(self):
        """A text that were mapped would end the run with a line that blames the model."""
        text = self.path("text")
        with open(text, "w") as file:
            file.write(LONG_TEXT * 2000)
        process = subprocess.Popen(
            [program(), "perplexity", "-m", self.good, "-f", text, "-c", "32", "--chunks", "1",
             "-t", "1", "-q"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.kill)
        while process.poll() is None:
            with open("/proc/%d/maps" % process.pid) as maps:
                if text in maps.read():
                    os.truncate(text, 100)
                    break
        out, errors = process.communicate(timeout=TIMEOUT_S)
        self.assertEqual(process.returncode, 0, errors.decode())
        self.assertIn(b"PPL = ", out)


if __name__ == "__main__":
    # A crash must not fill the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    harness.main()
