"""The admin port: its pages, what it refuses, and that strangers cannot hurt it."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import time
from pathlib import Path

import pytest

from support import frames, http1
from support.admin import AdminDemo, get, get_json, request
from support.backend import RawBackend, echo
from support.client import RawClient, ws_client
from support.metrics import total
from support.need import cannot_run
from support.proxy import free_port
from support.spec import ws_spec
from support.wait import at_once, wait_until

CSP = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@pytest.fixture(scope="module")
def admin():
    """What the tests of this file ask: its admin port is .port, its health port .health_port."""
    with AdminDemo() as demo:
        yield demo


@pytest.fixture
def own_admin():
    """own_admin(servers=..., ...) -> one for a test of its own."""
    started = []

    def start(**kw):
        started.append(AdminDemo(**kw))
        return started[-1]

    yield start
    for demo in started:
        demo.stop()


def feed(port, **kw):
    """A client of the feed, through its handshake."""
    client = RawClient(port, timeout=5)
    client.handshake("/feed", host=f"127.0.0.1:{port}", **kw)
    return client


def text(client, timeout=5.0):
    frame = client.read_frame(timeout)
    assert frame.opcode == frames.TEXT and frame.fin and not frame.masked
    return json.loads(frame.payload)


# pages


@pytest.mark.parametrize(
    "path, kind",
    [
        ("/healthz", "text/plain; charset=utf-8"),
        ("/readyz", "text/plain; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/status", "application/json"),
        ("/", "text/html; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.svg", "image/svg+xml"),
    ],
)
def test_page_is_served(admin, path, kind):
    """Each page has its type, is not kept, not sniffed, may load from its own port only, and says nothing of the software."""
    answer, body = get(admin.port, path)
    assert answer.start == "HTTP/1.1 200 OK" and body
    assert answer.get("Content-Type") == kind
    assert answer.get("Cache-Control") == "no-store"
    assert answer.get("X-Content-Type-Options") == "nosniff"
    assert answer.get("Content-Security-Policy") == CSP
    assert answer.get("Connection") == "close"
    assert answer.get("Server") is None
    again, nothing = get(admin.port, path + "?x=1", method="HEAD")
    assert again.status == 200 and not nothing
    assert path == "/metrics" or path == "/status" or again.get("Content-Length") == answer.get("Content-Length")


def test_health_port_has_the_probes_and_nothing_else(admin):
    for host in "127.0.0.1", "::1":
        assert get(admin.health_port, "/healthz", host)[1] == b"ok\n"
        assert get(admin.health_port, "/readyz", host)[1] == b"ready\n"
    for path in "/metrics", "/status", "/", "/feed", "/page.js":
        assert get(admin.health_port, path)[0].status == 404
    with RawClient(admin.health_port) as client:
        client.expect_refusal(client.answer(http1.upgrade_request("/feed")), 404)


def test_readyz_says_no_while_it_stops(own_admin):
    demo = own_admin()
    demo.process.send_signal(signal.SIGUSR1)
    answer, body = wait_until("503", lambda: (lambda a: a if a[0].status == 503 else None)(get(demo.port, "/readyz")))
    assert body == b"not ready: stopping\n"
    assert get(demo.port, "/healthz")[0].status == 200


def test_status_moves_and_has_the_keys_of_the_contract(admin):
    seen = get_json(admin.port, "/status")
    assert list(seen) == ["pid", "revision", "applied_at", "seen", "servers", "workers"]
    assert list(seen["seen"]) == ["revision", "result", "errors"]
    assert list(seen["servers"][0]) == ["name", "state", "message", "port", "connections", "cert_sha256", "not_after"]
    assert seen["pid"] == admin.pid
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", seen["applied_at"])
    assert {s["state"] for s in seen["servers"]} == {"active", "stale", "failed", "draining"}
    before = [s["connections"] for s in seen["servers"]]
    wait_until("other counts", lambda: [s["connections"] for s in get_json(admin.port, "/status")["servers"]] != before)


def check_with_promtool(text):
    if not shutil.which("promtool"):
        cannot_run("promtool is missing (Debian: prometheus)")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_promtool_is_content_with_the_metrics(admin):
    counted = wait_until("handshakes", lambda: (lambda b: b if b'handshakes_total{server=' in b else None)(get(admin.port, "/metrics")[1]))
    check_with_promtool(counted)


# refusals


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "PRI", "get"])
def test_only_get_and_head(admin, method):
    with RawClient(admin.port) as client:
        answer = client.answer(request("/status", method=method))
        client.expect_refusal(answer, 405)
        assert answer.get("Allow") == "GET, HEAD"


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "//", "/../etc/passwd", "/%6detrics", "http://localhost/metrics", "*"])
def test_other_paths_are_404(admin, path):
    with RawClient(admin.port) as client:
        client.expect_refusal(client.answer(request(path)), 404)


@pytest.mark.parametrize(
    "fields",
    [
        [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", http1.KEY), ("Sec-WebSocket-Version", "13")],
        [("Upgrade", "h2c"), ("Connection", "Upgrade, HTTP2-Settings"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")],
        [("Upgrade", "nonsense"), ("Connection", "Upgrade")],
        [("Upgrade", "h2c"), ("Connection", "close")],
    ],
)
def test_pages_do_not_upgrade(admin, fields):
    for path in "/metrics", "/":
        with RawClient(admin.port) as client:
            client.expect_refusal(client.answer(request(path, headers=fields)), 400)


@pytest.mark.parametrize(
    "raw, statuses",
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), (400,)),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (505,)),
        (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", (505,)),
        (b"GET / HTTP/1.1\nHost: x\n\n", (400,)),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", (400,)),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", (400,)),
        (b"GET / HTTP/1.1\r\n\r\n", (400,)),
        (b"GET / HTTP/1.1\r\nHost: x\r\n y: folded\r\n\r\n", (400,)),
        (b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: \x00\r\n\r\n", (400,)),
        (b"GET /\r\n\r\n", (400,)),
        (b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", (400,)),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", (400,)),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", (400,)),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", (414, 431)),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000, (431,)),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 101 + b"\r\n", (431,)),
    ],
)
def test_bent_requests_are_refused(admin, raw, statuses):
    """The same answer in one piece and byte by byte."""
    for chunk in None, 1:
        with RawClient(admin.port) as client:
            client.expect_refusal(client.answer(raw, chunk=chunk), *statuses)


def test_http_1_0_is_answered(admin):
    answer, body = get(admin.port, "/healthz", version="HTTP/1.0", name=None)
    assert answer.status == 200 and body == b"ok\n"


def test_one_request_a_connection(admin):
    """What follows the first request is not served, and does not cost the first its answer."""
    for glued, later in (b"", request("/status")), (request("/status"), b""), (b"hello", bytes(5000)):
        with RawClient(admin.port) as client:
            client.send(request("/healthz") + glued)
            answer = client.read_head()
            client.try_send(later)
            assert client.read_body(answer) == b"ok\n"
            client.expect_gone()
    with RawClient(admin.port) as client:
        client.expect_refusal(client.answer(http1.upgrade_request("/feed") + b"\x81\x80abcd"), 400)


# the feed's handshake


def test_feed_needs_a_handshake(admin):
    with RawClient(admin.port) as client:
        assert "WebSocket" in client.expect_refusal(client.answer(request("/feed")), 426)
    for kw, status in [
        ({"drop": ["Sec-WebSocket-Version"], "headers": [("Sec-WebSocket-Version", "8")]}, 426),
        ({"drop": ["Sec-WebSocket-Version"]}, 426),
        ({"key": "c2hvcnQ="}, 400),
        ({"drop": ["Sec-WebSocket-Key"]}, 400),
        ({"drop": ["Connection"], "headers": [("Connection", "u")]}, 400),
        ({"version": "HTTP/1.0"}, 400),
    ]:
        with RawClient(admin.port) as client:
            client.expect_refusal(client.answer(http1.upgrade_request("/feed", **kw)), status)


def test_feed_is_for_its_own_page_only(admin):
    """Against pages of other sites that open the feed with the browser of somebody who may (CSWSH)."""
    host = f"127.0.0.1:{admin.port}"
    for origin in "https://evil.example", f"http://127.0.0.1:{admin.port + 1}", "http://127.0.0.1", "null", "", host, f"http://x@{host}":
        with RawClient(admin.port) as client:
            answer = client.answer(http1.upgrade_request("/feed", host=host, headers=[("Origin", origin)]))
            client.expect_refusal(answer, 403, 400)
    with RawClient(admin.port) as client:
        two = [("Origin", f"http://{host}"), ("Origin", "https://evil.example")]
        client.expect_refusal(client.answer(http1.upgrade_request("/feed", host=host, headers=two)), 403, 400)
    for fields in [], [("Origin", f"http://{host}")], [("Origin", f"HTTP://{host}")]:
        with feed(admin.port, headers=fields) as client:
            assert text(client)["pid"] == admin.pid


def test_feed_says_what_moves_once_a_second(admin):
    """Two at once get the same; the counters grow; the client's offers of extensions and subprotocols are not taken."""
    offers = [("Sec-WebSocket-Extensions", "permessage-deflate"), ("Sec-WebSocket-Protocol", "a, b")]
    with feed(admin.port) as one, RawClient(admin.port) as two:
        answer = two.handshake("/feed", headers=offers)
        assert not answer.all("Sec-WebSocket-Extensions") and not answer.all("Sec-WebSocket-Protocol")
        first, second = text(one), text(one)
        assert 800 < second["at_ms"] - first["at_ms"] < 3000
        assert sum(s["messages"][0] for s in second["servers"]) > sum(s["messages"][0] for s in first["servers"])
        assert text(two)["at_ms"] in (first["at_ms"], second["at_ms"])
        one.send_frame(frames.CLOSE, b"\x03\xe8")
        assert one.read_frame().opcode in (frames.CLOSE, frames.TEXT)
        text(two)
        text(two)


