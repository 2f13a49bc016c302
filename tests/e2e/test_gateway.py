"""A gateway on a whole cluster, from `helm install` on, and what goes on beside and behind it. The tests go on from each other, in this order."""

import re
import time

import pytest

from clients import Arrivals, Crowd, Told
from cluster import PORT, SHOP, SPACE, answers, chat, echo
from gateway import secret, server
from support.http1 import upgrade_request
from support.wait import wait_until

INSTALL_SECONDS = 60
LEARNT_JUST_NOW = b"storage is (re)initializing"  # an API server's word of a kind that the release has brought it
LIST_SECONDS = 5  # from a pod that is told to end to a proxy that knows; usually 0.1. Those that use their grace live 8 s


@pytest.fixture(scope="module", autouse=True)
def nothing_installed(cluster):
    """Whatever another file left on this node. The kind stays, as it does when people install again."""
    if cluster.pods():
        cluster.kubectl("delete", "wss", "--all", "-A", check=False)
        cluster.uninstall()
    cluster.app()
    cluster.wait_rolled_out("chat", SHOP)


def only_chat(cluster):
    """Until the Service has the port of `chat` and no other."""
    wait_until("its port alone", lambda: set(cluster.service_ports()) == {"health", f"p-{PORT}"}, 60, step=0.1)


def shown_name(cluster, tls):
    """The common name of the certificate that a new client is shown."""
    with cluster.client(PORT, tls) as client:
        subject = dict(pair[0] for pair in client.tls.getpeercert()["subject"])
        return subject["commonName"]


def test_from_helm_install_to_a_message_over_wss_is_less_than_a_minute(cluster, certs, tls, figure):
    start = time.monotonic()
    notes = cluster.helm("install")
    assert "Tidegate" in notes
    cluster.api.apply(secret("chat-tls", SHOP, certs.server))
    cluster.api.apply(chat())
    try:
        cluster.wait_message(PORT, tls, timeout=INSTALL_SECONDS)
    except AssertionError:
        raise AssertionError(cluster.describe(SPACE)) from None
    took = time.monotonic() - start
    figure("%.1f s from helm install to the first message", took)
    assert took < INSTALL_SECONDS
    cluster.wait_condition("chat")
    cluster.wait_rolled_out()
    cluster.wait_pods(2)
    names = tuple(f"{SPACE}_{p['metadata']['name']}_" for p in cluster.pods())
    logs = [log for container in ("controller", "proxy") for log in cluster.logs.of(container) if log[0].startswith(names)]
    assert len(logs) == 4
    for which, lines in logs:
        loud = [line for line in lines if re.search(rb'"level":"(warn|error)"', line) and LEARNT_JUST_NOW not in line]
        assert lines and not loud, (which, loud)


def test_without_metrics_only_what_is_served_is_open(cluster, tls):
    """A pod's address: its health and the object's port; not the admin ports with page and metrics."""
    for pod in cluster.pods():
        address = pod["status"]["podIP"]
        assert answers(address, 9900, "/readyz") == 200 and answers(address, 9903, "/readyz") == 200
        assert answers(address, 9901) is None and answers(address, 9902) is None


def restarts(pod, container):
    return sum(s["restartCount"] for s in pod["status"].get("containerStatuses", []) if s["name"] == container)


# two replicas, one Lease


def test_one_of_two_replicas_leads_and_the_other_takes_over_when_its_pod_is_deleted(cluster, tls, figure):
    cluster.wait_pods(2)
    old = cluster.leader()
    assert old in [p["metadata"]["name"] for p in cluster.pods()]
    ports = cluster.service_ports()
    assert ports == {"health": 9900, f"p-{PORT}": PORT}
    cluster.kubectl("delete", "pod", "-n", SPACE, old, "--wait=false")
    start = time.monotonic()
    cluster.api.apply(server("second", SHOP, 8444, backendRef={"name": "chat", "port": 3001}))
    cluster.wait_condition("second")
    figure("%.1f s until a new object was Ready right after the leader's pod was deleted", time.monotonic() - start)
    assert cluster.service_ports() == {**ports, "p-8444": 8444}
    wait_until("another leader", lambda: cluster.leader() not in ("", old), 90, step=0.2)
    cluster.wait_pods(2)
    cluster.kubectl("delete", "wss", "-n", SHOP, "second")
    only_chat(cluster)
    assert echo(cluster.address, PORT, tls)


def test_a_leader_that_hangs_is_followed_by_the_other_one(cluster, figure):
    old = cluster.leader()
    start = time.monotonic()
    with cluster.frozen("tidegate-controller", old):
        cluster.api.apply(server("second", SHOP, 8444, backendRef={"name": "chat", "port": 3001}))
        cluster.wait_condition("second", timeout=90)
        figure("%.1f s until a new object was Ready while its leader hung", time.monotonic() - start)
        assert cluster.leader() not in ("", old)
        assert "p-8444" in cluster.service_ports()
    cluster.wait_pods(2)


def test_a_port_conflict_and_an_invalid_object_show_it(cluster):
    """`second` has 8444 and is older."""
    cluster.api.apply(server("third", SHOP, 8444, backendRef={"name": "chat", "port": 3001}))
    _, reason, message = cluster.wait_condition("third", "Accepted", "False")
    assert "second" in message, (reason, message)
    cluster.api.apply(server("wrong", SHOP, 8445, "ws://127.0.0.1:3001"))
    _, reason, message = cluster.wait_condition("wrong", "Accepted", "False")
    assert "127.0.0.1" in message, (reason, message)
    cluster.kubectl("delete", "wss", "-n", SHOP, "second", "third", "wrong")
    only_chat(cluster)


