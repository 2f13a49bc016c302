"""Control groups of version 1, made below their mount point, with processes of a test inside."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

from .need import cannot_run
from .wait import wait_until

NUMBERS = itertools.count()
PIECE = 256 << 10
BALLAST = f"""
import mmap, sys
held = []
print(0, flush=True)
for line in sys.stdin:
    while len(held) < int(line):
        held.append(mmap.mmap(-1, {PIECE}))
        held[-1].write(b"x" * {PIECE})
    while len(held) > int(line):
        held.pop().close()
    print(len(held), flush=True)
"""


class Cgroup:
    """Cgroup("memory", limit_in_bytes=64 << 20); skips the test where it cannot be made. remove() at the end."""

    def __init__(self, controller, **files):
        self.path = Path(f"/sys/fs/cgroup/{controller}/tidegate-test-{os.getpid()}-{next(NUMBERS)}")
        try:
            self.path.mkdir()
        except OSError as e:
            cannot_run(f"no cgroup of the v1 controller {controller} can be made: {e}")
        for name, value in files.items():
            (self.path / f"{controller}.{name}").write_text(str(value))

    def wrap(self):
        """Words in front of a command that is to run inside."""
        return ["sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "sh"]

    def remove(self):
        wait_until("the cgroup empty", lambda: not (self.path / "cgroup.procs").read_text())
        self.path.rmdir()


class MemoryCgroup(Cgroup):
    """A limit on memory, and a process that takes as much of it as the test wants."""

    def __init__(self, limit):
        super().__init__("memory", limit_in_bytes=limit)
        self.limit, self.held = limit, 0
        self.ballast = subprocess.Popen(
            [*self.wrap(), sys.executable, "-c", BALLAST], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ballast.stdout.readline()

    def used(self):
        """In percent: what the proxy looks at."""
        stat = dict(line.split() for line in (self.path / "memory.stat").read_text().splitlines())
        usage = int((self.path / "memory.usage_in_bytes").read_text())
        return 100 * (usage - int(stat["total_inactive_file"])) / self.limit

    def fill(self, percent):
        """From now on about so much is in use."""

        def near():
            missing = percent - self.used()
            if abs(missing) < 0.4:
                return True
            self.held += round(missing / 100 * self.limit / PIECE)
            self.ballast.stdin.write(f"{self.held}\n")
            self.ballast.stdin.flush()
            assert self.ballast.stdout.readline(), "the ballast was killed"
            return False

        wait_until(f"{percent} % of the memory in use", near)

    def remove(self):
        self.ballast.stdin.close()
        self.ballast.wait(5)
        super().remove()
