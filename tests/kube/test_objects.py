"""From kubectl apply to a relayed message: edits, deletes, conflicts and what is wrong, under a crowd that must not notice."""

import time
from datetime import datetime

import pytest

from gateway import Still, b64, echoes, server, wait_closed
from support.backend import RawBackend, echo, echo_as, server_context
from support.client import client_context
from support.proxy import free_port
from support.site import enter, is_open, talk
from support.wait import wait_until


def test_the_first_example_of_the_design_is_relayed(gateway, namespace):
    port = free_port()
    with RawBackend(echo) as backend:
        gateway.api.apply(f"""
            apiVersion: tidegate.dev/v1alpha1
            kind: WebSocketServer
            metadata:
              name: websocket-svr
              namespace: {namespace}
            spec:
              https: false
              port: {port}
              backend: ws://localhost:{backend.port}
            """)
        gateway.wait_condition("websocket-svr")
        echoes(port)
        backend.check()


def test_the_second_example_of_the_design_is_relayed(gateway, namespace, certs):
    """https to clients, wss with a client certificate to the backend, all certificates inline."""
    port, tls = free_port(), server_context(certs.server, client_ca=certs.ca)
    with RawBackend(echo, tls=tls) as backend:
        gateway.apply(server("websocket-svr", namespace, port, f"wss://localhost:{backend.port}", https=True,
                             certBase64=b64(certs.server.cert), keyBase64=b64(certs.server.key),
                             wssCertBase64=b64(certs.client.cert), wssKeyBase64=b64(certs.client.key),
                             backendTLS={"caBase64": b64(certs.ca.cert)}))  # fmt: skip
        gateway.wait_condition("websocket-svr")
        echoes(port, tls=client_context(certs))
        backend.check()
        assert not backend.tls_errors
    gateway.wait_event("websocket-svr", says="key")  # whoever may get the object can read it


def test_conditions_say_what_is_and_columns_show_it(gateway, namespace):
    port = free_port()
    with RawBackend(echo) as backend:
        gateway.apply(server("shown", namespace, port, backend.port))
        for kind in ("Accepted", "ResolvedRefs", "Programmed", "Ready"):
            gateway.wait_condition("shown", kind, reason=kind if kind != "Ready" else None)
    gateway.wait_condition("shown", "Accepted", says="allowedOrigins")  # any page may connect: said once, here
    table = gateway.api.kubectl("get", "wss", "shown", "-n", namespace)
    assert str(port) in table and "True" in table, table


def test_an_edit_takes_effect_and_closes_no_socket(gateway, namespace):
    port = free_port()
    with Still(gateway), RawBackend(echo_as("one")) as one, RawBackend(echo_as("two")) as two:
        gateway.apply(server("edited", namespace, port, one.port))
        gateway.wait_condition("edited")
        old, head = enter(port)
        with old:
            assert head.get("X-Backend") == "one"
            gateway.apply(server("edited", namespace, port, two.port))
            gateway.wait_condition("edited")
            assert echoes(port).get("X-Backend") == "two", "Ready at the new generation, yet the old one serves"
            talk(old)


def test_a_new_port_opens_and_the_old_one_closes(gateway, namespace):
    before, after = free_port(), free_port()
    with Still(gateway), RawBackend(echo) as backend:
        gateway.apply(server("moved", namespace, before, backend.port))
        gateway.wait_condition("moved")
        old, _ = enter(before)
        with old:
            gateway.apply(server("moved", namespace, after, backend.port))
            gateway.wait_condition("moved")
            echoes(after)
            wait_closed(before)
            talk(old)


def test_a_deleted_object_drains_and_closes_no_other_socket(gateway, namespace):
    port = free_port()
    with Still(gateway), RawBackend(echo) as backend:
        gateway.apply(server("gone", namespace, port, backend.port))
        gateway.wait_condition("gone")
        client, _ = enter(port)
        with client:
            gateway.delete("wss", "gone")
            client.expect_close(1001, timeout=10)
        wait_closed(port)
    wait_until("nothing of it left", lambda: "/gone" not in gateway.servers())


def older(gateway, name):
    """Until whatever is created now is younger than this object: its age is told in whole seconds."""
    created = gateway.get(name)["metadata"]["creationTimestamp"]
    second = datetime.fromisoformat(created.replace("Z", "+00:00")).timestamp() + 1
    wait_until("the next second", lambda: time.time() > second)


def test_of_two_on_one_port_the_oldest_wins_and_the_other_takes_over(gateway, namespace):
    port = free_port()
    with Still(gateway), RawBackend(echo_as("older")) as one, RawBackend(echo_as("younger")) as two:
        gateway.apply(server("z-older", namespace, port, one.port))
        gateway.wait_condition("z-older")
        older(gateway, "z-older")
        gateway.apply(server("a-younger", namespace, port, two.port))
        gateway.wait_condition("a-younger", "Accepted", "False", "PortConflict", says=f"{namespace}/z-older")
        assert gateway.condition("a-younger", "Ready")["status"] == "False"
        gateway.wait_event("a-younger", "PortConflict")
        assert echoes(port).get("X-Backend") == "older"
        gateway.wait_condition("z-older")
        gateway.delete("wss", "z-older")
        gateway.wait_condition("a-younger")
        assert echoes(port).get("X-Backend") == "younger"


