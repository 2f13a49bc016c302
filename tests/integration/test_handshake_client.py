"""The client's side of the handshake: S1 to S12 of the bars.

Every input goes to the proxy in one write and again one byte a write."""

import pytest

from support import frames
from support.backend import RawBackend, manual, serve
from support.client import RawClient
from support.http1 import KEY, head, upgrade_request
from support.proxy import free_port
from support.spec import ws_spec
from support.wait import wait_until

WHOLE_AND_BYTES = pytest.mark.parametrize("chunk", [None, 1], ids=["whole", "bytes"])


class Gate:
    """A proxy for all tests of this file, and its backend, which answers 101 and records."""

    def __init__(self, start):
        self.backend = RawBackend(serve)
        self.port = free_port()
        self.proxy = start(ws_spec(self.port, self.backend.port))

    def refuses(self, request, *statuses, chunk=None, field=None):
        """These bytes get one of these statuses and a reason; nothing is dialled; the log says so once."""
        before, since = len(self.backend.conns), len(self.proxy.logs)
        with RawClient(self.port) as client:
            answer = client.answer(request, chunk)
            why = client.expect_refusal(answer, *statuses)
            line = self.proxy.wait_log(event="refuse", since=since, client="%s:%d" % client.addr)
        if field:
            assert answer.get(field[0]) == field[1]
        assert line["status"] == answer.status and line["by"] == "gateway" and line["server"] == "test"
        assert line["why"].strip() in why and line["duration_ms"] >= 0
        assert len(self.backend.conns) == before, "the backend was dialled"
        return line

    def passes(self, request, chunk=None):
        """These bytes get through: the head that the backend saw and the one that the client got."""
        before = len(self.backend.conns)
        with RawClient(self.port) as client:
            answer = client.answer(request, chunk)
            assert answer.status == 101, answer.raw
            wait_until("the backend's connection", lambda: len(self.backend.conns) > before)
            return self.backend.conns[-1].request, answer


@pytest.fixture(scope="module")
def gate(start_module_proxy):
    gate = Gate(start_module_proxy)
    yield gate
    gate.backend.close()


def with_fields(*fields, drop=()):
    return upgrade_request(headers=fields, drop=drop)


@WHOLE_AND_BYTES
@pytest.mark.parametrize(
    "versions",
    [[], ["12"], ["14"], ["8"], ["13abc"], ["013"], ["0"], ["-13"], ["13.0"], [""], ["13", "13"], ["13", "8"], ["13, 13"]],
    ids=lambda v: "+".join(v) or "none",
)
def test_version_must_be_13_once(gate, versions, chunk):
    """S1: anything but one 13 gets 426 with the version that we speak, and no backend is dialled."""
    fields = [("Sec-WebSocket-Version", v) for v in versions]
    request = with_fields(*fields, drop=["Sec-WebSocket-Version"])
    gate.refuses(request, 426, chunk=chunk, field=("Sec-WebSocket-Version", "13"))


@WHOLE_AND_BYTES
@pytest.mark.parametrize(
    "keys",
    [
        [],
        [""],
        [KEY, KEY],
        [KEY[:-1]],
        [KEY + "="],
        ["A" * 24],
        ["A" * 23 + "="],
        ["dGhlIHNhbXBsZSBub25j*Q=="],
        ["dGhlIHNhbXBsZSBub25-ZQ=="],
        ["dGhlIHNhbXBs ZSBub25jZQ=="],
        ["=" * 24],
        [KEY + ", " + KEY],
        ["A" * 4000],
    ],
    ids=lambda k: "+".join(x[:26] for x in k) or "none",
)
def test_key_must_be_16_bytes_once(gate, keys, chunk):
    """S2: a key that is missing, doubled or not 24 characters of base64 gets 400, and no backend is dialled."""
    fields = [("Sec-WebSocket-Key", k) for k in keys]
    gate.refuses(with_fields(*fields, drop=["Sec-WebSocket-Key"]), 400, chunk=chunk)


@WHOLE_AND_BYTES
@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "OPTIONS", "DELETE", "get", "GETT", "BREW"])
def test_only_get(gate, method, chunk):
    """S3: another method gets 405 with Allow."""
    request = upgrade_request(method=method)
    if method != "HEAD":
        gate.refuses(request, 405, chunk=chunk, field=("Allow", "GET"))
        return
    with RawClient(gate.port) as client:  # no body follows
        assert client.answer(request, chunk).status == 405


