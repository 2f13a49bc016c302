"""The raw client and the raw backend against each other: what the other tests rest on."""

import ssl

import pytest

from support import frames
from support.backend import RawBackend, echo, manual, server_context
from support.client import RawClient, client_context, ws_client
from support.wait import wait_until


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 300000])
@pytest.mark.parametrize("tls", [False, True])
def test_echo_of_every_length_encoding(certs, size, tls):
    """Frames survive builder, wire and parser, plain and over TLS."""
    context = server_context(certs.server) if tls else None
    with RawBackend(echo, tls=context) as backend:
        with ws_client(backend.port, tls=client_context(certs) if tls else None) as client:
            client.send_frame(frames.BINARY, b"x" * size)
            client.expect_frame(frames.BINARY, b"x" * size)
            client.send_close(1000, "bye")
            assert client.expect_close(1000).reason == "bye"
            client.expect_eof()
        backend.check()


@pytest.mark.parametrize("tls", [False, True])
def test_single_bytes(certs, tls):
    """Input cut into single bytes (and TLS records of one byte) arrives."""
    context = server_context(certs.server) if tls else None
    with RawBackend(echo, tls=context) as backend:
        with RawClient(backend.port, tls=client_context(certs) if tls else None, tls_chunk=1) as client:
            client.handshake("/x?y", chunk=1)
            client.send_frame(frames.TEXT, "hello", chunk=1)
            client.expect_frame(frames.TEXT, "hello")
        assert backend.conns[0].request.path == "/x?y"


def test_ends():
    """FIN, half-close and RST look as they should from the other end."""
    with RawBackend(manual) as backend:
        with ws_client_of(backend) as (client, conn):
            client.half_close()
            conn.expect_eof()
            conn.send_frame(frames.TEXT, "still")
            client.expect_frame(frames.TEXT, "still")
            conn.rst()
            client.expect_reset()


def test_tls_end_without_close_notify(certs):
    """clean_eof tells the two ends of a TLS stream apart."""
    with RawBackend(manual, tls=server_context(certs.server)) as backend:
        for clean in (True, False):
            client = RawClient(backend.port, tls=client_context(certs))
            conn = backend.accept()
            client.half_close() if clean else client.fin()
            conn.expect_eof()
            assert conn.clean_eof is clean
            client.close()


def test_backend_records_everything():
    """serve() keeps every byte."""
    with RawBackend() as backend, ws_client(backend.port) as client:
        sent = client.send_frame(frames.TEXT, "kept", mask=b"abcd")
        conn = backend.accept()
        wait_until("the frame", lambda: bytes(conn.received).endswith(sent))


def test_wrong_certificates_are_wrong(certs):
    """Each broken certificate is refused by Python's own verification."""
    for pair in (certs.expired, certs.wrong_name, certs.other_server):
        with RawBackend(manual, tls=server_context(pair)) as backend:
            with pytest.raises(ssl.SSLCertVerificationError):
                RawClient(backend.port, tls=client_context(certs))


class ws_client_of:
    """A client and the backend's end of its connection, the handshake driven by hand."""

    def __init__(self, backend):
        self.backend = backend

    def __enter__(self):
        from support import http1

        self.client = RawClient(self.backend.port)
        self.client.send(http1.upgrade_request())
        conn = self.backend.accept()
        conn.answer_101()
        self.client.read_head()
        return self.client, conn

    def __exit__(self, *_):
        self.client.close()
