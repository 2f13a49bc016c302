"""The raw client and the raw backend against each other: what the other tests rest on."""

import json
import os
import signal
import ssl
import subprocess
import sys

import pytest

from support import frames, metrics
from support.backend import RawBackend, echo, manual, server_context
from support.client import RawClient, client_context, ws_client
from support.hold import EchoBackend, Hold
from support.proxy import Proxy, revision_of
from support.shims import MallocFailures
from support.wait import wait_until


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 300000])
@pytest.mark.parametrize("tls", [False, True])
def test_echo_of_every_length_encoding(certs, size, tls):
    """Frames survive builder, wire and parser, plain and over TLS."""
    context = server_context(certs.server) if tls else None
    with RawBackend(echo, tls=context) as backend:
        with ws_client(backend.port, tls=client_context(certs) if tls else None) as client:
            client.send_frame(frames.BINARY, b"x" * size)
            client.expect_frame(frames.BINARY, b"x" * size)
            client.send_close(1000, "bye")
            assert client.expect_close(1000).reason == "bye"
            client.expect_eof()
        backend.check()


@pytest.mark.parametrize("tls", [False, True])
def test_single_bytes(certs, tls):
    """Input cut into single bytes (and TLS records of one byte) arrives."""
    context = server_context(certs.server) if tls else None
    with RawBackend(echo, tls=context) as backend:
        with RawClient(backend.port, tls=client_context(certs) if tls else None, tls_chunk=1) as client:
            client.handshake("/x?y", chunk=1)
            client.send_frame(frames.TEXT, "hello", chunk=1)
            client.expect_frame(frames.TEXT, "hello")
        assert backend.conns[0].request.path == "/x?y"


def test_ends():
    """FIN, half-close and RST look as they should from the other end."""
    with RawBackend(manual) as backend:
        with ws_client_of(backend) as (client, conn):
            client.half_close()
            conn.expect_eof()
            conn.send_frame(frames.TEXT, "still")
            client.expect_frame(frames.TEXT, "still")
            conn.rst()
            client.expect_reset()


def test_tls_end_without_close_notify(certs):
    """clean_eof tells the two ends of a TLS stream apart."""
    with RawBackend(manual, tls=server_context(certs.server)) as backend:
        for clean in (True, False):
            client = RawClient(backend.port, tls=client_context(certs))
            conn = backend.accept()
            client.half_close() if clean else client.fin()
            conn.expect_eof()
            assert conn.clean_eof is clean
            client.close()


def test_backend_records_everything():
    """serve() keeps every byte."""
    with RawBackend() as backend, ws_client(backend.port) as client:
        sent = client.send_frame(frames.TEXT, "kept", mask=b"abcd")
        conn = backend.accept()
        wait_until("the frame", lambda: bytes(conn.received).endswith(sent))


def test_wrong_certificates_are_wrong(certs):
    """Each broken certificate is refused by Python's own verification."""
    for pair in (certs.expired, certs.wrong_name, certs.other_server):
        with RawBackend(manual, tls=server_context(pair)) as backend:
            with pytest.raises(ssl.SSLCertVerificationError):
                RawClient(backend.port, tls=client_context(certs))


def test_crowd_echoes_and_sees_its_ends():
    """bench_hold counts echoes, and sockets that end without a Close as cut."""
    with EchoBackend() as backend, Hold(backend.port, 50, period_ms=100, deaf=3, midframe=3) as hold:
        hold.wait("echoes", lambda r: r["echoes"] > 100)
        report = hold.check()
        assert report["overdue"] == 0 and 0 < report["slowest_ms"] < 1000
        backend.process.kill()
        last = hold.wait("the ends", lambda r: r["cut"] >= 47)  # what never reads may not hear of its own
        assert last["open"] == 50 - last["cut"] and last["errors"] == 0
        assert hold.finish()["close_ms"] == []


