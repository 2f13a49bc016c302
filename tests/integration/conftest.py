"""Fixtures of the integration tests; see support/ for what they hand out."""

import contextlib
import os
import shutil
import subprocess

import pytest

from support.dns import Dns
from support.need import cannot_run
from support.proxy import BINARY, Proxy, free_port, is_sanitized, serving_flags

pytest_plugins = ["support.fixtures"]


def pytest_collection_modifyitems(items):
    """What asks for `sanitized` judges time or memory where there are no sanitizers."""
    for item in items:
        if "sanitized" in getattr(item, "fixturenames", ()):
            item.add_marker("judged")


@pytest.fixture(scope="session")
def sanitized():
    return is_sanitized()


@contextlib.contextmanager
def starter(folder):
    started = []

    def start(spec_text, *, args=(), wrap=(), env=None, log_level="debug", timeout=10.0, run_dir=None, admin=False):
        assert os.path.exists(BINARY), f"{BINARY} is not built"
        path = folder / f"spec{len(started)}.yaml"
        if spec_text is not None:
            path.write_text(spec_text)
        args, admin_port = list(args), free_port() if admin else None
        if run_dir:
            args += ["--run-dir", str(run_dir)]
        if admin:
            args += ["--admin", f"127.0.0.1:{admin_port}"]
        command = [*wrap, BINARY, "--config", str(path), "--log-level", log_level, *args, *serving_flags(args)]
        proxy = Proxy(command, env, config=path, run_dir=run_dir, admin_port=admin_port)
        started.append(proxy)
        if not timeout:
            return proxy
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
    """start_proxy(spec_text, args=(), wrap=(), env=None, log_level="debug", timeout=10, run_dir=None, admin=False)
    -> Proxy, ready; with timeout=0 as soon as it is started.

    spec_text: None for no file at all. wrap: words in front of the binary's path (prlimit ...); the process must stay the
    same by exec. run_dir: a folder for --run-dir. admin: an admin port, for Proxy.metrics()."""
    with starter(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def start_module_proxy(tmp_path_factory):
    """The same for a proxy that all tests of a module share."""
    with starter(tmp_path_factory.mktemp("proxy")) as start:
        yield start


@pytest.fixture
def run_dir(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    return path


OWN_NAMES = 'mount --bind "$1" /etc/resolv.conf && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"'


@pytest.fixture
def dns():
    try:
        server = Dns()
    except PermissionError:
        cannot_run("binding port 53 on loopback needs root")
    with server:
        yield server


@pytest.fixture
def start_with_dns(start_proxy, dns, tmp_path):
    """start(spec_text, ...) -> as start_proxy; the proxy runs in a mount namespace and resolves by `dns`."""
    namespace = ["unshare", "--mount", "--propagation", "private"]
    if not shutil.which("unshare") or subprocess.run([*namespace, "true"], capture_output=True, timeout=10).returncode:
        cannot_run("a mount namespace needs root and unshare")
    resolv, hosts = tmp_path / "resolv.conf", tmp_path / "hosts"
    resolv.write_text(f"nameserver {dns.host}\nsearch tidegate.test\noptions ndots:5\n")  # as in a pod
    hosts.write_text("127.0.0.1 localhost\n")

    def start(spec_text, **kw):
        return start_proxy(spec_text, **kw, wrap=[*namespace, "sh", "-c", OWN_NAMES, "sh", str(resolv), str(hosts)])

    return start
