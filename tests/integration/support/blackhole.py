"""A port that answers nothing, not even a refusal."""

import socket


class BlackHole:
    """A port whose accept queue is full: the kernel drops further SYNs."""

    def __init__(self, host="127.0.0.1", port=0):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, port))
        self.listener.listen(0)
        self.port = self.listener.getsockname()[1]
        self.fill = []
        for _ in range(8):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex((host, self.port))
            self.fill.append(sock)

    def swallows(self):
        probe = socket.socket()
        probe.settimeout(0.4)
        try:
            probe.connect(self.listener.getsockname())
            return False
        except TimeoutError:
            return True
        finally:
            probe.close()

    def close(self):
        for sock in [self.listener, *self.fill]:
            sock.close()