@WHOLE_AND_BYTES
@pytest.mark.parametrize("request_line", ["CONNECT localhost:80 HTTP/1.1", "CONNECT / HTTP/1.1"])
def test_connect_is_refused(gate, request_line, chunk):
    """S3: no tunnel to anywhere."""
    request = upgrade_request().replace(b"GET / HTTP/1.1", request_line.encode())
    gate.refuses(request, 405, 400, chunk=chunk)


@WHOLE_AND_BYTES
def test_http_1_0_does_not_upgrade(gate, chunk):
    """S3: an Upgrade in HTTP/1.0 is not one (RFC 9110 7.8)."""
    gate.refuses(upgrade_request(version="HTTP/1.0"), 400, 426, chunk=chunk)


@WHOLE_AND_BYTES
@pytest.mark.parametrize("version", ["HTTP/2.0", "HTTP/1.2", "HTTP/3.0", "HTTP/0.9"])
def test_other_versions(gate, version, chunk):
    """S3, S39: other HTTP versions get 505."""
    gate.refuses(upgrade_request(version=version), 505, 400, chunk=chunk)


@WHOLE_AND_BYTES
@pytest.mark.parametrize(
    "fields",
    [
        [("Content-Length", "5")],
        [("Content-Length", "0"), ("Content-Length", "5")],
        [("Content-Length", "5"), ("Content-Length", "5")],
        [("Content-Length", "abc")],
        [("Content-Length", "-1")],
        [("Content-Length", "+5")],
        [("Content-Length", "0x5")],
        [("Content-Length", "5, 5")],
        [("Content-Length", "99999999999999999999999")],
        [("Transfer-Encoding", "chunked")],
        [("Transfer-Encoding", "identity")],
        [("Transfer-Encoding", "")],
        [("Transfer-Encoding", "gzip, chunked")],
        [("Content-Length", "5"), ("Transfer-Encoding", "chunked")],
        [("Content-Length", "0"), ("Transfer-Encoding", "chunked")],
    ],
    ids=lambda f: ",".join(f"{n[0]}={v[:12]}" for n, v in f),
)
def test_no_body(gate, fields, chunk):
    """S3, S6: a handshake that announces a body gets 400, and nothing of it is forwarded."""
    gate.refuses(with_fields(*fields) + b"5\r\nhello\r\n0\r\n\r\n", 400, chunk=chunk)


def test_content_length_0_is_no_body(gate):
    """S3: the one Content-Length that passes is 0, and it is not passed on."""
    seen, _ = gate.passes(with_fields(("Content-Length", "0")))
    assert not seen.all("Content-Length")


@WHOLE_AND_BYTES
@pytest.mark.parametrize(
    "upgrades", [[], ["h2c"], ["web"], ["websockets"], ["xwebsocket"], ["h2c", "foo"], [""], ["web socket"]], ids=str
)
def test_upgrade_must_name_websocket(gate, upgrades, chunk):
    """S4: without the token websocket, 426 that says what to upgrade to."""
    fields = [("Upgrade", u) for u in upgrades]
    gate.refuses(with_fields(*fields, drop=["Upgrade"]), 426, chunk=chunk, field=("Upgrade", "websocket"))


@WHOLE_AND_BYTES
@pytest.mark.parametrize(
    "connections",
    [[], ["u"], ["upgradex"], ["close"], ["keep-alive"], ["up grade"], [""], ["keep-alive", "xUpgrade"]],
    ids=str,
)
def test_connection_must_name_upgrade(gate, connections, chunk):
    """S4: without the whole token Upgrade, 400."""
    fields = [("Connection", c) for c in connections]
    gate.refuses(with_fields(*fields, drop=["Connection"]), 400, chunk=chunk)


