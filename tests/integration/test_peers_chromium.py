"""Chromium with a page of the test's own, which opens a wss URL through the proxy and reports what it saw."""

import http.server
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlencode

import pytest

from peers.legs import leg  # noqa: F401 (a fixture)
from peers.process import Server
from support.browser import FLAGS
from support.need import cannot_run

PAGE = Path(__file__).with_name("peers") / "page.html"
pytestmark = pytest.mark.parametrize("leg", ["wss-ws", "wss-wss"], indirect=True)


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = self.path.startswith("/page.html")
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        if found:
            self.wfile.write(PAGE.read_bytes())

    def do_POST(self):
        self.server.reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def open_page(tmp_path):
    """open_page(url, protocols=()) -> what the page reports of its WebSocket to that URL."""
    browser = shutil.which("chromium")
    if not browser:
        cannot_run("chromium is missing")
    pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    pages.reports = queue.Queue()
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    process = None

    def start(url, protocols=()):
        nonlocal process
        query = urlencode([("url", url), *(("protocol", name) for name in protocols)])
        log = (tmp_path / "chromium.log").open("wb")
        process = subprocess.Popen(
            [browser, *FLAGS, "--ignore-certificate-errors", f"--user-data-dir={tmp_path}/profile", "--remote-debugging-port=0",
             f"http://127.0.0.1:{pages.server_port}/page.html?{query}"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            return pages.reports.get(timeout=60)
        except queue.Empty:
            raise AssertionError(f"no report; chromium said: {(tmp_path / 'chromium.log').read_text()[-2000:]}") from None

    yield start
    if process:
        os.killpg(process.pid, signal.SIGKILL)  # its own session: the browser and its children
        process.wait()
    pages.shutdown()
    pages.server_close()


def test_page(leg, start_proxy, open_page):
    """A page's wss socket opens, echoes text and 100,000 bytes, agrees on compression, and closes with 4001."""
    with Server("websockets", **leg.server_options) as backend:
        proxy, url = leg.start(start_proxy, backend.port)
        seen = open_page(url + "/from/page")
        assert seen["open"] and seen["protocol"] == ""
        assert seen["messages"] == ["grüße aus dem browser", 100000]
        assert seen["extensions"].startswith("permessage-deflate")
        assert seen["close"] == [4001, "page is done", True]
        told = backend.report()
        assert (told["path"], told["close"]) == ("/from/page", [4001, "page is done"])
        close = proxy.wait_log("close")
        assert (close["code"], close["initiator"]) == (4001, "client")


def test_page_with_subprotocols(leg, start_proxy, open_page):
    """The backend's choice out of the page's list is the page's protocol."""
    with Server("node", protocols=["b.v2"], **leg.server_options) as backend:
        proxy, url = leg.start(start_proxy, backend.port)
        seen = open_page(url + "/", ["a.v1", "b.v2", "c.v3"])
        assert seen["protocol"] == "b.v2" and seen["messages"][1] == 100000
        assert backend.report()["protocol"] == "b.v2"
        assert proxy.wait_log("open")["protocol"] == "b.v2"


def test_refused_page(leg, start_proxy, open_page):
    """Nobody at the backend: the page sees an error and 1006, never an open socket."""
    with Server("websockets", **leg.server_options) as backend:
        port = backend.port
    proxy, url = leg.start(start_proxy, port)
    seen = open_page(url + "/")
    assert "open" not in seen and seen["error"] and seen["close"] == [1006, "", False]
    assert proxy.wait_log("refuse")["status"] == 502
