"""Fixtures of the tests on a real API server; what they hand out is in server.py."""

import itertools

import pytest

from server import REPO, ApiServer, Failed
from support.certs import Certs
from support.need import cannot_run

NUMBERS = itertools.count(1)


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
