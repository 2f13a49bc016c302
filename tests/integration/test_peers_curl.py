"""curl as the HTTP client that stands for everything that is no WebSocket."""

import base64
import os
import shutil
import subprocess

import pytest

from peers.legs import leg  # noqa: F401 (a fixture)
from support.backend import RawBackend, echo, manual
from support.need import cannot_run


def command(*words):
    if not shutil.which("curl"):
        cannot_run("curl is missing")
    return ["curl", "-sS", "--max-time", "20", "--noproxy", "*", *words]


def curl(*words):
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=30)


class Front:
    def __init__(self, leg, start_proxy, handler=echo):
        self.backend = RawBackend(handler, tls=leg.server_context())
        self.proxy, url = leg.start(start_proxy, self.backend.port)
        self.url = url.replace("ws", "http", 1)
        self.trust = ["--cacert", leg.certs.ca.cert_path] if leg.client_tls else []

    def curl(self, *words):
        return curl(*self.trust, *words)


def test_plain_get(leg, start_proxy):
    """A GET without an upgrade is answered 426 with a line that says why, by the proxy alone."""
    front = Front(leg, start_proxy)
    with front.backend:
        done = front.curl("-i", front.url + "/page")
        head, _, body = done.stdout.partition("\n\n")  # text mode: the line ends are \n
        assert done.returncode == 0, done.stderr
        assert head.startswith("HTTP/1.1 426 ")
        headers = {line.split(":")[0].lower(): line.split(":", 1)[1].strip() for line in head.splitlines()[1:]}
        assert headers["upgrade"].lower() == "websocket" and "upgrade" in headers["connection"].lower()
        assert headers["content-type"].startswith("text/plain")
        assert len(body.encode()) == int(headers["content-length"]) > 10 and body.count("\n") == 1
        assert front.proxy.wait_log("refuse", status=426)["by"] == "gateway"
        assert not front.backend.conns


def test_upgrade(leg, start_proxy):
    """With the headers of a handshake curl is shown 101, and the frames that the backend sends."""
    front = Front(leg, start_proxy, handler=manual)
    key = base64.b64encode(os.urandom(16)).decode()
    words = ["-i", "-N", "--http1.1", "--output", "-"]
    for line in ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"):
        words += ["-H", line]
    with front.backend:
        process = subprocess.Popen(
            command(*front.trust, *words, front.url + "/"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        conn = front.backend.accept()
        conn.read_request()
        conn.answer_101()
        conn.send(b"\x81\x05hello\x88\x02\x03\xe8")
        conn.half_close()
        out, errors = process.communicate(timeout=30)
        head, _, frames = out.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), (out, errors)
        assert frames.startswith(b"\x81\x05hello\x88\x02\x03\xe8")
        assert front.proxy.wait_log("close", code=1000, initiator="backend")


@pytest.mark.parametrize("words", [["-X", "POST", "-d", "x=1"], ["-X", "DELETE"], ["-I"]])
def test_other_methods(leg, start_proxy, words):
    """What is not GET is answered 405, with nothing at the backend."""
    front = Front(leg, start_proxy)
    with front.backend:
        done = front.curl(*words, "-o", os.devnull, "-w", "%{http_code}", front.url + "/")
        assert (done.returncode, done.stdout) == (0, "405"), done.stderr
        assert not front.backend.conns


@pytest.mark.parametrize("leg", ["wss-ws"], indirect=True)
def test_http2_is_not_spoken(leg, start_proxy):
    """curl --http2 offers h2 and http/1.1: ALPN ends on http/1.1."""
    front = Front(leg, start_proxy)
    with front.backend:
        done = front.curl("--http2", "-o", os.devnull, "-w", "%{http_version} %{http_code}", front.url + "/")
        assert (done.returncode, done.stdout) == (0, "1.1 426"), done.stderr


@pytest.mark.parametrize("leg", ["ws-ws"], indirect=True)
def test_http2_without_tls(leg, start_proxy):
    """HTTP/2 by prior knowledge gets no HTTP/2 answer, and the next client is served."""
    front = Front(leg, start_proxy)
    with front.backend:
        done = front.curl("--http2-prior-knowledge", "-o", os.devnull, "-w", "%{http_code}", front.url + "/")
        assert done.returncode != 0 and done.stdout in ("000", "400")
        front.proxy.wait_log("refuse")
        assert front.curl("-o", os.devnull, "-w", "%{http_code}", front.url + "/").stdout == "426"


@pytest.mark.parametrize("leg", ["wss-ws"], indirect=True)
def test_http_to_the_tls_port(leg, start_proxy):
    """Plain HTTP to the port that speaks TLS is refused, for that client and no other."""
    front = Front(leg, start_proxy)
    with front.backend:
        done = front.curl("-o", os.devnull, "-w", "%{http_code}", front.url.replace("https", "http") + "/")
        assert done.stdout == "400" or (done.returncode != 0 and done.stdout == "000")
        assert front.curl("-o", os.devnull, "-w", "%{http_code}", front.url + "/").stdout == "426"


@pytest.mark.parametrize("leg", ["wss-ws"], indirect=True)
def test_unknown_ca(leg, start_proxy):
    """Without the CA curl does not trust the certificate: what the proxy shows is the server's own."""
    front = Front(leg, start_proxy)
    with front.backend:
        assert curl(front.url + "/").returncode == 60
