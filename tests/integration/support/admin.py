"""Something with an admin port: the demo, whose figures are made up and move."""

import json
import os
from pathlib import Path

from .client import RawClient
from .http1 import head
from .need import cannot_run
from .proxy import REPO, Proxy, free_port

BUILD = Path(os.environ.get("TIDEGATE_BUILD", REPO / "build"))


class AdminDemo(Proxy):
    """The port of an admin server whose struct status is made up. A proxy with the same attributes would do as well:
    port, health_port, process, and what Proxy has."""

    def __init__(self, servers=12, workers=2, host="127.0.0.1", port=None):
        program = BUILD / "tests/integration/peers/admin_demo"
        if not program.exists():
            cannot_run(f"{program} is not built")
        self.port, self.health_port = port or free_port(), free_port()
        super().__init__([str(program), f"{host}:{self.port}", f":{self.health_port}", str(servers), str(workers)])
        try:
            self.wait_log("ready", timeout=10)
        except AssertionError:
            self.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.kill() if kind else self.stop()


def request(path, method="GET", version="HTTP/1.1", headers=(), name="localhost"):
    """name: the Host; None: no such field"""
    fields = [("Host", name)] if name else []
    return head(f"{method} {path} {version}", [*fields, *headers])


def get(port, path, host="127.0.0.1", timeout=5.0, **kw):
    """(head, body) of one request; the connection must end behind it."""
    with RawClient(port, host, timeout=timeout) as client:
        answer = client.answer(request(path, **kw))
        body = b"" if kw.get("method") == "HEAD" else client.read_body(answer)
        client.expect_gone()
    return answer, body


def get_json(port, path):
    answer, body = get(port, path)
    assert answer.status == 200 and answer.get("Content-Type") == "application/json"
    return json.loads(body)
