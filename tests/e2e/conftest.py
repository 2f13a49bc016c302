"""The cluster that all tests of a run share, in their order: what one leaves is what the next one finds."""

import pytest

from cluster import FOLDER, Cluster, make_images
from node import Node
from server import Failed
from support.client import client_context
from support.need import cannot_run

pytest_plugins = ["support.fixtures"]


@pytest.fixture(scope="session")
def tls(certs):
    return client_context(certs)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    try:
        node = Node(FOLDER)
    except Failed as e:
        cannot_run(str(e))
    archives = make_images(tmp_path_factory.mktemp("images"))
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
