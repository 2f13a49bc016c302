"""Several backends behind one server: shares by weight, the next one on a failure, an empty list, and S47 of the bars
(--deny-local-backends)."""

import contextlib
import json
import socket
import time

import pytest

from support.backend import RawBackend, echo, echo_as, serve, server_context
from support.blackhole import BlackHole
from support.client import RawClient
from support.http1 import upgrade_request
from support.need import cannot_run
from support.proxy import free_port, run_proxy
from support.site import enter, talk
from support.spec import ws_spec
from support.wait import wait_until

DENY = ["--deny-local-backends"]


def url(port, host="127.0.0.1", scheme="ws"):
    return f"{scheme}://{host}:{port}"


@contextlib.contextmanager
def echoes(count, **kw):
    """Backends whose 101 says X-Backend: 0, 1, ..."""
    with contextlib.ExitStack() as parts:
        yield [parts.enter_context(RawBackend(echo_as(str(i)), **kw)) for i in range(count)]


def chosen(port, **kw):
    """Which of the echoes a new client is brought to."""
    client, answer = enter(port, **kw)
    with client:
        talk(client)
        return answer.get("X-Backend")


def refused(port, status=502):
    """A client that is refused: the answer and the line that it is told."""
    with RawClient(port) as client:
        answer = client.answer(upgrade_request())
        return answer, client.expect_refusal(answer, status)


def own_address():
    """An IPv4 address of this machine that is not local in the sense of S47; what is sent to it stays here."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))  # UDP: nothing is sent
        except OSError:
            cannot_run("no address but loopback")
        address = s.getsockname()[0]
    if address.startswith(("127.", "169.254.")):
        cannot_run("no address but loopback")
    return address


# shares


@pytest.mark.parametrize("weights", [[None, None], [3, 1, 1], [1, 5, 2], [7]], ids=str)
def test_shares_are_exact(start_proxy, weights):
    """Of as many handshakes as the weights add up to, each backend gets its weight, time after time."""
    port, total = free_port(), sum(w or 1 for w in weights)
    with echoes(len(weights)) as backends:
        items = [{"url": url(b.port), **({"weight": w} if w else {})} for b, w in zip(backends, weights)]
        start_proxy(ws_spec(port, backends=items))
        got = [chosen(port) for _ in range(4 * total)]
    for start in range(0, len(got), total):
        for i, weight in enumerate(weights):
            assert got[start : start + total].count(str(i)) == (weight or 1), got


def test_shares_are_spread(start_proxy):
    """The heavy one's turns do not come in one row."""
    port = free_port()
    with echoes(3) as backends:
        start_proxy(ws_spec(port, backends=[{"url": url(b.port), "weight": w} for b, w in zip(backends, [5, 1, 1])]))
        got = "".join(chosen(port) for _ in range(14))
    assert "0000" not in got[:7] and got[:7] == got[7:]


def test_weight_0_waits_until_no_other_can_be_dialled(start_proxy):
    """It is dialled when all others fail, and only then."""
    port = free_port()
    with RawBackend(echo_as("spare")) as spare:
        with echoes(2) as backends:
            items = [{"url": url(spare.port), "weight": 0}] + [{"url": url(b.port)} for b in backends]
            start_proxy(ws_spec(port, backends=items))
            assert {chosen(port) for _ in range(10)} == {"0", "1"}
            assert not spare.conns
        assert [chosen(port) for _ in range(4)] == ["spare"] * 4


def test_only_weights_of_0_take_turns(start_proxy):
    """A list of nothing but spares is a list of equals."""
    port = free_port()
    with echoes(2) as backends:
        start_proxy(ws_spec(port, backends=[{"url": url(b.port), "weight": 0} for b in backends]))
        got = [chosen(port) for _ in range(6)]
    assert got.count("0") == got.count("1") == 3


def test_log_names_the_backend_of_each_connection(start_proxy):
    """The open line has the address that was chosen."""
    port = free_port()
    with echoes(2) as backends:
        proxy = start_proxy(ws_spec(port, backends=[{"url": url(b.port)} for b in backends]))
        for _ in range(2):
            since = len(proxy.logs)
            which = int(chosen(port))
            line = proxy.wait_log(event="open", since=since)
            assert line["backend"] == f"127.0.0.1:{backends[which].port}"


