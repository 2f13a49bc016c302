"""Live configuration where things run short, or a file plays tricks: nobody else pays, and nothing is lost."""

import base64
import contextlib
import os
import signal
import socket
import subprocess
import time

import pytest

from support.backend import RawBackend, echo
from support.client import RawClient
from support.proxy import BINARY, free_port
from support.site import Site, enter, talk
from support.spec import https_spec, ws_spec
from support.wait import wait_until


def states(status):
    return {server["name"]: server["state"] for server in status["servers"]}


@pytest.fixture
def site(start_proxy, run_dir):
    with Site(start_proxy, run_dir) as site:
        yield site


def test_spec_emptied_in_place_after_it_was_written_again(site):
    """S54: the file was replaced by one with the same bytes; emptied in place, that one ends nothing either."""
    site.proxy.replace(site.still)
    site.proxy.hup()
    start = time.monotonic()
    wait_until("some looks at it", lambda: time.monotonic() - start > 2.5)  # there is nothing to be seen of them
    site.proxy.config.write_bytes(b"")
    site.proxy.hup()
    status = site.proxy.wait_status("a verdict", lambda s: s["seen"]["result"] != "applied" or not s["servers"])
    assert status["seen"]["result"] == "refused" and states(status) == {"still": "active"}


def test_removed_server_that_comes_back_wrong_stands_once(start_proxy, run_dir):
    """While its connections drain: one entry, failed, that counts them; it ends with them or comes back good."""
    with Site(start_proxy, run_dir, args=["--max-drain", "60s"], count=1) as site:
        doc = ws_spec(free_port(), site.echo.port, name="back", timeouts={"drain": "60s"})
        port = int(doc.partition("port: ")[2].split()[0])
        site.apply(doc)
        with contextlib.ExitStack() as stack:
            for _ in range(6):
                stack.enter_context(enter(port)[0])
            site.apply()
            assert site.proxy.server("back")["state"] == "draining"
            site.apply(doc + "nope: 1\n")
            assert site.proxy.server("back")["state"] == "failed" and site.proxy.server("back")["connections"] > 0
            site.apply(doc)
            assert site.proxy.server("back")["state"] == "active"
        site.proxy.process.kill()  # nobody waits for 60 s
        site.crowd.finish()
        site.proxy.kill()


def test_spec_that_names_the_lock_does_not_open_it(site):
    """S58: whoever opens and closes proxy.pid in the master drops its lock: --stop would find nobody, a second one start."""
    pid_file = str(site.proxy.run_dir / "proxy.pid")
    site.apply(ws_spec(free_port(), site.echo.port, name="odd", https=True, tls={"certFile": pid_file, "keyFile": pid_file}))
    done = subprocess.run([BINARY, "--config", str(site.proxy.config), "--run-dir", str(site.proxy.run_dir), "--admin", "off"],
                          capture_output=True, text=True, timeout=10)  # fmt: skip
    assert done.returncode == 1 and f"in use by process {site.proxy.pid}" in done.stderr


def test_certificate_that_only_some_readers_take_costs_its_server_alone(site, certs):
    """S50: OpenSSL's own TRUSTED CERTIFICATE is refused as wrong; let through, no worker could apply anything more."""
    trusted = certs.server.cert.replace(b" CERTIFICATE-", b" TRUSTED CERTIFICATE-")
    assert trusted != certs.server.cert
    odd = ws_spec(free_port(), site.echo.port, name="odd", https=True, keyBase64=certs.b64(certs.server.key),
                  certBase64=base64.b64encode(trusted).decode())  # fmt: skip
    port = free_port()
    site.apply(odd, ws_spec(port, site.echo.port, name="new"))
    assert states(site.proxy.status()) == {"still": "active", "odd": "failed", "new": "active"}
    with enter(port)[0] as client:
        talk(client)


