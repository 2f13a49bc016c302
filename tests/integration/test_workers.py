"""Several workers, and what becomes of connections when one of them, or the master, dies or stands still."""

import os
import signal
import threading
import time

import pytest

from support.backend import RawBackend, echo
from support.client import RawClient
from support.frames import TEXT
from support.hold import Hold
from support.http1 import upgrade_request
from support.peer import Eof
from support.proxy import free_port, revision_of
from support.shims import MallocFailures
from support.site import Site, documents, enter, talk
from support.spec import ws_spec
from support.wait import wait_until

TWO = ["--workers", "2"]


def pairs_of(proxy, pid, idle_fds):
    """How many connections a worker has: two sockets each."""
    return (proxy.fds(pid) - idle_fds) / 2


def state(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rpartition(")")[2].split()[0]


def stand_still(pid):
    os.kill(pid, signal.SIGSTOP)
    wait_until("it to stand still", lambda: state(pid) == "T")


def test_workers_share_new_connections(start_proxy, run_dir):
    """Of 400 connections each of two workers gets a third at least, and both serve the same spec."""
    with Site(start_proxy, run_dir, args=TWO, count=1) as site:
        first, second = site.proxy.workers()
        idle = [site.proxy.fds(pid) for pid in (first, second)]
        with Hold(site.port, 400) as crowd:
            counts = [pairs_of(site.proxy, pid, n) for pid, n in zip((first, second), idle)]
            assert sum(counts) == 400 and min(counts) > 400 / 3, counts
            crowd.check()
            assert site.proxy.wait_status("the count", lambda s: s["servers"][0]["connections"] == 401, 12)
        port = free_port()
        site.apply(ws_spec(port, site.echo.port, name="new"))
        for _ in range(20):
            enter(port)[0].close()


def test_workers_auto_is_what_the_cpus_allow(start_proxy, run_dir):
    """--workers auto: one a core that this container may use, and at least one."""
    with RawBackend(echo) as backend:
        proxy = start_proxy(ws_spec(free_port(), backend.port), run_dir=run_dir, args=["--workers", "auto"])
        assert 1 <= len(proxy.workers()) <= len(os.sched_getaffinity(0))


def test_killed_worker_costs_its_own_connections_only(start_proxy, run_dir):
    """S57: kill -9: its sibling's sockets and the listener go on, another one is there within a second, and the counts
    are right at once."""
    with Site(start_proxy, run_dir, args=TWO, count=200, admin=True) as site:
        first, second = site.proxy.workers()
        before = site.crowd.fresh()
        os.kill(first, signal.SIGKILL)
        start = time.monotonic()
        after = site.crowd.wait("cut ones", lambda r: r["cut"] > 0, after=len(site.crowd.reports))
        after = site.crowd.fresh()
        assert 50 < after["cut"] < 150 and after["open"] == 200 - after["cut"]
        assert (after["errors"], after["closes"]) == (0, {}), after
        wait_until("a new worker", lambda: len(site.proxy.workers()) == 2 and first not in site.proxy.workers(), 1)
        assert second in site.proxy.workers() and time.monotonic() - start < 3
        assert site.proxy.metric("tidegate_connections", server="still") == after["open"]
        for _ in range(40):
            with enter(site.port)[0] as client:
                talk(client)
        again = site.crowd.fresh()
        assert (again["open"], again["errors"], again["overdue"]) == (after["open"], 0, 0)
        assert again["echoes"] > before["echoes"]
        site.crowd.finish()


@pytest.mark.parametrize("workers", [1, 2])
def test_queued_connections_survive_a_killed_worker(start_proxy, run_dir, workers):
    """S57: what a worker has not accepted yet is served by the one that comes after it: nothing is reset."""
    with Site(start_proxy, run_dir, args=["--workers", str(workers)], count=1) as site:
        victim = site.proxy.workers()[0]
        stand_still(victim)
        clients = [RawClient(site.port) for _ in range(60)]
        for client in clients:
            client.send(upgrade_request())
        if workers == 1:
            site.crowd.finish()
        os.kill(victim, signal.SIGKILL)
        for client in clients:
            assert client.read_head().status == 101
            talk(client)
            client.close()
        site.crowd.finish()


def test_kill_under_a_connect_load(start_proxy, run_dir):
    """S57: while others connect without pause, a killed worker resets no more than what it had accepted."""
    with Site(start_proxy, run_dir, args=TWO, count=1) as site:
        failures, done, stop = [], [0], threading.Event()

        def load():
            while not stop.is_set():
                stage = "connect"
                try:
                    with RawClient(site.port) as client:
                        stage = "handshake"
                        client.handshake()
                        stage = "open"
                        talk(client)
                        done[0] += 1
                except (OSError, Eof) as e:
                    failures.append((stage, repr(e)))

        threads = [threading.Thread(target=load, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            count = done[0]
            wait_until("load", lambda: done[0] > count + 50)
            os.kill(site.proxy.workers()[0], signal.SIGKILL)
            wait_until("two workers", lambda: len(site.proxy.workers()) == 2)
        stop.set()
        for thread in threads:
            thread.join(10)
        # one in flight a thread: that much may have been accepted
        assert len(failures) <= 5 * len(threads) and not [f for f in failures if f[0] == "connect"], failures
        site.crowd.finish()


def test_worker_that_dies_again_and_again(start_proxy, run_dir):
    """S57: started at once, then with a pause of a second at most: no storm of starts; left alone, it serves."""
    with Site(start_proxy, run_dir, args=TWO, count=60) as site:
        stays = site.proxy.workers()[1]
        killed, start = set(), time.monotonic()
        while time.monotonic() - start < 3:
            for pid in site.proxy.workers():
                if pid != stays:
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        assert 3 <= len(killed) <= 12, len(killed)
        wait_until("another one", lambda: len(site.proxy.workers()) == 2, 1.5)
        for _ in range(20):
            with enter(site.port)[0] as client:
                talk(client)
        report = site.crowd.fresh()
        assert report["open"] > 10 and report["errors"] == 0 and report["overdue"] == 0
        site.crowd.finish()


def test_readyz_says_no_while_no_worker_lives(start_proxy, run_dir):
    """One death is none of a probe's business; workers that all die again and again are, until they live."""
    with RawBackend(echo) as backend:
        proxy = start_proxy(ws_spec(free_port(), backend.port), run_dir=run_dir, args=TWO, admin=True)
        os.kill(proxy.workers()[0], signal.SIGKILL)
        assert proxy.get("/readyz")[0] == 200

        def killed_and_not_ready():
            for pid in proxy.workers():
                os.kill(pid, signal.SIGKILL)
            return proxy.get("/readyz")[0] == 503

        wait_until("503", killed_and_not_ready, 10)
        wait_until("200", lambda: proxy.get("/readyz")[0] == 200, 5)
        assert len(proxy.workers()) == 2


def test_worker_started_again_has_the_spec_of_the_others(start_proxy, run_dir):
    """A respawned worker starts from what is served, not from the file: the file is garbage by then."""
    with Site(start_proxy, run_dir, count=1) as site:
        port = free_port()
        site.apply(ws_spec(port, site.echo.port, name="new"))
        site.proxy.apply("[", wait=False)
        site.proxy.wait_status("refused", lambda s: s["seen"]["result"] == "refused")
        old = site.proxy.worker
        os.kill(old, signal.SIGKILL)
        wait_until("another one", lambda: site.proxy.workers() and site.proxy.workers() != [old])
        for p in (port, site.port):
            with enter(p)[0] as client:
                talk(client)
        site.crowd.finish()


def test_silent_worker_is_replaced(start_proxy, run_dir):
    """A worker that stands still for 10 s is killed and replaced; its sibling serves meanwhile, and a reload waits for
    it: the revision moves once the new one has applied it."""
    with Site(start_proxy, run_dir, args=TWO, count=60) as site:
        first, second = site.proxy.workers()
        stand_still(first)
        start = time.monotonic()
        port = free_port()
        revision = site.apply(ws_spec(port, site.echo.port, name="new"), wait=False)
        site.proxy.wait_seen(revision)
        assert site.proxy.status()["revision"] != revision
        wait_until("it to be killed", lambda: first not in site.proxy.workers(), 14)
        assert 9 < time.monotonic() - start < 13
        site.proxy.wait_revision(revision)
        assert second in site.proxy.workers()
        report = site.crowd.fresh()
        assert report["open"] > 10 and report["errors"] == 0
        with enter(port)[0] as client:
            talk(client)
        site.crowd.finish()


def test_workers_say_goodbye_when_the_master_dies(start_proxy, run_dir):
    """The master killed: the workers drain and exit; every client gets Close 1001 with a reason."""
    with Site(start_proxy, run_dir, args=[*TWO, "--max-drain", "2s"], count=100) as site:
        workers = site.proxy.workers()
        os.kill(site.proxy.pid, signal.SIGKILL)
        last = site.crowd.wait("all Closes", lambda r: r["closes"] == {"1001": 100}, 5)
        assert last["reason"] and last["other_reasons"] == 0 and last["errors"] == 0 and last["cut"] == 0
        wait_until("no process", lambda: not site.proxy.processes(), 4)
        assert len(workers) == 2 and not site.proxy.garbage
        site.crowd.finish()
        site.proxy.kill()


def test_terminal_signals_are_the_masters(start_proxy, run_dir):
    """Ctrl-C goes to the whole group of processes: a worker that gets SIGINT, SIGTERM or SIGHUP serves on."""
    with Site(start_proxy, run_dir) as site:
        worker = site.proxy.worker
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(worker, number)
        with enter(site.port)[0] as client:
            talk(client)
        assert site.proxy.worker == worker


def test_signals_to_the_group_do_not_hit_workers_that_start(start_proxy, run_dir):
    """Neither does a terminal that closes just then: from their first instruction on they leave SIGHUP to the master."""
    with RawBackend(echo) as backend:
        proxy = start_proxy(ws_spec(free_port(), backend.port), run_dir=run_dir, args=["--workers", "4"], timeout=0)
        proxy.wait_log(event="worker")
        while not proxy.logged(event="ready"):
            os.killpg(proxy.pid, signal.SIGHUP)
        assert not [line for line in proxy.logged(event="worker") if line["level"] == "error"]
        assert [w["restarts"] for w in proxy.wait_status("them", lambda s: s["revision"])["workers"]] == [0, 0, 0, 0]


@pytest.mark.parametrize("every", [1, 2, 3, 7, 20])
def test_failing_allocations_cost_single_connections(start_proxy, run_dir, tmp_path, sanitized, every):
    """S33: with every n-th allocation of a worker failing it lives on, what is open stays open, and once memory is back
    nothing is missing and nothing is left over."""
    failures = MallocFailures(tmp_path, sanitized)
    with Site(start_proxy, run_dir, env=failures.env) as site:
        worker, served = site.proxy.worker, 0
        with enter(site.port)[0] as client:
            talk(client)
        fds = site.crowd.fresh() and site.proxy.fds(worker)
        with failures.every(every):
            for i in range(30 if every > 2 else 10):  # a listener without memory pauses for a second
                try:
                    with RawClient(site.port, timeout=3) as client:
                        client.send(upgrade_request("/" + "x" * (i * 40)))
                        if client.read_head().status == 101:
                            client.send_frame(TEXT, "y" * 300_000)
                            client.expect_frame(TEXT)
                            served += 1
                except (Eof, OSError, AssertionError):
                    continue
        assert failures.sites(), "the shim was not in the way"
        assert site.proxy.workers() == [worker], f"the worker died; calls failed at {set(failures.sites())}"
        site.check()
        for _ in range(5):
            with enter(site.port)[0] as client:
                talk(client)
        wait_until("the sockets to be closed", lambda: site.proxy.fds(worker) <= fds)
        assert every > 1 or not served


@pytest.mark.parametrize("added", [False, True], ids=["changed", "added"])
def test_reload_under_failing_allocations_loses_no_server(start_proxy, run_dir, tmp_path, sanitized, added):
    """S33: a spec that a worker cannot apply for lack of memory ends nothing, and is tried again until it can."""
    failures = MallocFailures(tmp_path, sanitized)
    with Site(start_proxy, run_dir, env=failures.env) as site:
        worker, ports = site.proxy.worker, [free_port() for _ in range(8)]
        if not added:
            site.apply(*(ws_spec(p, site.echo.port, name=f"s{i}") for i, p in enumerate(ports)))
        for n in range(1, 30, 2):
            docs = [ws_spec(p, site.echo.port, name=f"s{i}", headers={"set": {"X-N": str(n)}}) for i, p in enumerate(ports)]
            with failures.every(n):
                site.proxy.wait_seen(site.apply(*docs, wait=False))
            assert site.proxy.workers() == [worker], f"the worker died; calls failed at {set(failures.sites())}"
        site.proxy.wait_revision(revision_of(documents(site.still, *docs)), 4)
        for p in ports:
            with enter(p)[0] as client:
                talk(client)
