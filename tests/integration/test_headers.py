"""What the backend is told about a request, and what it is not: S8 to S10 of the bars, and design 3 "Headers"."""

import contextlib

import pytest

from support.backend import RawBackend
from support.gate import Gate
from support.http1 import upgrade_request
from support.need import cannot_run

WHOLE_AND_BYTES = pytest.mark.parametrize("chunk", [None, 1], ids=["whole", "bytes"])
TRUSTED = ["127.0.0.0/8", "::1/128"]
FROM_V4_AND_V6 = pytest.mark.parametrize("address", ["127.0.0.1", "::1"])


def seen_of(gate, *fields, address="127.0.0.1", chunk=None, **kw):
    """The head that the backend gets to see for a handshake with these fields."""
    with gate.client(host=address) as client:
        client.send(upgrade_request(headers=fields, **kw), chunk)
        with gate.backend.accept() as conn:
            request = conn.read_request()
            conn.answer_101()
            answer = client.read_head()
            assert answer.status == 101, answer.raw
            return request


# X-Forwarded-*


@FROM_V4_AND_V6
@WHOLE_AND_BYTES
@pytest.mark.parametrize("trusted", [None, [], ["10.0.0.0/8", "fd00::/8", "127.0.0.2", "::2"]], ids=["none", "empty", "others"])
def test_stranger_is_named_by_its_address(start_proxy, trusted, address, chunk):
    """S9: what a peer outside trustedProxies says about itself is replaced by what the proxy sees of it."""
    spec = {} if trusted is None else {"trustedProxies": trusted}
    forged = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-For", "7.7.7.7"),
        ("X-Forwarded-Host", "forged.example"),
        ("X-Forwarded-Proto", "forged"),
        ("X-Forwarded-Port", "forged"),
        ("X-Real-IP", "forged"),
        ("Forwarded", "for=forged"),
        ("X_Forwarded_For", "forged"),
        ("X_Real-IP", "forged"),
        ("x_forwarded_host", "forged"),
    ]
    with Gate(start_proxy, **spec) as gate:
        seen = seen_of(gate, *forged, address=address, chunk=chunk, host="chat.example:8443")
    assert seen.all("X-Forwarded-For") == [address]
    assert seen.all("X-Forwarded-Host") == ["chat.example:8443"]
    assert seen.all("X-Forwarded-Proto") == ["http"]
    assert b"forged" not in seen.raw and b"6.6.6.6" not in seen.raw and b"7.7.7.7" not in seen.raw


def test_tls_is_told(start_proxy, certs):
    """S9: the scheme is that of the leg to the client, whatever the client or the other leg say."""
    with Gate(start_proxy, certs=certs) as gate:
        assert seen_of(gate, ("X-Forwarded-Proto", "http")).all("X-Forwarded-Proto") == ["https"]
    with Gate(start_proxy, backend_certs=certs) as gate:
        assert seen_of(gate, ("X-Forwarded-Proto", "https")).all("X-Forwarded-Proto") == ["http"]


@FROM_V4_AND_V6
@WHOLE_AND_BYTES
def test_trusted_peer_is_believed(start_proxy, address, chunk):
    """S9: what a trusted proxy in front says is kept, and its own address put at the end."""
    said = [
        ("X-Forwarded-For", "203.0.113.7"),
        ("X-Forwarded-For", "10.1.2.3, 10.1.2.4"),
        ("X-Forwarded-Host", "outside.example"),
        ("X-Forwarded-Proto", "https"),
        ("X-Real-IP", "203.0.113.7"),
        ("Forwarded", "for=203.0.113.7"),
    ]
    with Gate(start_proxy, trustedProxies=TRUSTED) as gate:
        seen = seen_of(gate, *said, address=address, chunk=chunk)
    assert seen.all("X-Forwarded-For") == [f"203.0.113.7, 10.1.2.3, 10.1.2.4, {address}"]
    assert seen.all("X-Forwarded-Host") == ["outside.example"]
    assert seen.all("X-Forwarded-Proto") == ["https"]
    assert seen.all("X-Real-IP") == ["203.0.113.7"]
    assert seen.all("Forwarded") == ["for=203.0.113.7"]


@FROM_V4_AND_V6
def test_trusted_peer_that_says_nothing(start_proxy, address):
    """S9: what a trusted peer leaves out is filled in."""
    with Gate(start_proxy, trustedProxies=TRUSTED) as gate:
        seen = seen_of(gate, address=address, host="chat.example")
    assert seen.all("X-Forwarded-For") == [address]
    assert seen.all("X-Forwarded-Host") == ["chat.example"]
    assert seen.all("X-Forwarded-Proto") == ["http"]


