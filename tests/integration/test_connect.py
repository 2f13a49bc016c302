"""tidegate-proxy --connect URL: what it prints, what it sends, its exit codes."""

import contextlib
import os
import re
import shutil
import ssl
import subprocess
import time

import pytest

from support import frames
from support.backend import RawBackend, echo, manual, server_context
from support.blackhole import BlackHole
from support.dns import Dns
from support.need import cannot_run
from support.proxy import BINARY, free_port, run_proxy

DEADLINE = 10.0  # CONNECT_DEADLINE_MS


def probe(url, **env):
    return run_proxy("--connect", url, timeout=20, env=env)


def seen(result):
    """The lines of stdout: key -> value; an address may come several times."""
    lines = {}
    for line in result.stdout.splitlines():
        key, value = line.split(": ", 1)
        lines[key] = f"{lines[key]} {value}" if key in lines else value
    return lines


def failed(result, pattern, code=1):
    assert result.returncode == code, result
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert re.search(pattern, result.stderr), result.stderr


def polite(conn):
    """Answers, says something that nobody asked for, answers the Ping and the Close."""
    conn.answer_101()
    conn.send_frame(frames.TEXT, "welcome")
    conn.send_frame(frames.PONG, b"unasked")
    conn.send_frame(frames.PING, b"yours?")
    while True:
        f = conn.read_frame()
        assert f.masked
        if f.opcode == frames.PING:
            conn.ping = f.payload
            conn.send_frame(frames.PONG, f.payload)
        elif f.opcode == frames.CLOSE:
            conn.close_code = f.code
            conn.send_close(1000, "bye")
            conn.expect_gone()
            return
        else:
            assert f.opcode == frames.PONG and f.payload == b"yours?", f


def test_says_what_it_saw():
    with RawBackend(polite) as backend:
        result = probe(f"ws://127.0.0.1:{backend.port}/a/b?c=%20d")
        assert result.returncode == 0, result
        assert result.stderr == ""
        assert re.fullmatch(
            rf"address: 127.0.0.1:{backend.port}\nstatus: 101\npong: \d+\.\d{{3}} ms\nclose: 1000\n", result.stdout
        ), result.stdout
        conn = backend.conns[0]
        conn.wait_finished()
        backend.check()
        assert conn.request.path == "/a/b?c=%20d"
        assert conn.request.get("Host") == f"127.0.0.1:{backend.port}"
        assert conn.request.get("Sec-WebSocket-Version") == "13"
        assert not conn.request.all("Sec-WebSocket-Extensions")
        assert conn.close_code == 1000


def test_each_ping_is_new():
    with RawBackend(polite) as backend:
        for _ in range(2):
            assert probe(f"ws://127.0.0.1:{backend.port}").returncode == 0
        first, second = backend.conns
        assert first.request.path == "/"
        assert len(first.ping) == len(second.ping) == 16
        assert first.ping != second.ping


def test_query_without_path():
    with RawBackend(polite) as backend:
        assert probe(f"ws://127.0.0.1:{backend.port}?x").returncode == 0
        assert backend.conns[0].request.path == "/?x"


def test_ipv6_literal():
    with RawBackend(polite, host="::1") as backend:
        result = probe(f"ws://[::1]:{backend.port}/")
        assert result.returncode == 0, result
        assert seen(result)["address"] == f"[::1]:{backend.port}"
        assert backend.conns[0].request.get("Host") == f"[::1]:{backend.port}"


def test_proxies_of_the_environment_are_passed_by():
    with RawBackend(polite) as backend:
        dead = f"127.0.0.1:{free_port()}"
        assert probe(f"ws://127.0.0.1:{backend.port}", http_proxy=dead, socks_proxy=dead).returncode == 0


# TLS


@pytest.mark.parametrize("host, listen, sni", [("localhost", "127.0.0.1", "localhost"), ("127.0.0.1", "127.0.0.1", None),
                                               ("[::1]", "::1", None)])
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_tls_is_verified_by_name_and_by_address(certs, host, listen, sni, version):
    names = []
    one = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}[version]
    context = server_context(certs.server, minimum=one, maximum=one)
    context.sni_callback = lambda _sock, name, _context: names.append(name)
    with RawBackend(polite, host=listen, tls=context) as backend:
        result = probe(f"wss://{host}:{backend.port}/", SSL_CERT_FILE=certs.ca.cert_path)
        assert result.returncode == 0, result
        assert seen(result)["tls"] == version
        assert seen(result)["status"] == "101"
        assert names == [sni]
        assert backend.conns[0].request.get("Host") == f"{host}:{backend.port}"


