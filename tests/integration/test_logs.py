"""The log: its events and their fields, hostile text, what never stands in it, and a reader that does not read."""

import fcntl
import json
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import time

import pytest

from support.backend import RawBackend, serve, server_context
from support.client import RawClient, client_context
from support.frames import BINARY, PING, TEXT
from support.gate import Gate
from support.http1 import KEY, upgrade_request
from support.peer import Eof
from support.proxy import BINARY as PROXY_BINARY
from support.proxy import free_port, kill_all, relay_of, serving_flags
from support.site import is_open
from support.spec import https_spec, ws_spec
from support.wait import wait_until

STAMP = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ")
OPEN = ["ts", "level", "event", "conn", "server", "client", "backend", "host", "path", "handshake_ms"]
CLOSE_FIELDS = [
    "ts", "level", "event", "conn", "server", "code", "initiator", "reason",
    "client_bytes", "backend_bytes", "client_messages", "backend_messages", "duration_ms",
]  # fmt: skip


class RawLog:
    """A proxy whose stderr is a file: the bytes as they are. For tests of single bytes and of all lines together."""

    def __init__(self, folder, spec, *, port, log_level="debug"):
        config = folder / "servers.yaml"
        config.write_text(spec)
        self.path = folder / "log"
        with open(self.path, "wb") as log:
            self.process = start(config, log, log_level)
        try:
            wait_until("the listener", lambda: is_open(port))
        except AssertionError:
            kill_all(self.process)
            raise

    def stop(self):
        """All the log's bytes, after a clean end."""
        end(self.process)
        return self.path.read_bytes()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        kill_all(self.process)


def start(config, stderr, log_level="debug"):
    command = [PROXY_BINARY, "--config", str(config), "--log-level", log_level, *serving_flags()]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                            start_new_session=True)  # fmt: skip


def end(process):
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def entries_of(raw):
    """Every line as a dict; each must be one JSON object of clean UTF-8 without a byte that moves a terminal."""
    assert raw.endswith(b"\n")
    entries = []
    for line in raw[:-1].split(b"\n"):
        assert len(line) < 4096
        text = line.decode("utf-8")
        assert not re.search("[\x00-\x1f\x7f-\x9f]", text), text
        entry = json.loads(text)
        assert list(entry)[:3] == ["ts", "level", "event"] and STAMP.fullmatch(entry["ts"])
        entries.append(entry)
    return entries


# fields


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_open_line(start_proxy, certs, tls, address):
    """Who came, by which server, to which backend, asking for what; the path without its query."""
    with Gate(start_proxy, certs=certs if tls else None) as gate:
        with gate.client(host=address) as client:
            client.send(upgrade_request("/a/b?token=s3cret", host="chat.example:1", headers=[("Sec-WebSocket-Protocol", "x, chat")]))
            with gate.backend.accept() as conn:
                conn.answer_101(headers=[("Sec-WebSocket-Protocol", "chat")])
                client.read_head()
                line = gate.proxy.wait_log("open")
                peer = ("[%s]:%d" if ":" in address else "%s:%d") % client.addr[:2]
    assert list(line) == OPEN[:9] + ["protocol"] + (["tls"] if tls else []) + OPEN[9:]
    assert line["level"] == "info" and line["server"] == "test" and line["client"] == peer
    assert line["backend"] == f"127.0.0.1:{gate.backend.port}"
    assert line["host"] == "chat.example:1" and line["path"] == "/a/b" and line["protocol"] == "chat"
    assert line.get("tls") == ("TLSv1.3" if tls else None)
    assert 0 <= line["handshake_ms"] < 5000


def test_open_line_of_an_absolute_target(start_proxy):
    """Host and path are those that count: of an absolute target its own, and no query either."""
    with Gate(start_proxy, script=serve) as gate, gate.client() as client:
        client.handshake("http://inner.example?token=s3cret", host="outer.example")
        line = gate.proxy.wait_log("open")
    assert line["host"] == "inner.example" and line["path"] == "/" and list(line) == OPEN


