"""Readers, and the cluster that the README supposes: a node, and an application `chat` with its Service."""

import pytest

from cluster import make_backend
from node import Node
from reader import Reader
from server import REPO, Failed
from support.need import cannot_run

FOLDER = REPO / "tests/.cache/node-of-docs"
BACKEND = "tidegate.test/backend:1"
LABELS = {"app": "chat"}
CHAT = [
    {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "chat", "namespace": "default"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": LABELS}, "template": {"metadata": {"labels": LABELS}, "spec": {
            "terminationGracePeriodSeconds": 8,
            "containers": [{"name": "chat", "image": BACKEND, "args": ["0.0.0.0", "3001"]}],
        }}}},
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "chat", "namespace": "default"},
     "spec": {"selector": LABELS, "ports": [{"port": 3001}]}},
]  # fmt: skip


@pytest.fixture(scope="session")
def machine(tmp_path_factory):
    """A reader who has this machine."""
    reader = Reader(tmp_path_factory.mktemp("machine"))
    yield reader
    reader.end()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A reader who has a cluster."""
    try:
        node = Node(FOLDER)
    except Failed as e:
        cannot_run(str(e))
    node.up()
    try:
        node.import_image(make_backend(tmp_path_factory.mktemp("images")))
        with node.inside():
            for obj in CHAT:
                node.api.apply(obj)
        reader = Reader(tmp_path_factory.mktemp("cluster"), node)
        yield reader
        reader.end()
    finally:
        node.down()
