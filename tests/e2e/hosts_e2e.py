"""Several hosts: a hostfile, and two hosts made of network namespaces with a wire between them."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import harness
from harness import generate, greedy

PROMPT = greedy("The capital of France is", 32)


def hostfile(test, text):
    folder = tempfile.TemporaryDirectory()
    test.addCleanup(folder.cleanup)
    path = os.path.join(folder.name, "hosts")
    with open(path, "w") as file:
        file.write(text)
    return path


class Hostfile(harness.EndToEnd):

    def test_four_slots_of_one_host(self):
        hosts = hostfile(self, "localhost slots=4\n")
        expected = self.succeed(generate(1, *PROMPT)).text()
        job = self.succeed(generate(4, *PROMPT, mpi=["--hostfile", hosts]))
        self.assertEqual(job.text(), expected)


class TwoHosts:
    """Namespaces A and B, joined by a pair of virtual Ethernet ends on 10.77.X.0/24."""

    def __init__(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("two hosts: network namespaces need root")
        if not shutil.which("ip") or not shutil.which("unshare"):
            raise unittest.SkipTest("two hosts: iproute2 or util-linux is missing")
        tag = os.getpid() % 65536
        third = tag % 254 + 1
        self.names = ["spillway-a%x" % tag, "spillway-b%x" % tag]
        self.ends = ["swa%x" % tag, "swb%x" % tag]
        self.addresses = ["10.77.%d.%d" % (third, n) for n in (1, 2)]
        self.subnet = "10.77.%d.0/24" % third
        try:
            self._ip("netns", "add", self.names[0])
            self._ip("netns", "add", self.names[1])
            self._ip("link", "add", self.ends[0], "netns", self.names[0], "type", "veth",
                     "peer", "name", self.ends[1], "netns", self.names[1])
            for name, end, address in zip(self.names, self.ends, self.addresses):
                self._ip("-n", name, "addr", "add", address + "/24", "dev", end)
                self._ip("-n", name, "link", "set", end, "up")
                self._ip("-n", name, "link", "set", "lo", "up")
            subprocess.run([self.enter(), self.names[0], "true"], check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            self.remove()
            raise unittest.SkipTest("two hosts: the system makes no network namespaces: %s" %
                                    error.stderr.decode(errors="replace").strip()) from None

    @staticmethod
    def enter():
        return os.path.join(harness.FOLDER, "netns_enter")

    @staticmethod
    def _ip(*arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    def cut_wire(self):
        self._ip("-n", self.names[0], "link", "set", self.ends[0], "down")

    def remove(self):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def command(self, test, ranks, *arguments, mpi=()):
        slots = (ranks + 1) // 2
        hosts = hostfile(test, "".join("%s slots=%d\n" % (a, slots) for a in self.addresses))
        mpi = [*mpi, "--hostfile", hosts, "--mca", "plm_rsh_agent",
               os.path.join(harness.FOLDER, "netns_rsh"),
               "--mca", "btl_tcp_if_include", self.subnet,
               "--mca", "oob_tcp_if_include", self.subnet]
        return [self.enter(), self.names[0]] + generate(
            ranks, "--coordinator", self.addresses[0] + ":0", *arguments, mpi=mpi)

    def env(self):
        return {"SPILLWAY_E2E_NETNS": " ".join(
            "%s=%s" % pair for pair in zip(self.addresses, self.names))}


class Namespaces(harness.EndToEnd):

    def setUp(self):
        harness.model()
        self.hosts = TwoHosts()
        self.addCleanup(self.hosts.remove)

    def test_same_text_from_two_hosts(self):
        expected = self.succeed(generate(1, *PROMPT)).text()
        for ranks, split in ((2, ["--tp", "2"]), (2, ["--pp", "2"]), (3, [])):
            with self.subTest(ranks=ranks, split=split):
                job = self.succeed(self.hosts.command(self, ranks, *split, *PROMPT),
                                   env=self.hosts.env())
                self.assertEqual(job.text(), expected)

    def test_ranks_are_on_both_hosts(self):
        job = self.start(self.hosts.command(self, 2, "-p", "Once", "-n", "1500", "--ignore-eos"),
                         env=self.hosts.env())
        address = job.coordinator()
        self.assertTrue(address.startswith(self.hosts.addresses[0] + ":"), address)
        job.wait_for_text(1)
        networks = {os.readlink("/proc/%d/ns/net" % pid) for pid in job.workers().values()}
        self.assertEqual(len(networks), 2, "both ranks on one host: " + job.describe())

    def test_killed_rank_of_the_other_host_is_named(self):
        job = self.start(self.hosts.command(self, 2, "-p", "Once", "-n", "1500", "--ignore-eos"),
                         env=self.hosts.env())
        job.wait_for_text(20)
        killed = time.monotonic()
        os.kill(job.workers()[1], signal.SIGKILL)
        self.assertEqual(job.wait(harness.SOON_S), 1, job.describe())
        self.assertRegex(job.errors(since=killed), r"rank 1\b")
        self.assertEqual(job.left_over(), {})

    def test_cut_wire_ends_the_job(self):
        """Our part: rank 1 is named and every rank is gone. mpirun's: to see that its daemon is out
        of reach, for which it must send keep-alive probes (see docs/launching.md)."""
        probes = ["--mca", "oob_tcp_keepalive_time", "1", "--mca", "oob_tcp_keepalive_intvl", "1",
                  "--mca", "oob_tcp_keepalive_probes", "1"]
        command = self.hosts.command(self, 2, "-p", "Once", "-n", "1500", "--ignore-eos",
                                     mpi=probes)
        job = self.start(command, env=self.hosts.env())
        job.wait_for_text(20)
        cut = time.monotonic()
        self.hosts.cut_wire()
        code = job.wait(2 * harness.SOON_S)
        print("  gone in %.2f s" % (time.monotonic() - cut))
        self.assertNotEqual(code, 0, job.describe())
        # Whoever is first: the coordinator, or mpirun, which names the host instead.
        self.assertRegex(job.errors(since=cut), r"rank 1\b|lost communication with a remote daemon")
        self.assertEqual(job.left_over(), {}, "left running by " + job.describe())


if __name__ == "__main__":
    harness.main()
