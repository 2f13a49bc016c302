"""Fixtures of the tests of the chart: the real API server, and a namespace that allows as little as one can."""

import itertools

import pytest

from server import REPO
from serving import api_server

NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def api(tmp_path_factory):
    """The API server that all tests of a run share; the kind WebSocketServer is not there yet."""
    with api_server(tmp_path_factory.mktemp("api")) as server:
        server.apply_crd(REPO / "tests/chart/monitoring.yaml")
        yield server


@pytest.fixture
def namespace(api):
    """One of the test's own, that enforces the restricted pod security standard."""
    return restricted(api, f"release-{next(NUMBERS)}")


def restricted(api, name):
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    return name