def test_feed_answers_ping_and_takes_no_messages(admin):
    with feed(admin.port) as client:
        client.send_frame(frames.PING, b"there?")
        while (frame := client.read_frame()).opcode == frames.TEXT:
            pass
        assert (frame.opcode, frame.payload) == (frames.PONG, b"there?")
        client.send_frame(frames.TEXT, b"set everything free")
        client.expect_gone()


def test_feed_survives_garbage_frames(admin):
    """Each of these ends its own connection at most; libwebsockets parses them, so they are many."""
    rng = random.Random(1)
    cases = [
        b"\x81\x05hello",  # unmasked
        b"\x81\xfe\x00\x00abcd", b"\x81\xff" + bytes(8) + b"abcd", b"\x81\x7e\x00\x00", b"\x81\x7f" + bytes(8),
        b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xffabcd", b"\x88\x81abcd\x03", b"\x88\xfe\x01\x00abcd" + bytes(256),
        b"\xc1\x80abcd", b"\x83\x80abcd", b"\x80\x80abcd", b"\x09\x80abcd", b"\x89\xff" + b"\x7f" * 8 + b"abcd",
        frames.frame(frames.PING, b"x" * 125, mask=True) * 500, b"\x00" * 5000, b"GET / HTTP/1.1\r\n\r\n",
    ] + [rng.randbytes(rng.randrange(1, 400)) for _ in range(200)]  # fmt: skip
    for case in cases:
        with RawClient(admin.port) as client:
            client.handshake("/feed")
            client.try_send(case)
    wait_until("no feed is left", lambda: admin.fds() < 20)
    assert get(admin.port, "/healthz")[0].status == 200


