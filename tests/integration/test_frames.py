"""Frames on the relay: S18 to S25 and S27 of the bars."""

import struct
import threading
import time

import pytest

from support import frames
from support.frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, close_payload, frame
from support.gate import Gate
from support.streams import relay_both_ways
from support.wait import at_once

KEY = b"\x11\x22\x33\x44"


@pytest.fixture(scope="module")
def gate(start_module_proxy):
    with Gate(start_module_proxy) as gate:
        yield gate


@pytest.fixture(scope="module")
def small_gate(start_module_proxy):
    """Messages of at most 1,000 bytes from a client and 2,000 from a backend."""
    limits = {"clientMaxMessageBytes": 1000, "backendMaxMessageBytes": 2000}
    with Gate(start_module_proxy, limits=limits) as gate:
        yield gate


def offend(gate, side, raw, code, *, before=b"", chunk=None, **tunnel):
    """One side sends `before`, which passes, then raw, of which nothing does: it gets Close `code`, the innocent
    other side 1001 (a backend, masked) or 1011 (a client), then both connections end."""
    with gate.tunnel(**tunnel) as (client, conn):
        bad, good = (client, conn) if side == "client" else (conn, client)
        bad.try_send(before + raw, chunk)
        if before:
            assert good.read_exactly(len(before)) == before
        innocent = good.expect_close(1001 if side == "client" else 1011)
        offender = bad.expect_close(code)
        assert offender.reason, "a Close of ours says why"
        assert len(offender.raw) == len(frame(CLOSE, offender.payload, mask=bad is conn and KEY))
        assert offender.masked is (bad is conn) and innocent.masked is (good is conn)
        good.send_close(innocent.code)
        good.expect_gone()
        bad.try_send(frame(CLOSE, offender.payload[:2], mask=bad is client))
        bad.expect_gone()
        client.close()
        conn.close()
        line = gate.close_line(client)
        assert line["code"] == code and line["initiator"] == "gateway" and line["reason"] == offender.reason


CHUNKS = pytest.mark.parametrize("chunk", [None, 1], ids=["whole", "bytes"])
SIDES = pytest.mark.parametrize("side", ["client", "backend"])


def mask_of(side):
    """What a right frame of this side carries."""
    return KEY if side == "client" else False


@SIDES
def test_mask_is_judged_at_byte_2(gate, side):
    """S18: an unmasked client frame and a masked backend frame get 1002 as soon as their second byte is in."""
    raw = b"\x81\x05" if side == "client" else b"\x81\x85"
    offend(gate, side, raw, 1002)
    offend(gate, side, raw, 1002, chunk=1)
    offend(gate, side, raw + b"hello" * 10, 1002, before=frame(TEXT, b"fine", mask=mask_of(side)))


@SIDES
@pytest.mark.parametrize("opcode", [CONT, BINARY, CLOSE, PING, PONG])
def test_mask_of_every_opcode(gate, side, opcode):
    """S18: control frames are no exception."""
    wrong = KEY if side == "backend" else False
    before = b""
    if opcode == CONT:
        before = frame(TEXT, b"a", fin=False, mask=mask_of(side))
    offend(gate, side, frame(opcode, b"", mask=wrong), 1002, before=before)


