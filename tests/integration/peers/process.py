"""The peers that are programs: python's websockets, libwebsockets and node's ws; websockets_peer.py says what they do."""

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from support.need import cannot_run
from support.proxy import REPO

HERE = Path(__file__).resolve().parent
BUILD = Path(os.environ.get("TIDEGATE_BUILD", REPO / "build"))
NODE = HERE.parent / "node"
KINDS = ["websockets", "libwebsockets", "node"]


def command(kind, role):
    if kind == "websockets":
        return [sys.executable, str(HERE / "websockets_peer.py"), role]
    if kind == "libwebsockets":
        program = BUILD / f"tests/integration/peers/lws_{role}"
        if not program.exists():
            cannot_run(f"{program} is not built")
        return [str(program)]
    if not shutil.which("node") or not (NODE / "node_modules/ws").exists():
        cannot_run("node's ws is missing: `npm ci` in tests/integration/node")
    return ["node", str(NODE / "peer.mjs"), role]


def _options(ca=None, pair=None, protocols=(), ask_close=False):
    words = []
    if ca:
        words += ["--ca", ca.cert_path]
    if pair:
        words += ["--cert", pair.cert_path, "--key", pair.key_path]
    for name in protocols:
        words += ["--protocol", name]
    return words + (["--ask-close"] if ask_close else [])


class Server:
    """An echo server on a free port of 127.0.0.1; pair: it speaks TLS with it; ca: its clients must have one of its."""

    def __init__(self, kind, **options):
        self.process = subprocess.Popen(
            [*command(kind, "server"), *_options(**options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.port = self.report(20)["port"]

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(json.loads(line))
        self.lines.put(None)

    def report(self, timeout=10):
        """The next line it says: of a connection that ended."""
        line = self.lines.get(timeout=timeout)
        assert line is not None, f"{self.process.args[0]} ended with {self.process.wait(5)}"
        return line

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def call(kind, url, timeout=70, **options):
    """One client's run; what it says."""
    done = subprocess.run(
        [*command(kind, "client"), url, *_options(**options)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
    )
    assert done.returncode == 0 and done.stdout, f"{kind} ended with {done.returncode}: {done.stderr}"
    return json.loads(done.stdout)