def test_controllers_that_are_killed_come_back_and_no_socket_notices(cluster, tls):
    cluster.wait_pods(2)
    with Crowd(cluster, 20, tls=tls, again=False) as crowd:
        for pod in cluster.pods():
            cluster.kill("tidegate-controller", pod["metadata"]["name"])
        wait_until("both were restarted", lambda: sum(restarts(p, "controller") for p in cluster.pods()) >= 2, 90, step=0.2)
        cluster.wait_pods(2)
        cluster.api.apply(server("second", SHOP, 8444, backendRef={"name": "chat", "port": 3001}))
        cluster.wait_condition("second", timeout=90)
        crowd.check()
        assert (crowd.open, crowd.closes) == (20, [])
        cluster.kubectl("delete", "wss", "-n", SHOP, "second")
        only_chat(cluster)


# what goes on behind it


def test_an_application_scaled_to_nothing_is_a_503_and_comes_back(cluster, tls):
    cluster.kubectl("scale", "-n", SHOP, "deployment/chat", "--replicas=0")

    def status():
        with cluster.client(PORT, tls, timeout=30) as client:
            return client.answer(upgrade_request("/")).status

    wait_until("a 503", lambda: status() == 503, 90, step=0.1)
    cluster.kubectl("scale", "-n", SHOP, "deployment/chat", "--replicas=2")
    wait_until("it serves", lambda: status() == 101, 90, step=0.1)
    cluster.wait_pods(2, "app=chat", SHOP)


def test_a_name_that_is_no_service_is_asked_of_the_clusters_dns(cluster):
    """That of one endpoint of a headless Service."""
    cluster.api.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "each", "namespace": SHOP},
                       "spec": {"clusterIP": "None", "selector": {"app": "chat"}, "ports": [{"port": 3001}]}})  # fmt: skip
    pod = cluster.pods("app=chat", SHOP)[0]
    name = pod["status"]["podIP"].replace(".", "-")
    cluster.api.apply(server("named", SHOP, 8447, f"ws://{name}.each.{SHOP}.svc.cluster.local:3001"))
    cluster.wait_condition("named")
    assert cluster.wait_message(8447) == pod["metadata"]["name"]
    cluster.kubectl("delete", "wss", "-n", SHOP, "named")
    only_chat(cluster)


def roll_of_backends(cluster, tls, figure):
    """No new connection goes to a pod that was told to end, and none fails. The crowd, and when each pod was told."""
    with Crowd(cluster, 40, tls=tls) as crowd, Arrivals(cluster, tls=tls) as arrivals, Told(cluster, "app=chat", SHOP) as told:
        old = {p["metadata"]["name"] for p in cluster.pods("app=chat", SHOP)}
        cluster.kubectl("rollout", "restart", "-n", SHOP, "deployment/chat")
        cluster.wait_rolled_out("chat", SHOP)
        cluster.wait_pods(2, "app=chat", SHOP)
        wait_until("those of the old pods are back", lambda: crowd.open == 40 or crowd.failed or crowd.cut, 60)
    crowd.check()
    arrivals.check([1011])  # an end comes where it likes, also between a handshake and an echo
    assert set(told.at) == old
    late = [(at - told.at[b], b) for at, b in [*arrivals.came, *crowd.backends] if b in told.at and at > told.at[b]]
    figure("the last new connection came to an old pod %.2f s after it was told to end", max([0, *(at for at, _ in late)]))
    assert all(at < LIST_SECONDS for at, _ in late), late
    assert {c[3] for c in crowd.closes} <= old and len(crowd.closes) >= 40
    return crowd, told


def test_backends_roll_and_old_connections_live_until_their_pod_ends(cluster, tls, figure):
    crowd, told = roll_of_backends(cluster, tls, figure)
    lived = [at - told.at[backend] for _, _, at, backend in crowd.closes]
    figure("old connections lived %.1f to %.1f s after their pod was told to end, then %s", min(lived), max(lived),
           sorted({c[:2] for c in crowd.closes}))  # fmt: skip
    assert min(lived) > 4  # its grace is 8 s


def test_backends_that_end_at_once_cost_no_new_connection(cluster, tls, figure):
    cluster.app(args=("0.0.0.0", "3001", "quick"))
    cluster.wait_rolled_out("chat", SHOP)
    cluster.wait_pods(2, "app=chat", SHOP)
    roll_of_backends(cluster, tls, figure)


def test_a_rotated_secret_and_edits_close_nothing(cluster, certs, tls):
    with Crowd(cluster, 40, tls=tls, again=False) as crowd:
        other = certs.make_server("rotated", ["localhost"], common_name="rotated")
        cluster.api.apply(secret("chat-tls", SHOP, other))
        wait_until("the new certificate", lambda: shown_name(cluster, tls) == "rotated", 60, step=0.1)
        for n in range(5):
            cluster.api.apply(chat(timeouts={"drain": "6s"}, headers={"set": {"X-Edit": str(n)}}))
            cluster.wait_condition("chat")
        time_of_echoes = crowd.echoes
        wait_until("echoes go on", lambda: crowd.echoes > time_of_echoes + 80, 30)
        crowd.check()
        assert (crowd.open, crowd.closes) == (40, [])
