"""Somebody who reads the README at a terminal and types what it says."""

import os
import re
import shlex
import signal
import subprocess

from server import REPO
from support.proxy import free_port
from support.wait import wait_until

LIMIT_S = 240


class Reader:
    """With a cluster at hand: in the network of its node. What goes on beside the terminal ends with end()."""

    def __init__(self, folder, node=None):
        self.folder, self.node = folder, node
        self.count = 0
        self.beside = []
        names = ("PROXY_PORT", "ECHO_PORT", "ADMIN_PORT", "CONTROLLER_PORT")
        helm = {f"HELM_{kind}_HOME": str(folder / "helm") for kind in ("CACHE", "CONFIG", "DATA")}
        self.env = {**os.environ, **helm, **{name: str(free_port()) for name in names}}
        tools = [REPO / "tests/.cache/kube/helm", REPO / "tests/integration/node/node_modules/.bin"]
        self.env["PATH"] = ":".join([*map(str, tools), self.env["PATH"]])

    def _start(self, script):
        """(the process, where its output goes). Its standard input is open and silent, as a terminal's is."""
        self.count += 1
        out = self.folder / f"{self.count}.log"
        words, env = ["bash", "-euo", "pipefail", "-c", script], self.env
        if self.node:
            words, env = self.node.entered(words, env)
            words[-1] = f"cd {shlex.quote(str(REPO))}\n{script}"  # the way in forgets where one stood
        with out.open("wb") as f:
            process = subprocess.Popen(words, cwd=REPO, env=env, stdin=subprocess.PIPE, stdout=f, stderr=subprocess.STDOUT,
                                       start_new_session=True)  # fmt: skip
        return process, out

    def type(self, script, limit_s=LIMIT_S):
        """What it printed; it must go well."""
        process, out = self._start(script)
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            code = f"no end within {limit_s} s"
        finally:
            process.stdin.close()
        said = out.read_text(errors="replace")
        assert code == 0, f"{script}\nexit {code}:\n{said[-4000:]}"
        return said

    def leave_running(self, script, sign):
        """In a terminal of its own, from the moment that it has said this."""
        process, out = self._start(script)
        self.beside.append(process)
        wait_until(f"{sign!r} of {script}", lambda: re.search(sign, out.read_text()) or process.poll() is not None, 60)
        assert process.poll() is None, out.read_text()

    def interrupt(self, script, sign):
        """Ctrl-C once it has said this; that is no failure. What it printed."""
        process, out = self._start(script)
        try:
            wait_until(f"{sign!r} of {script}", lambda: re.search(sign, out.read_text()) or process.poll() is not None, LIMIT_S, 0.1)
            assert process.poll() is None, out.read_text()[-4000:]
            os.killpg(process.pid, signal.SIGINT)
            code = process.wait(30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
            process.stdin.close()
        assert code == 0, out.read_text()[-4000:]
        return out.read_text()

    def end(self):
        for process in self.beside:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(10)
            process.stdin.close()
        self.beside = []


def quoted(text):
    """The argument of --execute."""
    words = shlex.split(text, comments=True)
    return words[words.index("--execute") + 1]
