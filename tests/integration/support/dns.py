"""A tiny DNS server on a loopback address of its own, which answers what a test says."""

import random
import socket
import struct
import threading

A, AAAA = 1, 28


class Dns:
    """answers: name -> a list of addresses ([] is an answer without any), "nxdomain", "servfail", "silent", or a
    callable (name, type) -> one of these. Unlisted names are NXDOMAIN. queries: (name, type) in the order of arrival."""

    def __init__(self):
        self.answers = {}
        self.ttl = 1
        self.queries = []
        for _ in range(50):
            self.host = f"127.{random.randrange(100, 250)}.{random.randrange(1, 250)}.53"
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                self.udp.bind((self.host, 53))
                break
            except PermissionError:
                self.udp.close()
                raise
            except OSError:
                self.udp.close()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Port 53 is closed from here on."""
        try:
            self.udp.shutdown(socket.SHUT_RDWR)  # wakes the thread
        except OSError:
            pass
        self.thread.join(5)
        self.udp.close()

    def asked(self, name):
        return sum(1 for n, _ in list(self.queries) if n == name)

    def _serve(self):
        while True:
            try:
                query, peer = self.udp.recvfrom(4096)
            except OSError:
                return
            if not query:
                return
            reply = self._reply(query)
            if reply:
                self.udp.sendto(reply, peer)

    def _reply(self, query):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1"))
            at += 1 + query[at]
        at += 1
        kind = struct.unpack("!H", query[at : at + 2])[0]
        question = query[12 : at + 4]
        name = ".".join(labels).lower()
        self.queries.append((name, kind))
        answer = self.answers.get(name, "nxdomain")
        if callable(answer):
            answer = answer(name, kind)
        if answer == "silent":
            return None
        code = {"nxdomain": 3, "servfail": 2}.get(answer, 0) if isinstance(answer, str) else 0
        records = []
        for address in [] if isinstance(answer, str) else answer:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            if (AAAA if family == socket.AF_INET6 else A) == kind:
                data = socket.inet_pton(family, address)
                records.append(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, self.ttl, len(data)) + data)
        head = query[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(records), 0, 0)
        return head + question + b"".join(records)