@pytest.mark.parametrize("side", ["client", "backend"])
@pytest.mark.parametrize("code, reason", [(1000, "bye"), (1001, ""), (4321, "grüße"), (None, "")])
def test_close_line(start_proxy, side, code, reason):
    """Who closed, with which code and reason, and how much came from each side; 1005 stands for a Close without one."""
    with Gate(start_proxy) as gate:
        with gate.tunnel() as (client, conn):
            a, b = (client, conn) if side == "client" else (conn, client)
            up = client.send_frame(TEXT, "hello") + client.send_frame(PING, b"p")
            down = conn.send_frame(BINARY, bytes(70_000))
            last = a.send_close(code, reason.encode())
            for peer, due in ((conn, up), (client, down)):
                assert peer.read_exactly(len(due)) == due
            b.expect_close(code or 1005)
            answer = b.send_close(1000, "the answer")
            a.expect_close(1000)
            conn.close()
            client.close()
            opened, line = gate.line("open", client), gate.close_line(client)
    assert list(line) == CLOSE_FIELDS
    assert line["level"] == "info" and line["server"] == "test" and line["conn"] == opened["conn"]
    assert (line["code"], line["initiator"], line["reason"]) == (code or 1005, side, reason)
    mine, others = (len(up), len(down)) if side == "client" else (len(down), len(up))
    assert line[f"{side}_bytes"] == mine + len(last)
    assert line[{"client": "backend", "backend": "client"}[side] + "_bytes"] == others + len(answer)
    assert line["client_messages"] == 3 and line["backend_messages"] == 2
    assert 0 <= line["duration_ms"] < 60_000


@pytest.mark.parametrize("how", ["fin", "reset", "without close_notify"])
@pytest.mark.parametrize("side", ["client", "backend"])
def test_close_line_of_an_abnormal_end(start_proxy, certs, side, how):
    """S43: 1006 when no Close came at all; detail says what was abnormal about the end, and whose."""
    tls = certs if "close_notify" in how else None
    with Gate(start_proxy, certs=tls, backend_certs=tls) as gate:
        with gate.tunnel() as (client, conn):
            a, b = (client, conn) if side == "client" else (conn, client)
            if how == "reset":
                a.rst()
            else:
                a.fin()
            b.expect_close(1001 if b is conn else 1011)
            b.close()
            a.close()
            line = gate.close_line(client)
    assert (line["code"], line["initiator"], line["reason"]) == (1006, side, "")
    if how == "fin":
        assert "detail" not in line
    else:
        assert side in line["detail"] and how in line["detail"]


@pytest.mark.parametrize("side", ["client", "backend"])
def test_close_line_of_an_offence(start_proxy, side):
    """An end of our own: initiator gateway, our sentence as the reason, detail names the offender."""
    with Gate(start_proxy) as gate:
        with gate.tunnel() as (client, conn):
            a, b = (client, conn) if side == "client" else (conn, client)
            a.send_frame(TEXT, "x", mask=not a.masks)
            reason = a.expect_close(1002).reason
            b.expect_close(1001 if b is conn else 1011)
            a.close()
            b.close()
            line = gate.close_line(client)
    assert (line["code"], line["initiator"], line["reason"]) == (1002, "gateway", reason)
    assert side in line["detail"] and reason


def test_refuse_line_of_our_own(start_proxy):
    """A handshake that we refuse: our status and reason; host and path once they are known."""
    with Gate(start_proxy) as gate:
        with gate.client() as client:
            client.handshake("/p?token=s3cret", host="chat.example", key="short", expect=400)
            line = gate.line("refuse", client)
        assert list(line) == ["ts", "level", "event", "conn", "server", "client", "host", "path", "status", "by", "why", "duration_ms"]
        assert line["level"] == "info" and line["server"] == "test" and line["by"] == "gateway"
        assert line["status"] == 400 and "Sec-WebSocket-Key" in line["why"]
        assert line["host"] == "chat.example" and line["path"] == "/p"
        with gate.client() as client:
            client.answer(b"\x16\x03\x01 no HTTP\r\n\r\n")
            line = gate.line("refuse", client)
        assert line["status"] == 400 and "path" not in line and "host" not in line


