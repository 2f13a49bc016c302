"""Backends on loopback that do what a test says.

    RawBackend()                 records, answers 101 and reads on until the end
    RawBackend(manual)           does nothing: the test takes each connection by accept() and drives it
    RawBackend(echo)             a strict echo server
    RawBackend(lambda conn: ...) anything else, in a thread a connection"""

import queue
import socket
import ssl
import threading

from . import frames, http1
from .peer import Eof, Peer


class BackendConn(Peer):
    def __init__(self, sock, timeout):
        super().__init__(sock, timeout)
        self.request = None  # the Head, once read
        self.finished = threading.Event()  # the script has ended

    def read_request(self, timeout=None):
        self.request = self.read_head(timeout)
        return self.request

    def answer_101(self, *, headers=(), drop=(), accept=None, status="101 Switching Protocols", glued=b"", chunk=None):
        """The right answer to what was asked; headers are added, drop leaves usual ones out, glued follows at once."""
        if self.request is None:
            self.read_request()
        usual = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept or http1.accept_for(self.request.get("Sec-WebSocket-Key"))),
        ]
        gone = {d.lower() for d in drop}
        fields = [f for f in usual if f[0].lower() not in gone] + list(headers)
        self.send(http1.head(f"HTTP/1.1 {status}", fields) + glued, chunk)

    def wait_finished(self, timeout=5.0):
        assert self.finished.wait(timeout), "the backend's script has not ended"


def manual(conn):
    """For RawBackend: leave the connection to the test."""


def serve(conn):
    """For RawBackend: 101, then record until the end."""
    conn.answer_101()
    try:
        while conn.read_some(timeout=60):
            pass
    except ConnectionResetError:
        pass
    conn.close()


def echo(conn):
    """For RawBackend: a strict echo server; it raises at anything that a client must not send."""
    conn.answer_101()
    echo_frames(conn)


def echo_as(name):
    """For RawBackend: the same, and its 101 says `X-Backend: NAME`."""

    def script(conn):
        conn.answer_101(headers=[("X-Backend", name)])
        echo_frames(conn)

    return script


def echo_frames(conn):
    while True:
        try:
            f = conn.read_frame(timeout=60)
        except Eof:
            break
        assert f.masked, "an unmasked frame from a client"
        if f.opcode == frames.CLOSE:
            conn.send_frame(frames.CLOSE, f.payload)
            break
        if f.opcode == frames.PING:
            conn.send_frame(frames.PONG, f.payload)
        elif f.opcode != frames.PONG:
            conn.send_frame(f.opcode, f.payload, fin=f.fin, rsv=f.rsv)
        if conn.at > 1 << 20:  # keep no history of long talks
            del conn.received[: conn.at]
            conn.at = 0
    conn.close()


class RawBackend:
    def __init__(self, script=serve, *, host="127.0.0.1", port=0, tls=None, backlog=128, rcvbuf=None, sndbuf=None, timeout=5.0):
        """tls: an SSLContext of the server's side."""
        self.script, self.tls, self.timeout = script, tls, timeout
        self.sndbuf = sndbuf
        self.listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if rcvbuf:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.listener.bind((host, port))
        self.listener.listen(backlog)
        self.port = self.listener.getsockname()[1]
        self.conns = []  # every connection, in the order of its accept
        self.errors = []  # what scripts raised
        self.tls_errors = []  # handshakes that failed
        self.accepted = queue.Queue()
        self.thread = threading.Thread(target=self._accept_all, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _accept_all(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            if self.sndbuf:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.sndbuf)
            conn = BackendConn(sock, self.timeout)
            self.conns.append(conn)
            threading.Thread(target=self._run, args=(conn,), daemon=True).start()

    def _run(self, conn):
        try:
            if self.tls:
                try:
                    conn.start_tls(self.tls, server_side=True)
                except (ssl.SSLError, Eof, OSError) as e:
                    self.tls_errors.append(e)
                    conn.close()
                    return
            self.accepted.put(conn)
            self.script(conn)
        except OSError:
            conn.close()  # the other end went, or the test closed us
        except Exception as e:  # noqa: BLE001 - reported by check()
            self.errors.append(e)
            conn.close()
        finally:
            conn.finished.set()

    def accept(self, timeout=5.0):
        """The next connection (after its TLS handshake)."""
        try:
            return self.accepted.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"no connection came to the backend within {timeout} s") from None

    def check(self):
        """Raises the first error of a script."""
        if self.errors:
            raise self.errors[0]

    def close(self):
        """Ends the listener and every connection."""
        try:
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes the accept
        except OSError:
            pass
        self.listener.close()
        for conn in self.conns:
            conn.close()


def server_context(pair, *, client_ca=None, minimum=None, maximum=None):
    """An SSLContext that shows `pair`; client_ca: a certs.Pair whose certificates clients must show."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Some builds of Python take a FIN without close_notify for a clean end.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0x80)
    context.load_cert_chain(pair.cert_path, pair.key_path)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_ca.cert.decode())
    if minimum:
        context.minimum_version = minimum
    if maximum:
        context.maximum_version = maximum
    return context
