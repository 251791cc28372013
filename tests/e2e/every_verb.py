"""Every verb of the program that reads a model file, and one run of it: how it ended, what it said,
what it took. Called by hostile_e2e.py.
"""

import os
import re
import subprocess
import tempfile
import time

from harness import NO_CACHE, program

TIMEOUT_S = 180 * float(os.environ.get("SPILLWAY_E2E_PATIENCE", "1"))
LONG_TEXT = "he he he shot the note on the stone here. " * 40
MESSAGES = '[{"role": "user", "content": "hello"}]'

# What to put on the command line and on standard input. {m}: the file, {d}: a folder of one's own.
COMMANDS = {
    "run": ("-m {m} -p hello -n 4 --temp 0 -t 1", ""),
    "inspect": ("-m {m}", ""),
    "plan": ("-m {m}", ""),
    "verify": ("-m {m} -n 2 -t 1", ""),
    "bench": ("-m {m} -p 8 -n 2 -r 1 -t 1", ""),
    "sweep": ("-m {m} -p 8 -n 2 -r 1 -t 1", ""),
    "perplexity": ("-m {m} -f {d}/text -c 32 -t 1", ""),
    "tokenize": ("-m {m}", "hello"),
    "template": ("-m {m}", MESSAGES),
    "quantize": ("{m} {d}/out.gguf Q4_K_M", ""),
}
NO_FILE = {"status", "probe"}  # verbs that read no model
# Who looks at what: a file that is sound as a container may be good enough for the others.
SPEC = {"run", "plan", "verify", "bench", "sweep", "perplexity"}
COMPUTE = {"run", "verify", "bench", "sweep", "perplexity"}
WORDS = {"run", "tokenize", "perplexity"}


def environment():
    """Without the rates that somebody's probe kept, which a run would tell of."""
    return {**os.environ, "XDG_CACHE_HOME": NO_CACHE}


def verbs():
    """As the program's own help lists them."""
    helped = subprocess.run([program(), "--help"], capture_output=True, text=True, check=True)
    return re.findall(r"^  ([a-z]+) ", helped.stdout.partition("Subcommands:")[2], re.M)


class Ran:
    """One command to its end: what it said, how it ended, what it used."""

    def __init__(self, verb, path, *more):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "text"), "w") as file:
                file.write(LONG_TEXT)
            words, stdin = COMMANDS[verb]
            words = [word.format(m=path, d=folder) for word in words.split()]
            self.command = [program(), verb, *words, *more]
            started = time.monotonic()
            process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, env=environment())
            try:
                self.stdout, errors = process.communicate(stdin.encode(), TIMEOUT_S)
                self.code = process.returncode
            except subprocess.TimeoutExpired:
                process.kill()
                self.stdout, errors = process.communicate()
                self.code = None
            self.seconds = time.monotonic() - started
            self.left = sorted(os.listdir(folder))
        self.stderr = errors.decode(errors="replace")
        # Progress, warnings and the coordinator's address are no errors.
        self.said = [line for line in re.split(r"[\r\n]+", self.stderr)
                     if re.match("spillway: (?!warning: )", line)]

    def __str__(self):
        return "%s\n  exit code %s after %.1f s\n  stdout %r\n  stderr %s" % (
            " ".join(self.command), self.code, self.seconds, self.stdout[-200:],
            self.stderr[-1000:])


def peak_bytes(verb, path):
    """Resident memory of a run at its highest, measured alone in a process of its own."""
    reader = ("import os, resource, sys, subprocess\n"
              "subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,"
              " stderr=subprocess.DEVNULL)\n"
              "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "text"), "w") as file:
            file.write(LONG_TEXT)
        words = [word.format(m=path, d=folder) for word in COMMANDS[verb][0].split()]
        out = subprocess.run(["python3", "-c", reader, program(), verb, *words],
                             capture_output=True, text=True, check=True, timeout=TIMEOUT_S,
                             env=environment()).stdout
    return int(out) * 1024