def test_refuse_line_of_the_backend(start_proxy):
    """The backend's own refusal: its status, by backend, and which backend it was."""
    with Gate(start_proxy) as gate, gate.client() as client:
        client.send(upgrade_request("/p"))
        with gate.backend.accept() as conn:
            conn.read_request()
            conn.send(b"HTTP/1.1 418 x\r\nContent-Length: 0\r\n\r\n")
            assert client.read_head().status == 418
            line = gate.line("refuse", client)
    assert line["status"] == 418 and line["by"] == "backend" and line["why"]
    assert line["path"] == "/p" and line["backend"] == f"127.0.0.1:{gate.backend.port}"


def test_refuse_line_of_a_client_that_leaves(start_proxy):
    """A client that goes before it has its answer: status 0, by client."""
    with Gate(start_proxy) as gate, gate.client() as client:
        client.send(upgrade_request())
        with gate.backend.accept() as conn:
            conn.read_request()
            client.rst()
            line = gate.line("refuse", client)
    assert line["status"] == 0 and line["by"] == "client" and line["level"] == "info" and line["why"]


def test_refuse_line_of_a_dead_backend(start_proxy):
    """A backend that cannot be reached: 502, and why, for the operator only."""
    port = free_port()
    with Gate(start_proxy, backend=f"ws://127.0.0.1:{port}") as gate, gate.client() as client:
        said = client.expect_refusal(client.answer(upgrade_request()), 502)
        line = gate.line("refuse", client)
    assert line["by"] == "gateway" and line["status"] == 502 and "refused" in line["why"]
    assert str(port) not in said and "127.0.0.1" not in said


# levels


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("how", ["fin", "rst", "close"])
def test_silent_connection_is_debug(start_proxy, certs, how, tls):
    """A connection that sends no byte (a probe of the port) is logged at debug, any byte makes it info."""
    with Gate(start_proxy, certs=certs if tls else None) as gate:
        for data, level in ((b"", "debug"), (b"\x16" if tls else b"G", "info")):
            with gate.client(tls=None) as client:
                client.send(data)
                if data:
                    client.expect_nothing(0.1)  # let it be read
                {"fin": client.fin, "rst": client.rst, "close": client.close}[how]()
                assert gate.line("refuse", client)["level"] == level


def test_info_level_holds_no_probes(tmp_path):
    """At --log-level info nothing is written of silent connections, all of the others."""
    with RawBackend(serve) as backend:
        port = free_port()
        with RawLog(tmp_path, ws_spec(port, backend.port), port=port, log_level="info") as log:
            for _ in range(20):
                with RawClient(port) as client:
                    client.fin()
                    client.expect_gone()
            with RawClient(port) as client:
                client.handshake()
            with RawClient(port) as client:
                client.handshake(key="short", expect=400)
                client.read_until_gone()
            entries = entries_of(log.stop())
    events = [e["event"] for e in entries]
    assert events.count("refuse") == 1 and events.count("open") == 1 and events.count("close") == 1
    assert all(e["level"] != "debug" for e in entries)


# hostile text

REASONS = {
    "quotes": b'","event":"open","x":"',
    "line ends": b'a\r\n{"event":"open"}\n',
    "escapes": b"\x1b[2J\x1b]0;title\x07\x08\x7f",
    "backslashes": b"\\u0022\\\\n\\",
    "C1 controls": "\x80\x9b31m\x9d".encode(),
    "separators": "a\u2028b\u2029c\u0085d".encode(),
    "not UTF-8": b"\xff\xfe\xc0\x80\xed\xa0\x80\xf8",
    "cut UTF-8": "grüß".encode()[:-1],
    "long": b'"' * 123,
    "long controls": b"\x01" * 123,
    "emoji": "\U0001f600".encode() * 30,
}


