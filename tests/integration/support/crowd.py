"""Many quiet echo connections and how long an echo takes on them.

The echo backend is a process of its own, so that its Python does not share a lock with the one that measures."""

import os
import select
import socket
import subprocess
import sys
import time

from . import frames, http1

PAYLOAD = b"p" * 64
REQUEST = frames.frame(frames.BINARY, PAYLOAD, mask=b"mask")
ANSWER = frames.frame(frames.BINARY, PAYLOAD)


class CrowdBackend:
    """Echoes PAYLOAD frames for any number of connections."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "support.crowd"], cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        self.port = int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()  # its end is the sign to go
        self.process.wait(5)


class Crowd:
    """`count` open connections to the proxy; context: an SSLContext for TLS (slower to open)."""

    def __init__(self, port, count, context=None):
        self.socks = []
        request = http1.upgrade_request()
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port), 5)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context:
                sock = context.wrap_socket(sock, server_hostname="localhost")
            sock.sendall(request)
            data = b""
            while not data.endswith(b"\r\n\r\n"):
                more = sock.recv(4096)
                assert more, data
                data += more
            assert data.startswith(b"HTTP/1.1 101"), data
            self.socks.append(sock)

    def round(self):
        """One echo on each connection in turn; the times it took, sorted, in seconds."""
        times = []
        for sock in self.socks:
            start = time.perf_counter()
            sock.sendall(REQUEST)
            got = b""
            while len(got) < len(ANSWER):
                data = sock.recv(len(ANSWER) - len(got))
                assert data, "a quiet connection ended"
                got += data
            times.append(time.perf_counter() - start)
            assert got == ANSWER
        return sorted(times)

    def close(self):
        for sock in self.socks:
            sock.close()


def p99(times):
    return times[len(times) * 99 // 100]


def main():
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    epoll.register(sys.stdin, select.EPOLLIN)
    print(listener.getsockname()[1], flush=True)
    conns = {}
    while True:
        for fd, _ in epoll.poll():
            if fd == sys.stdin.fileno():
                return
            if fd == listener.fileno():
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                conns[sock.fileno()] = [sock, b"", False]
                epoll.register(sock, select.EPOLLIN)
                continue
            conn = conns[fd]
            try:
                data = conn[0].recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                epoll.unregister(fd)
                conns.pop(fd)[0].close()
                continue
            conn[1] += data
            if not conn[2]:
                end = conn[1].find(b"\r\n\r\n")
                if end < 0:
                    continue
                head = http1.parse_head(conn[1][: end + 4])
                accept = http1.accept_for(head.get("Sec-WebSocket-Key"))
                fields = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
                conn[0].sendall(http1.head("HTTP/1.1 101 Switching Protocols", fields))
                conn[1], conn[2] = conn[1][end + 4 :], True
            whole = len(conn[1]) // len(REQUEST)
            if whole:
                conn[0].sendall(ANSWER * whole)
                conn[1] = conn[1][whole * len(REQUEST) :]


if __name__ == "__main__":
    main()