BAD_FRAMES = {
    "RSV1": dict(opcode=TEXT, rsv=4),
    "RSV2": dict(opcode=TEXT, rsv=2),
    "RSV3": dict(opcode=BINARY, rsv=1),
    "all RSV": dict(opcode=TEXT, rsv=7),
    "RSV1 on a Ping": dict(opcode=PING, rsv=4),
    "RSV1 on a Close": dict(opcode=CLOSE, rsv=4),
    **{f"opcode {n}": dict(opcode=n) for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "Ping in fragments": dict(opcode=PING, fin=False),
    "Pong in fragments": dict(opcode=PONG, fin=False),
    "Close in fragments": dict(opcode=CLOSE, fin=False),
    "Ping of 126": dict(opcode=PING, payload=bytes(126)),
    "Pong of 126": dict(opcode=PONG, payload=bytes(126)),
    "Close of 126": dict(opcode=CLOSE, payload=struct.pack("!H", 1000) + b"x" * 124),
    "Ping of 70000": dict(opcode=PING, payload=bytes(70000)),
    "Ping of 5 in 16 bits": dict(opcode=PING, payload=b"12345", length_bytes=2),
    "orphan continuation": dict(opcode=CONT, payload=b"x"),
    "orphan last continuation": dict(opcode=CONT, fin=False),
}


@SIDES
@CHUNKS
@pytest.mark.parametrize("name", BAD_FRAMES)
def test_frame_against_the_rules(gate, side, name, chunk):
    """S19, S21: RSV without an extension, reserved opcodes, control frames that are long or fragmented, orphans: 1002."""
    if chunk and name == "Ping of 70000":
        chunk = 7
    offend(gate, side, frame(**BAD_FRAMES[name], mask=mask_of(side)), 1002, chunk=chunk)
    offend(gate, side, frame(**BAD_FRAMES[name], mask=mask_of(side)), 1002, chunk=chunk,
           before=frame(TEXT, b"fine", mask=mask_of(side)))  # fmt: skip


DEFLATE = [("Sec-WebSocket-Extensions", "permessage-deflate")]


@SIDES
@CHUNKS
@pytest.mark.parametrize("name", ["RSV2", "RSV3", "all RSV", "RSV1 on a Ping", "RSV1 on a Close"])
def test_rsv_beyond_deflate(gate, side, name, chunk):
    """S19: permessage-deflate allows RSV1 on data frames and nothing else."""
    raw = frame(**BAD_FRAMES[name], mask=mask_of(side))
    offend(gate, side, raw, 1002, chunk=chunk, headers=DEFLATE, answer=DEFLATE)


@SIDES
def test_rsv1_on_a_continuation(gate, side):
    """S19: RSV1 belongs to the first frame of a message (RFC 7692 6.1)."""
    before = frame(TEXT, b"a", fin=False, rsv=4, mask=mask_of(side))
    offend(gate, side, frame(CONT, b"b", rsv=4, mask=mask_of(side)), 1002, before=before, headers=DEFLATE, answer=DEFLATE)


@SIDES
@CHUNKS
def test_rsv1_with_deflate_passes(gate, side, chunk):
    """S19: a compressed message passes where compression was agreed on, and only there (offered is not agreed)."""
    raw = frame(TEXT, b"a", fin=False, rsv=4, mask=mask_of(side)) + frame(CONT, b"b", mask=mask_of(side))
    with gate.tunnel(headers=DEFLATE, answer=DEFLATE) as (client, conn):
        a, b = (client, conn) if side == "client" else (conn, client)
        a.send(raw, chunk)
        assert b.read_exactly(len(raw)) == raw
    offend(gate, side, raw, 1002, headers=DEFLATE)


BAD_LENGTHS = {
    # what the length is written with, the lying length, how many bytes of the header decide
    "125 in 16 bits": (2, 125, 4),
    "0 in 16 bits": (2, 0, 4),
    "125 in 64 bits": (8, 125, 10),
    "126 in 64 bits": (8, 126, 10),
    "65535 in 64 bits": (8, 65535, 10),
    "0 in 64 bits": (8, 0, 10),
    "2^63": (8, 1 << 63, 10),
    "2^64-1": (8, (1 << 64) - 1, 10),
    "SIZE_MAX-13": (8, (1 << 64) - 14, 10),
}


@SIDES
@CHUNKS
@pytest.mark.parametrize("name", BAD_LENGTHS)
def test_length_that_lies(gate, side, name, chunk):
    """S20: lengths not minimal or with the top bit set get 1002 once the length is in, before mask and payload."""
    length_bytes, length, decided = BAD_LENGTHS[name]
    raw = frame(BINARY, b"", length=length, length_bytes=length_bytes, mask=mask_of(side))
    offend(gate, side, raw[:decided], 1002, chunk=chunk)
    offend(gate, side, raw + bytes(100), 1002, chunk=chunk, before=frame(PING, b"x", mask=mask_of(side)))


@SIDES
@CHUNKS
@pytest.mark.parametrize("length", [2001, 65536, 1 << 40, 1 << 60, (1 << 63) - 1])
def test_frame_over_the_limit(small_gate, side, length, chunk, sanitized):
    """S20, S23: a frame longer than the limit gets 1009 at its header: nothing is allocated by a declared length."""
    raw = frame(BINARY, b"", length=length, mask=mask_of(side))
    before = small_gate.proxy.anon()
    offend(small_gate, side, raw[: 4 if length < 65536 else 10], 1009, chunk=chunk)
    if not sanitized:
        assert small_gate.proxy.anon() - before < 512 << 10


@SIDES
@pytest.mark.parametrize("length", [1 << 32, 1 << 60, (1 << 63) - 1])
def test_endless_frame_without_a_limit(gate, side, length, sanitized):
    """S20: where no limit is set a frame may be as long as the format says; it is relayed as it comes, in no memory."""
    raw = frame(BINARY, b"", length=length, mask=mask_of(side))
    before = gate.proxy.anon()
    with gate.tunnel() as (client, conn):
        a, b = (client, conn) if side == "client" else (conn, client)
        a.send(raw + bytes(100_000))
        assert b.read_exactly(len(raw) + 100_000) == raw + bytes(100_000)
        if not sanitized:
            assert gate.proxy.anon() - before < 512 << 10


@SIDES
@CHUNKS
def test_limit_counts_the_message(small_gate, side, chunk):
    """S23: the limit holds for a whole message: fragments add up, and one at the limit passes."""
    limit = 1000 if side == "client" else 2000
    mask = mask_of(side)
    exact = frame(TEXT, bytes(limit - 10), fin=False, mask=mask) + frame(PING, b"", mask=mask) + frame(CONT, bytes(10), mask=mask)
    with small_gate.tunnel() as (client, conn):
        a, b = (client, conn) if side == "client" else (conn, client)
        a.send(exact * 2 + frame(BINARY, bytes(limit), mask=mask), chunk)
        assert b.read_exactly(len(exact) * 2) == exact * 2
        assert b.read_frame().payload == bytes(limit)
    offend(small_gate, side, frame(CONT, b"x", mask=mask), 1009, chunk=chunk, before=frame(TEXT, bytes(limit), fin=False, mask=mask))
    offend(small_gate, side, frame(TEXT, bytes(limit + 1), mask=mask), 1009, chunk=chunk, before=exact)


@SIDES
@CHUNKS
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_new_message_inside_a_message(gate, side, opcode, chunk):
    """S21: a data frame between the fragments of another message gets 1002."""
    mask = mask_of(side)
    before = frame(TEXT, b"a", fin=False, mask=mask) + frame(PING, b"p", mask=mask) + frame(CONT, b"", fin=False, mask=mask)
    offend(gate, side, frame(opcode, b"b", mask=mask), 1002, before=before, chunk=chunk)


@SIDES
@CHUNKS
def test_continuation_after_the_end(gate, side, chunk):
    """S21: after its last fragment a message takes no more."""
    mask = mask_of(side)
    before = frame(TEXT, b"a", fin=False, mask=mask) + frame(CONT, b"b", mask=mask)
    offend(gate, side, frame(CONT, b"c", mask=mask), 1002, before=before, chunk=chunk)


BAD_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 65535]