def test_crowd_answers_pings_and_closes():
    """bench_hold answers a Ping by its Pong and a Close by a Close, in the middle of its echoes; both are told."""

    def script(conn):
        conn.answer_101()
        conn.send_frame(frames.BINARY, conn.expect_frame(frames.BINARY).payload)
        conn.send_frame(frames.PING, b"here?")
        f = conn.read_frame()
        while f.opcode == frames.BINARY:
            f = conn.read_frame()
        assert (f.opcode, f.payload) == (frames.PONG, b"here?")
        conn.send_close(1001, "going away")
        assert conn.expect_close(1001, skip_data=True).reason == "going away"
        conn.close()

    with RawBackend(script) as backend, Hold(backend.port, 5, period_ms=50, ready=False) as hold:
        report = hold.wait("the Closes", lambda r: r["closes"] == {"1001": 5})
        assert (report["errors"], report["cut"], report["open"]) == (0, 0, 0), report
        assert report["reason"] == "going away" and report["other_reasons"] == 0
        last = hold.finish()
        assert len(last["close_ms"]) == 5 and all(0 <= last["at_ms"] - t < 5000 for t in last["close_ms"])
        for conn in backend.conns:
            conn.wait_finished()
        backend.check()


@pytest.mark.parametrize("wrong", ["byte", "status", "behind the Close"])
def test_crowd_counts_what_is_wrong(wrong):
    """bench_hold takes a wrong byte, a refused handshake and data behind a Close for errors."""

    def script(conn):
        conn.answer_101(status="503 Service Unavailable" if wrong == "status" else "101 Switching Protocols")
        payload = bytearray(conn.expect_frame(frames.BINARY).payload)
        payload[-1] ^= wrong == "byte"
        conn.send(frames.frame(frames.CLOSE, frames.close_payload(1000)) * (wrong == "behind the Close")
                  + frames.frame(frames.BINARY, bytes(payload)))  # fmt: skip

    with RawBackend(script) as backend, Hold(backend.port, 4, period_ms=50, ready=False) as hold:
        assert hold.wait("the errors", lambda r: r["errors"] == 4)["open"] == 0


# Says how many of 100 of its own allocations of each kind failed, and of 100 that libc makes for it.
ALLOCATES = """
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(void)
{
    unsigned own[3] = {0}, libc = 0;
    for (int i = 0; i < 100; i++) {
        void *m = malloc(10), *c = calloc(2, 10), *r = realloc(NULL, 10), *s = strdup("text");
        own[0] += !m && errno == ENOMEM;
        own[1] += !c;
        own[2] += !r;
        libc += !s;
        free(m);
        free(c);
        free(r);
        free(s);
    }
    printf("%u %u %u %u", own[0], own[1], own[2], libc);
    return 0;
}
"""


@pytest.mark.parametrize("asan", [False, True], ids=["plain", "asan"])
def test_allocations_fail_on_demand(tmp_path, asan):
    """malloc_shim.c: each n-th call of the program's own, in a worker, while it is asked for; nothing else."""
    source, program = tmp_path / "allocates.c", tmp_path / "allocates"
    source.write_text(ALLOCATES)
    command = ["cc", "-O0", "-o", program, source, *(["-fsanitize=address"] if asan else [])]
    subprocess.run(command, check=True, timeout=60)
    failures = MallocFailures(tmp_path, sanitized=asan)

    def run(*args):
        done = subprocess.run([program, *args], env={**os.environ, **failures.env}, capture_output=True, text=True,
                              check=True, timeout=10)  # fmt: skip
        assert not done.stderr
        return list(map(int, done.stdout.split()))

    assert run("--worker", "0") == [0, 0, 0, 0]
    with failures.every(7):
        assert run() == [0, 0, 0, 0]
        counts = run("--worker", "0")
    assert sum(counts) == 300 // 7 and min(counts[:3]) > 5 and counts[3] == 0
    assert len(failures.sites()) == 300 // 7
    assert run("--worker", "0") == [0, 0, 0, 0]


