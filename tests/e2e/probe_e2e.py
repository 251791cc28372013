"""probe, and plan against files: clusters, model shapes, headers alone. No model is needed.

  SPILLWAY_SYNTH_GGUF  a command that writes GGUF files in the shapes of well-known models (shape,
                       file type and path are put behind it): shapes are compared with its headers
"""

import json
import os
import re
import resource
import shlex
import subprocess
import tempfile
import unittest

import gguf_writer
import harness
from harness import mpirun, program

CONFIGS = os.path.join(harness.ROOT, "configs")


def names(folder):
    return sorted(name[:-5] for name in os.listdir(os.path.join(CONFIGS, folder)))


class Files(harness.EndToEnd):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def refused(self, command, *words):
        code, job = self.finish(command)
        self.assertEqual(code, 1, job.describe())
        for word in words:
            self.assertIn(word, job.errors(), job.describe())


class Probe(Files):

    def probe(self, *arguments, ranks=0, cache="cache"):
        mpi = mpirun(ranks) if ranks else []
        return self.succeed([*mpi, program(), "probe", *arguments],
                            env={"XDG_CACHE_HOME": self.path(cache)})

    def kept(self):
        folder = self.path("cache/spillway/probe")
        return [os.path.join(folder, name) for name in os.listdir(folder)]

    def test_it_is_measured_once_and_kept(self):
        table = self.probe().text()
        self.assertRegex(table, r"measured in \d+\.\d s")
        for word in ("rank 0", "memory read", "GB/s", "GPU"):
            self.assertIn(word, table)
        self.assertEqual(len(self.kept()), 1)
        again = self.probe().text()
        self.assertIn("--refresh", again)
        self.assertEqual(re.findall("memory read.*", again), re.findall("memory read.*", table))
        self.assertRegex(self.probe("--refresh").text(), "measured in")
        self.assertEqual(len(self.kept()), 1)

    def test_two_ranks_with_a_disk(self):
        data = self.path("data")
        with open(data, "wb") as file:
            file.write(os.urandom(20 << 20))
        found = json.loads(self.probe("--json", "-m", data, ranks=2).text())
        self.assertEqual([rank["rank"] for rank in found["ranks"]], [0, 1])
        self.assertEqual([rank["local_rank"] for rank in found["ranks"]], [0, 1])
        for rank in found["ranks"]:
            self.assertGreater(rank["read_gb_per_s"], 0)
            self.assertGreater(rank["matrix_gop_per_s"], 0)
            self.assertGreater(rank["page_cache_gb_per_s"], 0)
            self.assertEqual(rank["host_read_threads"][-1], rank["threads"])
            self.assertEqual(rank["together_threads"], 2 * rank["threads"])
            self.assertGreater(rank["together_read_gb_per_s"], 0)
            # Of ranks with GPUs layers are not measured on CPUs.
            for key, threads in () if "gpu" in rank else (("cpu_", 1), ("cpu_together_", 2)):
                self.assertEqual(rank[key + "threads"], threads * rank["threads"])
                types = rank[key + "product_types"]
                self.assertIn("Q4_K", types)
                for rates in ("product_row_gb_per_s", "product_gop_per_s"):
                    self.assertEqual(len(rank[key + rates]), len(types))
                    self.assertGreater(min(rank[key + rates]), 0)
                self.assertGreater(rank[key + "attend_gop_per_s"], 0)
        self.assertGreater(found["link"]["latency_us"], 0)
        self.assertGreaterEqual(found["link"]["row_sum_us"], found["link"]["latency_us"])
        # One rank's are others': both are kept.
        self.probe()
        self.assertEqual(len(self.kept()), 2)

    def test_a_saved_cluster_is_planned_for(self):
        saved = self.path("here.toml")
        self.probe("--save", saved, ranks=2)
        plan = json.loads(self.succeed(
            [program(), "plan", "-m", "llama-1b:Q4_K_M", "--cluster", saved, "--json"]).text())
        self.assertEqual(len(plan["ranks"]), 2)
        self.assertTrue(plan["prediction"]["measured_cluster"])
        self.refused([program(), "probe", "--save", self.path("none/x.toml")], "none/x.toml")

    def test_plan_says_that_it_uses_kept_rates_and_damaged_ones_are_passed_over(self):
        env = {"XDG_CACHE_HOME": self.path("cache")}
        plan = [program(), "plan", "-m", "smollm2-135m:Q8_0"]
        none = self.succeed(plan, env=env).errors()
        self.assertNotIn("rates measured", none)
        self.assertIn("predictions are estimates", none)
        self.probe()
        first, second = (self.succeed(plan, env=env) for _ in range(2))
        self.assertIn("rates measured", first.errors())
        # But for the free memory, which is looked at every time and bounds the plan.
        rates = [job.text().partition("predicted:")[2].partition("bound by")[0]
                 for job in (first, second)]
        self.assertIn("tok/s", rates[0])
        self.assertEqual(rates[0], rates[1])
        with open(self.kept()[0], "w") as file:
            file.write("[[ranks]]\nrank = -7\n")
        job = self.succeed(plan, env=env)
        self.assertIn("warning: kept rates are not used", job.errors())
        self.assertIn("line 2", job.errors())
        self.assertIn("warning", self.probe().errors())  # ... and replaced
        self.assertIn("rates measured", self.succeed(plan, env=env).errors())

    def test_a_run_uses_them_too(self):
        env = {"XDG_CACHE_HOME": self.path("cache")}
        self.probe("-t", "1", "--device", "cpu", ranks=2)
        run = harness.generate(2, *harness.greedy("Once", 2), "--device", "cpu")
        self.assertIn("rates measured", self.succeed(run, env=env).errors())
        self.assertNotIn("rates measured", self.succeed(run).errors())


