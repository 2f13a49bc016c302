"""timeouts.maxAge: a connection does not live for ever."""

import contextlib
import time

from support.frames import BINARY, TEXT, frame
from support.gate import Gate


def test_old_connections_end_within_the_last_tenth(start_proxy):
    """Close 1001 at 90 to 100 % of the age, each at its own time, however busy; the client's answer goes to the backend."""
    with contextlib.ExitStack() as stack:
        gate = stack.enter_context(Gate(start_proxy, timeouts={"maxAge": "3s"}))
        pairs = []
        for _ in range(20):
            began = time.monotonic()
            pairs.append((*stack.enter_context(gate.tunnel()), began, time.monotonic()))
        ends = []
        for client, _, _, _ in pairs:
            client.sock.setblocking(True)
        told = {}
        while len(told) < len(pairs):
            for i, (client, conn, began, opened) in enumerate(pairs):
                if i in told:
                    continue
                conn.try_send(frame(TEXT, b"busy"))
                while i not in told:
                    f = client.read_frame()
                    if f.opcode == TEXT:
                        break
                    assert f.code == 1001 and f.reason == "maximum age"
                    told[i] = time.monotonic()
                    assert opened - began < 0.5
                    ends.append(told[i] - opened)
        assert 2.6 < min(ends) and max(ends) < 3.1, ends
        assert max(ends) - min(ends) > 0.05, "all at once"
        for client, conn, _, _ in pairs:
            raw = client.send_close(1001)
            assert conn.read_exactly(len(raw)) == raw
            conn.close()
            client.expect_gone()
            client.close()
            line = gate.close_line(client)
            assert line["code"] == 1001 and line["initiator"] == "gateway" and line["reason"] == "maximum age"


def test_age_lets_a_long_frame_come_to_its_end(start_proxy):
    """S25: longer than the 5 s that an answer is waited for: what is being sent has `timeouts.drain` to end."""
    with Gate(start_proxy, timeouts={"maxAge": "500ms", "drain": "20s"}) as gate, gate.tunnel() as (client, conn):
        body = frame(BINARY, bytes(700))
        conn.send(body[:100])
        assert client.read_exactly(100) == body[:100]
        for at in range(100, 107):  # a byte a second is life
            client.expect_nothing(1.0)
            conn.send(body[at : at + 1])
            assert client.read_exactly(1) == body[at : at + 1]
        conn.send(body[107:])
        assert client.read_exactly(len(body) - 107) == body[107:]
        assert client.expect_close(1001).reason == "maximum age"


def test_age_waits_for_the_end_of_a_frame(start_proxy):
    """S25: the Close comes behind the frame that is open."""
    with Gate(start_proxy, timeouts={"maxAge": "1s"}) as gate, gate.tunnel() as (client, conn):
        body = frame(BINARY, bytes(1000))
        conn.send(body[:500])
        assert client.read_exactly(500) == body[:500]
        client.expect_nothing(1.3)
        conn.send(body[500:])
        assert client.read_exactly(len(body) - 500) == body[500:]
        assert client.expect_close(1001).reason == "maximum age"