def as_logged(text):
    """What the log says for these bytes: UTF-8 as it is; what is none, byte by byte as U+00XX."""
    decoded = text.decode("utf-8", "surrogateescape")
    return "".join(chr(ord(c) - 0xDC00) if 0xDC80 <= ord(c) <= 0xDCFF else c for c in decoded)


@pytest.mark.parametrize("side", ["client", "backend"])
def test_hostile_close_reasons(tmp_path, side):
    """S56: whatever stands in a close reason, it is one line, escaped, and says what it said."""
    with RawBackend(lambda conn: conn.answer_101()) as backend:
        port = free_port()
        with RawLog(tmp_path, ws_spec(port, backend.port), port=port) as log:
            for reason in REASONS.values():
                with RawClient(port) as client:
                    client.handshake()
                    with backend.accept() as conn:
                        conn.wait_finished()
                        a, b = (client, conn) if side == "client" else (conn, client)
                        raw = a.send_close(4000, reason)
                        assert b.read_exactly(len(raw)) == raw
            raw = log.stop()
    closes = [e for e in entries_of(raw) if e["event"] == "close"]
    assert sorted(e["reason"] for e in closes) == sorted(as_logged(r) for r in REASONS.values())
    assert {(e["code"], e["initiator"]) for e in closes} == {(4000, side)}


def test_close_reason_with_nul(tmp_path):
    """S56: a NUL neither ends a reason nor the line."""
    with RawBackend(serve) as backend:
        port = free_port()
        with RawLog(tmp_path, ws_spec(port, backend.port), port=port) as log:
            with RawClient(port) as client:
                client.handshake()
                client.send_close(4000, b"before\0behind")
                client.fin()
                wait_until("its line", lambda: b'"close"' in log.path.read_bytes(), 10)
            raw = log.stop()
    assert [e["reason"] for e in entries_of(raw) if e["event"] == "close"] == ["before\0behind"]


HEADS = {
    "quotes in the path": upgrade_request('/"},{"event":"open'),
    "backslashes in the path": upgrade_request("/\\u0022\\"),
    "escapes of a URL": upgrade_request("/%0d%0a%1b%00"),
    "a long path": upgrade_request("/" + '"' * 4000),
    "a longer path": upgrade_request("/" + "%" * 8100),
    "line ends in the path": upgrade_request("/a\n{}"),
    "ESC in the path": upgrade_request("/\x1b[2J"),
    "8 bits in the path": upgrade_request("/\xff\xc0"),
    "NUL in the path": upgrade_request("/\0"),
    "quotes in the Host": upgrade_request(host='a","b":"'),
    "ESC in the Host": upgrade_request(host="a\x1b]0;x\x07"),
    "a long Host": upgrade_request(host="a" * 5000),
    "quotes in a subprotocol": upgrade_request(headers=[("Sec-WebSocket-Protocol", '"x\\"')]),
    "every mark in a subprotocol": upgrade_request(headers=[("Sec-WebSocket-Protocol", "!#$%&'*+-.^_`|~")]),
    "a long subprotocol": upgrade_request(headers=[("Sec-WebSocket-Protocol", "p" * 6000)]),
    "ESC in a header": upgrade_request(headers=[("X-A", "\x1b[31m\x9b")]),
    "quotes in a method": upgrade_request(method='G"ET'),
    "quotes in the Origin": upgrade_request(headers=[("Origin", '"\\u0000\xff')]),
    "noise": bytes(range(1, 256)) + b"\r\n\r\n",
}


