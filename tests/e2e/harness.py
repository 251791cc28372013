"""What the end-to-end tests share: jobs of several ranks, their processes, their output.

Called by the *_e2e.py files beside it, which ctest starts with python3 and only its standard
library. A Job knows its processes by a mark in their environment, which every child inherits: a
test looks at and ends nothing but its own job, and never by name.

  SPILLWAY_E2E_PROGRAM  the spillway binary; set by CMake
  SPILLWAY_TEST_MODEL   the model; set by tests/run, else looked for in launch/fetch_model's cache
  SPILLWAY_E2E_GPUS     jobs on so many GPUs instead of CPUs, for tests that can do that: connect,
                        faults, ledger; the ranks share a single one
"""

import atexit
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import uuid
import weakref

SKIPPED = 77  # the exit code that ctest shows as "skipped"
MARK = "SPILLWAY_E2E_JOB"
MODEL_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = os.path.join(ROOT, "tests", "e2e")
GPUS = int(os.environ.get("SPILLWAY_E2E_GPUS", "0"))

NO_CACHE = "/dev/null"  # no folder can be made in it


# How soon things are said and ended is documented for a machine that has time for it: tests print
# it. What they hold is a bound that tells "soon" from "never" on a machine that does other things.
SOON_S = 20.0

# Where mpirun and its ranks have their files in common: mapped, written, with locks in them, before
# MPI_Init returns. On a disk that others make full use of a job said nothing for 40 s.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def program():
    return os.environ.get("SPILLWAY_E2E_PROGRAM", os.path.join(ROOT, "build", "cpu", "spillway"))


def model():
    """Path of the model; skips the test that asks when there is none."""
    path = os.environ.get("SPILLWAY_TEST_MODEL")
    if path is None:
        cache = os.environ.get("SPILLWAY_CACHE") or os.path.join(
            os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "spillway")
        path = os.path.join(cache, MODEL_NAME)
    if not os.path.isfile(path):
        raise unittest.SkipTest("no model: run launch/fetch_model first")
    return path


def mpirun(ranks, *extra):
    command = ["mpirun", "-np", str(ranks), "--oversubscribe"]
    if os.geteuid() == 0:
        command.append("--allow-run-as-root")
    return command + list(extra)


def parent_of(pid):
    try:
        with open("/proc/%d/stat" % pid) as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return None


def cut_spill_file(pid, folder):
    """Cuts the process' file of weights on disk in this folder to nothing, as a disk that fails
    would: the file has no name, but its descriptor can be opened. Whether there was one."""
    cut = False
    for name in os.listdir("/proc/%d/fd" % pid):
        path = "/proc/%d/fd/%s" % (pid, name)
        try:
            if not os.readlink(path).startswith(os.path.realpath(folder) + "/"):
                continue
            os.truncate(path, 0)
        except OSError:
            continue  # closed meanwhile
        cut = True
    return cut


def maps(pid, path):
    """Whether the process has this file mapped."""
    try:
        with open("/proc/%d/maps" % pid) as file:
            return os.path.realpath(path) in file.read()
    except OSError:
        return False


JOBS = weakref.WeakSet()


@atexit.register
def end_all():
    """What a test leaves that was interrupted."""
    for job in list(JOBS):
        if job.process.poll() is None:
            job.end()


