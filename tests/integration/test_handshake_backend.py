"""The backend's side of the handshake: S13 to S17 of the bars."""

import selectors
import socket
import threading
import time

import pytest

from support import frames
from support.backend import RawBackend, manual
from support.client import RawClient
from support.http1 import accept_for, head, upgrade_request
from support.proxy import free_port
from support.spec import ws_spec
from support.wait import wait_until

WHOLE_AND_BYTES = pytest.mark.parametrize("chunk", [None, 1], ids=["whole", "bytes"])


class Gate:
    """A proxy for all tests of this file; each drives its backend's connection by hand."""

    def __init__(self, start):
        self.backend = RawBackend(manual)
        self.port = free_port()
        self.proxy = start(ws_spec(self.port, self.backend.port, timeouts={"handshake": "2s"}))

    def ask(self, **kw):
        """A client that waits for its answer, and the backend's end with the request read."""
        since = len(self.proxy.logs)
        client = RawClient(self.port)
        client.since = since
        client.send(upgrade_request(**kw))
        conn = self.backend.accept()
        conn.read_request()
        return client, conn


@pytest.fixture(scope="module")
def gate(start_module_proxy):
    gate = Gate(start_module_proxy)
    yield gate
    gate.backend.close()


def refuse_line(gate, client):
    return gate.proxy.wait_log(event="refuse", since=client.since, client="%s:%d" % client.addr)


def expect_bad_gateway(gate, client, conn, status=502):
    client.expect_refusal(client.read_head(), status)
    conn.expect_gone()
    line = refuse_line(gate, client)
    assert line["status"] == status and line["by"] == "gateway" and line["why"]


FINALS = ["200 OK", "204 No Content", "301 Moved Permanently", "302 Found", "400 Bad Request", "401 Unauthorized",
          "403 Forbidden", "404 Not Found", "426 Upgrade Required", "429 Too Many Requests", "500 Internal Server Error",
          "503 Service Unavailable", "599 Odd"]  # fmt: skip


@WHOLE_AND_BYTES
@pytest.mark.parametrize("status", FINALS)
def test_other_answers_reach_the_client(gate, status, chunk):
    """S13: an answer other than 101 opens no tunnel: status, fields and body are relayed, both connections end."""
    client, conn = gate.ask(path="/login?x")
    body = b"" if status.startswith("204") else b"because\n"
    fields = [("Set-Cookie", "a=1"), ("X-Odd-Case", "kept \xe4"), ("Set-Cookie", "b=2"), ("Location", "/else")]
    if body:
        fields.append(("Content-Length", str(len(body))))
    fields += [("Connection", "keep-alive, X-Hop"), ("X-Hop", "gone"), ("Keep-Alive", "timeout=5")]
    conn.send(head("HTTP/1.1 " + status, fields) + body, chunk)
    answer = client.read_head()
    assert answer.start == "HTTP/1.1 " + status
    assert answer.all("Set-Cookie") == ["a=1", "b=2"]
    assert ("X-Odd-Case", "kept \xe4") in answer.fields and answer.get("Location") == "/else"
    assert answer.get("Connection") in ("close", "close, Upgrade") and not answer.all("X-Hop") and not answer.all("Keep-Alive")
    client.try_send(frames.frame(frames.TEXT, b"after", mask=True))
    assert client.read_until_eof() == body
    assert conn.read_until_gone() == b"", "bytes of the client reached a backend that had refused"
    line = refuse_line(gate, client)
    assert line["status"] == int(status[:3]) and line["by"] == "backend" and line["path"] == "/login"
    client.close()


@WHOLE_AND_BYTES
def test_200_with_upgrade_is_no_tunnel(gate, chunk):
    """S13: only 101 opens the tunnel, whatever else a 200 says."""
    client, conn = gate.ask()
    fields = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Content-Length", "0")]
    fields.append(("Sec-WebSocket-Accept", accept_for(conn.request.get("Sec-WebSocket-Key"))))
    conn.send(head("HTTP/1.1 200 OK", fields), chunk)
    answer = client.read_head()
    assert answer.status == 200 and answer.all("Connection") == ["close"] and not answer.all("Upgrade")
    client.try_send(frames.frame(frames.TEXT, b"tunnel?", mask=True))
    assert conn.read_until_gone() == b""
    client.expect_gone()
    client.close()


