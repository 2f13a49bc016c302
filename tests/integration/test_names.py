"""Names of backends: S38 of the bars.

The proxy asks the test's own DNS server: it runs in a mount namespace in which /etc/resolv.conf and /etc/hosts are
the test's."""

import threading
import time

import pytest

from support.backend import RawBackend, serve
from support.blackhole import BlackHole
from support.client import RawClient
from support.http1 import upgrade_request
from support.need import cannot_run
from support.proxy import free_port
from support.spec import ws_spec
from support.wait import wait_until

def ask(port, timeout=10.0):
    """The status that a client gets, and how long it took."""
    with RawClient(port, timeout=timeout) as client:
        start = time.monotonic()
        answer = client.answer(upgrade_request())
        if answer.status != 101:
            client.expect_refusal(answer, answer.status)
        return answer.status, time.monotonic() - start


def test_name_resolves(start_with_dns, dns):
    """S38: a name is looked up, and its address dialled."""
    dns.answers["backend.test"] = ["127.0.0.1"]
    port = free_port()
    with RawBackend(serve) as backend:
        proxy = start_with_dns(ws_spec(port, backend=f"ws://backend.test:{backend.port}"))
        assert ask(port)[0] == 101
        assert backend.conns[-1].request.get("Host") == "localhost"
        assert proxy.wait_log(event="open")["backend"] == f"127.0.0.1:{backend.port}"


@pytest.mark.parametrize("host, status", [("chat", 101), ("db.payments", 502)])
def test_the_search_list_is_for_bare_names(start_with_dns, dns, host, status):
    """S47: in a pod the search list would lead a name with a dot to a Service of another namespace."""
    dns.answers[f"{host}.tidegate.test"] = ["127.0.0.1"]
    port = free_port()
    with RawBackend(serve) as backend:
        start_with_dns(ws_spec(port, backend=f"ws://{host}:{backend.port}"))
        assert ask(port)[0] == status
    asked = {name for name, _ in dns.queries}
    assert (f"{host}.tidegate.test" in asked) == (status == 101), asked


def test_hosts_file_counts(start_with_dns, dns):
    """S38: localhost is what /etc/hosts says, whatever DNS would answer."""
    dns.answers["localhost"] = ["127.9.9.9"]
    port = free_port()
    with RawBackend(serve) as backend:
        start_with_dns(ws_spec(port, backend=f"ws://localhost:{backend.port}"))
        assert ask(port)[0] == 101


@pytest.mark.parametrize("answer", ["nxdomain", "servfail", []], ids=["nxdomain", "servfail", "no address"])
def test_name_that_does_not_resolve(start_with_dns, dns, answer):
    """S38: no such name, a failing server, a name without addresses: 502 or 503, soon."""
    dns.answers["gone.test"] = answer
    port = free_port()
    proxy = start_with_dns(ws_spec(port, backend="ws://gone.test:9"))
    for _ in range(3):
        status, took = ask(port)
        assert status in (502, 503) and took < 6
    line = proxy.wait_log(event="refuse")
    assert line["status"] in (502, 503) and line["why"]


def test_dns_that_is_silent(start_with_dns, dns):
    """S38: no answer is a 502 to 504 in bounded time, and the loop serves others meanwhile."""
    dns.answers["slow.test"] = "silent"
    slow_port, port = free_port(), free_port()
    with RawBackend(serve) as backend:
        spec = ws_spec(slow_port, backend="ws://slow.test:9", name="slow", timeouts={"handshake": "10s", "connect": "2s"})
        start_with_dns(spec + "---\n" + ws_spec(port, backend.port))
        results = []
        waiting = [threading.Thread(target=lambda: results.append(ask(slow_port, 15)), daemon=True) for _ in range(5)]
        for thread in waiting:
            thread.start()
        wait_until("the question", lambda: dns.asked("slow.test"))
        for _ in range(50):
            status, took = ask(port)
            assert status == 101 and took < 0.5, "the loop was blocked"
        for thread in waiting:
            thread.join(15)
        assert len(results) == 5
        for status, took in results:
            assert status in (502, 503, 504) and took < 12


def test_dns_that_is_not_there(start_with_dns, dns):
    """S38: a refused port 53 is no different."""
    dns.stop()
    port = free_port()
    start_with_dns(ws_spec(port, backend="ws://backend.test:9"))
    status, took = ask(port, 15)
    assert status in (502, 503, 504) and took < 12


