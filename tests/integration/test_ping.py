"""Keepalive: S26, the Pings of S25, and the silent peers of S37."""

import contextlib
import threading
import time

import pytest

from support.frames import BINARY, CLOSE, PING, PONG, TEXT, close_payload, frame
from support.gate import Gate
from support.http1 import upgrade_request
from support.streams import pour_until_full
from support.wait import at_once

KEY = b"\x11\x22\x33\x44"
SIDES = pytest.mark.parametrize("side", ["client", "backend"])
LEGS = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
CHUNKS = pytest.mark.parametrize("chunk", [None, 1], ids=["whole", "bytes"])


def pinging_gate(start, interval="300ms", timeout="10s", certs=None, **kw):
    return Gate(start, certs=certs, backend_certs=certs, ping={"interval": interval, "timeout": timeout}, **kw)


def sides(side, client, conn):
    return (client, conn) if side == "client" else (conn, client)


def expect_ping(peer, timeout=5):
    """A Ping of ours: 16 bytes, masked toward a backend only."""
    ping = peer.expect_frame(PING, timeout=timeout)
    assert len(ping.payload) == 16 and ping.fin and ping.masked is not peer.masks
    return ping


def skip_pings(peer):
    """The next frame that is no Ping of ours, which is answered."""
    while (f := peer.read_frame()).opcode == PING and len(f.payload) == 16:
        peer.send_frame(PONG, f.payload)
    return f


@SIDES
@LEGS
def test_silent_side_is_pinged_and_its_pong_swallowed(start_proxy, certs, side, tls):
    """S26: after `interval` of silence a Ping with 16 bytes comes; its Pong goes nowhere and counts as no message; the
    next Ping has other bytes."""
    with pinging_gate(start_proxy, certs=certs if tls else None) as gate, gate.tunnel() as (client, conn):
        a, b = sides(side, client, conn)
        began = time.monotonic()
        pings = []
        for _ in range(3):
            pings.append(expect_ping(a))
            a.send_frame(PONG, pings[-1].payload)
        assert 0.85 < time.monotonic() - began < 2.5
        assert len({p.payload for p in pings}) == 3
        raw = a.send_frame(TEXT, "after three Pongs")
        f = skip_pings(b)
        assert f.raw == raw
        a.send_close(1000)
        assert skip_pings(b).opcode == CLOSE
        b.send_close(1000)
        conn.close()
        client.close()
        line = gate.close_line(client)
        assert line[f"{side}_messages"] == 2


@SIDES
@CHUNKS
def test_two_meanings_of_a_pong(start_proxy, side, chunk):
    """S26: while ours is out, of all Pongs only the first with its bytes is swallowed; the others, a second one with the
    same bytes too, arrive as they were sent."""
    with pinging_gate(start_proxy) as gate, gate.tunnel() as (client, conn):
        a, b = sides(side, client, conn)
        mask = KEY if side == "client" else False
        ours = expect_ping(a).payload
        before = frame(PONG, b"unsolicited", mask=mask) + frame(PONG, ours[:15], mask=mask) + frame(PONG, ours + b"!", mask=mask)
        before += frame(PONG, ours[:15] + bytes([ours[15] ^ 1]), mask=mask) + frame(TEXT, b"begun", fin=False, mask=mask)
        after = frame(PONG, ours, mask=mask) + frame(0, b"ended", mask=mask) + frame(PONG, b"", mask=mask)
        a.send(before + frame(PONG, ours, mask=mask) + after, chunk)
        got = b""
        while len(got) < len(before + after):
            f = b.read_frame()
            if f.opcode != PING:
                got += f.raw
        assert got == before + after


def test_a_thousand_pings_have_fresh_keys(start_proxy):
    """S26: 1,000 Pings to backends: 1,000 masking keys, none of them zero or the payload's start, and 1,000 payloads."""
    with contextlib.ExitStack() as stack:
        gate = stack.enter_context(pinging_gate(start_proxy, interval="5ms"))
        pairs = [stack.enter_context(gate.tunnel()) for _ in range(50)]
        keys, payloads = set(), set()
        for _ in range(20):
            for _, conn in pairs:
                ping = expect_ping(conn)
                keys.add(ping.key)
                payloads.add(ping.payload)
                conn.send_frame(PONG, ping.payload)
        # Of 1,000 random keys of 32 bits two are the same in one run of 8,600.
        assert len(keys) >= 999 and len(payloads) == 1000
        for client, _ in pairs[:5]:
            assert len({expect_ping(client).payload} & payloads) == 0