@WHOLE_AND_BYTES
@pytest.mark.parametrize(
    "fields",
    [
        [("Connection", "keep-alive, Upgrade"), ("Upgrade", "websocket")],
        [("Connection", "keep-alive"), ("Connection", "UPGRADE"), ("Upgrade", "WebSocket")],
        [("Connection", ",, upgrade ,"), ("Upgrade", "foo, websocket")],
        [("Connection", "Upgrade"), ("Upgrade", "foo"), ("Upgrade", "websocket")],
        [("Connection", "Upgrade, HTTP2-Settings"), ("HTTP2-Settings", "AAMAAABk"), ("Upgrade", "h2c, websocket")],
        [("Connection", "Upgrade"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk"), ("Upgrade", "websocket, h2")],
    ],
    ids=range(6),
)
def test_backend_sees_one_upgrade(gate, fields, chunk):
    """S4: whatever stood around it, the backend sees exactly one websocket token and no h2c."""
    seen, _ = gate.passes(with_fields(*fields, drop=["Connection", "Upgrade"]), chunk)
    assert seen.all("Upgrade") == ["websocket"]
    assert seen.all("Connection") == ["Upgrade"]
    assert not seen.all("HTTP2-Settings")
    assert b"h2" not in seen.raw.lower()


@WHOLE_AND_BYTES
@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [""],
        ["localhost", "localhost"],
        ["localhost", "other"],
        ["a b"],
        ["a/b"],
        ["user@localhost"],
        ["a,b"],
        ["[::1"],
        ["::1"],
        ["localhost:"],
        ["localhost:abc"],
        ["localhost:99999"],
        ["localhost:80:80"],
        [":80"],
        ["a?b"],
        ["a#b"],
        ["a\\b"],
        ["<a>"],
        ["a\tb"],
    ],
    ids=lambda h: "+".join(h) or "none",
)
def test_host_once_and_valid(gate, hosts, chunk):
    """S5: a Host that is missing, doubled or no host gets 400."""
    fields = [("Host", h) for h in hosts]
    allowed = ("localhost:",)  # RFC 3986 lets the port be empty
    if hosts and hosts[0] in allowed:
        with RawClient(gate.port) as client:
            assert client.answer(with_fields(*fields, drop=["Host"]), chunk).status in (101, 400)
        return
    gate.refuses(with_fields(*fields, drop=["Host"]), 400, chunk=chunk)


@pytest.mark.parametrize("host", ["localhost:8080", "EXAMPLE.com", "127.0.0.1", "[::1]", "[2001:db8::1]:443", "a_b-c.d"])
def test_host_goes_on(gate, host):
    """S5: a good Host reaches the backend as the client wrote it."""
    seen, _ = gate.passes(upgrade_request(host=host))
    assert seen.all("Host") == [host]


def test_absolute_target_overrides_host(gate):
    """S5: of an absolute target the authority is the Host, and the rest the target (RFC 9112 3.2.2)."""
    seen, _ = gate.passes(upgrade_request("http://inner.example:81/p?q=1", host="outer.example"))
    assert seen.all("Host") == ["inner.example:81"] and seen.path == "/p?q=1"
    seen, _ = gate.passes(upgrade_request("ws://inner.example", host="outer.example"))
    assert seen.path == "/"


GOOD = upgrade_request()
BAD_HEADS = {
    "space before colon": GOOD.replace(b"Upgrade:", b"Upgrade :"),
    "tab before colon": GOOD.replace(b"Upgrade:", b"Upgrade\t:"),
    "obs-fold": GOOD.replace(b"Upgrade: websocket", b"Upgrade: web\r\n socket"),
    "obs-fold in the first field": GOOD.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\n X: y\r\n"),
    "bare CR in a value": GOOD.replace(b"websocket", b"web\rsocket"),
    "bare CR ends a line": GOOD.replace(b"websocket\r\n", b"websocket\r"),
    "LF ends a line": GOOD.replace(b"websocket\r\n", b"websocket\n"),
    "LF ends the request line": GOOD.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n"),
    "LF everywhere": GOOD.replace(b"\r\n", b"\n"),
    "LF ends the head": GOOD[:-2] + b"\n",
    "CR CR LF": GOOD.replace(b"websocket\r\n", b"websocket\r\r\n"),
    "NUL in a value": GOOD.replace(b"websocket", b"web\0socket"),
    "NUL in a name": GOOD.replace(b"Upgrade:", b"Upg\0rade:"),
    "NUL in the target": GOOD.replace(b"GET /", b"GET /\0"),
    "ESC in a value": GOOD.replace(b"websocket", b"web\x1bsocket"),
    "DEL in a value": GOOD.replace(b"websocket", b"web\x7fsocket"),
    "empty name": GOOD.replace(b"Upgrade:", b":"),
    "no colon": GOOD.replace(b"Upgrade: ", b"Upgrade"),
    "8-bit in a name": GOOD.replace(b"Upgrade:", b"Upgr\xe4de:"),
    "8-bit in the target": GOOD.replace(b"GET /", b"GET /\xe4"),
    "quote in a name": GOOD.replace(b"Upgrade:", b'"Upgrade":'),
    "empty line first": b"\r\n" + GOOD,
    "CRLF CR X": GOOD[:-2] + b"\rX",
    "two spaces in the request line": GOOD.replace(b"GET /", b"GET  /"),
    "space at the end of the request line": GOOD.replace(b"HTTP/1.1", b"HTTP/1.1 "),
    "tab in the request line": GOOD.replace(b"GET /", b"GET\t/"),
    "no target": GOOD.replace(b"GET / ", b"GET "),
    "no version": GOOD.replace(b" HTTP/1.1", b""),
    "lower-case version": GOOD.replace(b"HTTP/1.1", b"http/1.1"),
    "version with more": GOOD.replace(b"HTTP/1.1", b"HTTP/1.10"),
    "space in front of a name": GOOD.replace(b"Upgrade:", b" Upgrade:"),
    "CL and TE": with_fields(("Content-Length", "3"), ("Transfer-Encoding", "chunked")),
    "a TLS ClientHello": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "noise": bytes(range(256)),
}


