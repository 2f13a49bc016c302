"""Crowds too large for Python: the echo backend and the clients of tests/bench, as processes of their own."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

from .proxy import REPO

BENCH = Path(os.environ.get("TIDEGATE_BUILD", str(REPO / "build"))) / "tests" / "bench"

REPORT_MS = 100


class EchoBackend:
    """bench_echo: echoes every frame of any number of connections, answers a Close by a Close."""

    def __init__(self):
        self.process = subprocess.Popen([BENCH / "bench_echo", "--port", "0"], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, text=True)  # fmt: skip
        self.port = int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Hold:
    """bench_hold: `count` clients that echo once a period. See the fields of its reports in hold.c.

    ready: wait until all are open. midframe and deaf are among the count."""

    def __init__(self, port, count, *, period_ms=1000, tls=False, size=64, deaf=0, midframe=0, ready=True, timeout=60.0):
        self.count = count
        self.reports = []
        self.cond = threading.Condition()
        self.final = None
        command = [BENCH / "bench_hold", "--port", port, "--connections", count, "--period", period_ms, "--report", REPORT_MS,
                   "--size", size, "--deaf", deaf, "--midframe", midframe]  # fmt: skip
        self.process = subprocess.Popen([*map(str, command), *(["--tls"] if tls else [])], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)  # fmt: skip
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if ready:
            try:
                self.wait(f"{count} sockets open", lambda r: r["open"] == count, timeout)
            except BaseException:
                self.__exit__()
                raise

    def _read(self):
        for line in self.process.stdout:
            with self.cond:
                self.reports.append(json.loads(line))
                self.cond.notify_all()
        with self.cond:
            self.cond.notify_all()

    def wait(self, what, condition, timeout=10.0, after=0):
        """The first report, from number `after` on, for which condition(report) holds."""
        deadline = time.monotonic() + timeout
        with self.cond:
            at = after
            while True:
                for r in self.reports[at:]:
                    if condition(r):
                        return r
                at = max(at, len(self.reports))
                left = deadline - time.monotonic()
                if left <= 0 or self.process.poll() is not None:
                    raise AssertionError(f"not within {timeout} s: {what}; the last report: {self.reports[-1:]}")
                self.cond.wait(left)

    def fresh(self, timeout=10.0):
        """A report of what is from now on."""
        now = time.monotonic() * 1000
        return self.wait("a fresh report", lambda r: r["at_ms"] >= now, timeout, after=len(self.reports))

    def finish(self, timeout=10.0):
        """Ends it: its last report, with close_ms."""
        if self.final is None:
            self.process.stdin.close()
            assert self.process.wait(timeout) == 0
            self.reader.join(timeout)
            self.final = self.reports[-1]
        return self.final

    def check(self, report=None):
        """Every socket is still open and every echo was right."""
        r = report or self.fresh()
        assert (r["open"], r["errors"], r["cut"], r["closes"]) == (self.count, 0, 0, {}), r
        return r

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.reader.join(5)
