"""Fixtures of the tests on a real API server; what they hand out is in server.py."""

import itertools

import pytest

from gateway import CONTROLLER, Gateway
from server import REPO
from serving import api_server
from support import shims
from support.proxy import is_sanitized

NUMBERS = itertools.count(1)
pytest_plugins = ["support.fixtures"]


@pytest.fixture(scope="session")
def api(tmp_path_factory):
    """The API server that all tests of a run share."""
    with api_server(tmp_path_factory.mktemp("api")) as server:
        yield server


@pytest.fixture
def namespace(api):
    """A namespace of the test's own."""
    return api.namespace(f"test-{next(NUMBERS)}")


@pytest.fixture(scope="session")
def crd(api):
    """WebSocketServers are served from here on."""
    api.apply_crd(REPO / "deploy/crd.yaml")


@pytest.fixture
def start_gateway(api, crd, namespace, tmp_path):
    """start_gateway(**kw) -> Gateway, ready; kw: those of Gateway, and wait=False to get it unstarted.

    At the end: nothing that must stay secret was said, no right was missing, and every process ends by itself."""
    started = []

    def start(wait=True, **kw):
        gateway = Gateway(api, tmp_path, namespace, name=kw.pop("name", f"tidegate-{len(started)}"), **kw)
        started.append(gateway)
        return gateway.start() if wait else gateway

    failures = []
    try:
        yield start
        for gateway in started:
            for step in (gateway.check_quiet, gateway.stop):
                try:
                    step()
                except AssertionError as e:
                    failures.append(str(e))
    finally:
        for gateway in started:
            gateway.kill()
        api.kubectl("delete", "websocketservers", "-A", "--all", "--wait=false")
    assert not failures, "\n".join(failures)


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """Environment of a controller whose time runs as a shims.Clock says, whose .env it needs as well."""
    library = shims.build("speed_shim", tmp_path_factory.mktemp("shim"))
    return shims.preload(library, is_sanitized(CONTROLLER), CONTROLLER)


@pytest.fixture
def gateway(start_gateway):
    return start_gateway()
