"""Messages that are larger than any buffer: constant memory, and the limits that refuse them."""

import contextlib
import os
import struct
import threading
import time

import pytest

from support.frames import BINARY, CLOSE, CONT, TEXT, frame
from support.gate import Gate

SIDES = pytest.mark.parametrize("side", ["client", "backend"])
BLOCK = os.urandom(1 << 20)
BLOCKS = 1024


def frame_head(size, masked):
    """The header of a binary frame of that size. Its payload may be any bytes: nobody here unmasks them."""
    head = bytes([0x80 | BINARY, 0xFF if masked else 0x7F]) + struct.pack("!Q", size)
    return head + b"\x01\x02\x03\x04" if masked else head


def receive_blocks(peer, head, count, seen):
    """Reads head and count times BLOCK from the socket, compares every byte and calls seen() now and then."""
    assert peer.read_exactly(len(head), 10) == head
    early = bytes(peer.received[peer.at :])
    peer.at = len(peer.received)
    room = memoryview(bytearray(len(BLOCK)))
    room[: len(early)] = early
    filled = len(early)
    peer.sock.settimeout(10)
    for n in range(count):
        while filled < len(BLOCK):
            got = peer.sock.recv_into(room[filled:])
            assert got, f"the end came in block {n}"
            filled += got
        assert room == BLOCK, f"block {n} is not what was sent"
        filled = 0
        if n % 32 == 0:
            seen()


@contextlib.contextmanager
def sending(peer, head, count):
    """head and count times BLOCK, from a thread."""
    errors = []

    def run():
        try:
            peer.sock.settimeout(30)
            peer.sock.sendall(head)
            for _ in range(count):
                peer.sock.sendall(BLOCK)
        except OSError as e:
            errors.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(10)
    assert not thread.is_alive() and not errors, errors


@SIDES
def test_one_gibibyte_in_one_frame(start_proxy, sanitized, side):
    """S20, S24, S28: a message of 1 GiB passes whole, while the proxy grows by less than 1 MiB."""
    with Gate(start_proxy) as gate:
        with gate.tunnel() as (client, conn):
            a, b = (client, conn) if side == "client" else (conn, client)
            masked = a is client
            head = frame_head(8 << 20, masked)  # warms up what is allocated once
            with sending(a, head, 8):
                receive_blocks(b, head, 8, lambda: None)
            before, peak, start = gate.proxy.rss(), [0], time.monotonic()

            def look():
                peak[0] = max(peak[0], gate.proxy.rss())

            head = frame_head(BLOCKS << 20, masked)
            with sending(a, head, BLOCKS):
                receive_blocks(b, head, BLOCKS, look)
            took = time.monotonic() - start
            if not sanitized:
                assert peak[0] - before < 1 << 20, f"grew by {peak[0] - before}"
            assert took < 20, f"{took:.1f} s for 1 GiB"
            # and the connection is as good as before, both ways
            for x, y in ((a, b), (b, a)):
                x.send_frame(TEXT, "after")
                y.expect_frame(TEXT, b"after")
            client.send_close(1000)
            conn.expect_close(1000)
            conn.send_close(1000)
            client.expect_close(1000)
            conn.close()
            client.close()
            line = gate.close_line(client)
            assert line[f"{side}_bytes"] > (BLOCKS + 8) << 20 and line[f"{side}_messages"] == 4


LIMIT = 1 << 20


def limited(start_proxy, side):
    return Gate(start_proxy, limits={f"{side}MaxMessageBytes": LIMIT})


@SIDES
@pytest.mark.parametrize("fragments", [1, 2, 64])
def test_limit_of_each_side(start_proxy, side, fragments):
    """S23: at the limit a message passes; a byte more is 1009 for who sent it, 1011 or 1001 for the other one."""
    with limited(start_proxy, side) as gate:
        with gate.tunnel() as (client, conn):
            a, b = (client, conn) if side == "client" else (conn, client)
            mask = b"\x05\x06\x07\x08" if a is client else False
            size = LIMIT // fragments

            def message(more):
                sizes = [size] * (fragments - 1) + [size + more]
                return [
                    frame(CONT if i else BINARY, bytes(n), fin=i == fragments - 1, mask=mask) for i, n in enumerate(sizes)
                ]

            whole = b"".join(message(0))
            threading.Thread(target=a.try_send, args=(whole,), daemon=True).start()
            assert b.read_exactly(len(whole), 10) == whole
            a.try_send(b"".join(message(1)))
            assert "limit" in a.expect_close(1009, 10).reason
            close = b.expect_close(1011 if b is client else 1001, skip_data=True)
            assert close.masked == (b is conn)
            client.close()
            conn.close()
            line = gate.close_line(client, 15)
            assert line["code"] == 1009 and line["initiator"] == "gateway" and "limit" in line["reason"] and line["detail"]


@SIDES
def test_limit_is_one_sides_own(start_proxy, side):
    """S23: the limit of one direction does not hold for the other one, nor for all messages together."""
    with limited(start_proxy, side) as gate:
        with gate.tunnel() as (client, conn):
            a, b = (client, conn) if side == "client" else (conn, client)
            free = frame(BINARY, bytes(3 * LIMIT), mask=b.masks and b"\x05\x06\x07\x08")
            threading.Thread(target=b.try_send, args=(free,), daemon=True).start()
            assert a.read_exactly(len(free), 10) == free
            for _ in range(5):
                raw = frame(BINARY, bytes(LIMIT // 2), mask=a.masks and b"\x05\x06\x07\x08")
                threading.Thread(target=a.try_send, args=(raw,), daemon=True).start()
                assert b.read_exactly(len(raw), 10) == raw


@SIDES
def test_too_much_is_refused_at_its_header(start_proxy, side, sanitized):
    """S20, S23: a declared length beyond the limit is refused before its payload, and nothing of it is allocated."""
    with limited(start_proxy, side) as gate:
        with gate.tunnel() as (client, conn):
            a, b = (client, conn) if side == "client" else (conn, client)
            before = gate.proxy.rss()
            a.send(frame_head(1 << 40, a is client)[:10])
            a.expect_close(1009)
            assert b.read_frame().opcode == CLOSE
            if not sanitized:
                assert gate.proxy.rss() - before < 1 << 20