def test_one_that_moves_to_a_taken_port_loses_even_what_it_had(gateway, namespace):
    taken, own = free_port(), free_port()
    with RawBackend(echo_as("first")) as first, RawBackend(echo_as("second")) as second:
        gateway.apply(server("first", namespace, taken, first.port))
        gateway.wait_condition("first")
        older(gateway, "first")
        gateway.apply(server("second", namespace, own, second.port))
        gateway.wait_condition("second")
        gateway.apply(server("second", namespace, taken, second.port))
        gateway.wait_condition("second", "Accepted", "False", "PortConflict")
        assert echoes(taken).get("X-Backend") == "first"
        gateway.apply(server("second", namespace, own, second.port))
        gateway.wait_condition("second")
        assert echoes(own).get("X-Backend") == "second"


def test_a_bad_object_among_good_ones_costs_itself_only(gateway, namespace, certs):
    ports = {name: free_port() for name in ("good-1", "good-2", "good-3")}
    with Still(gateway), RawBackend(echo) as backend:
        bad = server("bad", namespace, free_port(), backend.port, https=True, certBase64=b64(certs.server.cert),
                     keyBase64=b64(certs.other_server.key))  # fmt: skip
        gateway.apply(*(server(name, namespace, port, backend.port) for name, port in ports.items()), bad)
        gateway.wait_settled(*ports)
        said = gateway.wait_condition("bad", "Ready", "False")
        gateway.wait_condition("bad", "Programmed", "False")
        assert said["reason"] and said["message"], said
        for port in ports.values():
            echoes(port)
        assert not is_open(bad["spec"]["port"])
        gateway.wait_event("bad")


def test_an_object_that_turns_bad_serves_on_as_it_was(gateway, namespace, certs):
    port = free_port()
    with Still(gateway), RawBackend(echo) as backend:
        good = {"https": True, "certBase64": b64(certs.server.cert), "keyBase64": b64(certs.server.key)}
        gateway.apply(server("turned", namespace, port, backend.port, **good))
        gateway.wait_condition("turned")
        client, _ = enter(port, tls=client_context(certs))
        with client:
            gateway.apply(server("turned", namespace, port, backend.port, **good | {"keyBase64": b64(certs.other_server.key)}))
            gateway.wait_condition("turned", "Ready", "False")
            echoes(port, tls=client_context(certs))
            talk(client)
            gateway.apply(server("turned", namespace, port, backend.port, **good))
            gateway.wait_condition("turned")
            talk(client)


@pytest.mark.parametrize("port", [9900, 9901, 9902, 9903])
def test_the_ports_of_the_gateway_are_not_to_be_had(gateway, namespace, port):
    gateway.apply(server("greedy", namespace, port, 3001))
    gateway.wait_condition("greedy", "Accepted", "False", says="spec.port")


@pytest.mark.parametrize("backend", ["ws://localhost:3001", "ws://127.0.0.1:3001", "ws://[::1]:3001", "ws://169.254.169.254"])
def test_backends_that_are_the_gateway_itself_are_refused(start_gateway, namespace, backend):
    gateway = start_gateway(local=False)
    gateway.apply(server("inward", namespace, free_port(), backend))
    gateway.wait_condition("inward", "Accepted", "False")
    assert "/inward" not in gateway.servers()


def test_an_object_of_another_gateway_is_let_alone(gateway, namespace):
    ours, theirs = free_port(), free_port()
    with RawBackend(echo) as backend:
        gateway.apply(server("theirs", namespace, theirs, backend.port, gatewayName="other"),
                      server("ours", namespace, ours, backend.port))  # fmt: skip
        gateway.wait_condition("ours")
        echoes(ours)
        assert not is_open(theirs)
        reasons = {c["reason"] for c in (gateway.get("theirs").get("status") or {}).get("conditions", [])}
        assert reasons <= {"Pending"}, reasons  # as the schema's defaults have it
        gateway.apply(server("ours", namespace, ours, backend.port, gatewayName="other"))
        wait_closed(ours)


def test_a_gateway_of_some_namespaces_needs_rights_in_those_only(start_gateway, api, namespace):
    from gateway import CLUSTER_RULES, release_rules

    other = api.namespace(f"{namespace}-other")
    inside = [rule for key, rule in CLUSTER_RULES.items()] + release_rules("tidegate", "tidegate")
    gateway = start_gateway(flags=["--namespace", namespace], rules=[], namespaced={namespace: inside})
    ours, theirs = free_port(), free_port()
    with RawBackend(echo) as backend:
        gateway.apply(server("theirs", other, theirs, backend.port), server("ours", namespace, ours, backend.port))
        gateway.wait_condition("ours")
        echoes(ours)
        assert not is_open(theirs)


def test_a_hundred_edits_in_a_row_end_at_the_last(gateway, namespace):
    port = free_port()
    with Still(gateway), RawBackend(echo_as("wrong")) as wrong, RawBackend(echo_as("last")) as last:
        gateway.apply(server("busy", namespace, port, wrong.port))
        gateway.wait_condition("busy")
        client, _ = enter(port)
        with client:
            for number in range(100):
                url = f"ws://localhost:{wrong.port if number < 99 else last.port}/{number}"
                gateway.api.must("PATCH", gateway.path("busy"), {"spec": {"backend": url}}, kind="application/merge-patch+json")
            gateway.wait_condition("busy")
            assert gateway.get("busy")["metadata"]["generation"] == 101
            assert echoes(port).get("X-Backend") == "last"
            talk(client)


def test_one_made_anew_under_its_name_is_another_one(gateway, namespace):
    port = free_port()
    with RawBackend(echo_as("first")) as first, RawBackend(echo_as("second")) as second:
        gateway.apply(server("again", namespace, port, first.port))
        gateway.wait_condition("again")
        gateway.api.kubectl("delete", "wss", "again", "-n", namespace)
        gateway.apply(server("again", namespace, port, second.port))
        gateway.wait_condition("again")
        assert echoes(port).get("X-Backend") == "second"
