"""WebSocket frames, with every bit under the test's control (RFC 6455 5.2)."""

import os
import struct
from dataclasses import dataclass

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def xor(data, key):
    """data masked with the 4-byte key, its own inverse."""
    if not data:
        return b""
    n = len(data)
    whole = (key * (n // 4 + 1))[:n]
    return (int.from_bytes(data, "little") ^ int.from_bytes(whole, "little")).to_bytes(n, "little")


def frame(opcode, payload=b"", *, fin=True, rsv=0, mask=False, length=None, length_bytes=None):
    """A frame's bytes.

    mask: False, True (a random key) or the 4 bytes of the key. length: the declared length, when it is to lie.
    length_bytes: 0, 2 or 8 forces how the length is written. rsv: 3 bits, RSV1 is 4."""
    n = len(payload) if length is None else length
    if length_bytes is None:
        length_bytes = 0 if n < 126 else 2 if n < 65536 else 8
    short = n if length_bytes == 0 else 126 if length_bytes == 2 else 127
    masked = mask is not False
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode, (0x80 if masked else 0) | short])
    if length_bytes == 2:
        head += struct.pack("!H", n)
    elif length_bytes == 8:
        head += struct.pack("!Q", n)
    if not masked:
        return head + payload
    key = os.urandom(4) if mask is True else mask
    return head + key + xor(payload, key)


def close_payload(code=None, reason=b""):
    if code is None:
        return b""
    return struct.pack("!H", code) + (reason.encode() if isinstance(reason, str) else reason)


@dataclass
class Frame:
    fin: bool
    rsv: int
    opcode: int
    key: bytes  # empty: not masked
    payload: bytes  # unmasked
    raw: bytes

    @property
    def masked(self):
        return bool(self.key)

    @property
    def code(self):
        """Of a Close; 1005 when it has none."""
        return struct.unpack("!H", self.payload[:2])[0] if self.payload else 1005

    @property
    def reason(self):
        return self.payload[2:].decode()


def parse(data):
    """The first whole frame of data as a Frame, None when there is none yet."""
    if len(data) < 2:
        return None
    n, at = data[1] & 0x7F, 2
    if n >= 126:
        size = 2 if n == 126 else 8
        if len(data) < at + size:
            return None
        n = int.from_bytes(data[at : at + size], "big")
        at += size
    key = b""
    if data[1] & 0x80:
        key = bytes(data[at : at + 4])
        at += 4
    if len(data) < at + n:
        return None
    body = bytes(data[at : at + n])
    return Frame(
        fin=bool(data[0] & 0x80),
        rsv=data[0] >> 4 & 7,
        opcode=data[0] & 15,
        key=key,
        payload=xor(body, key) if key else body,
        raw=bytes(data[: at + n]),
    )