class Plan(Files):

    def plan(self, *arguments):
        return self.succeed([program(), "plan", *arguments])

    def as_json(self, *arguments):
        return json.loads(self.plan(*arguments, "--json").text())

    def test_every_cluster_and_every_shape(self):
        for cluster in names("clusters"):
            with self.subTest(cluster=cluster):
                plan = self.as_json("-m", "llama-8b:Q4_K_M", "--cluster", cluster)
                self.assertTrue(all(rank["gpu"] for rank in plan["ranks"]))
        for shape in names("models"):
            with self.subTest(shape=shape):
                plan = self.as_json("-m", shape + ":Q4_K_M", "--cluster", "2xh200")
                self.assertGreater(plan["prediction"]["decode_tok_per_s"], 0)

    def test_the_same_on_any_machine(self):
        first, second = (self.plan("--model", "llama-70b:Q4_K_M", "--cluster", "2xh200").text()
                         for _ in range(2))
        self.assertEqual(first, second)
        self.assertIn("NVIDIA H200", first)

    def test_fewer_ranks_than_the_cluster_has(self):
        plan = self.as_json("-m", "llama-8b:Q4_K_M", "--cluster", "4x3090", "--ranks", "1")
        self.assertEqual(len(plan["ranks"]), 1)
        self.refused([program(), "plan", "-m", "llama-8b:Q4_K_M", "--cluster", "2x3090", "--ranks",
                      "3"], "2 ranks, 3 are asked for")

    def test_misspelt_words_and_bad_files(self):
        plan = [program(), "plan", "-m"]
        self.refused([*plan, "llama-7b:Q4_K_M", "--cluster", "2x3090"], "did you mean")
        self.refused([*plan, "llama-8b", "--cluster", "2x3090"], "-m llama-8b:Q4_K_M")
        self.refused([*plan, "llama-8b:Q4_K_N", "--cluster", "2x3090"],
                     "did you mean Q4_K_M or Q4_K_S?")
        self.refused([*plan, "llama-8b:Q4_K_M", "--cluster", "2x309"], "did you mean 2x3090?")
        bad = self.path("bad.toml")
        with open(os.path.join(CONFIGS, "clusters", "2x3090.toml")) as file:
            text = file.read()
        with open(bad, "w") as file:
            file.write(text.replace("h2d_gb_per_s", "h2d_gbps", 1))
        line = text[:text.index("h2d_gb_per_s")].count("\n") + 1
        self.refused([*plan, "llama-8b:Q4_K_M", "--cluster", bad], "line %d" % line,
                     "ranks.gpu.h2d_gbps", "did you mean")

    def test_a_header_alone(self):
        """plan and inspect say the same of a file and of its header; the other verbs refuse it."""
        whole = gguf_writer.llama()
        content = whole.bytes()
        header = len(whole.header())
        paths = []
        for name, size in (("whole.gguf", len(content)), ("header.gguf", header)):
            paths.append(self.path(name))
            with open(paths[-1], "wb") as file:
                file.write(content[:size])
        for verb in ("plan", "inspect"):
            extra = ["--cluster", "2x3090"] if verb == "plan" else []
            jobs = [self.succeed([program(), verb, "-m", path, "--json", *extra])
                    for path in paths]
            a, b = (json.loads(job.text()) for job in jobs)
            a.pop("files", None), b.pop("files", None)
            self.assertEqual(a.get("ledger"), b.get("ledger"))
            self.assertEqual(a.get("tensors"), b.get("tensors"))
            self.assertEqual(jobs[0].errors(), "")
            self.assertIn("ends before its weights", jobs[1].errors())
        self.refused([program(), "run", "-m", paths[1], "-p", "x", "-n", "1"], "header.gguf",
                     "cut short")

    def test_shapes_against_the_headers_of_files(self):
        tool = os.environ.get("SPILLWAY_SYNTH_GGUF")
        if tool is None:
            raise unittest.SkipTest("SPILLWAY_SYNTH_GGUF names no writer of model files")
        # The writer gives Llama 70B's value matrices Q4_K where llama.cpp's rule has Q5_K.
        for shape, kind in (("llama-1b", "Q4_K_M"), ("llama-8b", "Q4_K_M"), ("llama-70b", "Q8_0")):
            with self.subTest(shape=shape, kind=kind):
                path = self.path(shape + ".gguf")
                # The file may get no longer than what holds its header.
                limit = 64 << 20
                subprocess.run([*shlex.split(tool), shape, kind, path], check=False,
                               stderr=subprocess.DEVNULL, preexec_fn=lambda: resource.setrlimit(
                                   resource.RLIMIT_FSIZE, (limit, limit)))
                by_file, by_shape = (self.as_json("-m", model, "--cluster", "2xh200")
                                     for model in (path, "%s:%s" % (shape, kind)))
                for key in ("ledger", "stages", "kv", "title", "prediction"):
                    self.assertEqual(by_file[key], by_shape[key], key)
                os.remove(path)


if __name__ == "__main__":
    harness.main()