@pytest.mark.parametrize("pair, host, why", [
    ("other_server", "localhost", "certificate: .*issuer"),
    ("other_server", "127.0.0.1", "certificate: .*issuer"),
    ("expired", "localhost", "certificate: .*expired"),
    ("wrong_name", "localhost", "certificate: .*mismatch"),
    ("wrong_name", "127.0.0.1", "certificate: .*mismatch"),
])
def test_certificate_that_does_not_hold(certs, pair, host, why):
    with RawBackend(manual, tls=server_context(getattr(certs, pair))) as backend:
        result = probe(f"wss://{host}:{backend.port}/", SSL_CERT_FILE=certs.ca.cert_path)
        failed(result, why)
        assert set(seen(result)) == {"address"}
        assert backend.accepted.empty() or not backend.accepted.get().received, "the request went out all the same"


def test_system_roots_do_not_know_the_tests_ca(certs):
    with RawBackend(manual, tls=server_context(certs.server)) as backend:
        failed(probe(f"wss://localhost:{backend.port}/"), "certificate: .*issuer")


def test_tls_towards_a_plain_server():
    def plain(conn):
        conn.read_some()
        conn.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with RawBackend(plain) as backend:
        failed(probe(f"wss://localhost:{backend.port}/"), "TLS handshake failed")


# Refusals and failures


@pytest.mark.parametrize("status, fields", [
    ("401 Unauthorized", [("WWW-Authenticate", "Basic")]),
    ("403 Forbidden", []),
    ("426 Upgrade Required", [("Upgrade", "websocket")]),
    ("503 Service Unavailable", []),
    ("200 OK", []),
    ("302 Found", [("Location", "/elsewhere")]),
    ("307 Temporary Redirect", [("Location", "ws://127.0.0.1:1/")]),
])
def test_other_status_is_told_and_no_redirect_followed(status, fields):
    def refuse(conn):
        conn.read_request()
        lines = "".join(f"{k}: {v}\r\n" for k, v in fields)
        conn.send(f"HTTP/1.1 {status}\r\n{lines}Content-Length: 2\r\nConnection: close\r\n\r\nno".encode())
        conn.half_close()

    with RawBackend(refuse) as backend:
        result = probe(f"ws://127.0.0.1:{backend.port}/")
        failed(result, rf"HTTP status {status[:3]} instead of 101")
        assert len(backend.conns) == 1
        assert "status" not in seen(result) or seen(result)["status"] == status[:3]


@pytest.mark.parametrize("script, why", [
    (lambda c: c.answer_101(accept="AAAAAAAAAAAAAAAAAAAAAAAAAAA="), "answer"),
    (lambda c: c.answer_101(headers=[("Sec-WebSocket-Protocol", "unasked")]), "answer"),
    (lambda c: (c.read_request(), c.send(b"garbage\r\n\r\n"), c.half_close()), "answer"),
    (lambda c: (c.read_request(), c.half_close()), "answer"),
    (lambda c: (c.answer_101(), c.half_close()), "without a Close"),
    (lambda c: (c.answer_101(), c.read_frame(), c.rst()), "without a Close"),
    (lambda c: (c.answer_101(), c.send_close(1008, "no"), c.read_until_gone()), "closed with 1008 before it answered"),
    (lambda c: (c.answer_101(), c.send_frame(frames.PONG, c.read_frame().payload), c.read_frame(), c.half_close()),
     "without a Close"),
], ids=["accept", "protocol", "garbage", "fin", "fin-after-101", "reset", "close", "fin-after-close"])
def test_broken_endpoint(script, why):
    with RawBackend(script) as backend:
        failed(probe(f"ws://127.0.0.1:{backend.port}/"), why)


def test_nobody_listens():
    failed(probe(f"ws://127.0.0.1:{free_port()}/"), "no TCP connection")


@pytest.mark.parametrize("url", [
    "", "localhost", "http://localhost", "WS://localhost", "ws://", "ws://:80", "ws://a b/", "ws://[::1", "ws://a:0",
    "ws://a:65536", "ws://u:secret@a/", "ws://a/#f", "ws://a/\x7f", "ws://a/" + "x" * 2048,
])
def test_url_that_is_none(url):
    result = run_proxy("--connect", url)
    failed(result, "", code=2)
    assert result.stdout == ""
    assert "secret" not in result.stderr


# Names and waits


