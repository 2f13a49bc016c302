"""The managed Service: its ports follow the servers, and what others own in it is left alone."""

import pytest

from gateway import echoes, server
from support.backend import RawBackend, echo
from support.proxy import free_port
from support.wait import wait_until


@pytest.fixture
def managed(start_gateway, api, namespace):
    """A gateway with a Service whose port `foreign` is somebody else's."""
    foreign = free_port()
    api.apply({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "tidegate", "namespace": namespace},
        "spec": {"selector": {"app": "tidegate"}, "ports": [{"name": "foreign", "port": foreign, "protocol": "TCP"}]},
    })  # fmt: skip
    gateway = start_gateway(flags=["--service", "tidegate"])
    gateway.foreign = foreign
    return gateway


def ports(gateway):
    items = gateway.api.get(f"/api/v1/namespaces/{gateway.release}/services/tidegate")["spec"]["ports"]
    return {p["name"]: p["port"] for p in items}


def wait_ports(gateway, *wanted):
    due = {"foreign": gateway.foreign, **{f"p-{p}": p for p in wanted}}
    wait_until(f"the Service's ports {due}", lambda: ports(gateway) == due, 10)


def test_its_ports_follow_the_servers(managed, namespace):
    a, b = free_port(), free_port()
    with RawBackend(echo) as backend:
        managed.apply(server("a", namespace, a, backend.port))
        managed.wait_condition("a")
        wait_ports(managed, a)
        managed.apply(server("b", namespace, b, backend.port))
        managed.wait_condition("b")
        wait_ports(managed, a, b)
        managed.delete("wss", "a")
        wait_ports(managed, b)
        moved = free_port()
        managed.apply(server("b", namespace, moved, backend.port))
        managed.wait_condition("b")
        wait_ports(managed, moved)
        managed.delete("wss", "b")
        wait_ports(managed)
        spec = managed.api.get(f"/api/v1/namespaces/{namespace}/services/tidegate")["spec"]
        assert spec["selector"] == {"app": "tidegate"}, "more than its ports was touched"


def test_a_port_that_somebody_took_is_said_and_theirs(managed, namespace):
    good = free_port()
    with RawBackend(echo) as backend:
        managed.apply(server("taken", namespace, managed.foreign, backend.port), server("good", namespace, good, backend.port))
        managed.wait_condition("good")
        managed.wait_condition("taken", "Programmed")
        managed.wait_condition("taken", "Ready", "False", says=str(managed.foreign))
        managed.wait_event("taken", "ServicePortTaken")
        wait_ports(managed, good)
        echoes(managed.foreign)  # the proxy serves it all the same


def test_a_port_that_somebody_takes_out_is_put_back(managed, namespace):
    port = free_port()
    with RawBackend(echo) as backend:
        managed.apply(server("a", namespace, port, backend.port))
        managed.wait_condition("a")
        wait_ports(managed, port)
        at = [n for n, p in enumerate(managed.api.get(f"/api/v1/namespaces/{namespace}/services/tidegate")["spec"]["ports"])
              if p["port"] == port][0]  # fmt: skip
        managed.api.must("PATCH", f"/api/v1/namespaces/{namespace}/services/tidegate",
                         [{"op": "remove", "path": f"/spec/ports/{at}"}], kind="application/json-patch+json")  # fmt: skip
        wait_ports(managed, port)


def test_without_the_service_an_object_is_not_ready(start_gateway, namespace):
    gateway = start_gateway(flags=["--service", "tidegate"])
    port, gateway.foreign = free_port(), free_port()
    with RawBackend(echo) as backend:
        gateway.apply(server("a", namespace, port, backend.port))
        gateway.wait_condition("a", "Programmed")
        gateway.wait_condition("a", "Ready", "False", says="tidegate")
        gateway.api.create(f"/api/v1/namespaces/{namespace}/services",
                           {"metadata": {"name": "tidegate"}, "spec": {"ports": [{"name": "foreign", "port": gateway.foreign}]}})  # fmt: skip
        gateway.wait_condition("a")
        wait_ports(gateway, port)


def test_an_entry_of_ours_that_somebody_edited_is_made_anew(managed, namespace):
    """An unforced apply of it would clash for ever; one without it takes it away, and then the port is free."""
    path = f"/api/v1/namespaces/{namespace}/services/tidegate"
    edited, other = free_port(), free_port()

    def target():
        found = [p["targetPort"] for p in managed.api.get(path)["spec"]["ports"] if p["port"] == edited]
        return found[0] if found else None

    with RawBackend(echo) as backend:
        managed.apply(server("edited", namespace, edited, backend.port), server("other", namespace, other, backend.port))
        managed.wait_condition("edited")
        wait_ports(managed, edited, other)
        at = [p["port"] for p in managed.api.get(path)["spec"]["ports"]].index(edited)
        managed.api.must("PATCH", f"{path}?fieldManager=kubectl-edit",
                         [{"op": "replace", "path": f"/spec/ports/{at}/targetPort", "value": 7777}],
                         kind="application/json-patch+json")  # fmt: skip
        wait_until("our target again", lambda: target() == edited, 10)
        wait_ports(managed, edited, other)
        managed.wait_condition("edited")