@pytest.mark.parametrize("workers", [1, 2])
def test_ports_leave_descriptors_to_all_else(start_proxy, run_dir, workers):
    """S31: more servers than there are descriptors: those that fit serve, the others say why, the admin port answers and
    a dead worker is replaced."""
    with RawBackend(echo) as backend:
        ports = list({free_port() for _ in range(150)})
        specs = "---\n".join(ws_spec(p, backend.port, name=f"s{p}") for p in ports)
        proxy = start_proxy(specs, wrap=["prlimit", "--nofile=128:128"], run_dir=run_dir, admin=True,
                            args=["--workers", str(workers)])  # fmt: skip
        judged = states(proxy.wait_status("it", lambda s: s["revision"]))
        good = [p for p in ports if judged[f"s{p}"] == "active"]
        assert 30 <= len(good) < len(ports) and set(judged.values()) == {"active", "failed"}
        failed = next(s for s in proxy.status()["servers"] if s["state"] == "failed")
        assert "descriptor" in failed["message"]
        assert proxy.get("/readyz")[0] == 200
        old = proxy.workers()[0]
        os.kill(old, signal.SIGKILL)
        wait_until("a new worker", lambda: len(proxy.workers()) == workers and old not in proxy.workers())
        with enter(good[0])[0] as client:
            talk(client)


def test_thousand_ports_that_cannot_be_had_cost_little(start_proxy, run_dir, sanitized):
    """A gateway whose ports others hold tries again each second; that takes a few percent of a core, not all of it."""
    if sanitized:
        pytest.skip("its time on the CPU says little")
    with RawBackend(echo) as backend, contextlib.ExitStack() as stack:
        ports, at = [], 12000
        while len(ports) < 3000:
            holder = socket.socket(socket.AF_INET6)
            try:
                holder.bind(("::", at))
                holder.listen()
                ports.append(at)
            except OSError:
                holder.close()
            at += 1
            if len(ports) <= 1500:
                stack.callback(holder.close)
            else:
                holder.close()
        proxy = start_proxy("---\n".join(ws_spec(p, backend.port, name=f"s{p}") for p in ports), run_dir=run_dir,
                            log_level="info", timeout=60)  # fmt: skip
        judged = states(proxy.wait_status("it", lambda s: s["revision"]))
        assert list(judged.values()).count("failed") >= 1500
        cpu, start = proxy.cpu_seconds(proxy.pid), time.monotonic()
        wait_until("some tries", lambda: time.monotonic() - start > 4)
        assert (proxy.cpu_seconds(proxy.pid) - cpu) / (time.monotonic() - start) < 0.12


def test_reload_reaches_a_worker_that_had_no_descriptor_left(start_proxy, run_dir):
    """Connections that ask for nothing have taken them all: the spec of that moment is applied when there is one again."""
    with RawBackend(echo) as backend:
        port = free_port()
        proxy = start_proxy(ws_spec(port, backend.port), wrap=["prlimit", "--nofile=64:64"], run_dir=run_dir)
        with contextlib.ExitStack() as silent:
            for _ in range(64):
                silent.enter_context(RawClient(port))
            wait_until("all descriptors in use", lambda: proxy.fds() >= 64)
            revision = proxy.apply(ws_spec(port, backend.port, headers={"set": {"X-New": "1"}}), wait=False)
            proxy.wait_log(event="worker", level="error")
            assert proxy.status()["revision"] != revision
        proxy.wait_revision(revision)


def test_connections_do_not_wait_for_hundreds_of_certificates(site, certs):
    """A certificate that 500 servers share is changed: a worker makes their new versions bit by bit between messages."""
    ports = list({free_port() for _ in range(500)})

    def docs(pair):
        return [https_spec(p, site.echo.port, certs=certs, pair=pair, name=f"s{p}") for p in ports]

    site.apply(*docs(certs.server), timeout=30)
    with enter(site.port)[0] as client:
        start, slowest = time.monotonic(), 0
        revision = site.apply(*docs(certs.make_server("other", ["localhost"])), wait=False)
        while site.proxy.status()["revision"] != revision:
            before = time.monotonic()
            talk(client)
            slowest = max(slowest, time.monotonic() - before)
            assert before - start < 30
        assert slowest < (time.monotonic() - start) / 3, (slowest, time.monotonic() - start)