@pytest.mark.parametrize("count, shown", [(0, None), (1, "ws://b0.example"), (3, "ws://b0.example and 2 more")], ids=str)
def test_live_page_shows_the_first_and_how_many_more(start_proxy, count, shown):
    """What the page is fed as a server's backend."""
    items = [{"url": f"ws://b{i}.example"} for i in range(count)]
    proxy = start_proxy(ws_spec(free_port(), backends=items), admin=True)
    with RawClient(proxy.admin_port) as client:
        client.handshake("/feed", host=f"127.0.0.1:{proxy.admin_port}")
        assert [s["backend"] for s in json.loads(client.read_frame().payload)["servers"]] == [shown]


# failures


def test_refused_backend_is_passed_over(start_proxy):
    """No client notices, and the log says which one was passed over and why."""
    port, dead = free_port(), free_port()
    with echoes(1) as backends:
        proxy = start_proxy(ws_spec(port, backends=[{"url": url(dead)}, {"url": url(backends[0].port)}]))
        assert [chosen(port) for _ in range(6)] == ["0"] * 6
        assert len(backends[0].conns) == 6
        line = proxy.wait_log(event="next")
        assert f"127.0.0.1:{dead}" in line["why"] and "refused" in line["why"] and line["server"] == "test"
        assert len(proxy.logged("next")) == 3, "every second one had the dead backend first"


def test_backend_that_never_answers_the_connect_is_passed_over(start_proxy):
    """It costs timeouts.connect, and the client is served."""
    hole, port = BlackHole(), free_port()
    assert hole.swallows()
    with echoes(1) as backends:
        items = [{"url": url(hole.port)}, {"url": url(backends[0].port)}]
        start_proxy(ws_spec(port, backends=items, timeouts={"connect": "400ms"}))
        start = time.monotonic()
        assert chosen(port) == "0"
        assert 0.3 < time.monotonic() - start < 2.5
    hole.close()


def test_backend_with_a_wrong_certificate_is_passed_over(start_proxy, certs):
    """The request goes to the one whose certificate holds; the other sees no byte of it, and each is tried once."""
    port = free_port()
    with RawBackend(echo, tls=server_context(certs.other_server)) as wrong, RawBackend(
        echo_as("right"), tls=server_context(certs.server)
    ) as right:
        items = [{"url": url(b.port, scheme="wss")} for b in (wrong, right)]
        proxy = start_proxy(ws_spec(port, backends=items, backendTLS={"caBase64": certs.b64(certs.ca.cert)}))
        assert [chosen(port) for _ in range(4)] == ["right"] * 4
        assert "certificate" in proxy.wait_log(event="next")["why"]
        assert len(wrong.conns) == 2 and not any(conn.received for conn in wrong.conns)


