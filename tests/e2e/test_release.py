"""What a release goes through: pods that die, ports below 1024, a wrong upgrade, a second one, `helm test`, its end. In this order."""

import json
import os
import signal
import time

import pytest

from cluster import RELEASE, SHOP, SPACE, Crowd, is_ready
from gateway import GROUP, secret, server
from support.client import RawClient
from support.site import talk
from support.wait import wait_until

PORT = 443
INNER = "inner"  # the namespace and the name of the second release


def chat(name="low", port=PORT, **spec):
    return server(name, SHOP, port, backendRef={"name": "chat", "port": 3001}, https=True,
                  tls={"secretRef": {"name": "chat-tls"}}, **spec)  # fmt: skip


def echoes(address, tls, port=PORT):
    try:
        with RawClient(port, address, tls=tls) as client:
            client.handshake("/")
            talk(client)
            return True
    except (OSError, AssertionError):
        return False


@pytest.fixture(scope="module", autouse=True)
def installed(cluster, certs):
    """Whatever ran before."""
    cluster.app()
    cluster.helm("upgrade", "--install")
    cluster.wait_rolled_out()
    cluster.wait_pods(2)
    cluster.wait_rolled_out("chat", SHOP)
    cluster.wait_pods(2, "app=chat", SHOP)
    cluster.api.apply(secret("chat-tls", SHOP, certs.server))


def test_a_port_below_1024_is_served(cluster, tls):
    cluster.api.apply(chat(timeouts={"drain": "5s"}))
    cluster.wait_condition("low")
    wait_until("a message", lambda: echoes(cluster.address, tls), 10, step=0.1)


def test_a_proxy_that_is_killed_serves_again(cluster, tls, figure):
    """Its sockets are gone with it; the ports are had again, though its workers outlive it for a moment."""
    pod = cluster.pods()[0]
    name, address = pod["metadata"]["name"], pod["status"]["podIP"]
    assert echoes(address, tls)
    master = min(cluster.processes("tidegate-proxy", name), key=lambda pid: started(pid))
    start = time.monotonic()
    os.kill(master, signal.SIGKILL)
    wait_until("it was restarted", lambda: restarts(cluster, name) == 1, 30, step=0.05)
    wait_until("it serves", lambda: echoes(address, tls), 30, step=0.05)
    figure("%.1f s until it served again", time.monotonic() - start)
    cluster.wait_pods(2)


def started(pid):
    with open(f"/proc/{pid}/stat") as f:
        return int(f.read().rsplit(")", 1)[1].split()[19])


def restarts(cluster, pod):
    status = cluster.api.get(f"/api/v1/namespaces/{SPACE}/pods/{pod}")["status"]
    return next(s["restartCount"] for s in status["containerStatuses"] if s["name"] == "proxy")


def test_an_upgrade_to_an_image_that_is_not_there_closes_nothing(cluster, tls):
    with Crowd(cluster, 20, port=PORT, tls=tls, again=False) as crowd:
        cluster.helm("upgrade", values={"image.tag": "nowhere"})

        def reasons():
            found = [s["state"].get("waiting", {}).get("reason") for p in cluster.pods() for s in p["status"].get("containerStatuses", [])]
            return "ErrImagePull" in found or "ImagePullBackOff" in found

        wait_until("the pod says that it has no image", reasons, 40, step=0.2)
        assert sum(is_ready(p) for p in cluster.pods()) == 2
        cluster.helm_verb("rollback")
        cluster.wait_pods(2)
        crowd.check()
        assert (crowd.open, crowd.closes) == (20, [])


def test_helm_test_opens_a_websocket(cluster):
    said = cluster.helm_verb("test", "--timeout", "120s")
    assert "Succeeded" in said, said
    wait_until("nothing of it is left", lambda: "p-19900" not in cluster.service_ports(), 20, step=0.2)


def test_a_second_release_with_rights_in_one_namespace_only_and_fixed_ports(cluster, tls, certs):
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": INNER, "labels": labels}})
    ports = json.dumps([{"name": "low", "port": 444}])
    cluster.helm("install", "--set-json", f'watchNamespaces=["{SHOP}"]', "--set-json", f"service.ports={ports}", name=INNER, namespace=INNER,
                 values={"gatewayName": INNER, "crds.enabled": "false", "service.managed": "false", "test.port": "444",
                         "rbac.aggregate": "false"})  # fmt: skip
    cluster.wait_rolled_out(f"{INNER}-tidegate", INNER)
    cluster.api.apply(chat("inner", 444, gatewayName=INNER))
    cluster.wait_condition("inner")
    address = cluster.api.get(f"/api/v1/namespaces/{INNER}/services/{INNER}-tidegate")["spec"]["clusterIP"]
    wait_until("a message", lambda: echoes(address, tls, 444), 10, step=0.1)
    assert "p-444" not in cluster.service_ports()
    assert cluster.condition("low")[0] == "True"
    cluster.uninstall(INNER, INNER)
    cluster.kubectl("delete", "wss", "-n", SHOP, "inner")


def test_uninstall_leaves_kind_and_objects(cluster, tls):
    """And its pods tell their clients."""
    with Crowd(cluster, 20, port=PORT, tls=tls, again=False) as crowd:
        cluster.uninstall()
        wait_until("everyone was told", lambda: len(crowd.closes) == 20 or crowd.cut, 5)
        crowd.check()
        assert {c[0] for c in crowd.closes} == {1001}
    names = [o["metadata"]["name"] for o in cluster.api.get(f"{GROUP}/namespaces/{SHOP}/websocketservers")["items"]]
    assert "low" in names
    status, _ = cluster.api.request("GET", f"/api/v1/namespaces/{SPACE}/services/{RELEASE}")
    assert status == 404
