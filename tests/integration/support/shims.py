"""Libraries put in front of libc: built on demand, handed over as environment."""

import contextlib
import mmap
import struct
import subprocess
import time
from pathlib import Path

from .proxy import BINARY


def build(name, folder):
    """support/NAME.c as a shared library in this folder."""
    library = Path(folder) / f"{name}.so"
    source = Path(__file__).parent / f"{name}.c"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return library


def preload(library, sanitized, binary=BINARY):
    """Environment for a process of the binary. A sanitizer's runtime must come first when it is a library."""
    libs = [str(library)]
    if sanitized:
        out = subprocess.run(["ldd", binary], check=True, capture_output=True, text=True, timeout=10).stdout
        libs = [line.split()[2] for line in out.splitlines() if "libasan" in line] + libs
    return {"LD_PRELOAD": " ".join(libs)}


class Clock:
    """support/speed_shim.c's control: how fast time runs for the processes that have .env, all of them alike."""

    def __init__(self, path):
        self.env = {"SPEED_SHIM_CONTROL": str(path)}
        self.times, self.version, self.real, self.shown = 1, 0, 0, 0
        path.write_bytes(bytes(40))
        with open(path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 40)
        self.speed(1)

    def speed(self, times, wall_s=0.0):
        """So many times as fast from now on; the wall clock is off by so many seconds."""
        now = time.monotonic_ns()
        self.shown, self.real = self.shown + int((now - self.real) * self.times), now
        self.times, self.version = times, self.version + 2
        struct.pack_into("Q", self.map, 0, self.version - 1)
        struct.pack_into("ddqq", self.map, 8, times, wall_s, self.real, self.shown)
        struct.pack_into("Q", self.map, 0, self.version)

    @contextlib.contextmanager
    def fast(self, times):
        self.speed(times)
        try:
            yield
        finally:
            self.speed(1)


class MallocFailures:
    """support/malloc_shim.c: `with failures.every(n):` lets every n-th allocation of the workers' own code fail."""

    def __init__(self, folder, sanitized=False):
        self.folder = Path(folder)
        self.control, self.report = self.folder / "malloc-control", self.folder / "malloc-report"
        # In front of a sanitizer's malloc, not behind it: it is that one which is to be called through.
        self.env = {
            "LD_PRELOAD": str(build("malloc_shim", folder)),
            "MALLOC_SHIM_CONTROL": str(self.control),
            "MALLOC_SHIM_REPORT": str(self.report),
        }
        if sanitized:
            self.env["ASAN_OPTIONS"] = "verify_asan_link_order=0"

    def every(self, n):
        return _Every(self, n)

    def sites(self):
        """Where in the program calls have failed so far, as addresses for addr2line; one a failure."""
        return self.report.read_text().split() if self.report.exists() else []


class _Every:
    def __init__(self, failures, n):
        self.failures, self.n = failures, n

    def __enter__(self):
        new = self.failures.control.with_suffix(".new")
        new.write_text(f"{self.n}\n")
        new.rename(self.failures.control)
        return self.failures

    def __exit__(self, *_):
        self.failures.control.unlink()
