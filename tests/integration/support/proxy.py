"""The proxy: a master process, and the workers that it starts."""

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from . import metrics
from .wait import wait_until

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


def is_sanitized(binary=BINARY):
    """Is the binary built with AddressSanitizer? Its figures of memory and time say little then."""
    out = subprocess.run(["ldd", binary], capture_output=True, text=True, timeout=10).stdout
    return "libasan" in out or b"__asan_init" in Path(binary).read_bytes()


def serving_flags(args=()):
    """What a test's proxy is started with unless args say otherwise: one worker, no admin port (it is one for the whole
    machine), and a drain that no test waits for."""
    usual = {"--workers": "1", "--admin": "off", "--max-drain": "1s"}
    given = {a.split("=")[0] for a in args}
    return [word for flag in usual if flag not in given for word in (flag, usual[flag])]


def revision_of(spec):
    """What status.json says once this text or these bytes are applied."""
    return hashlib.sha256(spec.encode() if isinstance(spec, str) else spec).hexdigest()


def _stat(pid):
    """(state, session) of a process, None once it is gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return words[0], int(words[3])


def _is_alive(pid):
    stat = _stat(pid)
    return stat is not None and stat[0] not in "ZX"


def workers_of(pid):
    """The children of a master that are alive right now, in the order of their start."""
    pids = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        pids += [int(child) for child in task.read_text().split()]
    return [child for child in pids if _is_alive(child)]


def relay_of(pid):
    """The process that relays: the worker where there is exactly one, else the master."""
    pids = workers_of(pid)
    return pids[0] if len(pids) == 1 else pid


def processes_of(session):
    """All that are alive of a proxy started as the leader of a session, also when the master is not."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if (_stat(pid) or (0, 0))[1] == session and _is_alive(pid)]


def kill_all(process):
    """Ends such a proxy at once, the master first: it starts no more of them then."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for pid in processes_of(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    wait_until("its processes gone", lambda: not processes_of(process.pid))


class Proxy:
    """command: the words to run; env: more of it. config, run_dir, admin_port: what the command says, for apply(),
    status() and metrics(). Figures (rss ...) are those of the worker where there is exactly one, for it is the one that
    relays; pid= names another process: proxy.pid is the master."""

    def __init__(self, command, env=None, *, config=None, run_dir=None, admin_port=None):
        self.config = Path(config) if config else None
        self.run_dir = Path(run_dir) if run_dir else None
        self.admin_port = admin_port
        self.logs = []  # every line as a dict, in order
        self.garbage = []  # lines that are not JSON
        self.cond = threading.Condition()
        self.stopped = False
        self.ended = False  # stderr is at its end
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})}, start_new_session=True,  # by which all of its processes are found
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

    # processes

    def workers(self):
        """The pids of the master's children that are alive right now, in the order of their start."""
        return workers_of(self.pid)

    @property
    def worker(self):
        """The pid of the only worker."""
        pids = self.workers()
        assert len(pids) == 1, f"one worker was due: {pids}"
        return pids[0]

    def processes(self):
        """All that are alive of it, also when the master is not."""
        return processes_of(self.pid)

    def _status(self, key, pid):
        for line in Path(f"/proc/{pid or relay_of(self.pid)}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1])
        raise AssertionError(f"no {key}")

    def rss(self, pid=None):
        """Resident memory, bytes."""
        return self._status("VmRSS", pid) * 1024

    def anon(self, pid=None):
        """Resident memory that is the process's own (heap and stack, no file pages), bytes: what a leak moves."""
        return self._status("RssAnon", pid) * 1024

    def fds(self, pid=None):
        return len(os.listdir(f"/proc/{pid or relay_of(self.pid)}/fd"))

    def cpu_seconds(self, pid=None):
        """Time on the CPU so far, of all threads."""
        total, pid = 0, pid or relay_of(self.pid)
        for task in os.listdir(f"/proc/{pid}/task"):
            total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
        return total / 1e9

    # what it serves

    def status(self):
        """status.json, {} before there is one. It is replaced by rename, so it must always parse."""
        try:
            return json.loads((self.run_dir / "status.json").read_text())
        except FileNotFoundError:
            return {}

    def wait_status(self, what, condition, timeout=10.0):
        """status.json, as soon as condition(status) holds."""
        try:
            return wait_until(what, lambda: (s := self.status()) and condition(s) and s, timeout)
        except AssertionError as e:
            raise AssertionError(f"{e}; status.json: {self.status()}; the last lines: {self.logs[-6:]}") from None

    def wait_revision(self, revision, timeout=10.0):
        """Until the workers serve it; the status then."""
        return self.wait_status(f"revision {revision}", lambda s: s["revision"] == revision, timeout)

    def wait_seen(self, revision, timeout=10.0):
        """Until it was read and judged, whatever came of it; the status then."""
        return self.wait_status(f"{revision} seen", lambda s: s["seen"]["revision"] == revision, timeout)

    def replace(self, spec):
        """Replaces the spec file by rename. Returns the revision."""
        data = spec.encode() if isinstance(spec, str) else spec
        new = self.config.with_name(self.config.name + ".new")
        new.write_bytes(data)
        new.rename(self.config)
        return revision_of(data)

    def hup(self):
        self.process.send_signal(signal.SIGHUP)

    def apply(self, spec, wait=True, timeout=10.0):
        """Replaces the spec, signals, and waits until it is served (needs run_dir). Returns the revision."""
        revision = self.replace(spec)
        self.hup()
        if wait:
            self.wait_revision(revision, timeout)
        return revision

    def server(self, name):
        """What status.json says of one server, None when it does not name it."""
        found = [s for s in self.status().get("servers", []) if s["name"] == name]
        assert len(found) <= 1, found
        return found[0] if found else None

    def get(self, path):
        """(status, content type, body) of the admin port."""
        return metrics.get(self.admin_port, path)

    def metrics(self):
        """{name: {labels: value}}, see metrics.py."""
        status, kind, body = self.get("/metrics")
        assert status == 200 and kind.startswith("text/plain; version=0.0.4"), (status, kind)
        return metrics.parse(body)

    def metric(self, name, **labels):
        """The sum of a metric over all samples with these labels."""
        return metrics.total(self.metrics(), name, **labels)

    # the end

    def stop(self, timeout=10.0):
        """TERM; it must end with 0, leave no process behind, and have said nothing but JSON (a sanitizer's report is no
        JSON)."""
        if self.stopped:
            return
        self.stopped = True
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = f"none within {timeout} s after TERM"
        left = [pid for pid in self.processes() if pid != self.pid]
        self.kill()
        assert not self.garbage, "stderr held lines that are not JSON:\n" + "\n".join(self.garbage[:100])
        assert code == 0, f"the proxy's exit code was {code}; its last lines: {self.logs[-10:]}"
        assert not left, f"processes outlived the master: {left}; its last lines: {self.logs[-10:]}"

    def kill(self):
        """At once and all of it; says nothing about how it went."""
        self.stopped = True
        kill_all(self.process)
        self.reader.join(5)


def run_proxy(*args, timeout=10.0, env=None):
    """A run that ends by itself: --check, --version, a refused spec. Returns the CompletedProcess with text."""
    serves = "--config" in args and "--check" not in args
    command = [BINARY, *args, *(serving_flags(args) if serves else ())]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
        env={**os.environ, **(env or {})},
    )
