"""Sidecars on a whole cluster. The tests go on from each other, in this order."""

import json
import time

import pytest
import yaml

from clients import Arrivals, Crowd
from cluster import BACKEND, RESTRICTED, RESTRICTED_POD, is_ready, try_echo
from gateway import secret, server
from server import REPO
from support.wait import wait_until

SIDE = "side"  # the namespace
HAND = "hand"  # that of the form by hand
PORT = 9443
GRACE_S = 20


def chat(**spec):
    return server("chat", SIDE, PORT, "ws://localhost:3001", https=True, tls={"secretRef": {"name": "chat-tls"}},
                  workloadSelector={"matchLabels": {"app": "chat"}}, **spec)  # fmt: skip


def template(args, labels=None, init=(), **spec):
    def container(name, args):
        return {"name": name, "image": BACKEND, "args": list(args), "securityContext": RESTRICTED}

    return {
        "metadata": {"labels": {"app": "chat", "tidegate.dev/inject": "true", **(labels or {})},
                     "annotations": {"tidegate.dev/tls-secrets": "chat-tls"}},
        "spec": {"serviceAccountName": "chat", "securityContext": RESTRICTED_POD, "terminationGracePeriodSeconds": GRACE_S,
                 "initContainers": [container("own-init", a) for a in init], "containers": [container("app", args)], **spec},
    }  # fmt: skip


def echoes(address, tls, origin="https://a.example"):
    return try_echo(address, PORT, tls, [("Origin", origin)])


@pytest.fixture(scope="module")
def side(cluster, certs):
    """The release injects, and an application waits for it."""
    cluster.namespace(SIDE)
    cluster.api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "chat", "namespace": SIDE}})
    accounts = json.dumps([{"namespace": SIDE, "name": "chat"}])
    cluster.helm("upgrade", "--install", "--set-json", f"sidecar.serviceAccounts={accounts}", values={"sidecar.enabled": "true"})
    cluster.wait_rolled_out()
    cluster.api.apply(secret("chat-tls", SIDE, certs.server))
    cluster.api.apply(chat(timeouts={"drain": "5s"}))
    cluster.api.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "chat", "namespace": SIDE},
                       "spec": {"selector": {"app": "chat"}, "ports": [{"port": PORT, "targetPort": PORT}]}})  # fmt: skip
    probe = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "namespace": SIDE}, **template(["0.0.0.0", "3001"])}
    probe["metadata"] = {**probe["metadata"], "name": "probe", "namespace": SIDE}

    def injects():
        answer = cluster.api.must("POST", f"/api/v1/namespaces/{SIDE}/pods?dryRun=All", probe)
        return len(answer["spec"].get("initContainers", [])) == 2

    wait_until("the policy is effective", injects, 60, step=0.2)
    return cluster


def pods(side):
    return side.pods("app=chat", SIDE)


def test_a_labelled_deployment_serves_wss_before_its_own_init_containers_have_run(side, tls, figure):
    start = time.monotonic()
    obj = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "chat", "namespace": SIDE}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "chat"}},
        "template": template(["127.0.0.1", "3001"], init=[["127.0.0.1", "3001", "6"]])}}  # fmt: skip
    side.api.apply(obj)
    try:
        address = wait_until("an address", lambda: next((p["status"].get("podIP") for p in pods(side)), None), 60, step=0.05)
        wait_until("wss on the pod's address", lambda: echoes(address, tls), 60, step=0.1)
    except AssertionError:
        raise AssertionError(side.describe(SIDE)) from None
    figure("%.1f s from apply to a message", time.monotonic() - start)
    states = {s["name"]: s["state"] for s in pods(side)[0]["status"]["initContainerStatuses"]}
    assert "terminated" not in states["own-init"], states  # it runs 6 s; kubelet may say so later
    side.wait_rolled_out("chat", SIDE)
    service = side.api.get(f"/api/v1/namespaces/{SIDE}/services/chat")["spec"]["clusterIP"]
    wait_until("through the Service", lambda: echoes(service, tls), 60, step=0.1)


def test_the_app_has_nothing_of_ours_and_the_proxy_no_token(side):
    spec = pods(side)[0]["spec"]
    assert [c["name"] for c in spec["initContainers"]] == ["tidegate-controller", "tidegate-proxy", "own-init"]
    volumes = {v["name"]: v for v in spec["volumes"]}

    def mounted(container):
        return {m["name"]: m["mountPath"] for m in container.get("volumeMounts", [])}

    for container in (*spec["containers"], spec["initContainers"][2]):
        assert not [name for name in mounted(container) if name.startswith("tidegate")]
    proxy = mounted(spec["initContainers"][1])
    assert set(proxy) == {"tidegate-run", "tidegate-nothing"}
    assert "emptyDir" in volumes["tidegate-nothing"]


def test_an_edit_takes_effect_and_closes_nothing(side, tls):
    address = pods(side)[0]["status"]["podIP"]
    with Crowd(side, 10, port=PORT, tls=tls, address=address, again=False) as crowd:
        side.api.apply(chat(timeouts={"drain": "5s"}, allowedOrigins=["https://b.example"]))
        wait_until("it counts", lambda: echoes(address, tls, "https://b.example") and not echoes(address, tls), 30, step=0.1)
        crowd.check()
        assert (crowd.open, crowd.closes) == (10, [])
    side.api.apply(chat(timeouts={"drain": "5s"}))
    wait_until("and no longer", lambda: echoes(address, tls), 30, step=0.1)


