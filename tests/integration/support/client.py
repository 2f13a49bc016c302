"""A WebSocket client that can do everything wrong."""

import socket
import ssl

from . import http1
from .peer import Peer


class RawClient(Peer):
    masks = True
    since = 0  # see gate.py

    def __init__(self, port, host="127.0.0.1", *, tls=None, server_hostname="localhost", session=None,
                 timeout=5.0, rcvbuf=None, sndbuf=None, tls_chunk=None):
        """tls: an SSLContext (see client_context), or None for plain."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        if sndbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
        sock.settimeout(timeout)
        try:
            sock.connect((host, port))
            super().__init__(sock, timeout)
            if tls:
                self.start_tls(tls, server_hostname=server_hostname, session=session, chunk=tls_chunk)
        except BaseException:
            sock.close()
            raise
        self.addr = sock.getsockname()

    def answer(self, request, chunk=None, timeout=None):
        """The head that comes back to these bytes."""
        self.try_send(request, chunk)
        return self.read_head(timeout)

    def handshake(self, path="/", chunk=None, expect=101, timeout=None, **kw):
        """kw: those of http1.upgrade_request. Checks the accept of a 101."""
        answer = self.answer(http1.upgrade_request(path, **kw), chunk, timeout)
        assert answer.status == expect, f"{expect} was due: {answer.raw!r}"
        if answer.status == 101:
            assert answer.get("Sec-WebSocket-Accept") == http1.accept_for(kw.get("key", http1.KEY))
            assert answer.get("Upgrade").lower() == "websocket"
            assert answer.get("Connection").lower() == "upgrade"
        return answer

    def read_body(self, answer, timeout=None):
        """The body of one of our own answers: by Content-Length."""
        return self.read_exactly(int(answer.get("Content-Length")), timeout)

    def expect_refusal(self, answer, *statuses):
        """An answer of the proxy's own: its status, a line that says why, and then the end. Returns the line."""
        assert answer.status in statuses, f"{statuses} was due: {answer.raw!r}"
        # RFC 9110 7.8: who sends Upgrade names it in Connection
        assert answer.get("Connection") == ("close, Upgrade" if answer.get("Upgrade") else "close")
        assert answer.get("Content-Type").startswith("text/plain")
        body = self.read_body(answer)
        assert body.strip() and body.count(b"\n") <= 1, body
        self.expect_gone()
        return body.decode()


def client_context(certs=None, *, client_pair=None, alpn=None, minimum=None, maximum=None):
    """An SSLContext that trusts the test's CA; client_pair: a certs.Pair to show."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Some builds of Python take a FIN without close_notify for a clean end.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0x80)
    if certs:
        context.load_verify_locations(cadata=certs.ca.cert.decode())
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if client_pair:
        context.load_cert_chain(client_pair.cert_path, client_pair.key_path)
    if alpn:
        context.set_alpn_protocols(alpn)
    if minimum:
        context.minimum_version = minimum
    if maximum:
        context.maximum_version = maximum
    return context


def ws_client(port, path="/", **kw):
    """A RawClient that is through its handshake. kw: those of RawClient; `headers` goes to the request."""
    headers = kw.pop("headers", ())
    client = RawClient(port, **kw)
    try:
        client.handshake(path, headers=headers)
    except BaseException:
        client.close()
        raise
    return client