@pytest.mark.parametrize("trouble", ["nxdomain", "servfail", "silent", []], ids=["nxdomain", "servfail", "silent", "no address"])
def test_last_good_address_is_kept(start_with_dns, dns, trouble):
    """S38: a name that stops resolving keeps its last good address."""
    dns.answers["backend.test"] = ["127.0.0.1"]
    dns.ttl = 0
    port = free_port()
    with RawBackend(serve) as backend:
        start_with_dns(ws_spec(port, backend=f"ws://backend.test:{backend.port}"))
        assert ask(port)[0] == 101
        asked = dns.asked("backend.test")
        dns.answers["backend.test"] = trouble

        def asked_again():
            assert ask(port)[0] == 101
            return dns.asked("backend.test") > asked

        wait_until("a second question", asked_again, timeout=10, step=0.1)
        for _ in range(5):
            status, took = ask(port)
            assert status == 101
        assert took < 0.5, "the failure is not asked for anew by each connection"


def test_new_address_is_taken(start_with_dns, dns):
    """S38: when the answer changes the new address is dialled, once the old answer's time is over."""
    dns.answers["backend.test"] = ["127.0.0.1"]
    port = free_port()
    with RawBackend(serve) as old, RawBackend(serve, host="127.0.0.2", port=old.port) as new:
        start_with_dns(ws_spec(port, backend=f"ws://backend.test:{old.port}"))
        assert ask(port)[0] == 101
        assert len(old.conns) == 1
        dns.answers["backend.test"] = ["127.0.0.2"]

        def moved():
            assert ask(port)[0] == 101
            return len(new.conns) > 0

        wait_until("the new address", moved, timeout=8, step=0.1)


def test_every_address_is_tried(start_with_dns, dns):
    """S37, S38: refused and black addresses are passed over; the client notices nothing but time."""
    hole = BlackHole("127.0.0.4")
    dns.answers["backend.test"] = ["127.0.0.2", "127.0.0.4", "127.0.0.3", "127.0.0.1"]
    port = free_port()
    with RawBackend(serve, port=hole.port) as backend:
        assert hole.swallows()
        start_with_dns(ws_spec(port, backend=f"ws://backend.test:{backend.port}", timeouts={"connect": "500ms"}))
        for _ in range(4):  # in whatever order they come
            status, took = ask(port)
            assert status == 101 and took < 2.5
        assert len(backend.conns) == 4
    hole.close()


def test_no_address_is_left(start_with_dns, dns):
    """S37: with all addresses refused it is a 502."""
    dns.answers["refused.test"] = ["127.0.0.2", "127.0.0.3"]
    port = free_port()
    start_with_dns(ws_spec(port, backend=f"ws://refused.test:{free_port()}"))
    assert ask(port)[0] == 502


def test_ipv6_address_of_a_name(start_with_dns, dns):
    """S38: AAAA answers are dialled too, alone and beside A."""
    try:
        backend = RawBackend(serve, host="::1")
    except OSError:
        cannot_run("no IPv6 loopback")
    dns.answers["six.test"] = ["::1"]
    dns.answers["both.test"] = ["::1", "127.0.0.1"]
    one, two = free_port(), free_port()
    with backend:
        spec = ws_spec(one, backend=f"ws://six.test:{backend.port}", name="a")
        proxy = start_with_dns(spec + "---\n" + ws_spec(two, backend=f"ws://both.test:{backend.port}", name="b"))
        assert ask(one)[0] == 101
        assert proxy.wait_log(event="open")["backend"] == f"[::1]:{backend.port}"
        assert ask(two)[0] == 101


def test_one_family_silent(start_with_dns, dns):
    """S38: a DNS server that never answers AAAA costs time, not the connection."""
    dns.answers["backend.test"] = lambda name, kind: ["127.0.0.1"] if kind == 1 else "silent"
    port = free_port()
    with RawBackend(serve) as backend:
        start_with_dns(ws_spec(port, backend=f"ws://backend.test:{backend.port}"))
        status, took = ask(port, 12)
        assert status == 101 and took < 8


def test_client_leaves_while_the_name_is_looked_up(start_with_dns, dns):
    """S38: a client that goes meanwhile leaves nothing behind, and the answer for it harms nothing."""
    dns.answers["slow.test"] = "silent"
    port = free_port()
    proxy = start_with_dns(ws_spec(port, backend="ws://slow.test:9"))
    before = proxy.fds()
    for i in range(10):
        client = RawClient(port)
        client.send(upgrade_request())
        wait_until("the question", lambda: dns.asked("slow.test"))
        client.rst() if i % 2 else client.close()
    wait_until("the sockets to be closed", lambda: proxy.fds() <= before + 2, timeout=8)
    assert proxy.alive()