@WHOLE_AND_BYTES
@pytest.mark.parametrize("kind", ["length", "chunked", "eof", "1.0"])
def test_bodies(gate, kind, chunk):
    """S13: a body arrives whole, ended by its length, its chunks or the end of the connection."""
    client, conn = gate.ask()
    text = bytes(range(256)) * (4 if chunk else 400)
    if kind == "length":
        raw = head("HTTP/1.1 401 No", [("Content-Length", str(len(text)))]) + text
    elif kind == "chunked":
        pieces = [text[i : i + 999] for i in range(0, len(text), 999)]
        body = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\nTrailer: x\r\n\r\n"
        raw = head("HTTP/1.1 401 No", [("Transfer-Encoding", "chunked")]) + body
    else:
        raw = head(f"HTTP/1.{0 if kind == '1.0' else 1} 401 No", [("X", "y")]) + text
    conn.send(raw, chunk)
    if kind in ("eof", "1.0"):
        conn.half_close()
    answer = client.read_head()
    assert answer.status == 401
    got = client.read_until_eof()
    if kind == "chunked":
        assert answer.get("Transfer-Encoding") == "chunked"
        assert got == raw[raw.index(b"\r\n\r\n") + 4 :]
    else:
        assert got == text
    conn.expect_gone()
    client.close()


def test_body_of_a_slow_reader(gate):
    """S13, S28: a body waits for a client that does not read, and arrives whole afterwards."""
    client = RawClient(gate.port, rcvbuf=4096)
    client.send(upgrade_request())
    conn = gate.backend.accept()
    conn.read_request()
    text = bytes(1 << 20)[:-10]
    sender = threading.Thread(
        target=conn.send, args=(head("HTTP/1.1 503 No", [("Content-Length", str(len(text)))]) + text,), daemon=True
    )
    sender.start()
    assert client.read_head().status == 503
    assert client.read_until_eof(20) == text
    sender.join(5)
    client.close()


def test_body_is_bounded(gate):
    """S13, S16: a body without end is cut after 1 MiB, and the connections end."""
    client, conn = gate.ask()
    conn.send(head("HTTP/1.1 200 OK", [("X", "y")]))
    block = bytes(65536)

    def pour():
        while conn.try_send(block):
            pass

    threading.Thread(target=pour, daemon=True).start()
    assert client.read_head().status == 200
    total = 0
    try:
        while data := client.read_some():
            total += len(data)
    except ConnectionResetError:
        pass
    assert 0 < total <= (1 << 20) + 65536  # the cut is an RST, which may overtake the last bytes
    conn.wait_finished()
    client.close()


def answer_fields(conn, **changed):
    fields = {
        "Upgrade": ["websocket"],
        "Connection": ["Upgrade"],
        "Sec-WebSocket-Accept": [accept_for(conn.request.get("Sec-WebSocket-Key"))],
    }
    for name, values in changed.items():
        fields[name.replace("_", "-")] = values
    return [(n, v) for n, values in fields.items() for v in values]


