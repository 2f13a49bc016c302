"""Pods of the gateway that go, for each reason there is: everyone who is on them is told so, and nobody is lost. In this order."""

import concurrent.futures
import time

import pytest

from clients import Arrivals, Crowd
from cluster import GATEWAY, PORT, RELEASE, SPACE, answers, chat, is_ready
from node import NAME
from support.wait import wait_until


@pytest.fixture(scope="module", autouse=True)
def served(cluster, certs, tls):
    cluster.installed(certs)
    cluster.api.apply(chat(timeouts={"drain": "4s"}))
    cluster.wait_condition("chat")
    cluster.wait_message(PORT, tls)  # kube-proxy may be later than that


def whole_crowd_moved(cluster, tls, act, figure, moved=100):
    """Everyone whose pod ends is told so and comes again at once, and nobody is cut."""
    with Crowd(cluster, 100, tls=tls) as crowd, Arrivals(cluster, tls=tls) as arrivals:
        start = time.monotonic()
        act()
        figure("%.1f s, %d Closes, %d clients came meanwhile", time.monotonic() - start, len(crowd.closes), len(arrivals.came))
        crowd.check()
        wait_until("all are there again", lambda: crowd.open == 100 or crowd.failed or crowd.cut, 30)
        crowd.check()
    crowd.check()
    arrivals.check()
    assert {c[0] for c in crowd.closes} == {1001}, crowd.closes
    assert all(c[1] for c in crowd.closes)
    assert len(crowd.closes) >= moved
    return crowd


def test_a_rollout_restart_tells_everyone_and_loses_nobody(cluster, tls, figure):
    def act():
        cluster.kubectl("rollout", "restart", "-n", SPACE, f"deployment/{RELEASE}")
        cluster.wait_rolled_out()
        cluster.wait_pods(2)

    whole_crowd_moved(cluster, tls, act, figure)


def test_a_helm_upgrade_tells_everyone_and_loses_nobody(cluster, tls, figure):
    def act():
        cluster.helm("upgrade", values={"metrics.enabled": "true"})
        cluster.wait_rolled_out()
        cluster.wait_pods(2)

    whole_crowd_moved(cluster, tls, act, figure)
    addresses = [p["status"]["podIP"] for p in cluster.pods()]
    assert {answers(a, port) for a in addresses for port in (9901, 9902)} == {200}
    assert f"p-{PORT}" in cluster.service_ports()


def test_a_rollback_tells_everyone_and_loses_nobody(cluster, tls, figure):
    def act():
        cluster.helm_verb("rollback")
        cluster.wait_rolled_out()
        cluster.wait_pods(2)

    whole_crowd_moved(cluster, tls, act, figure)
    assert f"p-{PORT}" in cluster.service_ports()


def test_scaling_down_tells_everyone_and_loses_nobody(cluster, tls, figure):
    def act():
        cluster.kubectl("scale", "-n", SPACE, f"deployment/{RELEASE}", "--replicas=1")
        cluster.wait_pods(1)

    whole_crowd_moved(cluster, tls, act, figure, moved=1)
    cluster.kubectl("scale", "-n", SPACE, f"deployment/{RELEASE}", "--replicas=2")
    cluster.wait_pods(2)


def test_a_drain_of_the_node_respects_the_budget_and_loses_nobody(cluster, tls, figure):
    """kubectl drain of the gateway's pods. There is no other node to take them, so this one is given back at once."""

    def drain():
        words = ("drain", NAME, f"--pod-selector={GATEWAY}", "--delete-emptydir-data", "--timeout=200s")
        return cluster.kubectl(*words, check=False, timeout=210)

    def cordoned():
        return cluster.api.get(f"/api/v1/nodes/{NAME}")["spec"].get("unschedulable")

    def act():
        old = {p["metadata"]["name"] for p in cluster.pods()}
        with concurrent.futures.ThreadPoolExecutor(1) as beside:
            drained = beside.submit(drain)
            wait_until("the node is cordoned", cordoned, 60, step=0.02)
            cluster.kubectl("uncordon", NAME)
            done = drained.result()
        assert done.returncode == 0, done.stderr
        assert "violate the pod's disruption budget" in done.stderr, done.stderr
        cluster.wait_pods(2)
        assert not old & {p["metadata"]["name"] for p in cluster.pods()}

    whole_crowd_moved(cluster, tls, act, figure)


def test_all_pods_deleted_at_once_serve_on_until_others_do(cluster, tls, figure):
    def act():
        cluster.kubectl("delete", "pods", "-n", SPACE, "-l", GATEWAY, "--wait=false")
        wait_until("they are told", lambda: not any(is_ready(p) for p in cluster.pods()), 20)
        cluster.wait_pods(2)

    whole_crowd_moved(cluster, tls, act, figure)
