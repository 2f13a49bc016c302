"""What objects refer to: Secrets that rotate, Services and their endpoints, and leave to use another namespace's."""

import contextlib
import hashlib

import pytest

from gateway import Still, b64, echoes, endpoint_slice, own_address, secret, server, service, wait_closed
from server import REPO
from support.backend import RawBackend, echo, echo_as, server_context
from support.client import RawClient, client_context
from support.proxy import free_port
from support.site import enter, is_open, talk
from support.wait import wait_until

GRANTS = REPO / "tests/kube/referencegrants.yaml"


def shown(port, certs):
    """The certificate that a client is shown, DER."""
    with RawClient(port, tls=client_context(certs)) as client:
        return client.tls.getpeercert(True)


def der(pair):
    from cryptography.hazmat.primitives.serialization import Encoding

    return pair.x509.public_bytes(Encoding.DER)


def status_of(port):
    with RawClient(port) as client:
        from support import http1

        return client.answer(http1.upgrade_request("/")).status


# Secrets


def test_a_secret_that_rotates_is_shown_to_new_clients_and_closes_none(gateway, namespace, certs):
    port, new = free_port(), certs.make_server("rotated", ["localhost"])
    with Still(gateway), RawBackend(echo) as backend:
        gateway.apply(secret("tls", namespace, certs.server),
                      server("rotates", namespace, port, backend.port, https=True, tls={"secretRef": {"name": "tls"}}))  # fmt: skip
        gateway.wait_condition("rotates")
        old, _ = enter(port, tls=client_context(certs))
        with old:
            assert shown(port, certs) == der(certs.server)
            gateway.apply(secret("tls", namespace, new))
            wait_until("the new certificate", lambda: shown(port, certs) == der(new), 10)
            talk(old)
        gateway.wait_condition("rotates")


def test_garbage_in_a_secret_keeps_the_last_good_certificate(gateway, namespace, certs):
    port = free_port()
    with Still(gateway), RawBackend(echo) as backend:
        gateway.apply(secret("tls", namespace, certs.server),
                      server("kept", namespace, port, backend.port, https=True, tls={"secretRef": {"name": "tls"}}))  # fmt: skip
        gateway.wait_condition("kept")
        client, _ = enter(port, tls=client_context(certs))
        with client:
            mixed = {"tls.crt": b64(certs.server.cert), "tls.key": b64(certs.other_server.key)}
            for garbage in ({"tls.crt": b64("garbage"), "tls.key": b64("garbage")}, mixed):
                gateway.apply(secret("tls", namespace, certs.server) | {"data": garbage})
                gateway.wait_condition("kept", "ResolvedRefs", "False", "InvalidCertificateRef", says="tls")
                gateway.wait_condition("kept", "Ready", "False")
                assert shown(port, certs) == der(certs.server)
                talk(client)
            gateway.wait_event("kept")
            new = certs.make_server("healed", ["localhost"])
            gateway.apply(secret("tls", namespace, new))
            gateway.wait_condition("kept")
            wait_until("the new certificate", lambda: shown(port, certs) == der(new), 10)
            talk(client)


def test_a_secret_that_goes_or_comes_late_is_followed(gateway, namespace, certs):
    port = free_port()
    with RawBackend(echo) as backend:
        gateway.apply(server("late", namespace, port, backend.port, https=True, tls={"secretRef": {"name": "later"}}))
        gateway.wait_condition("late", "ResolvedRefs", "False", says="later")
        assert not is_open(port)
        gateway.apply(secret("later", namespace, certs.server))
        gateway.wait_condition("late")
        echoes(port, tls=client_context(certs))
        gateway.delete("secret", "later")
        gateway.wait_condition("late", "ResolvedRefs", "False")
        echoes(port, tls=client_context(certs))


def test_every_kind_of_secret_reference_is_used(gateway, namespace, certs):
    """Both certificates and both CAs: clients and backend check each other through the gateway."""
    port, tls = free_port(), server_context(certs.server, client_ca=certs.ca)
    with RawBackend(echo, tls=tls) as backend:
        gateway.apply(
            secret("front", namespace, certs.server), secret("clients", namespace, ca=certs.other_ca),
            secret("back", namespace, certs.client), secret("backends", namespace, ca=certs.ca),
            server("all", namespace, port, f"wss://localhost:{backend.port}", https=True,
                   tls={"secretRef": {"name": "front"}, "clientCARef": {"name": "clients"}},
                   backendTLS={"secretRef": {"name": "back"}, "caRef": {"name": "backends"}}),
        )  # fmt: skip
        gateway.wait_condition("all")
        echoes(port, tls=client_context(certs, client_pair=certs.other_client))
        with pytest.raises(Exception):  # noqa: B017 - TLS 1.3: at the handshake or at the first read
            echoes(port, tls=client_context(certs))
        backend.check()


# another namespace's


