"""Clients of a gateway or a sidecar while its pods, or those behind it, come and go; and when a pod was told to go."""

import contextlib
import threading
import time

from cluster import PORT
from support import frames
from support.client import RawClient
from support.peer import Eof
from support.wait import wait_until


class Told:
    """When each pod was told to end: .at {name: time}."""

    def __init__(self, cluster, selector, namespace):
        self.cluster, self.where = cluster, (selector, namespace)
        self.at = {}
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self.ending.wait(0.05):
            for pod in self.cluster.pods(*self.where):
                if "deletionTimestamp" in pod["metadata"]:
                    self.at.setdefault(pod["metadata"]["name"], time.time())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join(10)


class Arrivals:
    """A new client every 50 ms that echoes once and goes: .came [(time, which backend)], .failed [(time, why)]; and .closed
    [(time, code)] when a Close came before its own."""

    def __init__(self, cluster, *, port=PORT, tls=None, address=None):
        self.address, self.port, self.tls = address or cluster.address, port, tls
        self.came, self.failed, self.closed = [], [], []
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self.ending.wait(0.05):
            since = time.time()
            try:
                with RawClient(self.port, self.address, tls=self.tls, timeout=30) as client:
                    head = client.handshake("/")
                    self.came.append((since, head.get("X-Backend")))
                    client.send_frame(frames.TEXT, "well?")
                    frame = client.read_frame()
                    if frame.opcode == frames.TEXT:
                        client.send_close(1000)
                        frame = client.read_frame()
                    assert frame.opcode == frames.CLOSE, frame
                    if frame.code != 1000:
                        self.closed.append((round(since, 2), frame.code))
            except Exception as e:  # noqa: BLE001 - whatever it is, it is counted
                self.failed.append((round(since, 2), repr(e)[:400]))

    def check(self, codes=()):
        """All of them were let in; those of them that were closed, with one of these codes."""
        assert self.came and not self.failed, f"{len(self.failed)} of {len(self.came)}: {self.failed[:5]}"
        assert {code for _, code in self.closed} <= set(codes), self.closed

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join(40)


class Crowd:
    """Clients that each echo every 0.2 s, answer a Close, and then come again at once. What befell them is in
    .closes [(code, reason, time, backend)], .cut (ends without a Close) and .failed (a new connection that did not succeed)."""

    def __init__(self, cluster, count=100, *, port=PORT, tls=None, again=True, address=None):
        self.address, self.port, self.tls, self.again = address or cluster.address, port, tls, again
        self.closes, self.cut, self.failed, self.backends = [], [], [], []
        self.opened = self.echoes = self.open = 0
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self._live, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()
        wait_until(f"{count} sockets open", lambda: self.open == count or self.failed, 60)
        self.check()
        self.count = count

    def check(self):
        assert not self.cut and not self.failed, (self.cut[:5], self.failed[:5], len(self.cut), len(self.failed))

    def _live(self):
        while not self.ending.is_set():
            since = time.monotonic()
            try:
                client = RawClient(self.port, self.address, tls=self.tls, timeout=30)
                head = client.handshake("/")
            except Exception as e:  # noqa: BLE001 - whatever it is, it is counted
                self.failed.append((round(time.time(), 2), round(time.monotonic() - since, 2), repr(e)[:300]))
                return
            with self.lock:
                self.opened += 1
                self.open += 1
                self.backends.append((time.time(), head.get("X-Backend")))
            try:
                self._talk(client, head.get("X-Backend"))
            except (OSError, Eof, AssertionError) as e:
                self.cut.append((round(time.time(), 2), repr(e)[:300]))
                return
            finally:
                with self.lock:
                    self.open -= 1
                client.close()
            if not self.again:
                return

    def _talk(self, client, backend):
        while not self.ending.is_set():
            client.send_frame(frames.TEXT, "well?")
            frame = client.read_frame(30)
            if frame.opcode == frames.TEXT:
                with self.lock:
                    self.echoes += 1
                with contextlib.suppress(TimeoutError):
                    frame = client.read_frame(0.2)  # whatever comes between is a Close
            if frame.opcode == frames.CLOSE:
                with self.lock:
                    self.closes.append((frame.code, frame.reason, time.time(), backend))
                client.send_close(frame.code)
                client.expect_eof(30)
                return

    def finish(self):
        self.ending.set()
        for thread in self.threads:
            thread.join(40)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.finish()
