"""What the relay counts, read from the admin port while it happens."""

import functools

import pytest

from support.frames import BINARY, PING, PONG, TEXT
from support.gate import Gate
from support.http1 import head, upgrade_request
from support.proxy import free_port
from support.site import is_open
from support.wait import wait_until


class Counts:
    """The metrics of the server `test` as they are now."""

    def __init__(self, gate):
        self.gate = gate

    def __call__(self, name, **labels):
        return self.gate.proxy.metric(f"tidegate_{name}", server="test", **labels)

    def wait(self, value, name, **labels):
        wait_until(f"{name} {labels} at {value}, now {self(name, **labels)}", lambda: self(name, **labels) == value)


@pytest.fixture
def counting(start_proxy):
    """counting(**kw of Gate) -> a gate and its counts."""
    gates = []

    def build(**kw):
        gates.append(Gate(functools.partial(start_proxy, admin=True), **kw))
        return gates[-1], Counts(gates[-1])

    yield build
    for gate in gates:
        gate.close()


def test_tunnel_is_counted_while_it_lives(counting):
    """Gauges, bytes and messages by kind move with the tunnel, not at its end."""
    gate, counts = counting()
    with gate.tunnel() as (client, conn):
        counts.wait(1, "connections")
        assert counts("connections_total") == 1 and counts("handshakes_in_progress") == 0
        sent = client.send_frame(TEXT, "a") + client.send_frame(BINARY, bytes(70000)) + client.send_frame(PING, "p")
        sent += client.send_frame(TEXT, "b", fin=False)
        conn.read_exactly(len(sent))
        conn.send_frame(PONG, "p")
        client.read_frame()
        counts.wait(len(sent), "bytes_total", direction="from_client")
        for kind, n in (("text", 1), ("binary", 1), ("ping", 1), ("pong", 0), ("close", 0)):
            assert counts("messages_total", direction="from_client", type=kind) == n, kind
        assert counts("messages_total", direction="from_backend", type="pong") == counts("messages_total", direction="from_backend") == 1
        assert counts("bytes_total", direction="from_backend") == 3
        assert counts("closes_total") == 0
    counts.wait(0, "connections")
    assert counts("connections_total") == 1


def test_handshakes_are_counted_by_their_answer(counting):
    """Each connection once: by the status that the client got, the backend's own ones too; the others as none."""
    gate, counts = counting(allowedOrigins=["https://good.example"])
    with gate.client() as client:
        counts.wait(1, "handshakes_in_progress")
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_head().status == 426
    with gate.client() as client:
        client.send(upgrade_request(headers=[("Origin", "https://bad.example")]))
        assert client.read_head().status == 403
    with gate.client() as client:
        client.send(upgrade_request())
        with gate.backend.accept() as conn:
            conn.read_request()
            conn.send(head("HTTP/1.1 401 No", [("Content-Length", "0")]))
            assert client.read_head().status == 401
    gate.client().close()
    with gate.tunnel():
        counts.wait(1, "handshake_seconds_count")
        assert 0 < counts("handshake_seconds_sum") < 5
    counts.wait(0, "handshakes_in_progress")
    counts.wait(1, "handshakes_total", code="none")
    for code in ("426", "403", "401", "101"):
        assert counts("handshakes_total", code=code) == 1, code
    assert counts("handshakes_total") == gate.proxy.metric("tidegate_accepted_total") == 5


def test_closes_are_counted_by_code_and_initiator(counting):
    """Once a tunnel, when it has ended, by what began the end."""
    gate, counts = counting()
    for side, code, label in (("client", 1000, "1000"), ("backend", 4321, "4xxx"), ("client", None, "none")):
        with gate.tunnel() as (client, conn):
            a, b = (client, conn) if side == "client" else (conn, client)
            a.send_close(code)
            b.read_frame()
            b.send_close(code)
            a.read_frame()
        counts.wait(1, "closes_total", initiator=side, code=label)
    with gate.tunnel() as (client, conn):
        conn.rst()
        client.expect_close(1011)
    counts.wait(1, "closes_total", initiator="backend", code="none")
    with gate.tunnel() as (client, conn):
        client.send_frame(TEXT, "x", rsv=7)
        client.expect_close(1002)
    counts.wait(1, "closes_total", initiator="gateway", code="1002")
    assert counts("closes_total") == counts("connections_total") == 5
    assert counts("connections") == 0


def test_swallowed_pong_is_no_message(counting):
    """Pings of ours and their Pongs are not the peers' messages."""
    gate, counts = counting(ping={"interval": "100ms"})
    with gate.tunnel() as (client, conn):
        ping = client.expect_frame(PING)
        client.send_frame(PONG, ping.payload)
        client.expect_frame(PING)
        assert counts("messages_total") == 0
        assert counts("bytes_total", direction="from_client") == 22


def test_drain_counts_whom_it_told_and_cut(counting):
    """A server that is removed: its clients told, the deaf one cut; its counts are still there meanwhile."""
    gate, counts = counting(args=["--max-drain", "5s"], timeouts={"drain": "3s"})
    with gate.tunnel() as (deaf, deaf_conn), gate.tunnel() as (client, conn):
        gate.proxy.replace("")
        gate.proxy.hup()
        assert client.expect_close(1001).reason == "server removed"
        client.send_close(1001)
        conn.read_frame()
        conn.close()
        client.expect_gone()
        client.close()
        deaf.expect_close(1001)
        counts.wait(1, "connections")
        assert counts("drained_total") == 2 and counts("drain_cut_total") == 0
        deaf_conn.expect_close(1001)
        deaf.expect_gone()
        line = gate.close_line(deaf)
        assert line["detail"] == "cut at the end of the drain" and line["reason"] == "server removed"


def test_server_that_comes_back_keeps_its_sockets(start_proxy):
    """A server deleted and restored before its sockets were told: those live on."""
    with Gate(start_proxy, args=["--max-drain", "1m"], timeouts={"drain": "60s"}) as gate:
        text = gate.proxy.config.read_text()
        other = free_port()
        with gate.tunnel() as (client, conn):
            gate.proxy.replace(text.replace('"test"', '"other"').replace(f"port: {gate.port}", f"port: {other}"))
            gate.proxy.hup()
            wait_until("the port is closed", lambda: not is_open(gate.port))
            gate.proxy.replace(text)
            gate.proxy.hup()
            wait_until("the port is open", lambda: is_open(gate.port))
            raw = client.send_frame(TEXT, "still here")
            assert conn.read_exactly(len(raw)) == raw
