"""Heads of HTTP/1.1 as bytes: built without mercy, read strictly."""

import base64
import hashlib
from dataclasses import dataclass, field

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_for(key):
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


def upgrade_request(path="/", *, host="localhost", key=KEY, headers=(), drop=(), method="GET", version="HTTP/1.1"):
    """An opening handshake. headers: (name, value) pairs behind the usual ones; drop: names of usual ones to leave out."""
    usual = [
        ("Host", host),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", "13"),
    ]
    gone = {d.lower() for d in drop}
    fields = [f for f in usual if f[0].lower() not in gone] + list(headers)
    return head(f"{method} {path} {version}", fields)


def head(start, fields):
    lines = [start] + [f"{name}: {value}" for name, value in fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@dataclass
class Head:
    start: str
    fields: list = field(default_factory=list)
    raw: bytes = b""

    def all(self, name):
        return [v for n, v in self.fields if n.lower() == name.lower()]

    def get(self, name):
        """The value of a field that stands at most once."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} stands {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def status(self):
        return int(self.start.split(" ")[1])

    @property
    def path(self):
        return self.start.split(" ")[1]


def parse_head(raw):
    """raw ends with the empty line."""
    assert raw.endswith(b"\r\n\r\n"), raw
    lines = raw[:-4].decode("latin-1").split("\r\n")
    fields = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        assert colon and name and name == name.strip(), f"bad header line {line!r}"
        fields.append((name, value.strip(" \t")))
    return Head(lines[0], fields, raw)