GOOD_ACCEPT = accept_for("dGhlIHNhbXBsZSBub25jZQ==")
BAD_101 = {
    "no accept": {"Sec_WebSocket_Accept": []},
    "wrong accept": {"Sec_WebSocket_Accept": [accept_for("x")]},
    "accept twice": {"Sec_WebSocket_Accept": [GOOD_ACCEPT, GOOD_ACCEPT]},
    "accept twice, one wrong": {"Sec_WebSocket_Accept": ["x", GOOD_ACCEPT]},
    "accept in lower case": {"Sec_WebSocket_Accept": [GOOD_ACCEPT.lower()]},
    "accept of swapped case": {"Sec_WebSocket_Accept": [GOOD_ACCEPT.swapcase()]},
    "accept and more": {"Sec_WebSocket_Accept": [GOOD_ACCEPT + "x"]},
    "accept cut": {"Sec_WebSocket_Accept": [GOOD_ACCEPT[:-1]]},
    "empty accept": {"Sec_WebSocket_Accept": [""]},
    "the key as accept": {"Sec_WebSocket_Accept": ["dGhlIHNhbXBsZSBub25jZQ=="]},
    "no upgrade": {"Upgrade": []},
    "upgrade to h2c": {"Upgrade": ["h2c"]},
    "upgrade to two": {"Upgrade": ["websocket, h2c"]},
    "upgrade on two lines": {"Upgrade": ["h2c", "websocket"]},
    "no connection": {"Connection": []},
    "connection close": {"Connection": ["close"]},
    "part of a token": {"Connection": ["Upgradex"]},
    "a body announced": {"Content_Length": ["5"]},
    "chunks announced": {"Transfer_Encoding": ["chunked"]},
    "protocol that nobody offered": {"Sec_WebSocket_Protocol": ["chat"]},
    "extension that nobody offered": {"Sec_WebSocket_Extensions": ["permessage-deflate"]},
}


@WHOLE_AND_BYTES
@pytest.mark.parametrize("name", BAD_101)
def test_101_that_does_not_hold(gate, name, chunk):
    """S14, S15: a 101 that is wrong in one point is a 502, and the backend's connection ends."""
    client, conn = gate.ask()
    conn.send(head("HTTP/1.1 101 Switching Protocols", answer_fields(conn, **BAD_101[name])), chunk)
    client.try_send(frames.frame(frames.TEXT, b"tunnel?", mask=True))
    expect_bad_gateway(gate, client, conn)
    client.close()


@pytest.mark.parametrize("start", ["HTTP/1.0 101 Switching Protocols", "HTTP/2.0 101 x", "HTTP/1.1 1O1 x", "ICY 101 OK"])
def test_101_of_another_version(gate, start):
    """S14: only HTTP/1.1 switches protocols."""
    client, conn = gate.ask()
    conn.send(head(start, answer_fields(conn)))
    expect_bad_gateway(gate, client, conn)
    client.close()