# strangers


def test_garbage_does_not_end_it(admin):
    rng = random.Random(2)
    words = [b"GET ", b"/metrics ", b"HTTP/1.1", b"\r\n", b"Host: x", b"Upgrade: websocket", b": ", b"\x00", b"\xff", b"Connection: Upgrade",
             b"Sec-WebSocket-Key: " + http1.KEY.encode(), b"Sec-WebSocket-Version: 13", b"/feed ", b"Content-Length: 9", b"\r\n\r\n"]  # fmt: skip
    for _ in range(400):
        raw = rng.randbytes(rng.randrange(300)) if rng.random() < 0.3 else b"".join(rng.choices(words, k=rng.randrange(1, 20)))
        with RawClient(admin.port) as client:
            client.try_send(raw, rng.choice([None, None, 7]))
            if rng.random() < 0.3:
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    assert get(admin.port, "/healthz")[0].status == 200
    assert admin.alive()


def test_slow_requests_have_a_deadline(admin):
    """Nothing at all, half a head, a head that drips: each is gone within 10 s and a little; who began is told 408."""

    def silent(_):
        with RawClient(admin.port, timeout=13) as client:
            client.expect_gone()

    def half(_):
        with RawClient(admin.port, timeout=13) as client:
            client.expect_refusal(client.answer(b"GET / HTTP/1.1\r\nHo"), 408)

    def drip(_):
        with RawClient(admin.port, timeout=13) as client:
            start = time.monotonic()
            with pytest.raises((OSError, AssertionError)):
                while time.monotonic() - start < 13:
                    client.send(b"G")
                    assert b"408" not in client.read_some(timeout=0.5), "told"
            assert time.monotonic() - start < 12

    at_once(lambda work: work(None), [silent, half, drip])


