#!/usr/bin/env python3
"""Tests of check_house: tiny trees with one violation each, and each must be found, alone.
Run by ctest as house.selftest; needs no more than Python's standard library."""

import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
HEADER = "// What lives here.\n#pragma once\n"
SOURCE = "// What lives here.\n"

CLEAN = {
    "CMakeLists.txt": "# Build.\n",
    "docs/ARCHITECTURE.md": "# Architecture\n\n`kernels/core/a.h` has `Thing`.\n",
    "kernels/core/a.h": HEADER + "struct Thing {\n  int size_bytes = 0;\n};\n",
    "kernels/cpu/b.cc": SOURCE + '#include "kernels/core/a.h"\n',
    "parallel/mpi_communicator.cc": SOURCE + "#include <mpi.h>\n",
    "rpc/c.cc": SOURCE + '#include <grpcpp/grpcpp.h>\n\n#include "coordinator.pb.h"\n',
    "runtime/engine/d.cc": SOURCE + '#include "kernels/core/a.h"\n',
    "launch/e.cc": SOURCE + 'const char* f() { return getenv("X"); }\n',
}


def run(changes):
    """The lines check_house prints for the clean tree with changes; None deletes a file."""
    with tempfile.TemporaryDirectory() as root:
        for path, text in {**CLEAN, **changes}.items():
            if text is None:
                continue
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8", newline="") as file:
                file.write(text)
        done = subprocess.run(
            [sys.executable, os.path.join(HERE, "check_house"), root],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines = done.stdout.splitlines()
        assert done.returncode == (1 if lines else 0), (done.returncode, done.stdout, done.stderr)
        assert not done.stderr, done.stderr
        return lines


def function(lines, head="int f(int x) {"):
    return SOURCE + head + "\n" + "  x += 1;\n" * (lines - 2) + "}\n"


def document(words):
    return {"docs/ARCHITECTURE.md": f"# A\n\n{words}\n"}


# name: (changes, where, a part of the reason)
VIOLATIONS = {
    "upwards": ({"kernels/core/a.h": HEADER + '#include "parallel/p.h"\n', "parallel/p.h": HEADER,
                 "docs/ARCHITECTURE.md": "x\n"}, "kernels/core/a.h:3", "kernels is below parallel"),
    "rpc sees launch": ({"rpc/x.cc": SOURCE + '#include "launch/l.h"\n', "launch/l.h": HEADER},
                        "rpc/x.cc:2", "rpc is below launch"),
    "cpu sees cuda": ({"kernels/cpu/x.cc": SOURCE + '#include "kernels/cuda/ops.h"\n',
                       "kernels/cuda/ops.h": HEADER}, "kernels/cpu/x.cc:2", "may not see"),
    "token sees stage": ({"runtime/token/x.cc": SOURCE + '#include "runtime/stage/s.h"\n',
                          "runtime/stage/s.h": HEADER}, "runtime/token/x.cc:2", "may not see"),
    "an unknown room": ({"runtime/extra/x.cc": SOURCE + '#include "runtime/io/s.h"\n',
                         "runtime/io/s.h": HEADER}, "runtime/extra/x.cc:2", "no room"),
    "cost sees planner": ({"parallel/cost.cc": SOURCE + '#include "parallel/planner.h"\n',
                           "parallel/planner.h": HEADER}, "parallel/cost.cc:2", "may not see"),
    "fabric sees plan": ({"parallel/mpi_communicator.h": HEADER + '#include "parallel/plan.h"\n',
                          "parallel/plan.h": HEADER},
                         "parallel/mpi_communicator.h:3", "may not see"),
    "code sees tests": ({"launch/x.cc": SOURCE + '#include "tests/support/t.h"\n',
                         "tests/support/t.h": HEADER}, "launch/x.cc:2", "only tests"),
    "not from the root": ({"kernels/cpu/x.cc": SOURCE + '#include "a.h"\n'},
                          "kernels/cpu/x.cc:2", "no path from"),
    "a circle": ({"runtime/io/x.h": HEADER + '#include "runtime/io/y.h"\n',
                  "runtime/io/y.h": HEADER + '#include "runtime/io/x.h"\n'},
                 "runtime/io/x.h:1", "in a circle"),
    "mpi in a header": ({"parallel/x.h": HEADER + "#include <mpi.h>\n"}, "parallel/x.h:3", "MPI"),
    "mpi in launch": ({"launch/x.cc": SOURCE + "#include <mpi.h>\n"}, "launch/x.cc:2", "MPI"),
    "nccl in rpc": ({"rpc/x.cc": SOURCE + "#include <nccl.h>\n"}, "rpc/x.cc:2", "NCCL"),
    "grpc in launch": ({"launch/x.cc": SOURCE + "#include <grpcpp/grpcpp.h>\n"},
                       "launch/x.cc:2", "gRPC"),
    "boost in runtime": ({"runtime/engine/x.cc": SOURCE + "#include <boost/asio.hpp>\n"},
                         "runtime/engine/x.cc:2", "Boost"),
    "protobuf in parallel": ({"parallel/x.cc": SOURCE + '#include "coordinator.pb.h"\n'},
                             "parallel/x.cc:2", "protobuf"),
    "cuda in rpc": ({"rpc/x.cc": SOURCE + "#include <cuda_runtime.h>\n"}, "rpc/x.cc:2", "CUDA"),
    "no pragma once": ({"kernels/core/x.h": "// A.\n"}, "kernels/core/x.h:1", "#pragma once"),
    "no opening": ({"kernels/core/x.cc": "int x;\n"}, "kernels/core/x.cc:1", "open with a comment"),
    "no opening of a script": ({"launch/x": "#!/bin/sh\necho a\n"}, "launch/x:1", "comment"),
    "long file": ({"kernels/core/x.cc": SOURCE + "int x;\n" * 450}, "kernels/core/x.cc:450",
                  "451 lines"),
    "long function": ({"kernels/core/x.cc": function(81)}, "kernels/core/x.cc:2", "of 81 lines"),
    "long constructor": ({"kernels/core/x.cc": function(81, "C::C(int x) : a_{1}, b_{x} {")},
                         "kernels/core/x.cc:2", "of 81 lines"),
    "long method": ({"kernels/core/x.cc": SOURCE + "namespace a {\nclass B {\n" + function(81) +
                     "};\n}\n"}, "kernels/core/x.cc:5", "of 81 lines"),
    "long line": ({"kernels/core/x.cc": SOURCE + "// " + "x" * 98 + "\n"}, "kernels/core/x.cc:2",
                  "101 characters"),
    "tab": ({"kernels/core/x.cc": SOURCE + "int\tx;\n"}, "kernels/core/x.cc:2", "a tab"),
    "trailing blank": ({"kernels/core/x.cc": SOURCE + "int x; \n"}, "kernels/core/x.cc:2",
                       "blanks"),
    "windows lines": ({"kernels/core/x.cc": SOURCE + "int x;\r\n"}, "kernels/core/x.cc:2",
                      "blanks"),
    "empty word": ({"runtime/io/file_utils.h": HEADER}, "runtime/io/file_utils.h:1", "'utils'"),
    "empty word of a folder": ({"runtime/io/v2/x.h": HEADER}, "runtime/io/v2/x.h:1", "'v2'"),
    "getenv": ({"runtime/io/x.cc": SOURCE + 'auto x = std::getenv("A");\n'}, "runtime/io/x.cc:2",
               "getenv below"),
    "using namespace": ({"runtime/io/x.h": HEADER + "using namespace std;\n"}, "runtime/io/x.h:3",
                        "using namespace"),
    "path of a machine": ({"docs/x.md": "a\nsee /ho" + "me/me/x\n"}, "docs/x.md:2", "one machine"),
    "stray folder": ({"helpers/x.txt": "# A.\n"}, "helpers:1", "top level"),
    "no document": ({"docs/ARCHITECTURE.md": None}, "docs/ARCHITECTURE.md:1", "missing"),
    "no such path": (document("`kernels/core/z.h`"), "docs/ARCHITECTURE.md:3", "kernels/core/z.h"),
    "no such folder": (document("`kernels/gpu/`"), "docs/ARCHITECTURE.md:3", "kernels/gpu"),
    "no such system header": (document("`nccl.h`"), "docs/ARCHITECTURE.md:3", "nccl.h"),
    "no such file name": (document("a `z.cc` b"), "docs/ARCHITECTURE.md:3", "z.cc"),
    "one of braces": (document("`kernels/core/{a,z}.h`"), "docs/ARCHITECTURE.md:3", "core/z.h"),
    "pattern": (document("`kernels/cpu/*.h`"), "docs/ARCHITECTURE.md:3", "kernels/cpu/*.h"),
    "no such symbol": (document("`Thing` `Nothing`"), "docs/ARCHITECTURE.md:3", "`Nothing`"),
    "no such member": (document("`Thing::age(x)`"), "docs/ARCHITECTURE.md:3", "`age`"),
    "symbol in a comment": ({**document("`lives`")}, "docs/ARCHITECTURE.md:3", "`lives`"),
}

FINE = {
    "tests see all": {"tests/x_test.cc": SOURCE + '#include "launch/l.h"\n#include <mpi.h>\n',
                      "launch/l.h": HEADER},
    "mpi where it may be": {"launch/bring_up.cc": SOURCE + "#include <mpi.h>\n"},
    "80 lines": {"kernels/core/x.cc": function(80)},
    "long table": {"kernels/core/x.cc": SOURCE + "const int k[] = {\n" + "  1,\n" * 100 + "};\n"},
    "long namespace": {"kernels/core/x.cc": SOURCE + "namespace a {\n" + "int x();\n" * 100 +
                       "}\n"},
    "braces in texts": {"kernels/core/x.cc": SOURCE + "const char* s = \"{\"; char c = '{'; // {\n"
                        "const char* r = R\"x({)x\"; int big = 1'000;\n" + "int y;\n" * 90},
    "include in a comment": {"kernels/core/x.cc": SOURCE + '/*\n#include "launch/x.h"\n*/\n'},
    "getenv in a comment": {"kernels/core/x.cc": SOURCE + "// getenv(x)\n"},
    "100 characters not bytes": {"kernels/core/x.cc": SOURCE + "// " + "é" * 97 + "\n"},
    "goldens as they are": {"tests/golden/x.txt": "a \t" + "x" * 200 + "\n"},
    "words beside": {"launch/newline.h": HEADER, "launch/fasten.h": HEADER},
    "document": document("`Thing::size_bytes`, `a.h`, `kernels/core/`, `kernels/c*/{a.h,b.cc}`, "
                         "`mpi.h`, `--flag`, `mpirun -np 2`, `/metrics`, `a = 1`, `Thing<int>(3)`"),
    "fences": document("```\n`nothing/there`\n```"),
}


class CheckHouse(unittest.TestCase):
    def test_the_clean_tree_is_clean(self):
        self.assertEqual(run({}), [])

    def test_each_violation_is_found_alone(self):
        for name, (changes, where, reason) in VIOLATIONS.items():
            with self.subTest(name):
                lines = run(changes)
                self.assertEqual(len(lines), 1, lines)
                self.assertTrue(lines[0].startswith(where + ": "), lines)
                self.assertIn(reason, lines[0])

    def test_what_is_fine_passes(self):
        for name, changes in FINE.items():
            with self.subTest(name):
                self.assertEqual(run(changes), [])

    def test_a_wrong_root_is_an_error(self):
        script = os.path.join(HERE, "check_house")
        done = subprocess.run([sys.executable, script, "/nowhere/at/all"], stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 2)


if __name__ == "__main__":
    unittest.main()
