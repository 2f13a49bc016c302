"""The proxy as a process."""

import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
BINARY = os.environ.get("TIDEGATE_PROXY", str(REPO / "build/proxy/tidegate-proxy"))


def free_port():
    """A port that nobody listens on, below the range of which outgoing connections take theirs."""
    for _ in range(200):
        port = random.randrange(12000, 32000)
        with socket.socket(socket.AF_INET6) as s:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            try:
                s.bind(("::", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def is_sanitized():
    """Is the binary built with AddressSanitizer? Its figures of memory and time say little then."""
    out = subprocess.run(["ldd", BINARY], capture_output=True, text=True, timeout=10).stdout
    return "libasan" in out or b"__asan_init" in Path(BINARY).read_bytes()


class Proxy:
    def __init__(self, command, env=None):
        self.logs = []  # every line as a dict, in order
        self.garbage = []  # lines that are not JSON
        self.cond = threading.Condition()
        self.stopped = False
        self.ended = False  # stderr is at its end
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
        self.pid = self.process.pid
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            text = line.decode("utf-8", "replace").rstrip("\n")
            with self.cond:
                try:
                    entry = json.loads(text)
                    assert isinstance(entry, dict)
                    self.logs.append(entry)
                except (ValueError, AssertionError):
                    self.garbage.append(text)
                self.cond.notify_all()
        with self.cond:
            self.ended = True
            self.cond.notify_all()

    def wait_log(self, event=None, timeout=5.0, since=0, **fields):
        """The first line, from index `since` of .logs on, with these values; waits for it."""
        wanted = dict(fields, **({"event": event} if event else {}))
        deadline = time.monotonic() + timeout
        with self.cond:
            at = since
            while True:
                for entry in self.logs[at:]:
                    if all(entry.get(k) == v for k, v in wanted.items()):
                        return entry
                at = max(at, len(self.logs))
                left = deadline - time.monotonic()
                if left <= 0 or self.ended:
                    raise AssertionError(f"no log line {wanted}; the last ones: {self.logs[-4:]} {self.garbage[-20:]}")
                self.cond.wait(left)

    def logged(self, event=None, **fields):
        """All lines so far with these values."""
        wanted = dict(fields, **({"event": event} if event else {}))
        with self.cond:
            return [e for e in self.logs if all(e.get(k) == v for k, v in wanted.items())]

    def alive(self):
        return self.process.poll() is None

    def _status(self, key):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1])
        raise AssertionError(f"no {key}")

    def rss(self):
        """Resident memory, bytes."""
        return self._status("VmRSS") * 1024

    def anon(self):
        """Resident memory that is the process's own (heap and stack, no file pages), bytes: what a leak moves."""
        return self._status("RssAnon") * 1024

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_seconds(self):
        """Time on the CPU so far, of all threads."""
        total = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            total += int(Path(f"/proc/{self.pid}/task/{task}/schedstat").read_text().split()[0])
        return total / 1e9

    def stop(self, timeout=10.0):
        """TERM; it must end with 0 and have said nothing but JSON (a sanitizer's report is no JSON)."""
        if self.stopped:
            return
        self.stopped = True
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = f"none within {timeout} s after TERM"
        self.reader.join(5)
        assert not self.garbage, "stderr held lines that are not JSON:\n" + "\n".join(self.garbage[:100])
        assert code == 0, f"the proxy's exit code was {code}; its last lines: {self.logs[-10:]}"

    def kill(self):
        """For a test that has failed already."""
        self.stopped = True
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def run_proxy(*args, timeout=10.0, env=None):
    """A run that ends by itself: --check, --version, a refused spec. Returns the CompletedProcess with text."""
    return subprocess.run(
        [BINARY, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
        env={**os.environ, **(env or {})},
    )