def test_hostile_heads(tmp_path):
    """S56: one line for each handshake and one for each end, every field in it, whatever stands in path, Host,
    subprotocol and other fields; what is longer than a line is cut, the line stays whole."""

    def choose_first(conn):
        request = conn.read_request()
        offered = request.all("Sec-WebSocket-Protocol")
        conn.answer_101(headers=[("Sec-WebSocket-Protocol", offered[0])] if offered else [])

    opened, refused = 0, 0
    with RawBackend(choose_first) as backend:
        port = free_port()
        with RawLog(tmp_path, ws_spec(port, backend.port), port=port) as log:
            for request in HEADS.values():
                with RawClient(port) as client:
                    if client.answer(request).status == 101:
                        opened += 1
                    else:
                        refused += 1
            entries = entries_of(log.stop())
    lines = {e: [x for x in entries if x["event"] == e] for e in ("open", "close", "refuse")}
    probes = [x for x in lines["refuse"] if x["level"] == "debug"]  # the wait for the listener
    assert (len(lines["open"]), len(lines["close"]), len(lines["refuse"]) - len(probes)) == (opened, opened, refused)
    assert opened >= 4 and refused >= 8
    for line in lines["open"]:
        assert set(OPEN) <= set(line)
    for line in lines["refuse"]:
        assert "why" in line and "duration_ms" in line
    paths = [x["path"] for x in lines["open"]]
    assert "/%0d%0a%1b%00" in paths
    assert "!#$%&'*+-.^_`|~" in [x.get("protocol") for x in lines["open"]]
    long = [x for x in lines["open"] if x["path"].startswith("/%%%")]
    assert len(long) == 1 and 500 < len(long[0]["path"]) < 4096 and set(long[0]["path"][1:]) == {"%"}


HOSTILE_CN = 'a"\n{"event":"open"}\x1b[2J\x85\\u0000'


def test_hostile_names_in_certificates(tmp_path, certs):
    """S56: a CN of either leg's certificate cannot break out of its line, be it accepted or refused."""
    bad_backend = certs.make_server("hostile", ["other.example"], common_name=HOSTILE_CN)
    good_client = certs.make_client("hostile client", HOSTILE_CN)
    bad_client = certs.make_client("hostile stranger", HOSTILE_CN, issuer=certs.other_ca)
    port = free_port()
    with RawBackend(tls=server_context(bad_backend)) as backend:
        spec = https_spec(
            port, certs=certs, backend=f"wss://localhost:{backend.port}",
            backendTLS={"caBase64": certs.b64(certs.ca.cert)}, tls={"clientCABase64": certs.b64(certs.ca.cert)},
        )  # fmt: skip
        with RawLog(tmp_path, spec, port=port) as log:
            with RawClient(port, tls=client_context(certs, client_pair=good_client)) as client:
                client.handshake(expect=502)
                client.read_until_gone()
            with pytest.raises((ssl.SSLError, ConnectionError, Eof)):
                with RawClient(port, tls=client_context(certs, client_pair=bad_client)) as client:
                    client.handshake()
            entries = entries_of(log.stop())
    refusals = [e for e in entries if e["event"] == "refuse" and e["level"] == "info"]
    assert [e["status"] for e in refusals] == [502, 0]
    assert all(e["why"] for e in refusals)
    assert not [e for e in entries if e["event"] == "open"]


# what never stands there


def test_no_secrets(tmp_path, certs):
    """No key, token, credential or payload at the most talkative level: those of the spec, of the request's query and
    fields, of the messages."""
    port = free_port()
    secrets = ["s3cret-query", "s3cret-auth", "s3cret-cookie", "s3cret-field", "s3cret-payload", "s3cret-set"]
    with RawBackend(serve, tls=server_context(certs.server, client_ca=certs.ca)) as backend:
        spec = https_spec(
            port, certs=certs, backend=f"wss://localhost:{backend.port}",
            wssCertBase64=certs.b64(certs.client.cert), wssKeyBase64=certs.b64(certs.client.key),
            backendTLS={"caBase64": certs.b64(certs.ca.cert)}, headers={"set": {"X-Token": "s3cret-set"}},
        )  # fmt: skip
        headers = [("Authorization", "Bearer s3cret-auth"), ("Cookie", "sid=s3cret-cookie"), ("X-Api-Key", "s3cret-field")]
        with RawLog(tmp_path, spec, port=port) as log:
            for path, status in (("/p?token=s3cret-query", 101), ("/p?a&b=s3cret-query#", 400), ("/s3cret-path%3f", 101)):
                with RawClient(port, tls=client_context(certs)) as client:
                    client.handshake(path, headers=headers, expect=status)
                    if status == 101:
                        client.send_frame(TEXT, "s3cret-payload")
                        client.send_frame(TEXT, "s3cret-payload", rsv=1)  # an offence: its line may not quote it
                        client.read_until_gone(15)
            raw = log.stop()
    entries = entries_of(raw)
    assert {e["event"] for e in entries} >= {"open", "close", "refuse"}
    assert b"s3cret-path" in raw, "the path itself is logged, so the test looks at the right text"
    for secret in secrets:
        assert secret.encode() not in raw, secret
    assert KEY.encode() not in raw
    for pair in (certs.server, certs.client):
        pem = "".join(pair.key.decode().split("\n")[1:-2])
        for text in (pem, certs.b64(pair.key)):
            assert not [text[at : at + 16] for at in range(len(text) - 16) if text[at : at + 16].encode() in raw]


