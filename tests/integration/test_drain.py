"""The end of the proxy: S57, and how a drain tells and cuts its connections."""

import contextlib
import os
import signal
import threading
import time

import pytest

from support.backend import RawBackend, serve
from support.frames import BINARY, TEXT, frame
from support.gate import Gate
from support.http1 import upgrade_request
from support.site import is_open
from support.streams import pour_until_full
from support.wait import wait_until

REASON = "gateway is shutting down"
LEGS = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


def term(gate):
    """SIGTERM, seen: when it was sent."""
    began = time.monotonic()
    gate.proxy.process.send_signal(signal.SIGTERM)
    gate.proxy.wait_log("stop")
    return began


def expect_exit(gate, within, began):
    """Exit 0 by itself, `within` seconds after `began`."""
    code = gate.proxy.process.wait(within + 10)
    took = time.monotonic() - began
    assert code == 0 and took < within, f"exit {code} after {took:.2f} s, {within} s were due"
    return took


def draining_gate(start, certs=None, tls=False, drain="2s", **kw):
    kw.setdefault("timeouts", {"drain": drain})
    kw.setdefault("args", ["--max-drain", "1h"])  # the spec's own counts
    return Gate(start, certs=certs if tls else None, backend_certs=certs if tls else None, **kw)


@LEGS
def test_client_is_told_and_answers(start_proxy, certs, tls):
    """S57: the client gets Close 1001 with the reason, its own Close goes on to the backend byte for byte, and once both
    have ended the proxy exits 0, long before the deadline."""
    with draining_gate(start_proxy, certs, tls, drain="1500ms") as gate, gate.tunnel() as (client, conn):
        began = term(gate)
        close = client.expect_close(1001)
        assert close.reason == REASON and not close.masked
        conn.expect_nothing(0.2)
        answer = client.send_close(1001, "bye")
        assert conn.read_exactly(len(answer)) == answer
        conn.send_close(1001)
        conn.half_close()
        client.expect_eof()
        assert client.clean_eof
        client.half_close()
        conn.close()
        line = gate.close_line(client)
        assert line["code"] == 1001 and line["initiator"] == "gateway" and line["reason"] == REASON and "detail" not in line
        expect_exit(gate, 1.5, began)


@LEGS
def test_deaf_client_is_cut_at_the_deadline(start_proxy, certs, tls):
    """S57: a client that does not answer is cut at the deadline; its backend gets a Close of ours then, and a FIN."""
    with draining_gate(start_proxy, certs, tls, drain="1s") as gate, gate.tunnel() as (client, conn):
        began = term(gate)
        assert client.expect_close(1001).reason == REASON
        close = conn.expect_close(1001)
        assert close.masked and close.reason == REASON and 0.9 < time.monotonic() - began < 1.5
        conn.expect_eof()
        client.expect_eof()
        line = gate.close_line(client)
        assert line["code"] == 1001 and line["detail"] == "cut at the end of the drain"
        assert expect_exit(gate, 2, began) > 0.9


def test_nothing_of_ours_inside_a_frame(start_proxy):
    """S57, S25: a client inside whose frame the deadline comes gets no byte into it, only the end."""
    with draining_gate(start_proxy, drain="1s") as gate, gate.tunnel() as (client, conn):
        part = frame(BINARY, b"", length=100_000) + bytes(70_000)
        conn.send(part)
        assert client.read_exactly(len(part)) == part
        began = term(gate)
        conn.expect_close(1001)
        assert 0.9 < time.monotonic() - began < 1.5
        client.expect_gone()
        expect_exit(gate, 2, began)


def test_close_waits_for_a_frame_end(start_proxy):
    """S57: longer than the usual 5 s, if the drain lasts: a frame that ends before the deadline is followed by the Close."""
    with draining_gate(start_proxy, drain="1900ms") as gate, gate.tunnel() as (client, conn):
        head = frame(BINARY, b"", length=1000)
        conn.send(head + bytes(500))
        client.read_exactly(len(head) + 500)
        began = term(gate)
        up = client.send_frame(TEXT, "still relayed")
        assert conn.read_exactly(len(up)) == up
        wait_until("the window is over", lambda: time.monotonic() - began > 1.6)
        conn.send(bytes(500) + frame(TEXT, b"behind it"))
        assert client.read_exactly(500) == bytes(500)
        assert client.expect_close(1001).reason == REASON
        answer = client.send_close(1001)
        assert conn.read_exactly(len(answer)) == answer
        conn.send_close(1001)
        conn.half_close()
        client.expect_eof()
        client.close()
        expect_exit(gate, 2.9, began)


def test_backpressured_client(start_proxy):
    """S57: a client that takes nothing keeps its worker until the deadline and no longer, and what it is sent is cut."""
    with draining_gate(start_proxy, drain="1s", backend_kw={"sndbuf": 65536}) as gate, gate.tunnel(rcvbuf=4096) as (client, conn):
        pour_until_full(conn, frame(TEXT, bytes(1000)) * 100)
        began = term(gate)
        expect_exit(gate, 2, began)
        line = gate.proxy.wait_log("close")
        assert line["code"] == 1001 and line["initiator"] == "gateway"


def test_connections_that_end_already(start_proxy):
    """S57: patience that began before is cut at the deadline too: an unanswered Close, a FIN that was passed on."""
    with draining_gate(start_proxy, drain="1s") as gate, gate.tunnel() as (a, a_conn), gate.tunnel() as (b, b_conn):
        a.send_close(4000, "unanswered")
        a_conn.expect_close(4000)
        b_conn.half_close()
        b.expect_close(1011)
        began = term(gate)
        assert expect_exit(gate, 2, began) > 0.9
        assert gate.close_line(a)["code"] == 4000 and gate.close_line(b)["code"] == 1006