@SIDES
@LEGS
def test_ping_waits_for_the_end_of_a_frame(start_proxy, certs, side, tls):
    """S25: while a frame flows toward the silent side no Ping comes; it comes behind its last byte, in front of what
    follows in the same read."""
    with pinging_gate(start_proxy, certs=certs if tls else None) as gate, gate.tunnel() as (client, conn):
        a, b = sides(side, client, conn)
        mask = False if side == "client" else KEY
        body = frame(BINARY, bytes(3000), mask=mask)
        b.send(body[:1000])
        assert a.read_exactly(1000) == body[:1000]
        ping = expect_ping(b)
        a.expect_nothing(0.3)
        behind = frame(TEXT, b"behind", mask=mask)
        b.send(body[1000:] + frame(PONG, ping.payload, mask=mask) + behind)
        assert a.read_exactly(len(body) - 1000) == body[1000:]
        expect_ping(a)
        assert a.read_frame().raw == behind


@SIDES
def test_ping_between_fragments(start_proxy, side):
    """S25: an open message does not hold a Ping back."""
    with pinging_gate(start_proxy) as gate, gate.tunnel() as (client, conn):
        a, b = sides(side, client, conn)
        first = b.send_frame(TEXT, b"a", fin=False)
        assert a.read_exactly(len(first)) == first
        expect_ping(a)
        last = b.send_frame(0, b"b")
        assert a.read_frame().raw == last


@SIDES
def test_busy_side_is_not_pinged(start_proxy, side):
    """S37: any byte is a sign of life; the other side, which is silent, is pinged all the same."""
    with pinging_gate(start_proxy, interval="600ms") as gate, gate.tunnel() as (client, conn):
        a, b = sides(side, client, conn)
        raw, end = b"", time.monotonic() + 2
        stream = frame(BINARY, bytes(100), mask=KEY if side == "client" else False)
        for at in range(len(stream)):  # a byte at a time, so that no frame ends on the way
            if time.monotonic() > end:
                break
            a.send(stream[at : at + 1])
            raw += stream[at : at + 1]
            with pytest.raises(TimeoutError):
                a.read_some(0.03)
        a.send(stream[len(raw) :])
        got = [b.read_frame()]
        while got[-1].opcode == PING:
            got.append(b.read_frame())
        assert got[-1].raw == stream


def test_silent_sides_are_given_up(start_proxy, certs):
    """S37: no answer within `timeout`: the silent side gets 1001 "ping timeout", the other one its innocent code, and both
    connections end, on TLS as well."""
    gates = {(side, tls): pinging_gate(start_proxy, "300ms", "600ms", certs if tls else None) for side in ("client", "backend") for tls in (False, True)}

    def work(case):
        side, gate = case[0], gates[case]
        with gate, gate.tunnel() as (client, conn):
            a, b = sides(side, client, conn)
            began = time.monotonic()
            expect_ping(a)
            f = skip_pings(b)
            assert 0.85 < time.monotonic() - began < 2
            assert f.opcode == CLOSE and f.code == (1001 if b is conn else 1011)
            close = a.expect_close(1001)
            assert close.reason == "ping timeout"
            a.expect_eof()
            b.send_close(f.code)
            b.expect_gone()
            b.close()
            a.close()
            line = gate.close_line(client, 8)
            assert line["code"] == 1001 and line["initiator"] == "gateway" and line["reason"] == "ping timeout"
            assert line["detail"] == f"the {side} did not answer a Ping"

    at_once(work, gates)


@SIDES
def test_side_whose_bytes_wait_is_not_silent(start_proxy, side):
    """S28, S37: what is not read from a side because the other one takes nothing is life all the same."""
    with pinging_gate(start_proxy, "500ms", "1s") as gate, gate.tunnel() as (client, conn):
        flood, stuck = sides(side, client, conn)
        sent, _ = pour_until_full(flood, frame(BINARY, bytes(10000), mask=KEY if flood.masks else False))
        assert sent > 1 << 20
        # The stuck side speaks, though it does not read: nobody is silent for `interval` and `timeout`.
        until = time.monotonic() + 2.5
        lives = 0
        while time.monotonic() < until:
            stuck.send_frame(TEXT, "alive")
            f = flood.read_frame()
            assert f.opcode in (TEXT, PING), f"the end came after {lives} signs of life: {f.code} {f.reason}"
            lives += f.opcode == TEXT
        assert lives > 5 and not gate.proxy.logged("close")


