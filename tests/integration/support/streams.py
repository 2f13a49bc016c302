"""Long random streams of valid frames, poured both ways at once and compared by their hashes."""

import hashlib
import random
import select
import threading

from .frames import BINARY, CONT, PING, PONG, TEXT, frame
from .peer import Eof


class Stream:
    """Valid frames of one direction from a seed: single ones, fragments with controls between, every length class."""

    SIZES = [0, 1, 2, 125, 126, 127, 1000, 65535, 65536, 65537, 200_000]

    def __init__(self, seed, masked, big=True):
        self.random = random.Random(seed)
        self.masked = masked
        self.frames = []
        controls = 0
        for _ in range(150):
            self.add(self.random.choice((TEXT, BINARY)), True)
            if self.random.random() < 0.3:
                self.add(TEXT, False)
                for _ in range(self.random.randrange(4)):
                    if controls < 60 and self.random.random() < 0.4:
                        self.control()
                        controls += 1
                    self.add(CONT, False)
                self.add(CONT, True)
        if big:
            self.frames.append(self.frame(BINARY, self.random.randbytes(16 << 20)))
        self.bytes = b"".join(self.frames)

    def frame(self, opcode, payload, **kw):
        return frame(opcode, payload, mask=self.random.randbytes(4) if self.masked else False, **kw)

    def add(self, opcode, fin):
        size = self.random.choice(self.SIZES) if self.random.random() < 0.5 else self.random.randrange(3000)
        self.frames.append(self.frame(opcode, self.random.randbytes(size), fin=fin))

    def control(self):
        self.frames.append(self.frame(self.random.choice((PING, PONG)), self.random.randbytes(self.random.randrange(126))))

    def pour(self, peer, seed):
        """Sends it all, cut anywhere."""
        cut = random.Random(seed)
        view, at = memoryview(self.bytes), 0
        while at < len(view):
            step = cut.choice((1, 2, 3, 7, 14, 100, 1460, 4096, 65536, 1 << 20)) if at < 1 << 20 else 1 << 20
            peer.send(view[at : at + step])
            at += step


def digest_of(peer, length):
    h = hashlib.sha256()
    while length:
        data = peer.read_some(30)
        if not data:
            raise Eof(f"{length} bytes were missing")
        assert len(data) <= length, "more than was sent"
        h.update(data)
        length -= len(data)
        peer.received.clear()
        peer.at = 0
    return h.hexdigest()


def relay_both_ways(client, conn, seed, big=True):
    """Pours a stream each way at the same time and compares what arrives."""
    up, down = Stream(seed, True, big), Stream(seed + 1, False, big)
    for peer in (client, conn):
        peer.timeout = 60
    digests, errors = {}, []

    def run(work, *args):
        try:
            digests[work, args[0]] = work(*args)
        except Exception as e:  # noqa: BLE001 - raised below
            errors.append(e)

    threads = [
        threading.Thread(target=run, args=(up.pour, client, seed), daemon=True),
        threading.Thread(target=run, args=(down.pour, conn, seed + 1), daemon=True),
        threading.Thread(target=run, args=(digest_of, client, len(down.bytes)), daemon=True),
        threading.Thread(target=run, args=(digest_of, conn, len(up.bytes)), daemon=True),
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join(90)
    assert not errors, errors
    assert digests[digest_of, conn] == hashlib.sha256(up.bytes).hexdigest()
    assert digests[digest_of, client] == hashlib.sha256(down.bytes).hexdigest()
    return up, down


def pour_until_full(peer, data):
    """Sends data over and over until the way has taken nothing for half a second; how many bytes went."""
    peer.sock.settimeout(0)
    sent, at = 0, 0
    poll = select.poll()
    poll.register(peer.sock, select.POLLOUT)
    while poll.poll(500):
        n = peer.sock.send(data[at:])
        sent += n
        at = (at + n) % len(data)
    return sent, at
