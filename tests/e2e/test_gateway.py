"""A gateway on a whole cluster, as its users see it. The tests go on from each other, in this order."""

import http.client
import re
import time

from cluster import GATEWAY, PORT, RELEASE, SHOP, SPACE, Arrivals, Crowd, Told, is_ready
from gateway import secret, server
from support.http1 import upgrade_request
from support.site import talk
from support.wait import wait_until

INSTALL_SECONDS = 60


def chat(port=PORT, **spec):
    return server("chat", SHOP, port, backendRef={"name": "chat", "port": 3001}, https=True,
                  tls={"secretRef": {"name": "chat-tls"}}, **spec)  # fmt: skip


def echoes(cluster, tls, port=PORT):
    with cluster.client(port, tls) as client:
        head = client.handshake("/")
        talk(client)
        return head.get("X-Backend")


def try_echo(cluster, tls, port=PORT):
    try:
        return echoes(cluster, tls, port)
    except (OSError, AssertionError):
        return None


def shown_name(cluster, tls):
    """The common name of the certificate that a new client is shown."""
    with cluster.client(PORT, tls) as client:
        subject = dict(pair[0] for pair in client.tls.getpeercert()["subject"])
        return subject["commonName"]


def answers(address, port, path="/metrics"):
    """The status of a GET, None when nobody listens."""
    conn = http.client.HTTPConnection(address, port, timeout=5)
    try:
        conn.request("GET", path)
        return conn.getresponse().status
    except ConnectionRefusedError:
        return None
    finally:
        conn.close()


def test_from_helm_install_to_a_message_over_wss_is_less_than_a_minute(cluster, certs, tls, figure):
    cluster.app()
    cluster.wait_rolled_out("chat", SHOP)
    start = time.monotonic()
    notes = cluster.helm("install")
    assert "Tidegate" in notes
    cluster.api.apply(secret("chat-tls", SHOP, certs.server))
    cluster.api.apply(chat())
    try:
        wait_until("a message through the Service", lambda: try_echo(cluster, tls), INSTALL_SECONDS, step=0.1)
    except AssertionError:
        raise AssertionError(cluster.describe(SPACE)) from None
    took = time.monotonic() - start
    figure("%.1f s from helm install to the first message", took)
    assert took < INSTALL_SECONDS
    cluster.wait_condition("chat")
    cluster.wait_rolled_out()
    cluster.wait_pods(2)
    for container in ("controller", "proxy"):
        for which, lines in cluster.logs.of(container):
            loud = [line for line in lines if re.search(rb'"level":"(warn|error)"', line)]
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
    wait_until("another leader", lambda: cluster.leader() not in ("", old), 60, step=0.2)
    cluster.wait_pods(2)
    cluster.kubectl("delete", "wss", "-n", SHOP, "second")
    wait_until("the port taken back", lambda: cluster.service_ports() == ports, 20, step=0.1)
    assert try_echo(cluster, tls)


def test_a_leader_that_hangs_is_followed_by_the_other_one(cluster, figure):
    old = cluster.leader()
    start = time.monotonic()
    with cluster.frozen("tidegate-controller", old):
        cluster.api.apply(server("second", SHOP, 8444, backendRef={"name": "chat", "port": 3001}))
        cluster.wait_condition("second", timeout=60)
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
    cluster.api.apply(server("bare", SHOP, 8446, backendRef={"name": "chat", "port": 3001}, https=True,
                             tls={"secretRef": {"name": "nowhere"}}))  # fmt: skip
    _, reason, message = cluster.wait_condition("bare", "ResolvedRefs", "False")
    assert "nowhere" in message, (reason, message)
    cluster.kubectl("delete", "wss", "-n", SHOP, "second", "third", "wrong", "bare")
    wait_until("their ports gone", lambda: set(cluster.service_ports()) == {"health", f"p-{PORT}"}, 20, step=0.1)


def test_controllers_that_are_killed_come_back_and_no_socket_notices(cluster, tls):
    cluster.wait_pods(2)
    with Crowd(cluster, 20, tls=tls, again=False) as crowd:
        for pod in cluster.pods():
            cluster.kill("tidegate-controller", pod["metadata"]["name"])
        wait_until("both were restarted", lambda: sum(restarts(p, "controller") for p in cluster.pods()) >= 2, 30, step=0.2)
        cluster.wait_pods(2)
        cluster.api.apply(server("second", SHOP, 8444, backendRef={"name": "chat", "port": 3001}))
        cluster.wait_condition("second", timeout=60)
        crowd.check()
        assert (crowd.open, crowd.closes) == (20, [])
        cluster.kubectl("delete", "wss", "-n", SHOP, "second")
        wait_until("its port gone", lambda: "p-8444" not in cluster.service_ports(), 20, step=0.1)


# pods that go


def whole_crowd_moved(cluster, tls, act, figure, moved=100):
    """Everyone whose pod ends is told so and comes again at once, and nobody is cut."""
    with Crowd(cluster, 100, tls=tls) as crowd, Arrivals(cluster, tls=tls) as arrivals:
        start = time.monotonic()
        act()
        figure("%.1f s, %d Closes, %d clients came meanwhile", time.monotonic() - start, len(crowd.closes), len(arrivals.came))
        crowd.check()
        wait_until("all are there again", lambda: crowd.open == 100 or crowd.failed or crowd.cut, 10)
        crowd.check()
    crowd.check()
    arrivals.check()
    assert {c[0] for c in crowd.closes} == {1001}, crowd.closes
    assert all(c[1] for c in crowd.closes)
    assert len(crowd.closes) >= moved
    return crowd


def test_a_rollout_restart_tells_everyone_and_loses_nobody(cluster, tls, figure):
    cluster.api.apply(chat(timeouts={"drain": "6s"}))
    cluster.wait_condition("chat")

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