@pytest.mark.parametrize("name", ["X_Forwarded_For", "X-Forwarded_For", "x_forwarded_host", "X_Forwarded-Proto"])
def test_underscores_are_not_believed_from_anyone(start_proxy, name):
    """S9: a trusted proxy sets the real names; another spelling beside them is one that it let through."""
    with Gate(start_proxy, trustedProxies=TRUSTED) as gate:
        seen = seen_of(gate, (name, "forged"))
    assert b"forged" not in seen.raw


@pytest.mark.parametrize("trusted", [[], TRUSTED], ids=["stranger", "trusted"])
def test_connection_cannot_name_them_away(start_proxy, trusted):
    """S8: Connection removes neither the address that we vouch for nor what a trusted proxy said."""
    names = "X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, X-Real-IP, Forwarded, Host, Origin"
    fields = [
        ("Connection", "Upgrade, " + names),
        ("X-Forwarded-For", "203.0.113.7"),
        ("X-Real-IP", "203.0.113.7"),
        ("Origin", "https://app.example"),
    ]
    with Gate(start_proxy, trustedProxies=trusted) as gate:
        seen = seen_of(gate, *fields, drop=["Connection"])
    assert seen.all("X-Forwarded-For") == ["203.0.113.7, 127.0.0.1" if trusted else "127.0.0.1"]
    assert seen.all("X-Real-IP") == (["203.0.113.7"] if trusted else [])
    assert seen.all("Origin") == ["https://app.example"]
    for name in ("X-Forwarded-Host", "X-Forwarded-Proto", "Host"):
        assert len(seen.all(name)) == 1, name


# Host


