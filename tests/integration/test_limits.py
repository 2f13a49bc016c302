"""Admission: what is refused with 503 while there is no room, and what it leaves alone. S31 and S33 (memory)."""

import contextlib
import functools
import os
import select
import signal
import threading
import time

import pytest

from support.backend import RawBackend, serve
from support.cgroup import MemoryCgroup
from support.client import RawClient
from support.frames import TEXT
from support.gate import Gate
from support.http1 import head, upgrade_request
from support.proxy import free_port
from support.spec import ws_spec
from support.wait import wait_until

from conftest import starter

# How many workers the proxy runs with.
WORKERS = [1, 2]
EVERY_WORKERS = pytest.mark.parametrize("workers", WORKERS)

FULL = "the server has reached its limit of connections"
FULL_FOR_ADDRESS = "your address has reached its limit of connections"
TOO_FAST = "the server has reached its limit of new connections a second"
GATEWAY_FULL = "the gateway has reached its limit of connections"
NO_MEMORY = "the gateway is short of memory"


class Door:
    """A gate before a backend that takes everyone, and clients that knock."""

    def __init__(self, start, workers=1, *, spec=None, run_dir=None, **kw):
        self.held = []
        start = functools.partial(start, admin=True, run_dir=run_dir)
        self.gate = Gate(start, serve, args=["--workers", str(workers)], **kw, **(spec or {}))
        self.proxy = self.gate.proxy

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for client in self.held:
            client.close()
        self.gate.close()

    def knock(self, headers=(), **kw):
        """A client and what it was answered."""
        client = self.gate.client(**kw)
        self.held.append(client)
        return client, client.answer(upgrade_request(headers=headers))

    def enter(self, **kw):
        client, answer = self.knock(**kw)
        assert answer.status == 101, answer.raw
        return client

    def refused(self, said, why, retry_after, **kw):
        """The next one gets a whole 503 that says so, and the log a line that names the limit."""
        client, answer = self.knock(**kw)
        assert client.expect_refusal(answer, 503) == said + "\n"
        assert answer.get("Retry-After") == str(retry_after)
        line = self.gate.line("refuse", client)
        assert (line["status"], line["by"], line["why"]) == (503, "gateway", why)

    def limited(self, limit):
        """How often that limit was the reason, as /metrics has it."""
        return self.proxy.metric("tidegate_limited_total", server="test", limit=limit)

    def relays(self, client):
        """Does a message of this client reach the backend?"""
        before = sum(len(conn.received) for conn in self.gate.backend.conns)
        raw = client.send_frame(TEXT, "still here")
        wait_until("the message", lambda: sum(len(c.received) for c in self.gate.backend.conns) >= before + len(raw))

    def enter_again(self, **kw):
        """Lets clients in as soon as there is room: an end takes a moment to be counted."""
        return wait_until("room", lambda: self._try(**kw))

    def _try(self, **kw):
        client, answer = self.knock(**kw)
        return client if answer.status == 101 else None


@EVERY_WORKERS
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_connections_over_the_limit_get_503(start_proxy, certs, workers, tls):
    """S31: maxConnections: the next one gets 503, on TLS too, those that stand go on, and an end makes room for one."""
    with Door(start_proxy, workers, certs=certs if tls else None, spec={"limits": {"maxConnections": 4}}) as door:
        inside = [door.enter() for _ in range(4)]
        for _ in range(2):
            door.refused(FULL, "limits.maxConnections: 4", 5)
        for client in inside:
            door.relays(client)
        assert len(door.gate.backend.conns) == 4, "a refused client was dialled through"
        assert door.limited("max_connections") == 2
        inside.pop().close()
        inside.append(door.enter_again())
        door.refused(FULL, "limits.maxConnections: 4", 5)
        for client in inside:
            door.relays(client)


@EVERY_WORKERS
def test_handshakes_under_way_are_counted(start_proxy, workers):
    """S31: the backend sees no more than the limit at once, although none of them has been answered yet."""
    with Door(start_proxy, workers, spec={"limits": {"maxConnections": 3}}) as door:
        door.gate.backend.script = lambda conn: None  # answers nobody
        waiting = [door.gate.client() for _ in range(3)]
        for client in waiting:
            client.send(upgrade_request())
        conns = [door.gate.backend.accept() for _ in range(3)]
        door.refused(FULL, "limits.maxConnections: 3", 5)
        for conn in conns:
            conn.read_request()
        # two leave before they are answered
        waiting[0].close()
        waiting[1].close()
        door.gate.backend.script = serve
        door.enter_again()
        door.enter_again()
        door.refused(FULL, "limits.maxConnections: 3", 5)
        waiting[2].close()