def test_plain_backend_behind_wss_is_passed_over(start_proxy, certs):
    """What is no TLS at all is no different, and wss and ws may stand in one list."""
    port = free_port()
    with RawBackend(lambda conn: conn.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as plain, echoes(1) as backends:
        items = [{"url": url(plain.port, scheme="wss")}, {"url": url(backends[0].port)}]
        start_proxy(ws_spec(port, backends=items, backendTLS={"caBase64": certs.b64(certs.ca.cert)}))
        assert [chosen(port) for _ in range(4)] == ["0"] * 4
        assert len(plain.conns) == 2


def test_name_that_does_not_resolve_is_passed_over(start_with_dns, dns):
    """Neither a name that is not there nor one that is answered late keeps the next backend from its turn."""
    port = free_port()
    dns.answers["mute.test"] = "silent"
    dns.answers["here.test"] = ["127.0.0.1"]
    with echoes(1) as backends:
        items = [{"url": url(9, "gone.test")}, {"url": url(9, "mute.test")}, {"url": url(backends[0].port, "here.test")}]
        proxy = start_with_dns(ws_spec(port, backends=items, timeouts={"connect": "500ms"}))
        assert chosen(port) == "0"
        whys = [line["why"] for line in proxy.logged("next")]
        assert len(whys) == 2 and "gone.test" in whys[0] and "mute.test" in whys[1]


def test_each_backend_is_tried_once_and_then_it_is_a_502(start_proxy, certs):
    """All fail: one attempt at each, a 502, and the reason of the last in the log only."""
    port = free_port()
    with contextlib.ExitStack() as parts:
        wrong = [parts.enter_context(RawBackend(echo, tls=server_context(certs.other_server))) for _ in range(5)]
        items = [{"url": url(b.port, scheme="wss"), "weight": i} for i, b in enumerate(wrong)]
        proxy = start_proxy(ws_spec(port, backends=items, backendTLS={"caBase64": certs.b64(certs.ca.cert)}))
        said = refused(port)[1]
        line = proxy.wait_log(event="refuse")
        assert [len(b.conns) for b in wrong] == [1] * 5
        assert len(proxy.logged("next")) == 4
        assert line["status"] == 502 and str(wrong[0].port) in line["why"], "the spare came last"
        assert "127.0.0.1" not in said


def test_many_dead_backends_are_all_tried(start_proxy):
    """As many as a list may have: 255 refused ones, and the last one serves."""
    port = free_port()
    with echoes(1) as backends:
        items = [{"url": url(9, f"127.0.{i}.7")} for i in range(255)] + [{"url": url(backends[0].port), "weight": 0}]
        start_proxy(ws_spec(port, backends=items), log_level="warn", timeout=0)
        wait_until("the port", lambda: _opens(port))
        assert chosen(port) == "0"


def _opens(port):
    try:
        RawClient(port).close()
        return True
    except OSError:
        return False


def test_answer_of_a_backend_is_final(start_proxy):
    """Once the request is sent its answer counts, be it a 503 or none at all: nobody else is asked."""
    port = free_port()

    def busy(conn):
        conn.read_request()
        conn.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    def hang_up(conn):
        conn.read_request()
        conn.close()

    with RawBackend(busy) as first, RawBackend(hang_up) as second:
        start_proxy(ws_spec(port, backends=[{"url": url(first.port)}, {"url": url(second.port)}]))
        with RawClient(port) as client:
            assert client.answer(upgrade_request()).status == 503
        assert (len(first.conns), len(second.conns)) == (1, 0)
        refused(port)
        assert (len(first.conns), len(second.conns)) == (1, 1)


# no backend at all


def test_empty_list_is_a_503(start_proxy):
    """backends: [] serves: 503, when to come again, and why in the log; a bad request is still a bad request."""
    port = free_port()
    proxy = start_proxy(ws_spec(port, backends=[], backendTLS={"serverName": "chat.default.svc"}))
    answer, said = refused(port, 503)
    assert answer.get("Retry-After") == "5" and "backend" in said
    line = proxy.wait_log(event="refuse")
    assert (line["status"], line["by"], line["why"]) == (503, "gateway", "no backend") and "backend" not in line
    with RawClient(port) as client:
        client.expect_refusal(client.answer(upgrade_request(drop=["Upgrade"])), 426)


def test_one_of_two_keys_is_required(tmp_path):
    """backend and backends exclude each other, and one of them must be there."""
    path = tmp_path / "spec.yaml"
    head = "kind: WebSocketServer\nname: a\nport: 1234\n"
    for text, code in [("backend: ws://b\n", 0), ("backends: []\n", 0), ("backends:\n", 1), ("", 1),
                       ("backend: ws://b\nbackends: []\n", 1)]:  # fmt: skip
        path.write_text(head + text)
        done = run_proxy("--check", "--config", str(path))
        assert done.returncode == code and ("backend" in done.stderr) == bool(code)


# what the chosen one is sent


def test_keep_host_false_sends_what_belongs_to_the_chosen_one(start_proxy):
    """Its `host` as it stands, else the host and port of its URL."""
    port = free_port()
    with echoes(3) as backends:
        hosts = ["chat.default.svc", "Chat.Example:8080", None]
        items = [{"url": url(b.port), **({"host": h} if h else {})} for b, h in zip(backends, hosts)]
        start_proxy(ws_spec(port, backends=items, headers={"keepHost": False}))
        for _ in range(3):
            chosen(port)
        sent = [b.conns[0].request.get("Host") for b in backends]
    assert sent == ["chat.default.svc", "chat.example:8080", f"127.0.0.1:{backends[2].port}"]


def test_keep_host_passes_the_clients(start_proxy):
    """Without keepHost: false `host` is not sent to anybody."""
    port = free_port()
    with echoes(1) as backends:
        start_proxy(ws_spec(port, backends=[{"url": url(backends[0].port), "host": "other.example"}]))
        chosen(port)
        assert backends[0].conns[0].request.get("Host") == "localhost"


def names_asked(backend):
    asked = []
    backend.tls.sni_callback = lambda _sock, name, _context: asked.append(name)
    return asked


@pytest.mark.parametrize("given", [None, "localhost"], ids=["host", "serverName"])
def test_tls_name_is_that_of_the_chosen_one(start_proxy, certs, given):
    """SNI is the host of its URL (an address is none), or backendTLS.serverName for all."""
    port, tls = free_port(), {"caBase64": certs.b64(certs.ca.cert), **({"serverName": given} if given else {})}
    with RawBackend(echo_as("0"), tls=server_context(certs.server)) as named, RawBackend(
        echo_as("1"), tls=server_context(certs.server)
    ) as bare:
        asked = names_asked(named), names_asked(bare)
        items = [{"url": url(named.port, "localhost", "wss")}, {"url": url(bare.port, scheme="wss")}]
        start_proxy(ws_spec(port, backends=items, backendTLS=tls))
        assert {chosen(port) for _ in range(2)} == {"0", "1"}
    assert asked == (["localhost"], [given])


def test_session_of_one_backend_is_not_offered_to_another(start_proxy, certs):
    """S42: a resumed handshake checks no certificate, so a session is good for its backend's name alone."""
    pair, port = certs.make_server("only_a_name", ["localhost"]), free_port()
    context = server_context(pair)  # both backends could resume each other's sessions
    with RawBackend(echo_as("0"), tls=context) as named, RawBackend(echo_as("1"), tls=context) as bare:
        items = [{"url": url(named.port, "localhost", "wss")}, {"url": url(bare.port, scheme="wss")}]
        start_proxy(ws_spec(port, backends=items, backendTLS={"caBase64": certs.b64(certs.ca.cert)}))
        assert [chosen(port) for _ in range(4)] == ["0"] * 4
        assert [c.tls.session_reused for c in named.conns] == [False, True, True, True]
        assert len(bare.conns) == 2 and not any(conn.received for conn in bare.conns)


# reload


def test_new_list_closes_nothing(start_proxy, run_dir):
    """A connection stays with its backend when the list loses it, or all; new ones follow the new list."""
    port = free_port()
    with echoes(3) as backends:
        one = [{"url": url(backends[0].port)}, {"url": url(backends[1].port)}]
        two = [{"url": url(backends[2].port)}]
        proxy = start_proxy(ws_spec(port, backends=one), run_dir=run_dir)
        held = [enter(port)[0] for _ in range(4)]
        for items in (two, [], one[:1]):
            proxy.apply(ws_spec(port, backends=items))
            if items == two:
                assert {chosen(port) for _ in range(4)} == {"2"}
            elif not items:
                refused(port, 503)
            else:
                assert {chosen(port) for _ in range(4)} == {"0"}
            for client in held:
                talk(client)
        proxy.apply(ws_spec(port, backends[2].port))
        assert chosen(port) == "2", "from a list to one and back is a change like any other"
        for client in held:
            talk(client)
            client.close()


def test_dial_goes_on_elsewhere_when_the_list_loses_its_backend(start_proxy, run_dir):
    """Whoever waits for an address that is gone is brought to one that is there, or told that there is none; and who waits for
    one that is still in the list is left alone."""
    hole, port = BlackHole(), free_port()
    assert hole.swallows()
    slow = {"timeouts": {"connect": "20s"}}
    with echoes(1) as backends, contextlib.ExitStack() as clients:

        def dialling():
            client = clients.enter_context(RawClient(port))
            client.send(upgrade_request())
            return client

        proxy = start_proxy(ws_spec(port, backends=[{"url": url(hole.port)}], **slow), run_dir=run_dir)
        moved = dialling()
        with pytest.raises(TimeoutError):
            moved.read_head(0.3)
        proxy.apply(ws_spec(port, backends=[{"url": url(hole.port)}], headers={"set": {"X-Edit": "1"}}, **slow))
        with pytest.raises(TimeoutError):
            moved.read_head(0.3)
        assert not proxy.logged("next")
        proxy.apply(ws_spec(port, backends[0].port, **slow))
        assert moved.read_head(5).get("X-Backend") == "0"
        talk(moved)
        assert "no longer there" in proxy.wait_log(event="next")["why"]
        proxy.apply(ws_spec(port, backends=[{"url": url(hole.port)}], **slow))
        told = dialling()
        with pytest.raises(TimeoutError):
            told.read_head(0.3)
        proxy.apply(ws_spec(port, backends=[], **slow))
        assert told.read_head(5).status == 503
        talk(moved)
    hole.close()


def test_weights_alone_are_a_change(start_proxy, run_dir):
    """The same URLs with other weights share anew."""
    port = free_port()
    with echoes(2) as backends:

        def items(*weights):
            return [{"url": url(b.port), "weight": w} for b, w in zip(backends, weights)]

        proxy = start_proxy(ws_spec(port, backends=items(1, 0)), run_dir=run_dir)
        assert {chosen(port) for _ in range(4)} == {"0"}
        proxy.apply(ws_spec(port, backends=items(0, 1)))
        assert {chosen(port) for _ in range(4)} == {"1"}


# S47


def assert_denied(proxy, port, address):
    """A 502 that says nothing of it to the client; the log names address and flag."""
    since = len(proxy.logs)
    said = refused(port)[1]
    line = proxy.wait_log(event="refuse", since=since)
    assert address in line["why"] and "--deny-local-backends" in line["why"], line
    assert address not in said and "deny" not in said and "local" not in said


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "0.0.0.0", "localhost", "[::1]", "[::]", "[::ffff:127.0.0.1]",
                                  "[::ffff:7f00:1]", "[::127.0.0.1]"])  # fmt: skip