@pytest.mark.parametrize("spec", [{}, {"headers": {}}, {"headers": {"keepHost": True}}], ids=["absent", "empty", "true"])
def test_host_is_kept(start_proxy, spec):
    """Unless told otherwise the backend sees the client's Host."""
    with Gate(start_proxy, **spec) as gate:
        assert seen_of(gate, host="chat.example:8443").all("Host") == ["chat.example:8443"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_host_of_the_backend(start_proxy, host):
    """keepHost false: the backend's host:port as the spec writes it; the client's goes into X-Forwarded-Host."""
    with RawBackend(lambda conn: conn.answer_101(), host=host.strip("[]")) as backend:
        url = f"ws://{host}:{backend.port}/ignored?path"
        with Gate(start_proxy, backend=url, headers={"keepHost": False}) as gate:
            with gate.client() as client:
                client.handshake("/asked?for=1", host="chat.example:8443")
        seen = backend.accept().request
    assert seen.all("Host") == [f"{host}:{backend.port}"]
    assert seen.all("X-Forwarded-Host") == ["chat.example:8443"]
    assert seen.path == "/asked?for=1"


def test_host_of_the_backend_without_the_usual_port(start_proxy):
    """keepHost false: port 80 of a ws backend is left out."""
    try:
        backend = RawBackend(lambda conn: conn.answer_101(), host="127.0.0.77", port=80)
    except OSError as e:
        cannot_run(f"port 80 of 127.0.0.77 cannot be had: {e}")
    for url in ("ws://127.0.0.77", "ws://127.0.0.77:80"):
        with Gate(start_proxy, backend=url, headers={"keepHost": False}) as gate:
            with gate.client() as client:
                client.handshake()
            assert backend.accept().request.all("Host") == ["127.0.0.77"]
    backend.close()


# set and remove


@WHOLE_AND_BYTES
def test_set_and_remove(start_proxy, chunk):
    """What the spec sets stands once, with its value, whatever the client sent; what it removes is gone."""
    headers = {
        "set": {"X-Tenant": "blue", "Authorization": "Basic c2VjcmV0", "X-Empty": "", "X-Quoted": 'a "b" \\ c: d, e'},
        "remove": ["Cookie", "X-Debug"],
    }
    sent = [
        ("x-tenant", "forged"),
        ("X_Tenant", "forged"),
        ("AUTHORIZATION", "forged"),
        ("X-Empty", "forged"),
        ("Cookie", "forged"),
        ("cookie", "forged"),
        ("X_debug", "forged"),
        ("X-Debugger", "stays"),
        ("X-Tenants", "stay"),
    ]
    with Gate(start_proxy, headers=headers) as gate:
        seen = seen_of(gate, *sent, chunk=chunk)
    assert b"forged" not in seen.raw
    for name, value in headers["set"].items():
        assert seen.all(name) == [value], name
    assert not seen.all("Cookie") and not seen.all("X-Debug")
    assert seen.get("X-Debugger") == "stays" and seen.get("X-Tenants") == "stay"


def test_connection_cannot_name_away_what_the_spec_sets(start_proxy):
    """S8: neither the value of the spec nor the client's own gets past by way of Connection."""
    with Gate(start_proxy, headers={"set": {"X-Tenant": "blue"}}) as gate:
        seen = seen_of(gate, ("Connection", "X-Tenant, Upgrade"), ("X-Tenant", "red"), drop=["Connection"])
    assert seen.all("X-Tenant") == ["blue"]


# hop by hop


@WHOLE_AND_BYTES
def test_hop_by_hop_fields_stay_behind(start_proxy, chunk):
    """S4, S8: hop-by-hop fields and those named in any Connection field are for the proxy only; the rest goes on in
    order, byte for byte."""
    sent = [
        ("X-First", "1"),
        ("Connection", "keep-alive, x-gone"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("TE", "trailers"),
        ("Trailer", "X-Late"),
        ("HTTP2-Settings", "AAMAAABk"),
        ("X-Gone", "a"),
        ("X-GONE", "b"),
        ("Connection", ", Upgrade,X-Also-Gone ,"),
        ("X-Also-Gone", "c"),
        ("x-Odd_Case", "two  spaces; \"quoted, x\"; \xe9"),
        ("Cookie", "a=1"),
        ("Cookie", "b=2"),
        ("X-Last", ""),
    ]
    with Gate(start_proxy) as gate:
        seen = seen_of(gate, *sent, chunk=chunk, drop=["Connection"])
    for name in ("Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "TE", "Trailer", "HTTP2-Settings", "X-Gone", "X-Also-Gone"):
        assert not seen.all(name), name
    assert seen.all("Connection") == ["Upgrade"] and seen.all("Upgrade") == ["websocket"]
    kept = [f for f in seen.fields if f[0] in ("X-First", "x-Odd_Case", "Cookie", "X-Last")]
    assert kept == [("X-First", "1"), sent[12], ("Cookie", "a=1"), ("Cookie", "b=2"), ("X-Last", "")]


def test_hop_by_hop_fields_of_the_backend_stay_behind(start_proxy):
    """S13, S15: of a 101 too; the rest of its fields reaches the client in order."""
    answer = [
        ("Set-Cookie", "a=1"),
        ("Keep-Alive", "timeout=5"),
        ("X-Gone", "1"),
        ("Set-Cookie", "b=2"),
        ("Connection", "Upgrade, X-Gone"),
    ]
    with Gate(start_proxy) as gate, gate.client() as client:
        client.send(upgrade_request())
        with gate.backend.accept() as conn:
            conn.answer_101(headers=answer, drop=["Connection"])
            head = client.read_head()
    assert head.status == 101 and head.all("Connection") == ["Upgrade"]
    assert head.all("Set-Cookie") == ["a=1", "b=2"]
    assert not head.all("X-Gone") and not head.all("Keep-Alive")


# origins


@WHOLE_AND_BYTES
def test_origin_outside_the_list(start_proxy, chunk):
    """S10: 403 with a reason, one log line, and no backend is dialled."""
    with Gate(start_proxy, allowedOrigins=["https://app.example"]) as gate:
        for origin in ("https://evil.example", "https://app.example.evil.example", "http://app.example", "null"):
            with gate.client() as client:
                answer = client.answer(upgrade_request(headers=[("Origin", origin)]), chunk)
                assert "Origin" in client.expect_refusal(answer, 403)
                line = gate.line("refuse", client)
                assert line["status"] == 403 and line["by"] == "gateway" and "Origin" in line["why"]
        assert not gate.backend.conns
        assert seen_of(gate, ("Origin", "https://app.example")).all("Origin") == ["https://app.example"]


def test_origins_are_each_servers_own(start_proxy):
    """S10: the list of one server says nothing about another one."""
    with contextlib.ExitStack() as stack:
        strict = stack.enter_context(Gate(start_proxy, allowedOrigins=["https://app.example"]))
        free = stack.enter_context(Gate(start_proxy))
        assert seen_of(free, ("Origin", "https://evil.example")).all("Origin") == ["https://evil.example"]
        with strict.client() as client:
            client.handshake(headers=[("Origin", "https://evil.example")], expect=403)
