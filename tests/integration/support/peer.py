"""One end of a connection in the test's hands: plain or TLS, byte by byte if need be.

TLS runs over memory BIOs, so that a test decides what goes on the wire and when: records cut into single bytes,
an end with or without close_notify, half-closes. One thread may send while another one reads."""

import select
import socket
import ssl
import struct
import threading
import time

from . import frames, http1


class Eof(Exception):
    """The other end closed."""


class Peer:
    masks = False  # a client's frames are masked

    def __init__(self, sock, timeout=5.0):
        self.sock = sock
        self.timeout = timeout
        self.tls = None
        self.received = bytearray()  # everything, in order
        self.at = 0  # how much of it has been read by the test
        self.eof = False
        self.clean_eof = True  # on TLS: close_notify came before the end
        self.reset = False
        self.tls_lock = threading.Lock()  # for moments only
        self.send_lock = threading.Lock()  # taken first, held while the socket takes the bytes
        sock.settimeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # TLS

    def start_tls(self, context, server_side=False, server_hostname=None, session=None, chunk=None):
        """The whole TLS handshake, written `chunk` bytes at a time."""
        self.tls_in, self.tls_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.tls_in, self.tls_out, server_side=server_side, server_hostname=server_hostname, session=session
        )
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush(chunk)
                data = self._recv_raw(deadline)
                if not data:
                    raise Eof("in the TLS handshake") from None
                self.tls_in.write(data)
            except ssl.SSLError:
                self._flush(chunk)  # the alert
                raise
        self._flush(chunk)

    def _flush(self, chunk=None):
        with self.send_lock:
            with self.tls_lock:
                data = self.tls_out.read()
            if data:
                self._send_raw(data, chunk)

    # bytes out

    def _send_raw(self, data, chunk=None):
        self.sock.settimeout(self.timeout)
        if not chunk:
            self.sock.sendall(data)
            return
        view = memoryview(data)
        for at in range(0, len(view), chunk):
            self.sock.sendall(view[at : at + chunk])

    def send(self, data, chunk=None):
        """data, `chunk` bytes a write (and a TLS record) when given."""
        if not self.tls:
            self._send_raw(data, chunk)
            return
        step = chunk or 16384
        for at in range(0, len(data), step):
            with self.send_lock:
                with self.tls_lock:
                    self.tls.write(data[at : at + step])
                    records = self.tls_out.read()
                self._send_raw(records)

    def try_send(self, data, chunk=None):
        """Like send; False when the other end has gone meanwhile, which is fine for input that is refused early."""
        try:
            self.send(data, chunk)
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False

    def send_frame(self, opcode, payload=b"", chunk=None, **kw):
        kw.setdefault("mask", self.masks)
        raw = frames.frame(opcode, payload.encode() if isinstance(payload, str) else payload, **kw)
        self.send(raw, chunk)
        return raw

    def send_close(self, code=None, reason=b"", **kw):
        return self.send_frame(frames.CLOSE, frames.close_payload(code, reason), **kw)

    # bytes in

    def _recv_raw(self, deadline, size=65536):
        left = deadline - time.monotonic()
        poll = select.poll()  # not the socket's own timeout, which a sending thread uses
        poll.register(self.sock, select.POLLIN)
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError("nothing came")
        try:
            return self.sock.recv(size)
        except ConnectionResetError:
            self.reset = True
            raise

    def _recv(self, deadline):
        """Some bytes, b'' at the end."""
        if self.eof:
            return b""
        while True:
            if not self.tls:
                data = self._recv_raw(deadline)
            else:
                try:
                    with self.tls_lock:
                        data = self.tls.read(65536)
                except ssl.SSLWantReadError:
                    if self.tls_out.pending:
                        self._flush()
                    raw = self._recv_raw(deadline)
                    with self.tls_lock:
                        if raw:
                            self.tls_in.write(raw)
                        else:
                            self.tls_in.write_eof()
                    continue
                except ssl.SSLError as e:
                    # Python before 3.11.4 has no SSLEOFError for it.
                    ended = isinstance(e, (ssl.SSLZeroReturnError, ssl.SSLEOFError))
                    if not ended and e.reason != "UNEXPECTED_EOF_WHILE_READING":
                        raise
                    self.clean_eof = isinstance(e, ssl.SSLZeroReturnError)
                    data = b""
            if data:
                self.received += data
            else:
                self.eof = True
            return data

    def _deadline(self, timeout):
        return time.monotonic() + (self.timeout if timeout is None else timeout)

    def read_some(self, timeout=None):
        """What has come and was not read yet, at least a byte; b'' at the end."""
        if self.at == len(self.received) and not self._recv(self._deadline(timeout)):
            return b""
        data = bytes(self.received[self.at :])
        self.at = len(self.received)
        return data

    def read_exactly(self, n, timeout=None):
        deadline = self._deadline(timeout)
        while len(self.received) - self.at < n:
            if not self._recv(deadline):
                raise Eof(f"after {bytes(self.received[self.at:])!r}, {n} bytes were due")
        data = bytes(self.received[self.at : self.at + n])
        self.at += n
        return data

    def read_until_eof(self, timeout=None):
        deadline = self._deadline(timeout)
        while self._recv(deadline):
            pass
        data = bytes(self.received[self.at :])
        self.at = len(self.received)
        return data

    def read_until_gone(self, timeout=None):
        """All that comes until the end, be it FIN or RST."""
        start = self.at
        try:
            self.read_until_eof(timeout)
        except ConnectionResetError:
            self.eof = True
        self.at = len(self.received)
        return bytes(self.received[start:])

    def read_head(self, timeout=None):
        deadline = self._deadline(timeout)
        while True:
            end = self.received.find(b"\r\n\r\n", self.at)
            if end >= 0:
                raw = bytes(self.received[self.at : end + 4])
                self.at = end + 4
                return http1.parse_head(raw)
            if not self._recv(deadline):
                raise Eof(f"in a head: {bytes(self.received[self.at:])!r}")

    def read_frame(self, timeout=None):
        deadline = self._deadline(timeout)
        while True:
            f = frames.parse(memoryview(self.received)[self.at :].tobytes())
            if f:
                self.at += len(f.raw)
                return f
            if not self._recv(deadline):
                raise Eof(f"in a frame: {bytes(self.received[self.at:])[:200]!r}")

    # what must come

    def expect_frame(self, opcode, payload=None, timeout=None):
        f = self.read_frame(timeout)
        assert f.opcode == opcode, f"opcode {opcode} was due: {f.opcode} {f.payload[:200]!r}"
        if payload is not None:
            assert f.payload == (payload.encode() if isinstance(payload, str) else payload)
        return f

    def expect_close(self, code, timeout=None, skip_data=False):
        """The next frame is a Close with that code (data frames in front are skipped on demand)."""
        f = self.read_frame(timeout)
        while skip_data and f.opcode != frames.CLOSE:
            f = self.read_frame(timeout)
        assert f.opcode == frames.CLOSE, f"a Close was due: opcode {f.opcode} {f.payload[:200]!r}"
        assert f.code == code, f"Close {code} was due: {f.code} {f.reason!r}"
        return f

    def expect_eof(self, timeout=None):
        """Nothing more but the end, by FIN."""
        rest = self.read_until_eof(timeout)
        assert not rest, f"more before the end: {rest[:200]!r}"

    def expect_gone(self, timeout=None):
        """Nothing more but the end, by FIN or RST."""
        rest = self.read_until_gone(timeout)
        assert not rest, f"more before the end: {rest[:200]!r}"

    def expect_reset(self, timeout=None):
        try:
            rest = self.read_until_eof(timeout)
        except ConnectionResetError:
            return
        raise AssertionError(f"a reset was due: the end came by FIN, after {rest[:200]!r}")

    def expect_nothing(self, seconds=0.3):
        """Not a byte within that time: for what must stay away there is nothing else to wait for."""
        try:
            data = self.read_some(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"nothing was due: {data[:200]!r}" if data else "nothing was due: the end came")

    # the end

    def half_close(self):
        """No more bytes from here: FIN, on TLS with a close_notify in front."""
        if self.tls:
            with self.tls_lock:
                try:
                    self.tls.unwrap()
                except ssl.SSLError:
                    pass
            self._flush()
        self.sock.shutdown(socket.SHUT_WR)

    def fin(self):
        """FIN alone: on TLS an end without close_notify."""
        self.sock.shutdown(socket.SHUT_WR)

    def rst(self):
        """RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self):
        self.sock.close()
