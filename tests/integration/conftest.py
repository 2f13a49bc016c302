"""Fixtures of the integration tests; see support/ for what they hand out."""

import contextlib
import os
import subprocess

import pytest

from support.certs import Certs
from support.proxy import BINARY, Proxy, is_sanitized


@pytest.fixture(scope="session")
def certs(tmp_path_factory):
    return Certs(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="session")
def sanitized():
    return is_sanitized()


@contextlib.contextmanager
def starter(folder):
    started = []

    def start(spec_text, *, args=(), wrap=(), env=None, log_level="debug", timeout=10.0):
        assert os.path.exists(BINARY), f"{BINARY} is not built"
        path = folder / f"spec{len(started)}.yaml"
        path.write_text(spec_text)
        command = [*wrap, BINARY, "--config", str(path), "--log-level", log_level, *args]
        proxy = Proxy(command, env)
        started.append(proxy)
        try:
            proxy.wait_log(event="ready", timeout=timeout)
        except AssertionError:
            proxy.kill()
            raise
        return proxy

    yield start
    failures = []
    for proxy in started:
        try:
            proxy.stop()
        except (AssertionError, subprocess.SubprocessError) as e:
            failures.append(str(e))
    assert not failures, "\n".join(failures)


@pytest.fixture
def start_proxy(tmp_path):
    """start_proxy(spec_text, args=(), wrap=(), env=None, log_level="debug", timeout=10) -> Proxy, ready.

    wrap: words in front of the binary's path (prlimit ...); the process must stay the same by exec."""
    with starter(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def start_module_proxy(tmp_path_factory):
    """The same for a proxy that all tests of a module share."""
    with starter(tmp_path_factory.mktemp("proxy")) as start:
        yield start