OFFER = [("Sec-WebSocket-Protocol", "chat, superchat"), ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")]
BAD_CHOICES = {
    "another protocol": {"Sec_WebSocket_Protocol": ["other"]},
    "another case": {"Sec_WebSocket_Protocol": ["Chat"]},
    "two protocols": {"Sec_WebSocket_Protocol": ["chat, superchat"]},
    "protocol twice": {"Sec_WebSocket_Protocol": ["chat", "chat"]},
    "protocols on two lines": {"Sec_WebSocket_Protocol": ["chat", "superchat"]},
    "empty protocol": {"Sec_WebSocket_Protocol": [""]},
    "another extension": {"Sec_WebSocket_Extensions": ["x-foo"]},
    "one more extension": {"Sec_WebSocket_Extensions": ["permessage-deflate, x-foo"]},
    "extension twice": {"Sec_WebSocket_Extensions": ["permessage-deflate, permessage-deflate"]},
    "extension on two lines twice": {"Sec_WebSocket_Extensions": ["permessage-deflate", "permessage-deflate"]},
}


@WHOLE_AND_BYTES
@pytest.mark.parametrize("name", BAD_CHOICES)
def test_choice_outside_the_offer(gate, name, chunk):
    """S15: a subprotocol or extension that was not offered, or stands twice, is a 502."""
    client, conn = gate.ask(headers=OFFER)
    conn.send(head("HTTP/1.1 101 Switching Protocols", answer_fields(conn, **BAD_CHOICES[name])), chunk)
    expect_bad_gateway(gate, client, conn)
    client.close()


@WHOLE_AND_BYTES
def test_choice_inside_the_offer(gate, chunk):
    """S15: what was offered and chosen reaches the client as the backend wrote it, other fields too."""
    client, conn = gate.ask(headers=OFFER)
    extension = "permessage-deflate; client_max_window_bits=10; server_no_context_takeover"
    conn.answer_101(
        headers=[("Sec-WebSocket-Protocol", "superchat"), ("Sec-WebSocket-Extensions", extension), ("Set-Cookie", "s=1"),
                 ("Set-Cookie", "t=2"), ("Server", "x")],
        chunk=chunk,
    )  # fmt: skip
    answer = client.read_head()
    assert answer.status == 101
    assert answer.all("Sec-WebSocket-Protocol") == ["superchat"]
    assert answer.all("Sec-WebSocket-Extensions") == [extension]
    assert answer.all("Set-Cookie") == ["s=1", "t=2"] and answer.get("Server") == "x"
    assert answer.all("Sec-WebSocket-Accept") == [GOOD_ACCEPT]
    line = gate.proxy.wait_log(event="open", since=client.since, client="%s:%d" % client.addr)
    assert line["protocol"] == "superchat"
    client.close()


@WHOLE_AND_BYTES
@pytest.mark.parametrize("count", [1, 5])
def test_interim_answers_are_skipped(gate, count, chunk):
    """S15: up to five 1xx in front of the 101 are skipped."""
    client, conn = gate.ask()
    for status in (["100 Continue", "103 Early Hints", "102 Processing"] * 2)[:count]:
        conn.send(head("HTTP/1.1 " + status, [("Link", "x")]), chunk)
    conn.answer_101(chunk=chunk)
    answer = client.read_head()
    assert answer.status == 101 and not answer.all("Link")
    client.close()


def test_interim_answer_before_a_final_one(gate):
    """S15: the same in front of a refusal."""
    client, conn = gate.ask()
    conn.send(head("HTTP/1.1 100 Continue", []) + head("HTTP/1.1 403 No", [("Content-Length", "0")]))
    assert client.read_head().status == 403
    client.close()


@WHOLE_AND_BYTES
def test_interim_answers_are_bounded(gate, chunk):
    """S15: the sixth is one too many."""
    client, conn = gate.ask()
    conn.try_send(head("HTTP/1.1 100 Continue", []) * 6, chunk)
    expect_bad_gateway(gate, client, conn)
    client.close()


GARBAGE = {
    "noise": bytes(range(256)),
    "an SSH banner": b"SSH-2.0-x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "frames": frames.frame(frames.TEXT, b"hello") * 20,
    "LF only": b"HTTP/1.1 101 x\nUpgrade: websocket\n\n",
    "NUL in a value": b"HTTP/1.1 403 No\r\nX: a\0b\r\n\r\n",
    "obs-fold": b"HTTP/1.1 403 No\r\nX: a\r\n b\r\n\r\n",
    "status of 2 digits": b"HTTP/1.1 40 No\r\n\r\n",
    "status of 4 digits": b"HTTP/1.1 4030 No\r\n\r\n",
    "status 000": b"HTTP/1.1 000 No\r\n\r\n",
    "status 600": b"HTTP/1.1 600 No\r\n\r\n",
    "content-length twice": b"HTTP/1.1 403 No\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "content-length and chunks": b"HTTP/1.1 403 No\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
    "a request": upgrade_request(),
    "1 MiB of head": b"HTTP/1.1 200 OK\r\n" + b"X: %s\r\n" % (b"y" * 1000) * 1000,
    "a line without end": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200000,
    "101 fields": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_of_the_backend(gate, name):
    """S16: what is no answer is a 502 that says why, before the deadline."""
    for chunk in (None, 1):
        if chunk and len(GARBAGE[name]) > 10000:
            continue
        client, conn = gate.ask()
        start = time.monotonic()
        conn.try_send(GARBAGE[name], chunk)
        expect_bad_gateway(gate, client, conn)
        assert time.monotonic() - start < 1.5
        client.close()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 101 Swi", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["nothing", "part", "interim"])
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_backend_ends_instead_of_answering(gate, sent, how):
    """S16: an end in the middle of the answer is a 502."""
    client, conn = gate.ask()
    conn.send(sent)
    conn.rst() if how == "rst" else conn.close()
    client.expect_refusal(client.read_head(), 502)
    client.close()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 101 Swi"], ids=["nothing", "part"])
def test_backend_never_answers(gate, sent):
    """S16: no whole answer within timeouts.handshake is a 504."""
    client, conn = gate.ask()
    start = time.monotonic()
    conn.send(sent)
    expect_bad_gateway(gate, client, conn, 504)
    assert 1.8 < time.monotonic() - start < 3.5
    client.close()


def test_backend_that_drips(gate):
    """S16, S29: the deadline is for the whole head; single bytes do not move it."""
    client, conn = gate.ask()
    start = time.monotonic()
    stop = threading.Event()

    def drip():
        for byte in head("HTTP/1.1 101 x", [("X", "y" * 500)]):
            if stop.wait(0.1) or not conn.try_send(bytes([byte])):
                return

    threading.Thread(target=drip, daemon=True).start()
    client.expect_refusal(client.read_head(), 504)
    assert time.monotonic() - start < 3.5
    stop.set()
    client.close()


def test_nobody_listens(start_proxy):
    """S16: a refused connection is a 502 at once."""
    port = free_port()
    start_proxy(ws_spec(port, free_port()))
    with RawClient(port) as client:
        start = time.monotonic()
        client.expect_refusal(client.answer(upgrade_request()), 502)
        assert time.monotonic() - start < 1


def test_client_leaves_while_the_backend_thinks(gate):
    """S16: when the client goes, the backend's connection goes too."""
    client, conn = gate.ask()
    client.rst()
    conn.expect_gone()
    line = refuse_line(gate, client)
    assert line["by"] == "client" and line["status"] == 0


@pytest.mark.parametrize("size", [0, 5, 70_000, 300_000])
def test_frames_glued_to_the_101(gate, size):
    """S16: frames right behind the 101 reach the client behind ours, in order, whatever their size."""
    client, conn = gate.ask()
    glued = frames.frame(frames.BINARY, bytes(size)) + frames.frame(frames.TEXT, b"second")
    threading.Thread(target=conn.answer_101, kwargs={"glued": glued}, daemon=True).start()
    assert client.read_head().status == 101
    assert client.read_exactly(len(glued)) == glued
    client.close()


def test_close_glued_to_the_101(gate):
    """S16: even when the first frame is the last."""
    client, conn = gate.ask()
    conn.answer_101(glued=frames.frame(frames.CLOSE, frames.close_payload(4000, "no")))
    assert client.read_head().status == 101
    assert client.expect_close(4000).reason == "no"
    conn.half_close()
    client.expect_gone()
    client.close()


class KeepAliveBackend:
    """Refuses every upgrade with 403 and keeps its connections; one thread for all of them."""

    ANSWER = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.open = self.served = 0
        self.stop = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stop:
            for key, _ in self.selector.select(0.2):
                if key.fileobj is self.listener:
                    sock, _ = self.listener.accept()
                    self.selector.register(sock, selectors.EVENT_READ)
                    self.open += 1
                    continue
                sock = key.fileobj
                try:
                    data = sock.recv(65536)
                except ConnectionResetError:
                    data = b""
                if data:
                    sock.send(self.ANSWER)
                    self.served += 1
                else:
                    self.selector.unregister(sock)
                    sock.close()
                    self.open -= 1


def test_ten_thousand_refusals_leave_nothing(start_proxy, sanitized):
    """S17: 10,000 upgrades refused by a keep-alive backend, then descriptors and memory are back."""
    backend = KeepAliveBackend()
    port = free_port()
    proxy = start_proxy(ws_spec(port, backend.port), log_level="info")
    request = upgrade_request()

    def one():
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.sendall(request)
            data = b""
            while more := sock.recv(4096):
                data += more
            assert data.startswith(b"HTTP/1.1 403"), data

    for _ in range(200):
        one()
    wait_until("the backend's connections to end", lambda: backend.open == 0)
    fds, rss = proxy.fds(), proxy.anon()
    count = 2000 if sanitized else 10_000
    for _ in range(count):
        one()
    wait_until("the backend's connections to end", lambda: backend.open == 0)
    wait_until("descriptors to be back", lambda: proxy.fds() <= fds)
    assert backend.served == count + 200
    if not sanitized:
        assert proxy.anon() - rss < 256 << 10
    backend.stop = True