def test_an_eviction_respects_the_budget_and_loses_nobody(cluster, tls, figure):
    def evict(pod):
        name = pod["metadata"]["name"]
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": SPACE}}
        return cluster.api.request("POST", f"/api/v1/namespaces/{SPACE}/pods/{name}/eviction", body)[0]

    def act():
        first, second = cluster.pods()
        assert evict(first) == 201
        assert evict(second) == 429
        wait_until("the second may go too", lambda: evict(second) == 201, 60, step=0.5)
        cluster.wait_pods(2)

    whole_crowd_moved(cluster, tls, act, figure)


def test_all_pods_deleted_at_once_serve_on_until_others_do(cluster, tls, figure):
    def act():
        cluster.kubectl("delete", "pods", "-n", SPACE, "-l", GATEWAY, "--wait=false")
        wait_until("they are told", lambda: not any(is_ready(p) for p in cluster.pods()), 5)
        cluster.wait_pods(2)

    whole_crowd_moved(cluster, tls, act, figure)


# what goes on behind it


def test_an_application_scaled_to_nothing_is_a_503_and_comes_back(cluster, tls):
    cluster.kubectl("scale", "-n", SHOP, "deployment/chat", "--replicas=0")

    def status():
        with cluster.client(PORT, tls, timeout=15) as client:  # a pod that has just gone answers no dial, which takes 5 s
            return client.answer(upgrade_request("/")).status

    wait_until("a 503", lambda: status() == 503, 40, step=0.1)
    cluster.kubectl("scale", "-n", SHOP, "deployment/chat", "--replicas=2")
    wait_until("it serves", lambda: status() == 101, 30, step=0.1)
    cluster.wait_pods(2, "app=chat", SHOP)


def test_a_name_that_is_no_service_is_asked_of_the_clusters_dns(cluster):
    """That of one endpoint of a headless Service."""
    cluster.api.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "each", "namespace": SHOP},
                       "spec": {"clusterIP": "None", "selector": {"app": "chat"}, "ports": [{"port": 3001}]}})  # fmt: skip
    pod = cluster.pods("app=chat", SHOP)[0]
    name = pod["status"]["podIP"].replace(".", "-")
    cluster.api.apply(server("named", SHOP, 8447, f"ws://{name}.each.{SHOP}.svc.cluster.local:3001"))
    cluster.wait_condition("named")
    wait_until("a message", lambda: try_echo(cluster, None, 8447), 15, step=0.1)
    assert echoes(cluster, None, 8447) == pod["metadata"]["name"]
    cluster.kubectl("delete", "wss", "-n", SHOP, "named")
    wait_until("its port gone", lambda: set(cluster.service_ports()) == {"health", f"p-{PORT}"}, 20, step=0.1)


def roll_of_backends(cluster, tls, figure, most_s):
    """No new connection goes to a pod that was told to end, and none fails. The crowd, and when each pod was told."""
    with Crowd(cluster, 40, tls=tls) as crowd, Arrivals(cluster, tls=tls) as arrivals, Told(cluster, "app=chat", SHOP) as told:
        old = {p["metadata"]["name"] for p in cluster.pods("app=chat", SHOP)}
        cluster.kubectl("rollout", "restart", "-n", SHOP, "deployment/chat")
        cluster.wait_rolled_out("chat", SHOP)
        cluster.wait_pods(2, "app=chat", SHOP)
        wait_until("those of the old pods are back", lambda: crowd.open == 40 or crowd.failed or crowd.cut, 20)
    crowd.check()
    arrivals.check()
    assert set(told.at) == old
    late = [(at - told.at[b], b) for at, b in [*arrivals.came, *crowd.backends] if b in told.at and at > told.at[b]]
    figure("the last new connection came to an old pod %.2f s after it was told to end", max([0, *(at for at, _ in late)]))
    assert all(at < most_s for at, _ in late), late
    assert {c[3] for c in crowd.closes} <= old and len(crowd.closes) >= 40
    return crowd, told


def test_backends_roll_and_old_connections_live_until_their_pod_ends(cluster, tls, figure):
    crowd, told = roll_of_backends(cluster, tls, figure, 1)
    lived = [at - told.at[backend] for _, _, at, backend in crowd.closes]
    figure("old connections lived %.1f to %.1f s after their pod was told to end, then %s", min(lived), max(lived),
           sorted({c[:2] for c in crowd.closes}))  # fmt: skip
    assert min(lived) > 6  # its grace is 8 s


def test_backends_that_end_at_once_cost_no_new_connection(cluster, tls, figure):
    cluster.app(args=("0.0.0.0", "3001", "quick"))
    cluster.wait_rolled_out("chat", SHOP)
    cluster.wait_pods(2, "app=chat", SHOP)
    roll_of_backends(cluster, tls, figure, 1)


def test_a_rotated_secret_and_edits_close_nothing(cluster, certs, tls):
    with Crowd(cluster, 40, tls=tls, again=False) as crowd:
        other = certs.make_server("rotated", ["localhost"], common_name="rotated")
        cluster.api.apply(secret("chat-tls", SHOP, other))
        wait_until("the new certificate", lambda: shown_name(cluster, tls) == "rotated", 10, step=0.1)
        for n in range(5):
            cluster.api.apply(chat(timeouts={"drain": "6s"}, headers={"set": {"X-Edit": str(n)}}))
            cluster.wait_condition("chat")
        time_of_echoes = crowd.echoes
        wait_until("echoes go on", lambda: crowd.echoes > time_of_echoes + 80, 5)
        crowd.check()
        assert (crowd.open, crowd.closes) == (40, [])