@pytest.fixture(scope="module")
def grants(api):
    """The API server knows ReferenceGrants, for the rest of this module."""
    api.apply_crd(GRANTS)
    yield
    api.kubectl("delete", "-f", GRANTS)


def grant(target, source, kind="Secret", name=None):
    return {
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
        "metadata": {"name": "leave", "namespace": target},
        "spec": {
            "from": [{"group": "tidegate.dev", "kind": "WebSocketServer", "namespace": source}],
            "to": [{"group": "", "kind": kind, **({"name": name} if name else {})}],
        },
    }  # fmt: skip


@pytest.fixture
def other(api, namespace):
    return api.namespace(f"{namespace}-other")


def foreign(namespace, other, port, backend_port):
    ref = {"secretRef": {"name": "tls", "namespace": other}}
    return server("foreign", namespace, port, backend_port, https=True, tls=ref)


def test_without_the_api_of_grants_there_are_none(gateway, namespace, other, certs):
    gateway.apply(secret("tls", other, certs.server), foreign(namespace, other, free_port(), 3001))
    gateway.wait_condition("foreign", "ResolvedRefs", "False", "RefNotPermitted")


def test_a_secret_of_another_namespace_needs_leave_and_loses_it(grants, gateway, namespace, other, certs):
    port = free_port()
    with Still(gateway), RawBackend(echo) as backend:
        gateway.apply(secret("tls", other, certs.server), foreign(namespace, other, port, backend.port))
        gateway.wait_condition("foreign", "ResolvedRefs", "False", "RefNotPermitted")
        assert not is_open(port)
        gateway.apply(grant(other, namespace))
        gateway.wait_condition("foreign")
        client, _ = enter(port, tls=client_context(certs))
        with client:
            gateway.delete("referencegrant", "leave", other)
            gateway.wait_condition("foreign", "ResolvedRefs", "False", "RefNotPermitted")
            client.expect_close(1001, timeout=10)
        wait_closed(port)


def test_a_grant_for_somebody_else_is_none(grants, gateway, namespace, other, certs):
    wrong = [grant(other, "elsewhere"), grant(other, namespace, kind="Service"), grant(other, namespace, name="another")]
    for number, g in enumerate(wrong):
        g["metadata"]["name"] = f"wrong-{number}"
    gateway.apply(secret("tls", other, certs.server), *wrong, foreign(namespace, other, free_port(), 3001))
    gateway.wait_condition("foreign", "ResolvedRefs", "False", "RefNotPermitted")
    gateway.apply(grant(other, namespace, name="tls"))
    gateway.wait_condition("foreign", "ResolvedRefs", "True")


def test_whether_a_foreign_secret_exists_is_not_told(grants, gateway, namespace, other):
    gateway.apply(foreign(namespace, other, free_port(), 3001))
    gateway.wait_condition("foreign", "ResolvedRefs", "False", "RefNotPermitted")


def test_a_service_of_another_namespace_needs_leave(grants, gateway, namespace, other):
    address, port = own_address(), free_port()
    with RawBackend(echo, host=address) as backend:
        gateway.apply(service("app", other, 80), endpoint_slice("app-1", other, "app", [address], backend.port),
                      server("foreign", namespace, port, f"ws://app.{other}.svc:80"))  # fmt: skip
        gateway.wait_condition("foreign", "ResolvedRefs", "False", "RefNotPermitted")
        gateway.apply(grant(other, namespace, kind="Service"))
        gateway.wait_condition("foreign")
        echoes(port)


def test_what_is_in_a_namespace_that_is_not_watched_is_not_said_to_want_a_grant(grants, start_gateway, namespace, other, certs):
    gateway = start_gateway(flags=["--namespace", namespace])
    gateway.apply(secret("tls", other, certs.server), grant(other, namespace), foreign(namespace, other, free_port(), 3001),
                  server("far", namespace, free_port(), f"ws://app.{other}.svc:80"))  # fmt: skip
    for name in ("foreign", "far"):
        said = gateway.wait_condition(name, "ResolvedRefs", "False", "RefNotPermitted")["message"]
        assert f"add {other} to its --namespace (watchNamespaces of the chart)" in said and "ReferenceGrant" not in said


# Services


