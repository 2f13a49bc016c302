"""What nobody should send: objects of an older schema, Secrets that are none, names and URLs that try to get out. Each costs itself
only, says what to change on the object and in an Event, and shows no key."""

import copy
from pathlib import Path

import pytest

from gateway import Still, b64, echoes, key_texts, secret, server
from server import REPO
from support.backend import RawBackend, echo
from support.client import client_context
from support.proxy import free_port
from support.site import is_open
from support.wait import wait_until

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/websocketservers.tidegate.dev"


def loosened(crd):
    """The same kind under a schema that lets any spec through."""
    crd = copy.deepcopy(crd)
    for version in crd["spec"]["versions"]:
        schema = version["schema"]["openAPIV3Schema"]
        schema.pop("x-kubernetes-validations", None)
        kept = {"gatewayName": {"type": "string"}}  # a selectable field must have its schema
        schema["properties"]["spec"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": kept}
        schema.pop("required", None)
    return crd


@pytest.fixture
def loose(api, crd):
    """An API server that lets any spec through, as one with an older CRD would; the real one is back afterwards."""

    def put(schema):
        now = api.get(CRD)
        api.must("PUT", CRD, {**now, "spec": {**now["spec"], "versions": schema["spec"]["versions"]}})

    def takes(wanted):
        path = "/apis/tidegate.dev/v1alpha1/namespaces/default/websocketservers?dryRun=All"
        garbage = {"metadata": {"name": "probe"}, "spec": {"port": "none"}}
        return (api.request("POST", path, {**server("probe", "default", 1), **garbage})[0] == 201) == wanted

    before = api.get(CRD)
    put(loosened(before))
    wait_until("the loose schema in force", lambda: takes(True), 20)
    try:
        yield
    finally:
        api.kubectl("delete", "websocketservers", "-A", "--all", "--wait=true")
        put(before)
        wait_until("the real schema in force", lambda: takes(False), 20)


@pytest.fixture
def loose_gateway(loose, start_gateway):
    return start_gateway()


def garbage(pair):
    """name -> (spec, words of the reason): objects that a newer schema would have refused."""
    key, cert = b64(pair.key), b64(pair.cert)
    good = {"port": free_port(), "backend": "ws://localhost:3001"}
    return {
        "empty": ({}, "backend"),
        "port-is-text": ({**good, "port": "eighty"}, "spec.port"),
        "port-is-a-fraction": ({**good, "port": 80.5}, "spec.port"),
        "port-is-huge": ({**good, "port": 70000}, "spec.port"),
        "port-is-a-list": ({**good, "port": [80]}, "spec.port"),
        "key-in-the-port": ({**good, "port": key}, "spec.port"),
        "backend-is-a-mapping": ({**good, "backend": {"url": "ws://x"}}, "spec.backend"),
        "backend-has-a-newline": ({**good, "backend": "ws://localhost:3001\nname: other/server"}, "spec.backend"),
        "backend-has-two-documents": ({**good, "backend": "ws://x\n---\nkind: WebSocketServer"}, "spec.backend"),
        "backend-has-a-password": ({**good, "backend": "ws://me:" + key[:30] + "@h"}, "spec.backend"),
        "key-for-a-backend": ({**good, "backend": key}, "spec.backend"),
        "pem-for-a-host": ({**good, "hosts": [pair.key.decode()]}, "hosts"),
        "old-field": ({**good, "wsBackend": "x", "clientTimeout": 5}, "unknown key"),
        "key-as-a-field": ({**good, key[:60]: 1}, "unknown key"),
        "file-on-the-gateway": ({**good, "https": True, "tls": {"certFile": "/etc/passwd", "keyFile": "/proc/self/environ"}}, "secretRef"),
        "ref-climbs-out": ({**good, "https": True, "tls": {"secretRef": {"name": "../../kube-system/x"}}}, "spec.tls.secretRef.name"),
        "ref-of-another-place": ({**good, "https": True, "tls": {"secretRef": {"name": "x", "namespace": "../x"}}}, "namespace"),
        "ref-is-text": ({**good, "https": True, "tls": {"secretRef": "pair"}}, "spec.tls.secretRef"),
        "service-climbs-out": ({"port": good["port"], "backendRef": {"name": "../x", "port": 80}}, "spec.backendRef.name"),
        "service-without-a-port": ({"port": good["port"], "backendRef": {"name": "x"}}, "spec.backendRef.port"),
        "selector-is-a-list": ({**good, "workloadSelector": {"matchLabels": ["app"]}}, "matchLabels"),
        "gateway-is-no-name": ({**good, "gatewayName": "../x"}, "spec.gatewayName"),
        "name-of-another": ({**good, "name": "other/server"}, "metadata.name"),
        "header-has-a-newline": ({**good, "headers": {"set": {"X-A": "1\r\nX-Admin: yes"}}}, "headers"),
        "nowhere-to-go": ({"port": good["port"]}, "backend"),
        "three-backends": ({**good, "backends": [], "backendRef": {"name": "x", "port": 1}}, "backendRef"),
        "key-without-its-certificate": ({**good, "https": True, "keyBase64": key}, "keyBase64"),
        "swapped": ({**good, "https": True, "certBase64": key, "keyBase64": cert}, "certBase64"),
        "pem-without-base64": ({**good, "https": True, "certBase64": pair.cert.decode(), "keyBase64": pair.key.decode()}, "base64"),
        "half-a-key": ({**good, "https": True, "certBase64": cert, "keyBase64": key[: len(key) // 2]}, "keyBase64"),
    }  # fmt: skip


def test_objects_of_an_older_schema_say_what_to_change_and_harm_nobody(loose_gateway, namespace, certs):
    gateway = loose_gateway
    with Still(gateway), RawBackend(echo) as backend:
        before, after = free_port(), free_port()
        gateway.apply(server("before", namespace, before, backend.port))
        gateway.wait_condition("before")
        gateway.secrets += [*key_texts(b64(certs.server.key)), b64(certs.server.key)[:30]]
        cases = garbage(certs.server)
        for name, (spec, _) in cases.items():
            obj = {**server(name, namespace, 1), "spec": spec}
            gateway.api.must("POST", gateway.path(name).rsplit("/", 1)[0], obj)
        gateway.apply(server("z-after", namespace, after, backend.port))
        gateway.wait_condition("z-after")
        for name, (_, words) in cases.items():
            gateway.wait_condition(name, "Accepted", "False", says=words)
            gateway.wait_condition(name, "Ready", "False")
            gateway.wait_event(name, says=words)
            assert f"/{name}\"" not in gateway.servers(), name
        echoes(before)
        echoes(after)
        gateway.check_quiet()


def test_garbage_over_a_good_object_leaves_it_serving_also_over_a_restart(loose_gateway, namespace, certs):
    gateway, port = loose_gateway, free_port()
    with RawBackend(echo) as backend:
        gateway.apply(server("turned", namespace, port, backend.port))
        gateway.wait_condition("turned")
        served = gateway.servers()
        for spec in ({}, {"port": None, "backend": None}, {"port": {}, "hosts": 1, "tls": [], "backendRef": "x"}):
            now = gateway.get("turned")
            gateway.api.must("PUT", gateway.path("turned"), {**now, "spec": spec})
            gateway.wait_condition("turned", "Accepted", "False", "Invalid")
            gateway.wait_condition("turned", "Programmed", "False", says="last good version")
            assert gateway.servers() == served
            echoes(port)
        gateway.controller.kill()
        gateway.start_controller()
        gateway.wait_condition("turned", "Programmed", "False", says="last good version")
        assert gateway.servers() == served
        echoes(port)


@pytest.mark.parametrize("case", ["opaque", "no-key", "empty", "not-pem", "mismatched", "swapped", "two-lines-short"])
def test_a_secret_that_is_no_pair_costs_the_objects_that_name_it(gateway, namespace, certs, case):
    pair, other = certs.server, certs.other_server
    data = {
        "opaque": {"password": b64("hunter2-" * 8)},
        "no-key": {"tls.crt": b64(pair.cert)},
        "empty": {"tls.crt": "", "tls.key": ""},
        "not-pem": {"tls.crt": b64("certificate"), "tls.key": b64("hunter2-" * 8)},
        "mismatched": {"tls.crt": b64(pair.cert), "tls.key": b64(other.key)},
        "swapped": {"tls.crt": b64(pair.key), "tls.key": b64(pair.cert)},
        "two-lines-short": {"tls.crt": b64(pair.cert), "tls.key": b64(b"\n".join(pair.key.splitlines()[:-2]))},
    }[case]
    for key in (pair.key, other.key):
        gateway.secrets += key_texts(b64(key))
    gateway.secrets += ["hunter2-hunter2"]
    good, bad = free_port(), free_port()
    with RawBackend(echo) as backend:
        gateway.apply(secret("good", namespace, pair), secret("bad", namespace, **data),
                      server("good", namespace, good, backend.port, https=True, tls={"secretRef": {"name": "good"}}),
                      server("bad", namespace, bad, backend.port, https=True, tls={"secretRef": {"name": "bad"}}))  # fmt: skip
        gateway.wait_condition("good")
        gateway.wait_condition("bad", "ResolvedRefs", "False", "InvalidCertificateRef", says=f"Secret {namespace}/bad")
        gateway.wait_condition("bad", "Ready", "False")
        gateway.wait_event("bad", "InvalidCertificateRef")
        assert not is_open(bad)
        gateway.apply(secret("bad", namespace, pair, kind="Opaque"))
        gateway.wait_condition("bad")
        echoes(bad, tls=client_context(certs))
        echoes(good, tls=client_context(certs))
