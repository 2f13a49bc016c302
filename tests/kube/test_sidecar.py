"""A sidecar: it reads the WebSocketServers of its own namespace, serves those that select its pod, and writes nothing."""

import os

import pytest

from gateway import SIDECAR_RULES, b64, echoes, server
from support.backend import RawBackend, echo
from support.client import client_context
from support.proxy import free_port
from support.site import enter, is_open, talk
from support.wait import wait_until


class Mounts:
    """Files as kubelet mounts them: swapped by a link."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.number = 0

    def write(self, **files):
        self.number += 1
        new = self.folder / f"..{self.number}"
        new.mkdir()
        for name, data in files.items():
            (new / name.replace("_", ".")).write_bytes(data if isinstance(data, bytes) else data.encode())
            link = self.folder / name.replace("_", ".")
            if not link.is_symlink():
                link.symlink_to(f"..data/{name.replace('_', '.')}")
        (self.folder / "..new").symlink_to(new.name)
        os.rename(self.folder / "..new", self.folder / "..data")


@pytest.fixture
def pod(start_gateway, tmp_path, namespace):
    """A sidecar in a pod with the label app=a. What it has leave for is a read of its own namespace."""
    labels, secrets = Mounts(tmp_path / "podinfo"), tmp_path / "secrets"
    secrets.mkdir()
    labels.write(labels='app="a"\ntier="web"\n')
    flags = ["--mode", "sidecar", "--pod-labels", tmp_path / "podinfo/labels", "--secrets-dir", secrets]
    gateway = start_gateway(flags=flags, account="app", rules=[], namespaced={namespace: SIDECAR_RULES})
    gateway.labels, gateway.secrets_dir = labels, secrets
    return gateway


def selecting(name, namespace, port, backend, labels, **spec):
    return server(name, namespace, port, backend, workloadSelector={"matchLabels": labels} if labels else {}, **spec)


def wait_open(port):
    wait_until(f"port {port} open", lambda: is_open(port), 10)


def test_it_is_ready_with_nothing_to_serve_and_says_so_once(pod):
    warnings = [e for e in pod.controller.logs if e["level"] == "warn"]
    assert len(warnings) == 1, warnings


def test_it_serves_what_selects_its_pod_and_follows_its_labels(pod, namespace):
    ports = {name: free_port() for name in ("mine", "all", "others", "gateway")}
    with RawBackend(echo) as backend:
        pod.apply(selecting("mine", namespace, ports["mine"], backend.port, {"app": "a"}),
                  selecting("all", namespace, ports["all"], backend.port, None),
                  selecting("others", namespace, ports["others"], backend.port, {"app": "b"}),
                  server("gateway", namespace, ports["gateway"], backend.port))  # fmt: skip
        for name in ("mine", "all"):
            wait_open(ports[name])
            echoes(ports[name])
        assert not is_open(ports["others"]) and not is_open(ports["gateway"])
        client, _ = enter(ports["all"])
        with client:
            pod.labels.write(labels='app="b"\n')
            wait_open(ports["others"])
            wait_until("what selects it no longer is closed", lambda: not is_open(ports["mine"]), 10)
            talk(client)
    for name in ports:
        conditions = (pod.get(name).get("status") or {}).get("conditions", [])
        assert {c["reason"] for c in conditions} <= {"Pending"}, f"a sidecar wrote a status: {conditions}"
    assert not pod.events("mine")


def test_another_namespace_is_none_of_its_business(pod, api, namespace):
    other, port, own = api.namespace(f"{namespace}-other"), free_port(), free_port()
    with RawBackend(echo) as backend:
        pod.apply(selecting("elsewhere", other, port, backend.port, None), selecting("here", namespace, own, backend.port, None))
        wait_open(own)
        assert not is_open(port)


def test_its_secrets_are_mounted_and_rotate(pod, namespace, certs):
    port, new = free_port(), certs.make_server("mounted", ["localhost"])
    mounted = Mounts(pod.secrets_dir / "tls")
    mounted.write(tls_crt=certs.server.cert, tls_key=certs.server.key)
    for pair in (certs.server, new):
        pod.hide({"data": {"tls.key": b64(pair.key)}})
    with RawBackend(echo) as backend:
        pod.apply(selecting("secure", namespace, port, backend.port, None, https=True, tls={"secretRef": {"name": "tls"}}))
        wait_open(port)
        old, _ = enter(port, tls=client_context(certs))
        with old:
            mounted.write(tls_crt=new.cert, tls_key=new.key)

            def shows_new():
                with enter(port, tls=client_context(certs))[0] as client:
                    return client.tls.getpeercert()["serialNumber"] == f"{new.x509.serial_number:X}".zfill(40)

            wait_until("the new certificate", shows_new, 10)
            talk(old)


def test_a_secret_that_is_not_mounted_names_the_annotation(pod, namespace):
    port, fine = free_port(), free_port()
    with RawBackend(echo) as backend:
        pod.apply(selecting("secure", namespace, port, backend.port, None, https=True, tls={"secretRef": {"name": "absent"}}),
                  selecting("fine", namespace, fine, backend.port, None))  # fmt: skip
        wait_open(fine)
        try:
            wait_until("the log names it", lambda: any("tidegate.dev/tls-secrets" in str(e) for e in pod.controller.logs), 10)
        except AssertionError as e:
            raise AssertionError(f"{e}; the last lines: {pod.controller.logs[-10:]}") from None
        assert not is_open(port)


def test_the_gateway_judges_what_sidecars_serve(gateway, namespace):
    port = free_port()
    gateway.apply(selecting("sidecars", namespace, port, 3001, {"app": "a"}))
    gateway.wait_condition("sidecars", "Programmed", "True", "Sidecar", says="see pod readiness")
    gateway.wait_condition("sidecars")
    assert not is_open(port)
