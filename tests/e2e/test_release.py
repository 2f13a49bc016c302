"""What a release goes through: pods that die, ports below 1024, a wrong upgrade, a second one, `helm test`, its end. In this order."""

import json
import os
import signal
import time

import pytest

from clients import Crowd
from cluster import RELEASE, SHOP, SPACE, chat, is_ready
from gateway import GROUP
from support.wait import wait_until

PORT = 443
INNER = "inner"  # the namespace and the name of the second release


@pytest.fixture(scope="module", autouse=True)
def installed(cluster, certs):
    cluster.installed(certs)


def test_a_port_below_1024_is_served(cluster, tls):
    cluster.api.apply(chat("low", PORT, timeouts={"drain": "5s"}))
    cluster.wait_condition("low")
    cluster.wait_message(PORT, tls)


def test_a_proxy_that_is_killed_serves_again(cluster, tls, figure):
    """Its sockets are gone with it; the ports are had again, though its workers outlive it for a moment."""
    pod = cluster.pods()[0]
    name, address = pod["metadata"]["name"], pod["status"]["podIP"]
    cluster.wait_message(PORT, tls, address)
    master = min(cluster.processes("tidegate-proxy", name), key=lambda pid: started(pid))
    start = time.monotonic()
    os.kill(master, signal.SIGKILL)
    wait_until("it was restarted", lambda: restarts(cluster, name) == 1, 60, step=0.05)
    cluster.wait_message(PORT, tls, address)
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

        def said():
            waiting = [s["state"].get("waiting", {}) for p in cluster.pods() for s in p["status"].get("containerStatuses", [])]
            return [w.get("message", "") for w in waiting if w.get("reason") in ("ErrImagePull", "ImagePullBackOff")]

        said = wait_until("the pod says that it has no image", said, 60, step=0.2)
        assert all(cluster.image.rpartition(":")[0] + ":nowhere" in text for text in said), said
        assert sum(is_ready(p) for p in cluster.pods()) == 2
        cluster.helm_verb("rollback")
        cluster.wait_pods(2)
        crowd.check()
        assert (crowd.open, crowd.closes) == (20, [])


def test_helm_test_opens_a_websocket(cluster):
    said = cluster.helm_verb("test", "--timeout", "120s")
    assert "Succeeded" in said, said
    wait_until("nothing of it is left", lambda: "p-19900" not in cluster.service_ports(), 60, step=0.2)


def test_a_second_release_with_rights_in_one_namespace_only_and_fixed_ports(cluster, tls, certs):
    cluster.namespace(INNER)
    ports = json.dumps([{"name": "low", "port": 444}])
    cluster.helm("install", "--set-json", f'watchNamespaces=["{SHOP}"]', "--set-json", f"service.ports={ports}", name=INNER, namespace=INNER,
                 values={"gatewayName": INNER, "crds.enabled": "false", "service.managed": "false", "test.port": "444",
                         "rbac.aggregate": "false", "drain.preStopSeconds": "2"})  # fmt: skip
    cluster.wait_rolled_out(f"{INNER}-tidegate", INNER)
    cluster.api.apply(chat("inner", 444, gatewayName=INNER))
    cluster.wait_condition("inner")
    address = cluster.api.get(f"/api/v1/namespaces/{INNER}/services/{INNER}-tidegate")["spec"]["clusterIP"]
    cluster.wait_message(444, tls, address)
    assert "p-444" not in cluster.service_ports()
    assert cluster.condition("low")[0] == "True"
    cluster.uninstall(name=INNER, namespace=INNER)
    cluster.kubectl("delete", "wss", "-n", SHOP, "inner")


def test_uninstall_leaves_kind_and_objects(cluster, tls):
    """And its pods tell their clients."""
    with Crowd(cluster, 20, port=PORT, tls=tls, again=False) as crowd:
        said = cluster.uninstall()
        wait_until("everyone was told", lambda: len(crowd.closes) == 20 or crowd.cut, 30)
        crowd.check()
        assert {c[0] for c in crowd.closes} == {1001}
    assert "kept due to the resource policy" in said and "websocketservers.tidegate.dev" in said, said
    assert "low" in objects(cluster)
    status, _ = cluster.api.request("GET", f"/api/v1/namespaces/{SPACE}/services/{RELEASE}")
    assert status == 404


def test_a_release_that_comes_again_serves_what_was_left_and_takes_it_away_when_told_to(cluster, tls):
    said = cluster.helm("install", values={"crds.keep": "false", "drain.preStopSeconds": "2"})
    assert "helm uninstall deletes every WebSocketServer of the cluster" in said
    cluster.wait_rolled_out()
    cluster.wait_message(PORT, tls)
    cluster.uninstall()
    gone = cluster.kubectl("wait", "crd/websocketservers.tidegate.dev", "--for=delete", "--timeout=60s", check=False, timeout=70)
    assert gone.returncode == 0, gone.stderr
    assert cluster.api.request("GET", f"{GROUP}/namespaces/{SHOP}/websocketservers")[0] == 404


def objects(cluster):
    return [o["metadata"]["name"] for o in cluster.api.get(f"{GROUP}/namespaces/{SHOP}/websocketservers")["items"]]