@pytest.fixture
def names(tmp_path):
    """names(hosts, resolver) -> words in front of a command that then sees this /etc/hosts and DNS server."""
    namespace = ["unshare", "--mount", "--propagation", "private"]
    if not shutil.which("unshare") or subprocess.run([*namespace, "true"], capture_output=True, timeout=10).returncode:
        cannot_run("a mount namespace needs root and unshare")

    def wrap(hosts_text, resolver="127.0.0.1"):
        hosts, resolv = tmp_path / "hosts", tmp_path / "resolv.conf"
        hosts.write_text(hosts_text)
        resolv.write_text(f"nameserver {resolver}\noptions attempts:5\n")
        script = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@"'
        return [*namespace, "sh", "-c", script, "sh", str(hosts), str(resolv)]

    return wrap


def test_next_address_is_tried_until_one_takes_the_connection(names):
    with RawBackend(polite) as backend:
        wrap = names("127.0.0.2 several.test\n127.0.0.1 several.test\n")
        result = subprocess.run([*wrap, BINARY, "--connect", f"ws://several.test:{backend.port}/"],
                                capture_output=True, text=True, timeout=20)
        assert result.returncode == 0, result
        assert set(seen(result)["address"].split()) == {f"127.0.0.2:{backend.port}", f"127.0.0.1:{backend.port}"} or (
            seen(result)["address"] == f"127.0.0.1:{backend.port}")
        assert backend.conns[0].request.get("Host") == f"several.test:{backend.port}"


def test_refusing_endpoint_is_not_asked_at_its_next_address(names):
    def refuse(conn):
        conn.read_request()
        conn.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        conn.half_close()

    with RawBackend(refuse, host="0.0.0.0") as backend:
        wrap = names("127.0.0.2 several.test\n127.0.0.1 several.test\n")
        result = subprocess.run([*wrap, BINARY, "--connect", f"ws://several.test:{backend.port}/"],
                                capture_output=True, text=True, timeout=20)
        failed(result, "HTTP status 403")
        assert len(backend.conns) == 1


def test_every_wait_ends_at_the_deadline(certs, names):
    """Each kind of silence, all at once: none lasts longer than ten seconds."""
    def no_pong(conn):
        conn.answer_101()
        while True:
            conn.send_frame(frames.TEXT, "busy")  # data is no answer to a Ping
            time.sleep(0.1)

    def no_close(conn):
        conn.answer_101()
        conn.send_frame(frames.PONG, conn.read_frame().payload)

    with contextlib.ExitStack() as stack:
        try:
            dns = stack.enter_context(Dns())
        except PermissionError:
            cannot_run("binding port 53 on loopback needs root")
        dns.answers["silent.test"] = "silent"
        hole = stack.enter_context(contextlib.closing(BlackHole()))
        assert hole.swallows()
        tls, mute, pongless, closeless = [
            stack.enter_context(RawBackend(s)).port for s in (manual, manual, no_pong, no_close)
        ]
        waits = [
            ("timeout: no TCP connection", [], f"ws://127.0.0.1:{hole.port}/"),
            ("timeout: no end of the TLS handshake", [], f"wss://127.0.0.1:{tls}/"),
            ("timeout: no answer", [], f"ws://127.0.0.1:{mute}/"),
            ("timeout: no Pong", [], f"ws://127.0.0.1:{pongless}/"),
            ("timeout: no Close", [], f"ws://127.0.0.1:{closeless}/"),
            ("timeout: .* name", names("127.0.0.1 localhost\n", dns.host), "ws://silent.test/"),
        ]
        start = time.monotonic()
        running = []
        for _, wrap, url in waits:
            process = subprocess.Popen([*wrap, BINARY, "--connect", url], stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True,
                                       env={**os.environ, "SSL_CERT_FILE": certs.ca.cert_path})
            stack.callback(process.wait)
            stack.callback(process.kill)
            running.append(process)
        for process, (why, _, url) in zip(running, waits):
            stdout, stderr = process.communicate(timeout=DEADLINE + 5)
            took = time.monotonic() - start
            failed(subprocess.CompletedProcess(url, process.returncode, stdout, stderr), why)
            assert DEADLINE - 0.5 < took < DEADLINE + 3, (url, took)


def test_echo_server_behind_tls_takes_it(certs):
    """The strict echo server of the other tests has nothing to complain of."""
    with RawBackend(echo, tls=server_context(certs.server)) as backend:
        assert probe(f"wss://localhost:{backend.port}/", SSL_CERT_FILE=certs.ca.cert_path).returncode == 0
        backend.check()
