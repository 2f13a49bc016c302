"""Flow control, deadlines, ends and shortages: S28, S29, S32, S34 to S37 of the bars."""

import contextlib
import ctypes
import os
import select
import socket
import ssl
import statistics
import threading
import time

import pytest

from support import shims
from support.backend import RawBackend, manual, serve
from support.blackhole import BlackHole
from support.client import RawClient, client_context
from support.crowd import Crowd, CrowdBackend, p99
from support.frames import BINARY, CLOSE, PING, TEXT, frame
from support.gate import Gate
from support.http1 import upgrade_request
from support.peer import Eof
from support.proxy import free_port
from support.spec import https_spec, ws_spec
from support.streams import pour_until_full, relay_both_ways
from support.wait import at_once, wait_until

KEY = b"\x01\x02\x03\x04"
SIDES = pytest.mark.parametrize("side", ["client", "backend"])


# S28


@SIDES
def test_sender_waits_for_a_reader_that_stopped(start_proxy, side, sanitized):
    """S28: with one end not reading, the other is stopped; the proxy holds 64 KiB at most; nothing is lost."""
    with Gate(start_proxy, backend_kw={"rcvbuf": 65536, "sndbuf": 65536}) as gate:
        with gate.tunnel(rcvbuf=65536, sndbuf=65536) as (client, conn):
            a, b = (client, conn) if side == "client" else (conn, client)
            warm = a.send_frame(BINARY, bytes(300_000))
            assert b.read_exactly(len(warm)) == warm
            before = gate.proxy.anon()
            one = frame(BINARY, os.urandom(100_000), mask=KEY if a is client else False)
            sent, at = pour_until_full(a, one)
            assert sent < 30 << 20, "back-pressure never came"
            if not sanitized:
                assert gate.proxy.anon() - before < 200 << 10
            cpu = gate.proxy.cpu_seconds()
            start = time.monotonic()
            wait_until("a second", lambda: time.monotonic() - start > 1, 2)
            assert gate.proxy.cpu_seconds() - cpu < 0.05, "it spins while it waits"
            # the other direction is not held up
            back = b.send_frame(TEXT, "meanwhile")
            assert a.read_exactly(len(back)) == back
            threading.Thread(target=a.send, args=(one[at:],), daemon=True).start()
            total = sent + len(one) - at
            got = b.read_exactly(total, 20)
            assert got == one * (total // len(one))


def test_a_stuck_flood_does_not_slow_others(start_proxy, sanitized):
    """S28: 1,000 quiet connections keep their latency while one is flooded and stuck.

    The bar is 10 % of p99. Base and load are measured in turns, and 0.3 ms are granted on top: one wake-up of a
    scheduler. Other programs on a machine of 2 cores add time to some rounds, so it fails only when both the best
    and the middle round are over; a proxy that works on the stuck flood slows every round."""
    with CrowdBackend() as crowd_backend, RawBackend(manual) as stuck_backend:
        port, stuck_port = free_port(), free_port()
        start_proxy(ws_spec(port, crowd_backend.port) + "---\n" + ws_spec(stuck_port, stuck_backend.port, name="stuck"))
        crowd = Crowd(port, 1000)
        crowd.round()
        one = frame(BINARY, bytes(60_000), mask=KEY)
        base, loaded = [], []
        for _ in range(7):
            base.append(p99(crowd.round()))
            with RawClient(stuck_port) as client:
                client.send(upgrade_request())
                conn = stuck_backend.accept()
                conn.answer_101()
                client.read_head()
                pour_until_full(client, one)
                loaded.append(p99(crowd.round()))
                conn.close()
        crowd.close()
    better = [pick(loaded) <= pick(base) * 1.1 + 0.0003 for pick in (min, statistics.median)]
    assert sanitized or any(better), (base, loaded)


def test_a_running_flood_is_fair(start_proxy):
    """S28: a flood that flows (not stuck) gives way each turn: quiet connections are answered in between.

    No bar names a figure: with one core for the proxy and one for flood, sink and measurement, 20 ms mean that the
    turns are short."""
    with CrowdBackend() as crowd_backend, RawBackend(drain) as sink:
        port, flood_port = free_port(), free_port()
        start_proxy(ws_spec(port, crowd_backend.port) + "---\n" + ws_spec(flood_port, sink.port, name="flood"))
        crowd = Crowd(port, 50)
        with RawClient(flood_port) as client:
            client.handshake()
            stop = threading.Event()
            one = frame(BINARY, bytes(1 << 20), mask=KEY)

            def pour():
                while not stop.is_set():
                    client.send(one)

            thread = threading.Thread(target=pour, daemon=True)
            thread.start()
            rounds = [p99(crowd.round()) for _ in range(10)]
            stop.set()
            thread.join(5)
        crowd.close()
    assert min(rounds) < 0.02, rounds


def drain(conn):
    """A backend that reads as fast as it can and keeps nothing."""
    conn.answer_101()
    while conn.read_some(60):
        conn.received.clear()
        conn.at = 0
    conn.close()


# S29


def drip(peer, data, pause=0.15):
    """One byte each `pause` seconds until the other end has gone; how long that took."""
    start = time.monotonic()
    poll = select.poll()
    poll.register(peer.sock, select.POLLIN | select.POLLRDHUP)
    for byte in data:
        try:
            peer.sock.sendall(bytes([byte]))
        except OSError:
            break
        if poll.poll(pause * 1000):
            break
    else:
        raise AssertionError("all was sent and the connection still stands")
    return time.monotonic() - start


@pytest.mark.parametrize("what", ["nothing", "head", "hello", "no hello"])
def test_slow_handshakes_have_a_deadline(start_proxy, certs, what):
    """S29: connect without a byte, and dripping a request head or a ClientHello, end by timeouts.handshake in all."""
    tls = "hello" in what
    with Gate(start_proxy, certs=certs if tls else None, timeouts={"handshake": "1s"}) as gate:
        client = RawClient(gate.port)
        start = time.monotonic()
        if what in ("nothing", "no hello"):
            client.read_until_eof(4)
            took = time.monotonic() - start
        elif what == "head":
            took = drip(client, upgrade_request("/" + "x" * 200))
        else:
            took = drip(client, client_hello())
        assert 0.9 < took < 2.5
        assert gate.backend.accepted.empty()
        line = gate.line("refuse", client)
        assert line["by"] == "gateway" and line["why"]
        assert line["level"] == ("debug" if what in ("nothing", "no hello") else "info")
        client.close()


def client_hello():
    """The first flight of a TLS client."""
    inc, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(inc, out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


@SIDES
@pytest.mark.parametrize("part", ["header", "control"])
def test_slow_frame_header_has_a_deadline(start_proxy, side, part):
    """S29: the header of a frame, and a control frame, must be complete in time once begun."""
    with Gate(start_proxy, timeouts={"handshake": "1s"}) as gate:
        with gate.tunnel() as (client, conn):
            a, b = (client, conn) if side == "client" else (conn, client)
            mask = KEY if a is client else False
            whole = frame(BINARY, b"", length=1 << 20, mask=mask) if part == "header" else frame(PING, b"x" * 100, mask=mask)
            took = drip(a, whole[: 9 if part == "header" else -1] , pause=0.25)
            assert 0.9 < took < 2.5
            assert a.read_frame().opcode == CLOSE
            assert b.read_frame().opcode == CLOSE
            assert gate.close_line(client, 15)["initiator"] == "gateway"


@SIDES
def test_each_frame_header_has_its_own_time(start_proxy, side):
    """S29: a steady sender of which every write ends inside a header is not slow: no single one of them waits long."""
    with Gate(start_proxy, timeouts={"handshake": "300ms"}) as gate:
        with gate.tunnel() as (client, conn):
            a, b = (client, conn) if side == "client" else (conn, client)
            whole = frame(TEXT, b"steady", mask=KEY if a is client else False)
            a.send(whole[:1])
            until = time.monotonic() + 1
            while time.monotonic() < until:
                a.send(whole[1:] + whole[:1])
                assert b.read_frame().raw == whole
                time.sleep(0.01)
            a.send(whole[1:])
            assert b.read_frame().raw == whole


@SIDES
def test_header_that_waits_behind_a_stuck_reader_is_not_late(start_proxy, side):
    """S28, S29: whose rest of a header we do not read, because the other side takes nothing, is not to blame."""
    with contextlib.ExitStack() as stack:
        gate = stack.enter_context(Gate(start_proxy, timeouts={"handshake": "300ms"}))
        floods = []
        for _ in range(6):  # where the last read before the stop ends is chance: inside a header for most of them
            client, conn = stack.enter_context(gate.tunnel())
            floods.append(client if side == "client" else conn)
            # Nearly all of it is header.
            sent, _ = pour_until_full(floods[-1], frame(TEXT, b"a", mask=KEY if side == "client" else False) * 5000)
            assert sent > 1 << 20
        for flood in floods:  # together longer than the patience with a header
            flood.expect_nothing(0.2)


def test_slow_payload_is_alive_while_bytes_come(start_proxy):
    """S29: payload is a matter of timeouts.idle: dripping keeps a connection, silence ends it."""
    with Gate(start_proxy, timeouts={"idle": "1s", "handshake": "300ms"}) as gate:
        with gate.tunnel() as (client, conn):
            whole = frame(BINARY, b"slowly and surely", mask=KEY)
            client.send(whole[:6])
            for byte in whole[6:]:
                client.expect_nothing(0.12)
                last = time.monotonic()
                client.send(bytes([byte]))
            assert conn.read_exactly(len(whole)) == whole
            close = client.expect_close(1001)
            assert close.reason == "idle timeout" and 0.9 < time.monotonic() - last < 2.5
            client.send_close(1001)
            conn.expect_close(1001)


# S32


def run_with_few_descriptors(start, limit, *, certs=None):
    backend = RawBackend(manual)
    port = free_port()
    spec = https_spec(port, backend.port, certs=certs) if certs else ws_spec(port, backend.port)
    return backend, port, start(spec, wrap=["prlimit", f"--nofile={limit}:{limit}"])


def test_out_of_descriptors(start_proxy):
    """S32: connections that never ask for anything can take the descriptors that are kept back for answers. At EMFILE
    the listener pauses: CPU under 5 %, about a line a second, and a second after descriptors are free again the
    waiting connections are served."""
    limit = 64
    backend, port, proxy = run_with_few_descriptors(start_proxy, limit)
    backend.script = lambda conn: conn.answer_101()
    open_ones = []
    while True:
        client = RawClient(port)
        if client.answer(upgrade_request()).status == 503:
            client.close()
            break
        open_ones.append((client, backend.accept()))
    assert len(open_ones) > 10
    waiting = [RawClient(port) for _ in range(40)]
    wait_until("all descriptors in use", lambda: proxy.fds() >= limit - 1)
    mark, cpu, start = len(proxy.logs), proxy.cpu_seconds(), time.monotonic()
    wait_until("two seconds", lambda: time.monotonic() - start > 2, 3)
    assert proxy.cpu_seconds() - cpu < 0.1
    others = [e for e in proxy.logs[mark:] if e["event"] not in ("refuse", "open", "close")]
    assert 1 <= len(others) <= 4 and all(e["event"] == "accept" for e in others), others
    # what stands goes on
    client, conn = open_ones[0]
    client.send_frame(TEXT, "still here")
    conn.expect_frame(TEXT, b"still here")
    for client, conn in open_ones:
        client.rst()
        conn.close()
    backend.script = serve
    for client in waiting:
        client.send(upgrade_request())
    answers = [client.read_head(4).status for client in waiting]
    assert set(answers) <= {101, 503} and answers.count(101) >= len(open_ones), answers
    for client in waiting:
        client.close()
    wait_until("all of them gone", lambda: proxy.fds() < 20)
    with RawClient(port) as fresh:
        fresh.handshake(timeout=2)
    backend.close()


# S34


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """support/shim.c as a library."""
    return shims.build("shim", tmp_path_factory.mktemp("shim"))


def preload(library, tmp_path, sanitized):
    return {**shims.preload(library, sanitized), "SHIM_REPORT": str(tmp_path / "shim.txt")}


@pytest.mark.parametrize("backend_tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("client_tls", [False, True], ids=["http", "https"])
def test_short_interrupted_and_refused_calls(start_proxy, certs, shim, tmp_path, sanitized, client_tls, backend_tls):
    """S34: bar 24 holds when any read or write may be cut to a byte, interrupted or put off."""
    with Gate(start_proxy, certs=certs if client_tls else None, backend_certs=certs if backend_tls else None,
              env=preload(shim, tmp_path, sanitized)) as gate:  # fmt: skip
        with gate.tunnel() as (client, conn):
            relay_both_ways(client, conn, 11, big=False)
            client.send_close(1000, "done")
            conn.expect_close(1000)
            conn.send_close(1000)
            client.expect_close(1000)
            conn.half_close()
            client.expect_gone()
        gate.proxy.stop()
    lines = (tmp_path / "shim.txt").read_text().splitlines()  # one of each process
    cuts, interrupts, refusals = (sum(int(line.split()[i]) for line in lines) for i in range(3))
    assert cuts > 50 and interrupts > 10 and refusals > 10, "the shim was not in the way"


@pytest.mark.parametrize("client_tls", [False, True], ids=["http", "https"])
def test_tiny_socket_buffers(start_proxy, certs, client_tls):
    """S34: the same with the smallest buffers that the kernel gives both peers."""
    with Gate(start_proxy, certs=certs if client_tls else None, backend_kw={"rcvbuf": 2048, "sndbuf": 2048}) as gate:
        with gate.tunnel(rcvbuf=2048, sndbuf=2048) as (client, conn):
            relay_both_ways(client, conn, 12, big=False)


# S35


LEGS = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


@SIDES
@LEGS
def test_half_close(start_proxy, certs, side, tls):
    """S35: what came before the FIN is delivered, the end is announced and the FIN passed on, and the other direction
    goes on until it ends itself."""
    with Gate(start_proxy, certs=certs if tls else None, backend_certs=certs if tls else None) as gate:
        with gate.tunnel() as (client, conn):
            a, b = (client, conn) if side == "client" else (conn, client)
            last = a.send_frame(BINARY, bytes(500_000))
            a.half_close()
            assert b.read_exactly(len(last)) == last
            b.expect_close(1001 if b is conn else 1011)
            b.expect_eof()
            assert b.clean_eof
            back = b.send_frame(BINARY, bytes(500_000))
            assert a.read_exactly(len(back)) == back
            b.send_close(1000, "then")
            assert a.expect_close(1000).reason == "then"
            b.half_close()
            a.expect_eof()
            assert a.clean_eof
            assert gate.close_line(client)["code"] == 1006


@SIDES
def test_fin_while_the_other_way_is_full(start_proxy, side):
    """S35: a FIN behind data that the other side does not take yet arrives behind that data."""
    with Gate(start_proxy, backend_kw={"rcvbuf": 4096, "sndbuf": 65536}) as gate:
        with gate.tunnel(rcvbuf=4096) as (client, conn):
            a, b = (client, conn) if side == "client" else (conn, client)
            last = frame(BINARY, bytes(2 << 20), mask=KEY if a is client else False)
            thread = threading.Thread(target=lambda: (a.send(last), a.half_close()), daemon=True)
            thread.start()
            assert b.read_exactly(len(last), 20) == last
            b.expect_close(1001 if b is conn else 1011)
            b.expect_eof()
            thread.join(5)


def test_thirty_seconds(start_proxy):
    """S35: after one side's FIN the other direction has 30 s, even while bytes flow. S16, S29: so has the whole
    handshake, with the body of another answer than 101. S37: and so has a client that takes nothing, though it lives."""
    gates = {side: Gate(start_proxy) for side in ("client", "backend", "body")}
    gates["window"] = Gate(start_proxy, ping={"interval": "1s"})

    def work(side):
        gate = gates[side]
        if side == "body":
            stalled_body(gate)
            return
        if side == "window":
            shut_window(gate)
            return
        with gate, gate.tunnel() as (client, conn):
            a, b = (client, conn) if side == "client" else (conn, client)
            a.half_close()
            b.expect_close(1001 if b is conn else 1011)
            start = time.monotonic()
            tick = frame(TEXT, b"tick", mask=KEY if b is client else False)
            try:
                while b.try_send(tick):
                    a.read_exactly(len(tick), 2)  # it flows
                    pause = time.monotonic()
                    wait_until("the next tick", lambda pause=pause: time.monotonic() - pause > 0.3, 1)
            except (Eof, TimeoutError, ConnectionResetError):
                pass
            assert 29 < time.monotonic() - start < 38
            gate.close_line(client, 8)

    at_once(work, gates)


def shut_window(gate):
    """A client inside whose frame no Ping can be put, and that reads nothing: the kernel tells when it has waited enough."""
    with gate, gate.tunnel(rcvbuf=4096) as (client, conn):
        start = time.monotonic()
        pour_until_full(conn, frame(BINARY, b"", length=1 << 30) + bytes(65536))
        line = gate.close_line(client, 45)
        assert 25 < time.monotonic() - start < 45
        assert line["code"] == 1006 and line["detail"] == "the client's connection timed out"


def stalled_body(gate):
    """The body of a refusal that stops half-way is not waited for without end."""
    with gate, gate.client() as client:
        client.send(upgrade_request())
        conn = gate.backend.accept()
        conn.read_request()
        start = time.monotonic()
        conn.send(b"HTTP/1.1 404 No\r\nContent-Length: 100\r\n\r\nhalf")
        assert client.read_head().status == 404
        assert client.read_until_gone(38) == b"half"
        assert 29 < time.monotonic() - start < 38


# S36


def test_backend_reset_at_a_boundary(start_proxy):
    """S36: the client of a backend that was reset between frames gets 1011 and the end within a second."""
    with Gate(start_proxy) as gate:
        with gate.tunnel() as (client, conn):
            conn.send_frame(TEXT, "last words")
            client.expect_frame(TEXT, b"last words")
            start = time.monotonic()
            conn.rst()
            client.expect_close(1011)
            client.expect_gone()
            assert time.monotonic() - start < 1
            client.close()
            line = gate.close_line(client)
            assert line["code"] == 1006 and line["initiator"] == "backend" and "reset" in line["detail"]


def test_backend_reset_inside_a_frame(start_proxy):
    """S36: inside a frame no Close can be told from payload: the client only sees the end, within a second."""
    with Gate(start_proxy) as gate:
        with gate.tunnel() as (client, conn):
            part = frame(BINARY, b"", length=1000) + bytes(10)
            conn.send(part)
            assert client.read_exactly(len(part)) == part
            start = time.monotonic()
            conn.rst()
            client.expect_gone()
            assert time.monotonic() - start < 1


def test_client_reset(start_proxy):
    """S36: a client that is reset: 1001 and the end for the backend."""
    with Gate(start_proxy) as gate:
        with gate.tunnel() as (client, conn):
            client.rst()
            conn.expect_close(1001)
            conn.expect_gone()
            line = gate.proxy.wait_log(event="close")
            assert line["initiator"] == "client" and line["code"] == 1006


@SIDES
def test_writing_to_a_dead_peer(start_proxy, side):
    """S36: floods toward ends that are reset meanwhile kill neither the proxy nor other connections."""
    with Gate(start_proxy) as gate:
        with gate.tunnel() as (witness, witness_conn):
            for _ in range(30):
                with gate.tunnel() as (client, conn):
                    a, b = (client, conn) if side == "client" else (conn, client)
                    data = frame(BINARY, bytes(200_000), mask=KEY if a is client else False)
                    thread = threading.Thread(target=a.try_send, args=(data * 5,), daemon=True)
                    thread.start()
                    b.read_some()
                    b.rst()
                    thread.join(5)
            assert gate.proxy.alive()
            witness.send_frame(TEXT, "alive")
            witness_conn.expect_frame(TEXT, b"alive")


# S37


def test_connect_to_a_black_hole(start_proxy):
    """S37: a backend that does not even refuse is a 504 after timeouts.connect."""
    hole = BlackHole()
    assert hole.swallows()
    port = free_port()
    proxy = start_proxy(ws_spec(port, hole.port, timeouts={"connect": "1s"}))
    with RawClient(port) as client:
        start = time.monotonic()
        client.expect_refusal(client.answer(upgrade_request()), 504)
        assert 0.9 < time.monotonic() - start < 2.2
        assert proxy.wait_log(event="refuse", status=504)["why"]
    hole.close()


def socket_options(pid, port):
    """(TCP_USER_TIMEOUT, SO_KEEPALIVE) of the proxy's sockets whose local or remote port is `port`, not listening."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
            continue
        fd = libc.syscall(438, pidfd, int(name), 0)  # pidfd_getfd
        if fd < 0:
            os.close(pidfd)
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
        with socket.socket(fileno=fd) as sock:
            if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
                continue
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                continue
            if port in (sock.getsockname()[1], sock.getpeername()[1]):
                timeout = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                found.append((timeout, sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)))
    os.close(pidfd)
    return found


def test_unacknowledged_data_has_a_deadline(start_proxy):
    """S37: the kernel gives up on a peer that acknowledges nothing for 30 s, on both legs.

    Loopback loses nothing, so the option is read from a copy of the proxy's own descriptors."""
    with Gate(start_proxy) as gate:
        with gate.tunnel():
            for port in (gate.port, gate.backend.port):
                options = socket_options(gate.proxy.worker, port)
                assert len(options) == 1
                assert options[0][0] == 30_000 and options[0][1] == 1


def test_silent_and_zero_window_peer(start_proxy):
    """S37: with timeouts.idle, a peer that takes nothing while the other floods is given up; sockets are freed."""
    gates = {side: Gate(start_proxy, timeouts={"idle": "1s"}, backend_kw={"rcvbuf": 4096}) for side in ("client", "backend")}

    def work(side):
        gate = gates[side]
        with gate, gate.tunnel(rcvbuf=4096) as (client, conn):
            before = gate.proxy.fds()
            a = client if side == "client" else conn
            pour_until_full(a, frame(BINARY, bytes(100_000), mask=KEY if a is client else False))
            line = gate.close_line(client, 15)
            assert line["initiator"] == "gateway" and line["code"] == 1001
            wait_until("both sockets closed", lambda: gate.proxy.fds() == before - 2)

    at_once(work, gates)


def test_idle_timeout(start_proxy):
    """S37: silence of both sides ends with 1001 to the client first; its answer goes on to the backend."""
    with Gate(start_proxy, timeouts={"idle": "500ms"}) as gate:
        with gate.tunnel() as (client, conn):
            start = time.monotonic()
            assert client.expect_close(1001).reason == "idle timeout"
            assert 0.4 < time.monotonic() - start < 1.5
            conn.expect_nothing(0.2)
            raw = client.send_close(1001)
            assert conn.read_exactly(len(raw)) == raw
            conn.send_close(1001)
            conn.close()
            client.expect_gone()
            line = gate.close_line(client)
            assert line["code"] == 1001 and line["initiator"] == "gateway" and line["reason"] == "idle timeout"


def test_idle_client_that_does_not_answer(start_proxy):
    """S37: 5 s after ours without an answer, the backend gets a Close of ours, masked."""
    with Gate(start_proxy, timeouts={"idle": "500ms"}) as gate:
        with gate.tunnel() as (client, conn):
            client.expect_close(1001)
            start = time.monotonic()
            close = conn.expect_close(1001, timeout=8)
            assert close.masked and 4 < time.monotonic() - start < 7
            conn.expect_gone()
            client.expect_gone(8)