def test_a_pod_that_ends_says_so_while_its_app_still_runs(side, tls, figure):
    side.kubectl("scale", "-n", SIDE, "deployment/chat", "--replicas=2")
    side.wait_pods(2, "app=chat", SIDE)
    service = side.api.get(f"/api/v1/namespaces/{SIDE}/services/chat")["spec"]["clusterIP"]
    gone = pods(side)[0]["metadata"]["name"]
    with Crowd(side, 30, port=PORT, tls=tls, address=service) as crowd, Arrivals(side, port=PORT, tls=tls, address=service) as arrivals:
        mine = sum(name == gone for _, name in crowd.backends)
        assert mine
        start = time.time()
        side.kubectl("delete", "pod", "-n", SIDE, gone, "--wait=false")
        wait_until("its clients were told", lambda: len(crowd.closes) >= mine or crowd.cut, 25, step=0.05)
        crowd.check()
        pod = side.api.get(f"/api/v1/namespaces/{SIDE}/pods/{gone}")
        app = next(s for s in pod["status"]["containerStatuses"] if s["name"] == "app")
        assert "running" in app["state"], app
        figure("%d Closes %.1f to %.1f s after the delete", len(crowd.closes), min(c[2] for c in crowd.closes) - start,
               max(c[2] for c in crowd.closes) - start)  # fmt: skip
        wait_until("the pod is gone", lambda: gone not in [p["metadata"]["name"] for p in pods(side)], 90, step=0.2)
        side.wait_pods(2, "app=chat", SIDE)
        wait_until("all are there again", lambda: crowd.open == 30 or crowd.failed or crowd.cut, 30)
    crowd.check()
    arrivals.check()
    assert {c[0] for c in crowd.closes} == {1001} and all(c[1] for c in crowd.closes)
    assert {c[3] for c in crowd.closes} == {gone}


def test_a_job_completes(side):
    obj = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "namespace": SIDE},
           "spec": {"template": template(["127.0.0.1", "3001", "2"], {"app": "once"}, restartPolicy="Never")}}  # fmt: skip
    side.api.apply(obj)
    done = side.kubectl("wait", "-n", SIDE, "job/once", "--for=condition=Complete", "--timeout=120s", check=False, timeout=130)
    assert done.returncode == 0, done.stderr + side.describe(SIDE)
    side.kubectl("delete", "job", "-n", SIDE, "once")


def test_no_end_of_a_pod_was_a_fault_to_kubelet(side):
    """Those of the tests above, preStop and probes."""
    events = [e for e in side.api.get(f"/api/v1/namespaces/{SIDE}/events")["items"] if e["type"] == "Warning"]
    said = [(e["reason"], e["involvedObject"]["name"], e["message"]) for e in events if e["reason"] != "Unhealthy"]
    assert not said, said


def test_a_pod_without_a_server_is_ready(side):
    meta = template(["127.0.0.1", "3001"], {"app": "other"})
    side.api.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other", "namespace": SIDE, **meta["metadata"]},
                    "spec": meta["spec"]})  # fmt: skip
    wait_until("it is ready", lambda: is_ready(side.api.get(f"/api/v1/namespaces/{SIDE}/pods/other")), 90, step=0.2)
    said = side.kubectl("logs", "-n", SIDE, "other", "-c", "tidegate-controller")
    assert '"warn"' in said and "no WebSocketServer" in said, said
    side.kubectl("delete", "pod", "-n", SIDE, "other", "--wait=false")


def test_a_wrong_annotation_is_refused_with_a_message(side):
    pod = template(["127.0.0.1", "3001"])
    pod["metadata"]["annotations"]["tidegate.dev/log-level"] = "loud"
    pod["metadata"]["name"] = "wrong"
    status, answer = side.api.request("POST", f"/api/v1/namespaces/{SIDE}/pods", {"apiVersion": "v1", "kind": "Pod", **pod})
    assert status in (403, 422) and "use debug, info, warn or error" in answer["message"], answer


def test_the_form_by_hand_serves_too(side, tls, certs):
    """deploy/sidecar.yaml as it is, but for images that are there, what the standard asks of the app, and its arguments."""
    side.namespace(HAND)
    objects = list(yaml.safe_load_all((REPO / "deploy/sidecar.yaml").read_text()))
    pod = next(o for o in objects if o["kind"] == "Deployment")["spec"]["template"]["spec"]
    for container in pod["initContainers"]:
        container["image"] = side.image
    pod["containers"][0].update(image=BACKEND, args=["127.0.0.1", "3001"], securityContext=RESTRICTED)
    pod["securityContext"] = RESTRICTED_POD
    side.api.apply({"apiVersion": "v1", "kind": "List", "items": objects}, "-n", HAND)
    side.api.apply(secret("chat-tls", HAND, certs.server))
    side.wait_rolled_out("chat", HAND)
    address = side.api.get(f"/api/v1/namespaces/{HAND}/services/chat")["spec"]["clusterIP"]
    side.wait_message(443, tls, address)