def test_slow_reader_of_much_is_not_given_up(start_proxy):
    """P4, S37: our Ping lies behind megabytes in the kernel; a client that takes them in, slowly, is alive."""
    with pinging_gate(start_proxy, "200ms", "300ms") as gate, gate.tunnel(rcvbuf=65536) as (client, conn):
        piece = frame(BINARY, bytes(50000))
        pieces = 80

        def serve():
            for _ in range(pieces):
                conn.send(piece)
            with contextlib.suppress(Exception):  # until the test closes it
                while True:
                    conn.send_frame(PONG, conn.expect_frame(PING).payload)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        began, slowly, left = time.monotonic(), threading.Event(), pieces * len(piece)
        while left > 0:
            slowly.wait(0.05)
            got = client.read_some()
            assert got, f"the end came with {left} bytes left: {gate.proxy.logged('close')}"
            left -= len(got)
        assert time.monotonic() - began > 1, "that was no slow reader"
        assert not gate.proxy.logged("close")
        # With all of it read there is no excuse any more.
        assert gate.proxy.wait_log(event="close", timeout=3)["detail"] == "the client did not answer a Ping"
    server.join(5)


@SIDES
def test_other_bytes_answer_too(start_proxy, side):
    """S37: a side that does not answer the Ping but goes on sending lives."""
    with pinging_gate(start_proxy, "300ms", "600ms") as gate, gate.tunnel() as (client, conn):
        a, b = sides(side, client, conn)
        began = time.monotonic()
        while time.monotonic() - began < 2.5:
            expect_ping(a)
            raw = a.send_frame(TEXT, "no Pong")
            assert skip_pings(b).raw == raw


@SIDES
def test_late_pongs_are_swallowed_too(start_proxy, side):
    """S26: a side that sends other bytes first, and is pinged again meanwhile, answers both: neither Pong is passed on."""
    with pinging_gate(start_proxy) as gate, gate.tunnel() as (client, conn):
        a, b = sides(side, client, conn)
        pings = [expect_ping(a)]
        raw = a.send_frame(TEXT, "busy")
        assert skip_pings(b).raw == raw
        pings.append(expect_ping(a))
        for ping in pings:
            a.send_frame(PONG, ping.payload)
        raw = a.send_frame(PONG, pings[-1].payload)
        assert skip_pings(b).raw == raw


@SIDES
def test_ping_comes_in_time_behind_early_bytes(start_proxy, side):
    """S29, S37: a header that came cut with the handshake, and whose deadline is later, does not put the Ping off."""
    early = frame(TEXT, b"early", mask=KEY if side == "client" else False)
    with pinging_gate(start_proxy, timeouts={"handshake": "8s"}) as gate, gate.client() as client:
        client.send(upgrade_request() + (early[:1] if side == "client" else b""))
        with gate.backend.accept() as conn:
            conn.answer_101(glued=early[:1] if side == "backend" else b"")
            assert client.read_head().status == 101
            expect_ping(client, 3)
            expect_ping(conn, 3)


@SIDES
def test_relayed_ping_serves_as_ours(start_proxy, side):
    """S26: where a Ping of the other side is unanswered no other one comes; it has the same patience."""
    with pinging_gate(start_proxy, "500ms", "700ms") as gate, gate.tunnel() as (client, conn):
        a, b = sides(side, client, conn)
        a.expect_nothing(0.05)  # it is asked a moment after it was heard of last
        began = time.monotonic()
        ping = b.send_frame(PING, "theirs")
        assert a.read_exactly(len(ping)) == ping
        f = skip_pings(b)
        close = a.read_frame()
        assert 1.1 < time.monotonic() - began < 2.5
        assert close.opcode == CLOSE and close.reason == "ping timeout" and f.opcode == CLOSE
        a.close()
        b.close()
        assert gate.close_line(client)["detail"] == f"the {side} did not answer a Ping"


@SIDES
def test_answered_relayed_ping_is_over(start_proxy, side):
    """S26: the answer to the other side's Ping reaches it, and the silence that follows is asked with a Ping of ours."""
    with pinging_gate(start_proxy, "500ms", "700ms") as gate, gate.tunnel() as (client, conn):
        a, b = sides(side, client, conn)
        ping = b.send_frame(PING, "theirs")
        assert a.read_exactly(len(ping)) == ping
        pong = a.send_frame(PONG, "theirs")
        assert b.read_exactly(len(pong)) == pong
        expect_ping(a)


@SIDES
def test_no_ping_once_the_end_has_begun(start_proxy, side):
    """S27: behind a Close no Ping follows, on either side."""
    with pinging_gate(start_proxy, "100ms") as gate, gate.tunnel() as (client, conn):
        a, b = sides(side, client, conn)
        a.send_frame(CLOSE, close_payload(1000))
        assert skip_pings(b).opcode == CLOSE
        b.expect_nothing(0.6)
        with pytest.raises(TimeoutError):
            while True:  # what came before the Close is no matter
                before = time.monotonic()
                expect_ping(a, 0.6)
                assert time.monotonic() - before < 0.05, "a Ping behind the Close"