def test_hoarders_do_not_shut_others_out(own_admin):
    """200 connections that say nothing: whoever asks is answered at once, and descriptors stay bounded."""
    demo = own_admin()
    hoard = [RawClient(demo.port) for _ in range(200)]
    for _ in range(20):
        assert get(demo.port, "/healthz", timeout=1)[0].status == 200
        assert get(demo.health_port, "/healthz", timeout=1)[0].status == 200
    assert demo.fds() < 100
    for client in hoard:
        client.close()
    wait_until("all are gone", lambda: demo.fds() < 20)


def test_feeds_are_bounded(own_admin):
    demo = own_admin()
    feeds = [feed(demo.port) for _ in range(16)]
    with RawClient(demo.port) as client:
        client.expect_refusal(client.answer(http1.upgrade_request("/feed")), 503)
    for client in feeds:
        text(client)
    feeds.pop().close()
    wait_until("there is room again", lambda: demo.fds() < 16 + 20)
    feeds.append(feed(demo.port))
    text(feeds[-1])
    for client in feeds:
        client.close()


def test_many_servers_come_whole_to_a_slow_reader(own_admin, sanitized):
    """Megabytes, through a small window, while others are served; what nobody reads neither piles up nor
    spins, and who floods meanwhile is cut."""
    demo = own_admin(servers=4096, workers=4)
    with RawClient(demo.port, rcvbuf=4096, timeout=30) as slow:
        slow.send(request("/metrics"))
        answer = slow.read_head()
        start = time.monotonic()
        assert get(demo.port, "/healthz", timeout=2)[0].status == 200
        assert time.monotonic() - start < (5 if sanitized else 1)
        body = slow.read_body(answer, 60)
        assert len(body) > 1 << 20 and body.endswith(b"\n")
        assert body.count(b"tidegate_server_state{") == 4096
    # More than the kernel's buffers take.
    wait_until("8 MiB", lambda: len(get(demo.port, "/metrics", timeout=20)[1]) > 8 << 20, 60, step=0.5)
    fds = demo.fds()
    stuck = [RawClient(demo.port, rcvbuf=4096) for _ in range(20)]
    for client in stuck:
        client.send(request("/metrics"))
    assert get(demo.port, "/healthz", timeout=20)[0].status == 200
    assert demo.fds() - fds <= 4 + 1, "large answers that nobody reads are kept"
    for client in stuck:
        client.try_send(b"and more " * 100)
        with contextlib.suppress(OSError):  # the oldest are gone
            client.sock.shutdown(socket.SHUT_WR)
    spent = demo.cpu_seconds()
    time.sleep(1)
    spent = demo.cpu_seconds() - spent
    assert sanitized or spent < 0.5, f"{spent} s on the CPU in a second"
    with RawClient(demo.port, rcvbuf=4096) as flooder, pytest.raises(OSError):
        flooder.send(request("/metrics"))
        for _ in range(1000):
            flooder.sock.sendall(bytes(100000))
    for client in stuck:
        client.close()


def test_feed_that_is_not_read_misses_updates(own_admin, sanitized):
    """It keeps one text at most; another feed goes on; memory stays."""
    demo = own_admin(servers=2000, workers=1)
    with RawClient(demo.port, rcvbuf=4096) as stuck, feed(demo.port) as good:
        stuck.handshake("/feed")
        text(good)
        before = demo.anon()
        for _ in range(4):
            text(good)
        assert sanitized or demo.anon() - before < 8 << 20


# the process


def test_waiting_costs_nothing(own_admin, sanitized):
    """No page asked, a connection that says nothing and one that has gone half: no time is spent on the CPU."""
    demo = own_admin(servers=0, workers=1)
    with RawClient(demo.port) as silent, RawClient(demo.port) as half, feed(demo.port) as watching:
        half.send(b"GET / HTTP/1.1\r\n")
        text(watching)
        before = demo.cpu_seconds()
        time.sleep(2)  # what is measured is this time
        spent = demo.cpu_seconds() - before
        assert sanitized or spent < 0.02, f"{spent} s in 2 s"
        silent.close()


def test_signals_are_seen_at_once(admin):
    """A signalfd on the loop wakes libwebsockets' wait."""
    took = []
    for _ in range(20):
        since, start = len(admin.logs), time.monotonic()
        admin.process.send_signal(signal.SIGUSR2)
        admin.wait_log("signal", since=since)
        took.append(time.monotonic() - start)
    assert statistics.median(took) < 0.02, took