@WHOLE_AND_BYTES
@pytest.mark.parametrize("name", BAD_HEADS)
def test_malformed_head(gate, name, chunk):
    """S6: what is not strictly HTTP/1.1 gets 400 and the end, in one piece and byte by byte."""
    statuses = (400, 505) if name == "version with more" else (400,)
    gate.refuses(BAD_HEADS[name], *statuses, chunk=chunk)


def test_head_that_never_ends(gate, sanitized):
    """S7: 431 comes at the limit while the client still sends, memory stays, and who goes on sending is cut off."""
    before = gate.proxy.anon()
    line = b"X-Y: %s\r\n" % (b"y" * 1000)
    for _ in range(2):
        with RawClient(gate.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + line * 16)
            client.send(line)
            assert client.read_head().status == 431
            wait_until("the end", lambda: not client.try_send(line))
    if not sanitized:
        assert gate.proxy.anon() - before < 1 << 20


@WHOLE_AND_BYTES
@pytest.mark.parametrize("size", [16400, 40000])
def test_head_too_large(gate, size, chunk):
    """S7: more than 16 KiB of head gets 431."""
    lines = [(f"X-{i}", "y" * 4000) for i in range(size // 4000 + 1)]
    gate.refuses(with_fields(*lines), 431, chunk=chunk)


def test_one_line_too_long(gate):
    """S7: a field of more than 8 KiB gets 431."""
    gate.refuses(with_fields(("X-Long", "y" * 9000)), 431)


@WHOLE_AND_BYTES
def test_number_of_fields(gate, chunk):
    """S7: 100 fields pass, 101 get 431."""
    ninety_five = [(f"X-{i}", "y") for i in range(95)]
    seen, _ = gate.passes(with_fields(*ninety_five), chunk)
    assert seen.all("X-94") == ["y"]
    gate.refuses(with_fields(*ninety_five, ("X-One", "more")), 431, chunk=chunk)


@WHOLE_AND_BYTES
def test_target_too_long(gate, chunk):
    """S7: 8 KiB of target pass, more gets 414."""
    seen, _ = gate.passes(upgrade_request("/" + "a" * 8000), chunk)
    assert seen.path == "/" + "a" * 8000
    gate.refuses(upgrade_request("/" + "a" * 8192), 414, chunk=chunk)


OURS = ["Sec-WebSocket-Key", "Sec-WebSocket-Version", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Host"]


@WHOLE_AND_BYTES
def test_connection_cannot_name_our_headers_away(gate, chunk):
    """S8: hop-by-hop removal spares what the handshake needs and what we vouch for; other names go."""
    connection = "Upgrade, X-Gone, " + ", ".join(OURS) + ", Sec-WebSocket-Protocol, Origin"
    request = with_fields(
        ("Connection", connection),
        ("X-Gone", "1"),
        ("X-Kept", "2"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("Sec-WebSocket-Protocol", "chat"),
        ("Keep-Alive", "5"),
        ("Proxy-Connection", "x"),
        ("TE", "trailers"),
        ("Trailer", "x"),
        drop=["Connection"],
    )
    seen, _ = gate.passes(request, chunk)
    for name in OURS:
        assert len(seen.all(name)) == 1, name
    assert seen.get("X-Forwarded-For") == "127.0.0.1"
    assert seen.get("Sec-WebSocket-Key") == KEY
    assert seen.get("Sec-WebSocket-Protocol") == "chat"
    assert seen.get("X-Kept") == "2"
    for name in ["X-Gone", "Keep-Alive", "Proxy-Connection", "TE", "Trailer"]:
        assert not seen.all(name), name


FORGED = [
    "X-Forwarded-For",
    "x-forwarded-for",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-User",
    "X-Real-IP",
    "Forwarded",
    "X_Forwarded_For",
    "X-Forwarded_For",
    "X_Real_IP",
    "x_forwarded_proto",
    "X_Forwarded_Anything",
]


@WHOLE_AND_BYTES
@pytest.mark.parametrize("name", FORGED)
def test_forged_identity_is_replaced(gate, name, chunk):
    """S9: identity headers of a client that nobody vouches for never reach the backend, in any spelling."""
    seen, _ = gate.passes(with_fields((name, "forged.example"), (name, "forged.example")), chunk)
    assert b"forged.example" not in seen.raw
    assert seen.all("X-Forwarded-For") == ["127.0.0.1"]
    assert seen.all("X-Forwarded-Host") == ["localhost"]
    assert seen.all("X-Forwarded-Proto") == ["http"]
    ours = {"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"}
    for field, _ in seen.fields:
        folded = field.lower().replace("_", "-")
        if folded.startswith(("x-forwarded", "x-real", "forwarded")):
            assert field.lower() in ours


ORIGINS = ["https://app.example", "https://app.example:8443", "null"]


@pytest.fixture(scope="module")
def origin_gate(start_module_proxy):
    gate = Gate.__new__(Gate)
    gate.backend = RawBackend(serve)
    gate.port = free_port()
    gate.proxy = start_module_proxy(ws_spec(gate.port, gate.backend.port, allowedOrigins=ORIGINS))
    yield gate
    gate.backend.close()


@WHOLE_AND_BYTES
@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://app.example",
        "https://app.example:444",
        "https://app.example.evil.example",
        "https://xapp.example",
        "https://app.example/",
        "app.example",
        "",
        "https://app.example https://evil.example",
        "file://",
    ],
)
def test_foreign_origin(origin_gate, origin, chunk):
    """S10: an Origin outside the list gets 403, and no backend is dialled."""
    origin_gate.refuses(with_fields(("Origin", origin)), 403, 400, chunk=chunk)


def test_two_origins(origin_gate):
    """S10: a second Origin does not ride along with an allowed one."""
    origin_gate.refuses(with_fields(("Origin", ORIGINS[0]), ("Origin", "https://evil.example")), 400, 403)


@WHOLE_AND_BYTES
@pytest.mark.parametrize("origin", ORIGINS + ["HTTPS://App.Example"])
def test_listed_origin(origin_gate, origin, chunk):
    """S10: a listed Origin passes, and reaches the backend unchanged."""
    seen, _ = origin_gate.passes(with_fields(("Origin", origin)), chunk)
    assert seen.all("Origin") == [origin]


def test_no_origin_and_no_list(gate, origin_gate):
    """S10: what sends no Origin is no browser and passes; without a list every Origin passes unchanged."""
    seen, _ = origin_gate.passes(GOOD)
    assert not seen.all("Origin")
    seen, _ = gate.passes(with_fields(("Origin", "https://any.example")))
    assert seen.all("Origin") == ["https://any.example"]


@WHOLE_AND_BYTES
@pytest.mark.parametrize(
    "target",
    [
        "/a%0d%0aX:%20y",
        "/%00",
        "/..;/admin",
        "//evil.example/x",
        "///",
        "/a/../b/./c",
        "/%2e%2e/x",
        "/?",
        "/?a=b&c=%20",
        "/a?b?c",
        "/a;b=c",
        "/%zz",
        "/~!$&'()*+,;=:@",
        "/a\\b",
        "/{}|^`<>\"",
    ],
)
def test_target_goes_on_as_it_is(gate, target, chunk):
    """S11: a target reaches the backend byte for byte, or is refused; never decoded or tidied."""
    since = len(gate.proxy.logs)
    with RawClient(gate.port) as client:
        answer = client.answer(upgrade_request(target), chunk)
        if answer.status == 400:
            assert set(target) & set("\\{}|^`<>\""), "a target of valid characters was refused"
            return
        assert answer.status == 101
        line = gate.proxy.wait_log(event="open", since=since, client="%s:%d" % client.addr)
    request = next(c.request for c in reversed(gate.backend.conns) if c.request)
    assert request.start == f"GET {target} HTTP/1.1"
    assert line["path"] == target.split("?")[0], "a query stays out of the log: tokens stand there"


@WHOLE_AND_BYTES
@pytest.mark.parametrize("target", ["/a b", "/a#b", "#", "/#", "a/b", "*", "", "localhost:80", "ftp://a/b", "http:///x", "?a", "http://a b/", "http://u@a/"])
def test_target_that_is_none(gate, target, chunk):
    """S11: raw spaces, fragments and forms that are none get 400."""
    gate.refuses(GOOD.replace(b"GET / ", b"GET " + target.encode() + b" "), 400, chunk=chunk)


EARLY = {
    "a frame": frames.frame(frames.TEXT, b"early", mask=b"mask"),
    "a second request": GOOD,
    "both": frames.frame(frames.PING, b"", mask=True) + GOOD,
    "200 KB": frames.frame(frames.BINARY, bytes(200_000), mask=b"abcd"),
}


@WHOLE_AND_BYTES
@pytest.mark.parametrize("early", [k for k in EARLY if k != "200 KB"])
def test_early_bytes_wait(start_proxy, early, chunk):
    """S12: what comes before the 101 stays away from the backend until the 101 has been verified."""
    port = free_port()
    with RawBackend(manual) as backend:
        start_proxy(ws_spec(port, backend.port))
        with RawClient(port) as client:
            client.send(GOOD + EARLY[early], chunk)
            conn = backend.accept()
            conn.read_request()
            conn.expect_nothing(0.2)
            conn.send(head("HTTP/1.1 101 Switching Protocols", [("Upgrade", "websocket"), ("Connection", "Upgrade")]))
            rest = conn.read_until_gone()  # no Accept: refused
            assert rest == b""
            client.expect_refusal(client.read_head(), 502)


@WHOLE_AND_BYTES
def test_early_frame_arrives_after_the_101(start_proxy, chunk):
    """S12: early frames are delivered, in order and whole, once the tunnel is open."""
    port = free_port()
    with RawBackend(manual) as backend:
        start_proxy(ws_spec(port, backend.port))
        early = EARLY["a frame"] + frames.frame(frames.TEXT, b"second", mask=b"1234")
        with RawClient(port) as client:
            client.send(GOOD + early, chunk)
            conn = backend.accept()
            conn.read_request()
            conn.expect_nothing(0.1)
            conn.answer_101()
            assert client.read_head().status == 101
            late = client.send_frame(frames.TEXT, "late")
            assert conn.read_exactly(len(early + late)) == early + late


def test_much_early_data_waits_in_the_kernel(start_proxy, sanitized):
    """S12, S28: early bytes are bounded: what is more waits outside, and nothing is lost."""
    port = free_port()
    early = b"".join(frames.frame(frames.BINARY, bytes([i]) * 200_000, mask=b"abcd") for i in range(4))
    with RawBackend(manual) as backend:
        proxy = start_proxy(ws_spec(port, backend.port))
        with RawClient(port, sndbuf=4 << 20) as client:
            before = proxy.anon()
            client.send(GOOD + early)
            conn = backend.accept()
            conn.read_request()
            conn.expect_nothing(0.2)
            if not sanitized:
                assert proxy.anon() - before < 400_000
            conn.answer_101()
            assert conn.read_exactly(len(early)) == early


@pytest.mark.parametrize("early", EARLY)
def test_early_bytes_are_dropped_on_a_refusal(start_proxy, early):
    """S12: when the backend refuses, early bytes go nowhere and the connection ends: no second request is served."""
    port = free_port()
    with RawBackend(manual) as backend:
        start_proxy(ws_spec(port, backend.port))
        with RawClient(port) as client:
            client.send(GOOD)
            conn = backend.accept()
            conn.read_request()
            client.try_send(EARLY[early])
            conn.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
            assert conn.read_until_gone() == b""
            answer = client.read_head()
            assert answer.status == 403 and client.read_exactly(2) == b"no"
            client.expect_gone()
        assert len(backend.conns) == 1