@SIDES
@CHUNKS
@pytest.mark.parametrize("code", BAD_CODES)
def test_reserved_close_codes(gate, side, code, chunk):
    """S22: codes that must not stand on the wire get 1002."""
    offend(gate, side, frame(CLOSE, close_payload(code, "x"), mask=mask_of(side)), 1002, chunk=chunk)


@SIDES
@CHUNKS
def test_close_of_one_byte(gate, side, chunk):
    """S22: half a code is none."""
    offend(gate, side, frame(CLOSE, b"\x03", mask=mask_of(side)), 1002, chunk=chunk)


GOOD_CLOSES = [close_payload(c, "why") for c in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)]
GOOD_CLOSES += [b"", close_payload(1000), close_payload(4001, b"\xff\xfe not UTF-8"), close_payload(4002, b"r" * 123)]


@SIDES
@CHUNKS
@pytest.mark.parametrize("payload", GOOD_CLOSES, ids=lambda p: p[:5].hex() or "empty")
def test_close_is_relayed(gate, side, payload, chunk):
    """S22: a good Close reaches the other end byte for byte, its answer comes back, and both connections end."""
    with gate.tunnel() as (client, conn):
        a, b = (client, conn) if side == "client" else (conn, client)
        raw = frame(CLOSE, payload, mask=mask_of(side))
        a.send(raw, chunk)
        assert b.read_exactly(len(raw)) == raw
        back = b.send_frame(CLOSE, payload[:2])
        assert a.read_exactly(len(back)) == back
        if side == "client":  # the server ends TCP first (RFC 6455 7.1.1)
            conn.half_close()
        else:
            conn.half_close()
        client.expect_gone()
        client.close()
        conn.expect_gone()
        line = gate.close_line(client)
        assert line["initiator"] == side
        assert line["code"] == (struct.unpack("!H", payload[:2])[0] if payload else 1005)


