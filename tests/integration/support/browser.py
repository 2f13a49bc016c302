"""Chromium without a window, driven by its DevTools protocol."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path

from websockets.sync.client import connect

from .need import cannot_run
from .wait import wait_until

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server",
]  # fmt: skip


class Browser:
    """One page. complaints: what its console and its security policy found wrong."""

    def __init__(self, folder):
        program = shutil.which("chromium")
        if not program:
            cannot_run("chromium is missing")
        self.complaints = []
        self.ids = itertools.count(1)
        self.stack = contextlib.ExitStack()
        log = (Path(folder) / "chromium.log").open("wb")
        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={folder}/profile", "--remote-debugging-port=0", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            port_file = Path(folder) / "profile/DevToolsActivePort"
            port = wait_until("the port", lambda: port_file.exists() and port_file.read_text().split("\n")[0], 60)
            pages = wait_until("a page", lambda: [t for t in self._targets(port) if t["type"] == "page"], 30)
            self.socket = self.stack.enter_context(connect(pages[0]["webSocketDebuggerUrl"], max_size=None))
            for domain in "Page", "Runtime", "Log":
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _targets(port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
            return json.load(answer)

    def call(self, method, **params):
        number = next(self.ids)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(30))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.complaints.append(message["params"])

    def eval(self, expression):
        """The value of an expression of JavaScript in the page."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def open(self, url, width=1280, height=900, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)

    def text(self, selector):
        return self.eval(f"document.querySelector({json.dumps(selector)})?.innerText")

    def texts(self, selector):
        return self.eval(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.innerText)")

    def close(self):
        with contextlib.suppress(OSError):
            self.stack.close()
        os.killpg(self.process.pid, signal.SIGKILL)  # its own session: the browser and its children
        self.process.wait()
