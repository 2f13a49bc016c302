"""The cluster that all tests of a worker share, in their order: what one leaves is what the next one finds."""

from pathlib import Path

import pytest

from cluster import FOLDER, Cluster, make_images
from node import Node
from server import Failed
from support.client import client_context
from support.need import cannot_run

pytest_plugins = ["support.fixtures"]

# With pytest-xdist (-n 3 --dist loadscope) there are three nodes beside each other; this is who is where, in order, so that
# they have as much to do.
NODES = (("test_gateway", "test_trouble"), ("test_goodbye",), ("test_release", "test_sidecar"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class ByNode(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = Path(nodeid.partition("::")[0]).stem
            return str(next(n for n, files in enumerate(NODES) if file in files))

    return ByNode(config, log)


@pytest.fixture(scope="session")
def tls(certs):
    return client_context(certs)


@pytest.fixture(scope="session")
def cluster():
    try:
        node = Node(FOLDER)
    except Failed as e:
        cannot_run(str(e))
    archives = make_images()
    node.up()
    try:
        images = [node.import_image(archive)[0] for archive in archives]
        with node.inside():
            cluster = Cluster(node, images[0])
            try:
                yield cluster
            finally:
                cluster.logs.stop()
    finally:
        node.down()


@pytest.fixture(autouse=True)
def nothing_was_forbidden(cluster):
    """The rights that the chart grants are enough, whatever happened."""
    yield
    refused = cluster.logs.refused()
    assert not refused, refused[:5]