# A master with two children, in the place of the proxy's; MODE: what it does on TERM.
MASTER = """
import os, signal, sys, time
children = []
for _ in range(2):
    pid = os.fork()
    if not pid:
        time.sleep(600)
    children.append(pid)

def stop(*_):
    for pid in children[MODE == "orphan":]:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os._exit(MODE == "status")

signal.signal(signal.SIGTERM, stop)
if MODE == "talk":
    print("no JSON", file=sys.stderr, flush=True)
print('{"event":"ready"}', file=sys.stderr, flush=True)
time.sleep(600)
"""


def master(mode, **kw):
    proxy = Proxy([sys.executable, "-c", f"MODE = {mode!r}\n{MASTER}"], **kw)
    proxy.wait_log(event="ready")
    return proxy


def test_processes_of_a_proxy_are_found():
    """Children that live are workers; those of a dead master are found too, and kill() ends them all."""
    proxy = master("good")
    first, second = proxy.workers()
    assert set(proxy.processes()) == {proxy.pid, first, second}
    os.kill(first, signal.SIGKILL)
    wait_until("one worker", lambda: proxy.workers() == [second])
    assert proxy.rss() == proxy.rss(pid=second) and proxy.fds() > 0
    proxy.process.kill()
    proxy.process.wait()
    assert proxy.processes() == [second]
    proxy.kill()
    assert proxy.processes() == []


@pytest.mark.parametrize("mode, wrong", [("orphan", "outlived"), ("status", "exit code"), ("talk", "no JSON")])
def test_bad_ends_of_a_proxy_are_seen(mode, wrong):
    """stop() takes no process left behind, no exit status and no line that is no JSON for a good end."""
    master("good").stop()
    proxy = master(mode)
    with pytest.raises(AssertionError, match=wrong):
        proxy.stop()
    wait_until("the end of what was left", lambda: proxy.processes() == [])


def test_status_is_waited_for(tmp_path):
    """replace() puts the spec there whole; wait_revision() waits for just its revision and shows what there was instead."""
    spec = tmp_path / "spec.yaml"
    proxy = master("good", config=spec, run_dir=tmp_path)
    assert proxy.status() == {}
    revision = proxy.replace("a: 1\n")
    assert spec.read_text() == "a: 1\n" and revision == revision_of(b"a: 1\n")
    (tmp_path / "status.json").write_text(json.dumps({"revision": "other", "seen": {"revision": revision}}))
    assert proxy.wait_seen(revision)["revision"] == "other"
    with pytest.raises(AssertionError, match="other"):
        proxy.wait_revision(revision, 0.1)
    proxy.stop()


def test_metrics_are_read():
    """Samples with and without labels, escaped ones too; anything else is an error."""
    text = '# HELP a b\n# TYPE a counter\na 1\nb{x="1",y="q\\"\\\\,}"} 2.5\nb{x="1",y="z"} +Inf\n'
    found = metrics.parse(text)
    assert found["a"] == {frozenset(): 1.0}
    assert found["b"][frozenset([("x", "1"), ("y", 'q"\\,}')])] == 2.5
    assert metrics.total({"b": {frozenset([("x", "1")]): 2, frozenset([("x", "2")]): 3}}, "b", x="1") == 2
    for wrong in ("a", "a{x=1} 1", 'a{x="1"} 1\na{x="1"} 2', "a 1 2 3"):
        with pytest.raises((AssertionError, ValueError)):
            metrics.parse(wrong)


class ws_client_of:
    """A client and the backend's end of its connection, the handshake driven by hand."""

    def __init__(self, backend):
        self.backend = backend

    def __enter__(self):
        from support import http1

        self.client = RawClient(self.backend.port)
        self.client.send(http1.upgrade_request())
        conn = self.backend.accept()
        conn.answer_101()
        self.client.read_head()
        return self.client, conn

    def __exit__(self, *_):
        self.client.close()