def test_million_empty_fragments(gate, sanitized):
    """S23: 10^6 empty continuations pass in O(1) memory."""
    count = 100_000 if sanitized else 1_000_000
    first, rest = frame(TEXT, b"", fin=False, mask=KEY), frame(CONT, b"", fin=False, mask=KEY) * 10_000
    with gate.tunnel() as (client, conn):
        client.timeout = 60
        before = gate.proxy.anon()

        def pour():
            client.send(first)
            for _ in range(count // 10_000):
                client.send(rest)

        thread = threading.Thread(target=pour, daemon=True)
        thread.start()
        left = len(first) + len(rest) * (count // 10_000)
        while left:
            left -= len(conn.read_some(30))
            conn.received.clear()
            conn.at = 0
        thread.join(5)
        if not sanitized:
            assert gate.proxy.anon() - before < 512 << 10


@SIDES
@pytest.mark.parametrize("opcode", [PING, PONG])
def test_control_flood(gate, side, opcode, sanitized):
    """S23: more than 1,000 control frames a second get 1008; what passed before is bounded."""
    with gate.tunnel() as (client, conn):
        a, b = (client, conn) if side == "client" else (conn, client)
        before = gate.proxy.anon()
        one = frame(opcode, b"x", mask=mask_of(side))
        threading.Thread(target=a.try_send, args=(one * 20_000,), daemon=True).start()
        a.expect_close(1008)
        count = 0
        while (f := b.read_frame()).opcode == opcode:
            assert f.payload == b"x"
            count += 1
        assert f.opcode == CLOSE and f.code == (1001 if side == "client" else 1011)
        assert 1000 <= count <= 3000  # two windows at most may have begun
        if not sanitized:
            assert gate.proxy.anon() - before < 512 << 10


def test_endless_message(small_gate, sanitized):
    """S23: FIN=0 for ever ends at the message limit, with single-byte fragments too."""
    raw = frame(CONT, b"x", fin=False, mask=KEY)
    offend(small_gate, "client", raw, 1009, before=frame(TEXT, b"x", fin=False, mask=KEY) + raw * 999)


@pytest.mark.parametrize("backend_tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("client_tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("seed", [1, 2])
def test_verbatim(start_proxy, certs, seed, client_tls, backend_tls):
    """S24: every byte of both directions, masking keys included, whatever the sizes and cuts, up to 16 MiB a frame."""
    with Gate(start_proxy, certs=certs if client_tls else None, backend_certs=certs if backend_tls else None) as gate:
        with gate.tunnel() as (client, conn):
            relay_both_ways(client, conn, seed)


def test_message_counts(gate):
    """S24: the close line counts bytes and messages of each side."""
    with gate.tunnel() as (client, conn):
        up, down = relay_both_ways(client, conn, 7, big=False)
        client.send_close(1000)
        conn.expect_close(1000)
        conn.send_close(1000)
        conn.close()
        client.expect_close(1000)
        client.expect_gone()
        client.close()
        line = gate.close_line(client)

    for side, stream in (("client", up), ("backend", down)):
        data = sum(f[0] & 15 in (TEXT, BINARY) for f in stream.frames)
        controls = sum(f[0] & 8 > 0 for f in stream.frames)
        assert line[f"{side}_bytes"] == len(stream.bytes) + (8 if side == "client" else 4)
        assert data <= line[f"{side}_messages"] <= data + controls + 1


@SIDES
def test_close_waits_for_the_end_of_a_long_frame(gate, side):
    """S25: a Close toward a side into which 64 MiB of one frame flow comes behind its last byte, never inside; the
    other way, which stands at a frame end, is told at once."""
    size = 64 << 20
    with gate.tunnel() as (client, conn):
        # `sender` has the frame in flight toward `bad`, which then breaks the rules
        sender, bad = (conn, client) if side == "client" else (client, conn)
        head = frame(BINARY, b"", length=size, mask=mask_of("backend" if side == "client" else "client"))
        block = bytes(1 << 20)
        sender.timeout = bad.timeout = 30
        sender.send(head)
        assert bad.read_exactly(len(head)) == head
        bad.send(frame(TEXT, b"x", rsv=2, mask=mask_of(side)))
        sender.expect_close(1001 if side == "client" else 1011)

        def pour():
            for _ in range(size >> 20):
                sender.send(block)

        thread = threading.Thread(target=pour, daemon=True)
        thread.start()
        left = size
        while left:
            data = bad.read_some(10)
            if len(data) > left:
                bad.at -= len(data) - left
                data = data[:left]
            assert data.count(0) == len(data), f"other bytes inside the frame, {left} before its end"
            left -= len(data)
            del bad.received[: bad.at]
            bad.at = 0
        bad.expect_close(1002)
        bad.expect_gone()
        thread.join(5)


def test_close_between_fragments(start_proxy):
    """S25: an unfinished message does not hold a Close back, an unfinished frame does."""
    with Gate(start_proxy, timeouts={"idle": "1s"}) as gate:
        with gate.tunnel() as (client, conn):
            fragment = conn.send_frame(TEXT, b"a", fin=False)
            assert client.read_exactly(len(fragment)) == fragment
            assert client.expect_close(1001, timeout=4).reason == "idle timeout"
            client.send_close(1001)
            conn.expect_close(1001)


def test_no_close_inside_a_frame(start_proxy):
    """S25: a side whose frame never ends is cut without a Close; the other one gets its own."""
    with Gate(start_proxy, timeouts={"idle": "1s"}) as gate:
        with gate.tunnel() as (client, conn):
            part = frame(BINARY, b"", length=1000) + bytes(500)
            conn.send(part)
            assert client.read_exactly(len(part)) == part
            conn.expect_close(1001, timeout=10)
            client.expect_gone(10)
            conn.expect_gone(10)


@SIDES
@CHUNKS
def test_nothing_follows_a_close(gate, side, chunk):
    """S27: data and further Closes behind a Close stay away from the other end."""
    mask = mask_of(side)
    close = frame(CLOSE, close_payload(1000, "end"), mask=mask)
    with gate.tunnel() as (client, conn):
        a, b = (client, conn) if side == "client" else (conn, client)
        a.send(close + frame(TEXT, b"more", mask=mask) + close + b"garbage" * 10, chunk)
        assert b.read_exactly(len(close)) == close
        b.send_frame(TEXT, "still on its way")
        b.send_close(1000)
        a.expect_frame(TEXT, b"still on its way")
        a.expect_close(1000)
        conn.half_close()
        client.half_close()
        b.expect_gone()
        a.expect_gone()
        line = gate.close_line(client)
        assert line["code"] == 1000 and line["initiator"] == side and line["reason"] == "end"


def test_close_that_nobody_answers(start_proxy):
    """S27: 5 s after a Close that gets no answer both ends see FIN, 5 s later the connections are gone."""
    gates = {side: Gate(start_proxy) for side in ("client", "backend")}

    def work(side):
        gate = gates[side]
        with gate, gate.tunnel() as (client, conn):
            a, b = (client, conn) if side == "client" else (conn, client)
            start = time.monotonic()
            a.send_close(1000)
            b.expect_close(1000)
            last = a.read_until_eof(8)
            assert 4.5 < time.monotonic() - start < 7
            assert not last or frames.parse(last).opcode == CLOSE
            b.expect_gone(2)
            line = gate.close_line(client, timeout=8)
            assert time.monotonic() - start < 12
            assert line["code"] == 1000 and line["initiator"] == side

    at_once(work, gates)


def test_both_close_at_once(gate):
    """S27: crossing Closes each reach the other side, and that is all."""
    with gate.tunnel() as (client, conn):
        up, down = client.send_close(1000, "a"), conn.send_close(1001, "b")
        assert conn.read_exactly(len(up)) == up
        assert client.read_exactly(len(down)) == down
        conn.half_close()
        client.expect_gone()
        client.close()
        conn.expect_gone()


def test_end_without_close_is_no_reserved_code(gate):
    """S22: where a side goes without a Close the other one is told with a code that may stand on the wire."""
    with gate.tunnel() as (client, conn):
        conn.close()
        client.expect_close(1011)
        client.expect_gone()
        client.close()
        assert gate.close_line(client)["code"] == 1006
    with gate.tunnel() as (client, conn):
        client.close()
        conn.expect_close(1001)
        conn.expect_gone()