@EVERY_WORKERS
def test_a_refused_handshake_gives_its_place_back_at_once(start_proxy, workers):
    """S31: whom the backend turned down, or could not be reached for, holds no place, however long he stays on the line."""
    with Door(start_proxy, workers, spec={"limits": {"maxConnections": 1, "maxConnectionsPerIP": 1}}) as door:
        door.gate.backend.script = lambda conn: conn.close()
        assert door.knock()[1].status == 502
        door.gate.backend.script = turn_down
        assert door.knock()[1].status == 401
        door.gate.backend.script = serve
        door.enter()
        door.refused(FULL, "limits.maxConnections: 1", 5)


def turn_down(conn):
    """A backend that wants to know who it is."""
    conn.read_request()
    conn.send(head("HTTP/1.1 401 No", [("Content-Length", "0")]))


@EVERY_WORKERS
def test_a_crowd_at_once_never_passes_the_limit(start_proxy, workers):
    """S31: 60 at once before a limit of 10: never more than 10 at the backend, and all 10 places can be taken."""
    with Door(start_proxy, workers, spec={"limits": {"maxConnections": 10}}) as door:
        clients = [door.gate.client() for _ in range(60)]
        threads = [threading.Thread(target=c.send, args=(upgrade_request(),)) for c in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        answers = [c.read_head().status for c in clients]
        assert set(answers) == {101, 503}
        assert answers.count(101) <= 10 and len(door.gate.backend.conns) == answers.count(101)
        # two that come for the last place in the same moment may both be refused; one alone gets it
        for _ in range(10 - answers.count(101)):
            door.enter()
        door.refused(FULL, "limits.maxConnections: 10", 5)
        for client in clients:
            client.close()


@EVERY_WORKERS
def test_one_server_does_not_use_up_another_ones_places(start_proxy, workers):
    """S31: limits are each server's own; no limit is none."""
    with RawBackend(serve) as backend, contextlib.ExitStack() as stack:
        ports = [free_port() for _ in range(3)]
        limits = [{"maxConnections": 1}, {"maxConnections": 2}, {}]
        specs = [ws_spec(p, backend.port, name=f"s{p}", limits=limit) for p, limit in zip(ports, limits)]
        start_proxy("---\n".join(specs), args=["--workers", str(workers)])
        for port, room in zip(ports, (1, 2, 5)):
            for _ in range(room):
                stack.enter_context(RawClient(port)).handshake()
        for port, status in zip(ports, (503, 503, 101)):
            stack.enter_context(RawClient(port)).handshake(expect=status)


@EVERY_WORKERS
def test_an_address_over_its_limit_gets_503(start_proxy, workers):
    """S31: maxConnectionsPerIP: by peer, IPv4 whole; another address still gets in."""
    with Door(start_proxy, workers, spec={"limits": {"maxConnectionsPerIP": 2}}) as door:
        why = "limits.maxConnectionsPerIP: 2 for 127.0.0.1"
        first = [door.enter(), door.enter()]
        door.refused(FULL_FOR_ADDRESS, why, 5)
        # from anyone but a trusted proxy, X-Forwarded-For says nothing
        door.refused(FULL_FOR_ADDRESS, why, 5, headers=[("X-Forwarded-For", "203.0.113.9")])
        door.enter(host="::1")
        assert door.limited("max_connections_per_ip") == 2
        for client in first:
            door.relays(client)
        first.pop().close()
        door.enter_again()
        door.refused(FULL_FOR_ADDRESS, why, 5)


@EVERY_WORKERS
def test_behind_a_trusted_proxy_the_forwarded_address_counts(start_proxy, workers):
    """S31: with trustedProxies it is the last address of X-Forwarded-For that is not trusted; IPv6 by its /64."""
    spec = {"limits": {"maxConnectionsPerIP": 1}, "trustedProxies": ["127.0.0.0/8", "10.0.0.0/8"]}

    def of(*addresses):
        return [("X-Forwarded-For", a) for a in addresses]

    with Door(start_proxy, workers, spec=spec) as door:

        def refused(address, *fields):
            door.refused(FULL_FOR_ADDRESS, f"limits.maxConnectionsPerIP: 1 for {address}", 5, headers=of(*fields))

        first = door.enter(headers=of("203.0.113.1"))
        refused("203.0.113.1", "203.0.113.1")
        refused("203.0.113.1", "198.51.100.7, 203.0.113.1, 10.9.9.9")
        refused("203.0.113.1", "198.51.100.7, 203.0.113.1", "10.9.9.9")
        door.enter(headers=of("203.0.113.1, 203.0.113.2"))
        door.enter(headers=of("2001:db8:0:1::1"))
        refused("2001:db8:0:1:ffff::2", "2001:db8:0:1:ffff::2")
        door.enter(headers=of("2001:db8:0:2::1"))
        first.close()
        door.enter_again(headers=of("203.0.113.1"))


@EVERY_WORKERS
def test_handshakes_have_a_pace(start_proxy, workers):
    """S31: handshakesPerSecond: a second's worth at once, then 503 with Retry-After: 1, then one more at a time."""
    with Door(start_proxy, workers, spec={"limits": {"handshakesPerSecond": 2}}) as door:
        start = time.monotonic()
        inside = [door.enter(), door.enter()]
        door.refused(TOO_FAST, "limits.handshakesPerSecond: 2", 1)
        assert door.limited("handshakes_per_second") == 1
        inside.append(door.enter_again())
        inside.append(door.enter_again())
        took = time.monotonic() - start
        assert 0.95 < took < 4, took
        for client in inside:
            door.relays(client)
        # connections that stand do not count: only the opening of new ones does
        assert len(door.gate.backend.conns) == 4


@EVERY_WORKERS
def test_descriptors_are_a_ceiling(start_proxy, workers):
    """S31: a worker takes only as many tunnels as its descriptors allow, and has some left to say so."""
    with Door(start_proxy, workers, wrap=["prlimit", "--nofile=80:80"]) as door:
        inside = []
        while True:
            client, answer = door.knock()
            if answer.status == 503:
                break
            inside.append(client)
            assert len(inside) < 40 * workers, "there is no ceiling"
        assert client.expect_refusal(answer, 503) == GATEWAY_FULL + "\n"
        assert answer.get("Retry-After") == "5"
        why = door.gate.line("refuse", client)["why"]
        assert why.startswith("connections that this worker's descriptors allow: ")
        assert len(inside) >= 15
        if workers == 1:
            assert why.endswith(f": {len(inside)}")
            for _ in range(20):
                door.refused(GATEWAY_FULL, why, 5)
        assert door.limited("descriptors") >= 1
        for client in inside:
            door.relays(client)
        inside.pop().close()
        inside.append(door.enter_again())


@EVERY_WORKERS
def test_a_reload_changes_limits_for_new_connections(start_proxy, tmp_path, workers):
    """S31: a lower limit closes nobody and lets nobody in until enough have left; a higher one has room at once."""
    with Door(start_proxy, workers, spec={"limits": {"maxConnections": 3}}, run_dir=tmp_path) as door:

        def set_limit(count):
            door.proxy.apply(ws_spec(door.gate.port, door.gate.backend.port, limits={"maxConnections": count}))

        inside = [door.enter() for _ in range(3)]
        set_limit(2)
        door.refused(FULL, "limits.maxConnections: 2", 5)
        for client in inside:
            door.relays(client)
        inside.pop().close()
        wait_until("its end", lambda: door.proxy.metric("tidegate_connections", server="test") == 2)
        door.refused(FULL, "limits.maxConnections: 2", 5)
        set_limit(3)
        door.enter()
        door.refused(FULL, "limits.maxConnections: 3", 5)
        set_limit(0)
        for _ in range(3):
            door.enter()


def test_a_dead_worker_gives_its_places_back(start_proxy):
    """S31: what a killed worker had counted is free again, in all and by address, and not a place more."""
    with Door(start_proxy, 2, spec={"limits": {"maxConnections": 16, "maxConnectionsPerIP": 12}}) as door:
        inside = [door.enter() for _ in range(12)]
        others = [door.enter(host="::1") for _ in range(4)]
        door.refused(FULL, "limits.maxConnections: 16", 5)
        dead = door.proxy.workers()[0]
        os.kill(dead, signal.SIGKILL)
        wait_until("its end", lambda: dead not in door.proxy.workers())
        lost = select.select([c.sock for c in inside + others], [], [], 0.5)[0]
        assert 0 < len(lost) < 16, "one worker had them all"
        lost_others = sum(c.sock in lost for c in others)
        for _ in range(len(lost) - lost_others):
            door.enter_again()
        if lost_others:
            door.refused(FULL_FOR_ADDRESS, "limits.maxConnectionsPerIP: 12 for 127.0.0.1", 5)
        for _ in range(lost_others):
            door.enter_again(host="::1")
        door.refused(FULL, "limits.maxConnections: 16", 5)
        for client in inside + others:
            if client.sock not in lost:
                door.relays(client)


def test_ports_take_from_the_ceiling(start_proxy, tmp_path):
    """S31: listening sockets are counted in: with many of them there are still descriptors left for answers."""
    ports = [free_port() for _ in range(40)]
    with RawBackend(serve) as backend, contextlib.ExitStack() as stack:
        specs = [ws_spec(p, backend.port, name=f"s{p}") for p in ports]
        proxy = start_proxy("---\n".join(specs[:10]), wrap=["prlimit", "--nofile=100:100"], run_dir=tmp_path)
        proxy.apply("---\n".join(specs))
        answers = []
        while 503 not in answers:
            client = stack.enter_context(RawClient(ports[len(answers) % 40]))
            answers.append(client.answer(upgrade_request()).status)
        assert 10 <= answers.count(101) <= 20, answers
        assert not proxy.logged("accept")


def test_no_descriptor_is_left_for_the_backend(start_proxy):
    """S31: connections that never ask for anything took them all: 503 with Retry-After, and no 502."""
    with Door(start_proxy, wrap=["prlimit", "--nofile=64:64"]) as door:
        silent = [door.gate.client() for _ in range(64)]
        wait_until("all descriptors in use", lambda: door.proxy.fds() >= 63)
        answer = silent[0].answer(upgrade_request())
        silent[0].expect_refusal(answer, 503)
        assert answer.get("Retry-After") == "5"
        assert "Too many open files" in door.gate.line("refuse", silent[0])["why"]
        for client in silent:
            client.close()


# S33: memory


@pytest.fixture
def memory():
    cgroup = MemoryCgroup(128 << 20)
    yield cgroup
    cgroup.remove()


@pytest.fixture
def start_inside(memory, tmp_path):
    """start_proxy for a proxy inside that cgroup: ended before the cgroup is."""
    with starter(tmp_path) as start:
        yield start


@EVERY_WORKERS
def test_short_of_memory_nobody_new_gets_in(start_inside, memory, workers):
    """S33: from 95 % of the cgroup's memory on 503; those that stand go on; below 93 % all is well again."""
    with Door(start_inside, workers, wrap=memory.wrap()) as door:
        inside = [door.enter() for _ in range(3)]
        memory.fill(94)
        inside.append(door.enter())
        memory.fill(96.5)
        wait_until("refusals", lambda: door.knock()[1].status == 503)
        door.refused(NO_MEMORY, "memory is short", 5)
        for client in inside:
            door.relays(client)
        memory.fill(90)
        door.enter_again()
        # a limit that is lifted is no limit
        memory.fill(96.5)
        wait_until("refusals", lambda: door.knock()[1].status == 503)
        (memory.path / "memory.limit_in_bytes").write_text("-1")
        door.enter_again()
        assert door.limited("memory") >= 2
        assert not door.proxy.logged("close", reason=NO_MEMORY)


@EVERY_WORKERS
def test_very_short_of_memory_idle_connections_go(start_inside, memory, workers):
    """S33: from 98 % on, connections on which nothing came for 10 s get Close 1001, 16 a second; others stay."""
    with Door(start_inside, workers, wrap=memory.wrap()) as door:
        idle = [door.enter() for _ in range(20)]
        busy = [door.enter() for _ in range(3)]
        start = time.monotonic()
        memory.fill(98.6)

        def told():
            for client in busy:
                client.send_frame(TEXT, "busy")
            return len(select.select([c.sock for c in idle], [], [], 0.05)[0])

        wait_until("the first Closes", lambda: told() >= 16, 20)
        took = time.monotonic() - start
        assert took > 9, f"closed after {took} s"
        assert workers > 1 or told() == 16, "more than 16 at once"
        wait_until("all of them", lambda: told() == 20, 5)
        for client in idle:
            assert client.expect_close(1001).reason == NO_MEMORY
            client.send_close(1001)
            client.half_close()
        assert door.limited("memory") == 20
        line = door.gate.close_line(idle[0])
        assert (line["code"], line["initiator"], line["reason"]) == (1001, "gateway", NO_MEMORY)
        for client in busy:
            door.relays(client)