def test_local_backend_is_denied(start_proxy, host):
    """S47: with --deny-local-backends no way of writing loopback is dialled; without it each of them may be."""
    port = free_port()
    with contextlib.ExitStack() as parts:
        backend = parts.enter_context(RawBackend(serve, host="0.0.0.0"))
        with contextlib.suppress(OSError):
            parts.enter_context(RawBackend(serve, host="::1", port=backend.port))
        proxy = start_proxy(ws_spec(port, backend=url(backend.port, host)), args=DENY)
        assert_denied(proxy, port, str(backend.port))
        assert not backend.conns
    with RawBackend(serve, host="0.0.0.0") as backend:
        if host in ("127.0.0.1", "127.9.9.9", "[::ffff:127.0.0.1]"):
            start_proxy(ws_spec(port := free_port(), backend=url(backend.port, host)))
            with RawClient(port) as client:
                client.handshake()


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "[::ffff:169.254.169.254]",
                                  "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "100.100.100.200", "168.63.129.16",
                                  "[fd20:ce::254]"])  # fmt: skip
def test_metadata_address_is_denied(start_proxy, host):
    """S47: nor what clouds answer their machines' credentials at."""
    port = free_port()
    proxy = start_proxy(ws_spec(port, backend=url(80, host)), args=DENY)
    assert_denied(proxy, port, ":80")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254"])
