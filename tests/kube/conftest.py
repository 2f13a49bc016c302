"""Fixtures of the tests on a real API server; what they hand out is in server.py."""

import itertools

import pytest

from gateway import Gateway
from server import REPO, ApiServer, Failed
from support.certs import Certs
from support.need import cannot_run

NUMBERS = itertools.count(1)


@pytest.fixture
def figure(request):
    """figure("%.2f s", seconds): a line of the run's summary, for what was measured."""
    return lambda text, *values: request.node.user_properties.append(("figure", text % values))


def pytest_terminal_summary(terminalreporter):
    for report in itertools.chain(*terminalreporter.stats.values()):
        for key, figure in getattr(report, "user_properties", ()):
            if key == "figure" and report.when == "call":
                terminalreporter.write_line(f"figure: {report.nodeid.rpartition('::')[2]}: {figure}")


@pytest.fixture(scope="session")
def certs(tmp_path_factory):
    return Certs(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="session")
def api(tmp_path_factory):
    """The API server that all tests of a run share."""
    try:
        server = ApiServer(tmp_path_factory.mktemp("api"), tied=True)
    except Failed as e:
        cannot_run(str(e))
    try:
        yield server.up()
    finally:
        server.down()


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


@pytest.fixture
def gateway(start_gateway):
    return start_gateway()