def test_nothing_leaks_into_children(admin):
    """Each descriptor but the standard ones is close-on-exec: the master forks and execs workers."""
    with RawClient(admin.port), feed(admin.port) as client:
        text(client)
        for fd in os.listdir(f"/proc/{admin.pid}/fdinfo"):
            if int(fd) > 2:
                info = Path(f"/proc/{admin.pid}/fdinfo/{fd}").read_text()
                flags = int(re.search(r"^flags:\s+(\d+)", info, re.M)[1], 8)
                assert flags & os.O_CLOEXEC, f"{fd}: {os.readlink(f'/proc/{admin.pid}/fd/{fd}')}"


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", free_port())) as other:
        port = other.getsockname()[1]
        with pytest.raises(AssertionError, match=f"127.0.0.1:{port}: Address already in use"):
            AdminDemo(port=port)


def test_an_ipv6_address(own_admin):
    demo = own_admin(host="[::1]")
    assert get(demo.port, "/healthz", "::1")[0].status == 200
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", demo.port), 1)


# the proxy itself


def test_metrics_tell_the_traffic(start_proxy):
    """Two workers; who came, what was said and how it ended is added up exactly; promtool is content with it."""
    port = free_port()
    with RawBackend(echo) as backend:
        proxy = start_proxy(ws_spec(port, backend.port, name="ns/chat"), args=["--workers", "2"], admin=True)
        clients = [ws_client(port) for _ in range(5)]
        for client in clients:
            for _ in range(2):
                client.send_frame(frames.TEXT, b"hello")
                assert client.read_frame().payload == b"hello"
        clients[0].send_frame(frames.CLOSE, b"\x03\xe8")
        clients[1].send_frame(frames.CLOSE, b"\x0f\xa1")
        for client in clients[:2]:
            assert client.read_frame().opcode == frames.CLOSE
        with RawClient(port) as stray:
            stray.expect_refusal(stray.answer(request("/")), 426)
        wait_until("two are gone", lambda: proxy.metric("tidegate_connections", server="ns/chat") == 3)

        def is_told():
            m = proxy.metrics()
            told = {
                "connections_total": total(m, "tidegate_connections_total"),
                "101": total(m, "tidegate_handshakes_total", code="101"),
                "426": total(m, "tidegate_handshakes_total", code="426"),
                "took": total(m, "tidegate_handshake_seconds_count"),
                "text": total(m, "tidegate_messages_total", type="text", direction="from_client"),
                "echo": total(m, "tidegate_messages_total", type="text", direction="from_backend"),
                "bytes": total(m, "tidegate_bytes_total", direction="from_backend"),
                "1000": total(m, "tidegate_closes_total", code="1000", initiator="client"),
                "4xxx": total(m, "tidegate_closes_total", code="4xxx", initiator="client"),
                "closes": total(m, "tidegate_closes_total"),
                "workers": total(m, "tidegate_workers"),
                "ready": total(m, "tidegate_ready"),
                "applied": total(m, "tidegate_reloads_total", result="applied"),
            }
            return told == {
                "connections_total": 5, "101": 5, "426": 1, "took": 5, "text": 10, "echo": 10, "bytes": 10 * 7 + 2 * 4,
                "1000": 1, "4xxx": 1, "closes": 2, "workers": 2, "ready": 1, "applied": 1,
            } or print(told)  # fmt: skip

        wait_until("the figures", is_told)
        status = get_json(proxy.admin_port, "/status")
        assert sorted(w["pid"] for w in status["workers"]) == sorted(proxy.workers())
        assert [(s["name"], s["state"], s["port"], s["connections"]) for s in status["servers"]] == [("ns/chat", "active", port, 3)]
        for client in clients:
            client.close()
        check_with_promtool(proxy.get("/metrics")[2].encode())


def descriptors(pid):
    """What a process holds; what it closes meanwhile it does not."""
    held = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            held.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return held


def test_workers_inherit_nothing_of_the_admin_port(start_proxy):
    """A worker holds no descriptor of libwebsockets, no port of the master's and no watched feed."""
    with RawBackend(echo) as backend:
        proxy = start_proxy(ws_spec(free_port(), backend.port), args=["--workers", "1"], admin=True)
        with feed(proxy.admin_port) as client:
            text(client)
            old = proxy.worker
            os.kill(old, signal.SIGKILL)
            wait_until("another worker", lambda: [w for w in proxy.workers() if w != old], 10)
            held = descriptors(proxy.worker)
            sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            inodes = {words[9] for words in sockets if words[1].endswith(f":{proxy.admin_port:04X}")}
            assert inodes and not held & {f"socket:[{inode}]" for inode in inodes}
            text(client)