class Job:
    """A command with all processes it starts, in a session of its own.

    Reads both streams as they come; `output_times` are the moments when pieces of stdout came,
    `stderr_lines` pairs of (moment, line), all on the monotonic clock."""

    def __init__(self, command, stdin=None, env=None, cwd=None, keep_stdin=False):
        self.mark = uuid.uuid4().hex
        full_env = dict(os.environ)
        if GPUS == 0:
            full_env["CUDA_VISIBLE_DEVICES"] = ""  # jobs of CPUs, also where a GPU is
        full_env["XDG_CACHE_HOME"] = NO_CACHE  # rates that somebody's probe kept are not the tests'
        self.session = tempfile.TemporaryDirectory(prefix="sw", dir=MEMORY,
                                                   ignore_cleanup_errors=True)
        full_env["OMPI_MCA_orte_tmpdir_base"] = self.session.name
        full_env.update(env or {})
        full_env[MARK] = self.mark
        self.command = command
        self.stdout = b""
        self.stderr_lines = []
        self.output_times = []
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command, env=full_env, cwd=cwd, start_new_session=True,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        JOBS.add(self)
        self.threads = [threading.Thread(target=self._read_stdout, daemon=True),
                        threading.Thread(target=self._read_stderr, daemon=True)]
        for thread in self.threads:
            thread.start()
        if stdin is not None:
            self.process.stdin.write(stdin.encode())
            if not keep_stdin:
                self.process.stdin.close()

    def _read_stdout(self):
        while True:
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                return
            self.output_times.append(time.monotonic())
            self.stdout += piece

    def _read_stderr(self):
        for line in self.process.stderr:
            for part in line.decode(errors="replace").rstrip("\n").split("\r"):
                self.stderr_lines.append((time.monotonic(), part))

    def text(self):
        return self.stdout.decode(errors="replace")

    def errors(self, since=0.0):
        return "\n".join(line for when, line in list(self.stderr_lines) if when >= since)

    def wait(self, timeout):
        """Exit code of the command; ends all of the job and raises when it takes longer."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            shown = self.describe()
            self.end()
            raise AssertionError("still running after %g s: %s" % (timeout, shown)) from None
        for thread in self.threads:
            thread.join(5)
        return code

    def wait_for_words(self, pattern, since=0.0, timeout=SOON_S):
        """Until stderr has them. What ranks say passes through mpirun, so it may come after their
        end."""
        self.wait_for(lambda: re.search(pattern, self.errors(since=since)), timeout,
                      "line with %r" % pattern)

    def wait_for(self, condition, timeout, what):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            found = condition()
            if found:
                return found
            if self.process.poll() is not None:
                for thread in self.threads:
                    thread.join(5)  # they may still be behind
                found = condition()
                if found:
                    return found
                raise AssertionError("ended before %s: %s" % (what, self.describe()))
            time.sleep(0.02)
        shown = self.describe()
        self.end()
        raise AssertionError("no %s within %g s: %s" % (what, timeout, shown))

    def wait_for_text(self, n_bytes, timeout=60):
        self.wait_for(lambda: len(self.stdout) >= n_bytes, timeout, "%d bytes of text" % n_bytes)

    def coordinator(self, timeout=60):
        """HOST:PORT out of the line that rank 0 prints."""
        pattern = re.compile(r"coordinator at (\S+:\d+)")
        return self.wait_for(lambda: pattern.search(self.errors()), timeout,
                             "line with the coordinator's address").group(1)

    def processes(self):
        """{pid: (command name, MPI rank or None)} of all that live, mpirun among them."""
        found = {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                with open("/proc/%s/environ" % name, "rb") as file:
                    entries = file.read().split(b"\0")
                if ("%s=%s" % (MARK, self.mark)).encode() not in entries:
                    continue
                with open("/proc/%s/comm" % name) as file:
                    command = file.read().strip()
            except OSError:
                continue  # gone meanwhile, or another user's
            rank = next((int(entry.split(b"=")[1]) for entry in entries
                         if entry.startswith(b"OMPI_COMM_WORLD_RANK=")), None)
            found[int(name)] = (command, rank)
        return found

    def workers(self):
        """{rank: pid}: the process of each rank that computes."""
        found = self.processes()
        ranks = {pid: rank for pid, (_, rank) in found.items() if rank is not None}
        # A worker is the child of its rank's guard, which may not have taken its name yet.
        return {rank: pid for pid, rank in ranks.items()
                if found[pid][0] == "spillway" and parent_of(pid) in ranks}

    def ranks(self):
        """{pid: rank} of the guards and workers: all that Spillway answers for, without mpirun."""
        return {pid: rank for pid, (_, rank) in self.processes().items() if rank is not None}

    def wait_for_workers(self, n_ranks, timeout=60):
        def complete():
            found = self.workers()
            return found if len(found) == n_ranks else None
        return self.wait_for(complete, timeout, "%d workers" % n_ranks)

    def left_over(self, patience=15.0):
        """Processes still there `patience` seconds from now; {} as soon as there are none."""
        end = time.monotonic() + patience
        while True:
            rest = self.processes()
            if not rest or time.monotonic() > end:
                return rest
            time.sleep(0.05)

    def end(self):
        """Ends what is left of this job, whatever its state."""
        for _ in range(3):
            for pid in self.processes():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.05)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            pass
        for stream in (self.process.stdout, self.process.stderr):
            if not stream.closed and not any(thread.is_alive() for thread in self.threads):
                stream.close()
        self.session.cleanup()

    def said(self):
        """The sentences that ranks end with: stderr's lines with the program's name in front, but
        for warnings and that a fault is simulated."""
        return [line for line in self.errors().splitlines()
                if line.startswith("spillway: ") and "is simulated: " not in line
                and not line.startswith("spillway: warning: ")]

    def describe(self):
        return "%s\n  exit code %s\n  stdout %r\n  stderr:\n%s" % (
            " ".join(self.command), self.process.poll(), self.text()[-400:],
            "\n".join("    " + line for line in self.errors().splitlines()[-40:]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


class EndToEnd(unittest.TestCase):
    """Base of the tests: jobs end with the test, and failed checks show the job."""

    maxDiff = None

    def start(self, command, **options):
        job = Job(command, **options)
        self.addCleanup(job.end)
        return job

    def finish(self, command, timeout=120, **options):
        """Runs to the end, leaves nothing behind; (exit code, Job)."""
        job = self.start(command, **options)
        code = job.wait(timeout)
        self.assertEqual(job.left_over(), {}, "left running by " + job.describe())
        return code, job

    def succeed(self, command, timeout=120, **options):
        code, job = self.finish(command, timeout, **options)
        self.assertEqual(code, 0, job.describe())
        return job


def on_device(ranks):
    """Arguments of a job of so many ranks: where it computes."""
    if GPUS == 0:
        return ["--device", "cpu"]
    return ["--device", "gpu"] + (["--share-gpus"] if ranks > GPUS else [])


def generate(ranks, *arguments, mpi=(), threads=1):
    """The command line of a run on `ranks` ranks of `threads` threads each."""
    device = on_device(ranks) if GPUS > 0 else []
    return mpirun(ranks, *mpi) + [program(), "run", "-m", model(), "-t", str(threads)] + list(
        arguments) + device


def greedy(prompt, n_tokens):
    return ["-p", prompt, "-n", str(n_tokens), "--temp", "0"]


def main():
    """Runs the calling file's tests; exit code SKIPPED when every one was skipped."""
    if not os.access(program(), os.X_OK):
        print("no program at %s: build the target spillway" % program(), file=sys.stderr)
        sys.exit(1)
    result = unittest.main(exit=False, verbosity=2).result
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(SKIPPED if result.testsRun and len(result.skipped) == result.testsRun else 0)