@LEGS
@pytest.mark.parametrize("state", ["dial", "answer"])
def test_handshake_under_way_is_answered_503(start_proxy, certs, tls, state):
    """S57: whoever waits for a backend gets 503 at once."""
    kw = {"script": lambda conn: conn.read_some(30)} if state == "dial" else {}
    with draining_gate(start_proxy, certs, tls, drain="2s", **kw) as gate, gate.client() as client:
        client.send(upgrade_request())
        conn = None
        if state == "answer":
            conn = gate.backend.accept()
            conn.read_request()
        else:
            wait_until("the dial", lambda: gate.backend.conns)
        began = term(gate)
        answer = client.read_head()
        assert answer.status == 503 and time.monotonic() - began < 0.5
        assert b"the gateway is shutting down" in client.read_body(answer)
        client.expect_eof()
        client.close()
        if conn:
            conn.expect_gone()
        assert gate.line("refuse", client)["status"] == 503
        expect_exit(gate, 2, began)


@pytest.mark.parametrize("completes", [True, False], ids=["complete", "incomplete"])
def test_request_under_way_has_two_seconds(start_proxy, completes):
    """S57: a request that is not whole yet may be completed and gets 503 then; after 2 s it gets it anyway."""
    with draining_gate(start_proxy, drain="4s") as gate, gate.client() as client:
        request = upgrade_request()
        client.send(request[:30])
        client.expect_nothing(0.1)
        began = term(gate)
        client.expect_nothing(0.3)
        if completes:
            client.send(request[30:])
        assert client.read_head().status == 503
        took = time.monotonic() - began
        assert took < 1 if completes else 1.8 < took < 2.5
        client.close()
        expect_exit(gate, 4, began)
        assert not gate.backend.conns


def test_silent_connection_is_no_reason_to_stay(start_proxy):
    """S57: who has sent nothing is cut after 2 s at the latest."""
    with draining_gate(start_proxy, drain="4s") as gate, gate.client() as client:
        began = term(gate)
        client.expect_gone()
        expect_exit(gate, 3, began)


def test_port_is_closed_at_once(start_proxy):
    """S57: a proxy that drains takes no more connections."""
    with draining_gate(start_proxy) as gate, gate.tunnel() as (client, _):
        term(gate)
        wait_until("it refuses", lambda: not is_open(gate.port))
        client.expect_close(1001)


def test_queued_connection_is_answered(start_proxy):
    """S57: who came before the port was closed is taken, and answered 503 as others are."""
    with draining_gate(start_proxy, drain="4s") as gate:
        worker = gate.proxy.worker
        os.kill(worker, signal.SIGSTOP)
        try:
            with gate.client() as client, gate.client() as slow:
                client.send(upgrade_request())
                slow.send(upgrade_request()[:30])
                began = term(gate)
                os.kill(worker, signal.SIGCONT)
                assert client.read_head().status == 503
                client.close()
                slow.expect_nothing(0.3)
                slow.send(upgrade_request()[30:])
                assert slow.read_head().status == 503
                slow.close()
                expect_exit(gate, 3, began)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGCONT)


def test_second_term_ends_at_once(start_proxy):
    """S57: the second SIGTERM waits for nothing; a Close that can be sent is sent even then."""
    with draining_gate(start_proxy, drain="30s") as gate, gate.tunnel() as (client, conn), gate.client() as waiting:
        waiting.send(upgrade_request())
        gate.backend.accept().read_request()
        term(gate)
        waiting.read_head()
        began = time.monotonic()
        gate.proxy.process.send_signal(signal.SIGTERM)
        expect_exit(gate, 1, began)
        assert client.expect_close(1001).reason == REASON
        assert conn.expect_close(1001).masked
        client.expect_gone()
        conn.expect_gone()


def test_no_time_at_all(start_proxy):
    """`drain: 0s` tells and cuts at once."""
    with draining_gate(start_proxy, drain="0s") as gate, gate.tunnel() as (client, conn):
        began = term(gate)
        assert client.expect_close(1001).reason == REASON
        client.expect_eof()
        assert conn.expect_close(1001).masked
        conn.expect_eof()
        expect_exit(gate, 1, began)


def test_closes_are_spread_over_the_window(start_proxy, sanitized):
    """S57: of 200 clients that are told within 1.6 s, no 100 ms hold more than three times their share, and the order is
    not the order of age. All of them end with a Close, and the proxy in time."""
    count, window = 200, 1.6
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(RawBackend(serve))
        gate = stack.enter_context(draining_gate(start_proxy, drain="2s", backend=f"ws://127.0.0.1:{backend.port}"))
        clients = []
        for _ in range(count):
            clients.append(stack.enter_context(gate.client()))
            clients[-1].handshake()
        told = [None] * count

        def watch(i):
            close = clients[i].expect_close(1001)
            told[i] = time.monotonic()
            assert close.reason == REASON
            clients[i].send_close(1001)

        threads = [threading.Thread(target=watch, args=(i,), daemon=True) for i in range(count)]
        for thread in threads:
            thread.start()
        began = term(gate)
        for thread in threads:
            thread.join(10)
        assert all(told), f"{told.count(None)} of {count} got no Close"
        expect_exit(gate, 3, began)
        times = sorted(t - began for t in told)
        assert times[-1] < window + 0.2
        assert times[count // 2] > window / 4, "most came at the start"
        share = count * 0.1 / window
        for at in range(20):
            held = sum(at / 10 <= t < at / 10 + 0.1 for t in times)
            assert held <= 3 * share, f"{held} within 100 ms, the share is {share:.0f}"
        later = sum(a < b for a, b in zip(told, told[1:]))
        assert count / 5 < later < count * 4 / 5, "told in the order of their age"