# a reader that does not read


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_reader_that_does_not_read(tmp_path, kind):
    """S56: with stderr full and unread the proxy serves on; what did not fit is counted in log_dropped once it drains,
    and lines kept and lines dropped are together all there were."""
    connections = 600
    if kind == "pipe":
        out, into = os.pipe()
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4096)
    else:
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        out, into = ours.detach(), theirs.detach()
    config = tmp_path / "servers.yaml"
    with RawBackend(serve) as backend:
        port = free_port()
        config.write_text(ws_spec(port, backend.port))
        process = start(config, into, "info")
        os.close(into)
        try:
            wait_until("the listener", lambda: is_open(port))
            began = time.monotonic()
            for _ in range(connections):
                with RawClient(port) as client:
                    client.handshake("/" + "x" * 300)
                    client.send_close(1000, "x" * 100)
            with RawClient(port) as client:
                client.handshake()
                sent = client.send_frame(TEXT, "served")
                wait_until("the frame", lambda: any(sent in c.received for c in backend.conns))
                assert process.poll() is None and time.monotonic() - began < 30
            wait_until("all ends", lambda: len(os.listdir(f"/proc/{relay_of(process.pid)}/fd")) < 12, 15)
            raw, probes = drain(out, lambda: probe(port), lambda text: b"log_dropped" in text)
            process.send_signal(signal.SIGTERM)
            raw += rest_of(out)
            assert process.wait(10) == 0
        finally:
            kill_all(process)
            os.close(out)
    entries = entries_of(raw)
    dropped = [e for e in entries if e["event"] == "log_dropped"]
    assert dropped and all(e["level"] == "warn" and e["lines"] > 0 for e in dropped)
    kept = [e for e in entries if e["event"] in ("open", "close", "refuse")]
    total = len(kept) + sum(e["lines"] for e in dropped)
    assert total == 2 * (connections + 1) + probes, "a line was neither written nor counted"


def probe(port):
    """Some connection, so that there is an event to log: one line."""
    with RawClient(port) as client:
        client.handshake(key="short", expect=400)


def drain(fd, stir, enough, timeout=10.0):
    """Reads fd until enough(text); stirs the proxy whenever nothing is there to read. The text, and how often it did."""
    text, stirred, deadline = b"", 0, time.monotonic() + timeout
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while not enough(text):
        assert time.monotonic() < deadline, text[-500:]
        if poll.poll(100):
            text += os.read(fd, 65536)
        else:
            stir()
            stirred += 1
    return text, stirred


def rest_of(fd):
    text = b""
    while data := os.read(fd, 65536):
        text += data
    return text


def test_reader_that_has_gone(tmp_path):
    """A closed stderr costs the log, neither the proxy nor its connections."""
    out, into = os.pipe()
    config = tmp_path / "servers.yaml"
    with RawBackend(serve) as backend:
        port = free_port()
        config.write_text(ws_spec(port, backend.port))
        process = start(config, into)
        os.close(into)
        try:
            wait_until("the listener", lambda: is_open(port))
            os.close(out)
            for _ in range(200):
                with RawClient(port) as client:
                    client.handshake("/" + "x" * 500)
            end(process)
        finally:
            kill_all(process)