def test_endpoints_that_change_are_followed_and_close_no_socket(gateway, namespace):
    address, port = own_address(), free_port()
    with Still(gateway), RawBackend(echo_as("one"), host=address) as one, RawBackend(echo_as("two"), host=address) as two:
        gateway.apply(service("app", namespace, 80), endpoint_slice("app-1", namespace, "app", [address], one.port),
                      server("pool", namespace, port, backendRef={"name": "app", "port": 80}))  # fmt: skip
        gateway.wait_condition("pool")
        old, head = enter(port)
        with old:
            assert head.get("X-Backend") == "one"
            gateway.apply(endpoint_slice("app-2", namespace, "app", [address], two.port))
            wait_until("both are used", lambda: {echoes(port).get("X-Backend") for _ in range(4)} == {"one", "two"}, 10)
            gateway.delete("endpointslice", "app-1")
            wait_until("the second alone", lambda: {echoes(port).get("X-Backend") for _ in range(4)} == {"two"}, 10)
            talk(old)
            gateway.apply(endpoint_slice("app-2", namespace, "app", [address], two.port, ready=False))
            wait_until("none", lambda: status_of(port) == 503, 10)
            ending = {"ready": False, "serving": True, "terminating": True}
            gateway.apply(endpoint_slice("app-2", namespace, "app", [address], two.port, **ending))
            wait_until("an ending one rather than none", lambda: status_of(port) == 101, 10)
            talk(old)


def test_a_service_has_its_weight_however_many_endpoints_it_has(gateway, namespace):
    """And how many there are may change: that is another list for new connections, and nothing for those that are open."""
    address, port = own_address(), free_port()

    def shares(count):
        got = [echoes(port).get("X-Backend") for _ in range(count)]
        return {name: got.count(name) for name in got}

    with contextlib.ExitStack() as parts:
        parts.enter_context(Still(gateway))
        lone, *pool = [parts.enter_context(RawBackend(echo_as(n), host=address)) for n in ("lone", "one", "two", "three")]
        slices = [endpoint_slice(f"app-{i}", namespace, "app", [address], b.port) for i, b in enumerate(pool)]
        backends = [{"url": f"ws://{address}:{lone.port}"}, {"url": "ws://app:80"}]
        gateway.apply(service("app", namespace, 80), *slices, server("shared", namespace, port, backends=backends))
        gateway.wait_condition("shared")
        opened = [parts.enter_context(enter(port)[0]) for _ in range(6)]
        assert shares(12) == {"lone": 6, "one": 2, "two": 2, "three": 2}
        gateway.delete("endpointslice", "app-2")
        wait_until("one endpoint less", lambda: shares(4) == {"lone": 2, "one": 1, "two": 1}, 10)
        for client in opened:
            talk(client)


def test_a_bare_host_is_a_service_of_the_namespace(gateway, namespace):
    address, port = own_address(), free_port()
    with RawBackend(echo, host=address) as backend:
        gateway.apply(service("app", namespace, 8080), endpoint_slice("app-1", namespace, "app", [address], backend.port),
                      server("bare", namespace, port, "ws://app:8080/"))  # fmt: skip
        gateway.wait_condition("bare")
        echoes(port)


def test_a_service_that_is_missing_or_has_another_port_is_named(gateway, namespace):
    address, port = own_address(), free_port()
    with RawBackend(echo, host=address) as backend:
        gateway.apply(server("waits", namespace, port, backendRef={"name": "absent", "port": 80}))
        gateway.wait_condition("waits", "ResolvedRefs", "False", "BackendNotFound", says="absent")
        gateway.apply(service("absent", namespace, 81), endpoint_slice("absent-1", namespace, "absent", [address], backend.port))
        gateway.wait_condition("waits", "ResolvedRefs", "False", "BackendNotFound", says="80")
        gateway.apply(service("absent", namespace, 80))
        gateway.wait_condition("waits")
        echoes(port)


def test_a_service_that_is_only_a_name_is_refused(gateway, namespace):
    gateway.apply(service("alias", namespace, 80, type="ExternalName", externalName="elsewhere.example"),
                  server("aliased", namespace, free_port(), backendRef={"name": "alias", "port": 80}))  # fmt: skip
    gateway.wait_condition("aliased", "ResolvedRefs", "False")


# rights


def test_a_missing_right_costs_only_the_objects_that_need_it(start_gateway, namespace, certs):
    gateway = start_gateway(without=["secrets"], forbidden_is_fine=True)
    plain, secure = free_port(), free_port()
    with RawBackend(echo) as backend:
        gateway.apply(secret("tls", namespace, certs.server), server("plain", namespace, plain, backend.port),
                      server("secure", namespace, secure, backend.port, https=True, tls={"secretRef": {"name": "tls"}}))  # fmt: skip
        gateway.wait_condition("plain")
        echoes(plain)
        gateway.wait_condition("secure", "ResolvedRefs", "False", says="ecret")
        assert not is_open(secure)


def test_what_was_rendered_is_what_the_proxy_says_it_runs(gateway, namespace):
    port = free_port()
    with RawBackend(echo) as backend:
        gateway.apply(server("echoed", namespace, port, backend.port))
        gateway.wait_condition("echoed")
    status = gateway.proxy.status()
    assert status["revision"] == hashlib.sha256(gateway.servers().encode()).hexdigest()
    assert gateway.proxy.server(f"{namespace}/echoed")["state"] == "active"
    assert gateway.is_programmed("echoed")
    assert (gateway.run_dir / "servers.yaml").stat().st_mode & 0o777 == 0o600