def test_name_that_leads_to_a_local_address_is_denied(start_with_dns, dns, address):
    """S47: what counts is what is dialled, whatever the name looks like."""
    dns.answers["innocent.test"] = [address]
    port = free_port()
    with RawBackend(serve) as backend:
        proxy = start_with_dns(ws_spec(port, backend=url(backend.port, "innocent.test")), args=DENY)
        assert_denied(proxy, port, str(backend.port))
        assert not backend.conns


def test_name_that_comes_to_lead_to_a_local_address_is_denied(start_with_dns, dns):
    """S47: a name that was good yesterday (DNS rebinding) is judged anew at each dial."""
    address, port = own_address(), free_port()
    dns.answers["turncoat.test"] = [address]
    dns.ttl = 0
    with RawBackend(serve, host="0.0.0.0") as backend:
        proxy = start_with_dns(ws_spec(port, backend=url(backend.port, "turncoat.test")), args=DENY)
        with RawClient(port) as client:
            client.handshake()
        dns.answers["turncoat.test"] = ["127.0.0.1"]

        def denied():
            with RawClient(port) as client:
                return client.answer(upgrade_request()).status == 502

        wait_until("the new answer", denied, timeout=8, step=0.1)
        assert_denied(proxy, port, f"127.0.0.1:{backend.port}")


def test_next_backend_is_tried_after_a_denied_one(start_with_dns, dns):
    """S47: a denied address is a failure like another: other addresses of the name and other backends serve."""
    address, port = own_address(), free_port()
    dns.answers["both.test"] = ["127.0.0.1", address]
    with RawBackend(echo_as("0"), host=address) as backend:
        items = [{"url": url(backend.port)}, {"url": url(backend.port, address)}]
        proxy = start_with_dns(ws_spec(port, backends=items), args=DENY)
        assert [chosen(port) for _ in range(4)] == ["0"] * 4
        assert "--deny-local-backends" in proxy.wait_log(event="next")["why"]
        proxy.replace(ws_spec(port, backend=url(backend.port, "both.test")))
        proxy.hup()
        wait_until("the name", lambda: chosen(port) == "0" and dns.asked("both.test"))
        assert chosen(port) == "0"


def test_connect_may_go_where_it_is_told(start_proxy):
    """--connect is a person's own, and nothing is denied to it."""
    with RawBackend(echo) as backend:
        done = run_proxy("--connect", url(backend.port), "--deny-local-backends")
    assert done.returncode == 0, done.stderr
