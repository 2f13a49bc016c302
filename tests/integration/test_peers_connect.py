"""tidegate-proxy --connect URL against python websockets."""

import re
import ssl

import pytest

from support.need import cannot_run
from support.proxy import run_proxy
from support.wait import wait_until

try:
    from websockets.sync.server import serve
except ImportError:
    serve = None


@pytest.fixture
def served():
    """served(tls=None, **options of websockets) -> port, and a list of what its handlers saw at the end."""
    import threading

    if serve is None:
        cannot_run("the Python package websockets is not installed")
    servers = []

    def start(tls=None, **options):
        ends = []

        def handle(connection):
            for _ in connection:
                pass
            ends.append((connection.request.path, connection.protocol.close_rcvd.code))

        server = serve(handle, "127.0.0.1", 0, ssl=tls, **options)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return server.socket.getsockname()[1], ends

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join(10)


def test_plain(served):
    port, ends = served()
    result = run_proxy("--connect", f"ws://127.0.0.1:{port}/chat?x=1", timeout=20)
    assert result.returncode == 0, result
    assert re.search(r"^pong: \d+\.\d+ ms$", result.stdout, re.M)
    assert result.stdout.endswith("close: 1000\n")
    wait_until("the server's end", lambda: ends)
    assert ends == [("/chat?x=1", 1000)]


def test_tls(served, certs):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs.server.cert_path, certs.server.key_path)
    port, ends = served(tls=context)
    result = run_proxy("--connect", f"wss://localhost:{port}/", timeout=20, env={"SSL_CERT_FILE": certs.ca.cert_path})
    assert result.returncode == 0, result
    assert "tls: TLSv1.3\n" in result.stdout
    wait_until("the server's end", lambda: ends)
    assert ends == [("/", 1000)]
    result = run_proxy("--connect", f"wss://localhost:{port}/", timeout=20)
    assert result.returncode == 1 and "certificate" in result.stderr, result


def test_refused(served):
    def deny(connection, request):
        return connection.respond(403, "no\n")

    port, ends = served(process_request=deny)
    result = run_proxy("--connect", f"ws://127.0.0.1:{port}/", timeout=20)
    assert result.returncode == 1 and "HTTP status 403" in result.stderr, result
    assert ends == []
