"""What people do wrong, and where they are told what to change: by helm, on the object, on the pod."""

import json

import pytest

from cluster import BACKEND, PORT, RELEASE, RESTRICTED, RESTRICTED_POD, SHOP, SPACE, chat, is_ready
from gateway import secret, server
from support.wait import wait_until

SIDE = "lost"  # the namespace of pods with sidecars
BOUND, STRANGER = "bound", "stranger"  # ServiceAccounts there: one that the release names, and one that it does not


@pytest.fixture(scope="module", autouse=True)
def installed(cluster, certs):
    cluster.namespace(SIDE)
    for name in (BOUND, STRANGER):
        cluster.api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": SIDE}})
    accounts = json.dumps([{"namespace": SIDE, "name": BOUND}])
    cluster.installed(certs, "--set-json", f"sidecar.serviceAccounts={accounts}", values={"sidecar.enabled": "true"})
    cluster.api.apply(chat())
    cluster.wait_condition("chat")


def revision(cluster):
    return json.loads(cluster.helm_verb("status", "-o", "json"))["version"]


def test_wrong_values_are_refused_in_words_and_nothing_changes(cluster, tls):
    before = revision(cluster)
    for values, words in (({"replicaCount": "3"}, "additional properties 'replicaCount' not allowed"),
                          ({"drain.maxSeconds": "90"}, "give at least 105")):  # fmt: skip
        done = cluster.helm("upgrade", values=values, check=False)
        assert done.returncode and words in done.stderr, done
    assert revision(cluster) == before
    cluster.wait_message(PORT, tls)


def test_a_missing_secret_is_named_on_the_object_which_serves_once_it_is_there(cluster, certs, tls):
    cluster.api.apply(chat("bare", 8446) | {"spec": {**chat("bare", 8446)["spec"], "tls": {"secretRef": {"name": "nowhere"}}}})
    _, reason, message = cluster.wait_condition("bare", "ResolvedRefs", "False")
    assert reason == "InvalidCertificateRef" and f"Secret {SHOP}/nowhere" in message, (reason, message)
    cluster.wait_event(SHOP, "InvalidCertificateRef", "bare", f"Secret {SHOP}/nowhere")
    columns = cluster.kubectl("get", "wss", "-n", SHOP, "bare", "--no-headers").split()
    assert "False" in columns, columns
    cluster.api.apply(secret("nowhere", SHOP, certs.server))
    cluster.wait_condition("bare")
    cluster.wait_message(8446, tls)
    cluster.kubectl("delete", "wss", "-n", SHOP, "bare")


def test_a_port_of_the_service_that_somebody_took_is_said_and_had_once_it_is_free(cluster, tls):
    path = f"/api/v1/namespaces/{SPACE}/services/{RELEASE}"
    mine = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": RELEASE, "namespace": SPACE},
            "spec": {"ports": [{"name": "mine", "port": 8448, "targetPort": 3001, "protocol": "TCP"}]}}  # fmt: skip

    def apply(obj):
        cluster.api.must("PATCH", f"{path}?fieldManager=somebody", obj, kind="application/apply-patch+yaml")

    apply(mine)
    cluster.api.apply(chat("late", 8448))
    _, reason, message = cluster.wait_condition("late", "Ready", "False")
    assert reason == "ServicePortTaken" and "8448" in message and "somebody" in message, (reason, message)
    cluster.wait_event(SHOP, "ServicePortTaken", "late", "8448")
    assert cluster.service_ports()["mine"] == 8448
    apply({**mine, "spec": {"ports": []}})
    cluster.wait_condition("late")
    cluster.wait_message(8448, tls)
    cluster.kubectl("delete", "wss", "-n", SHOP, "late")


def deployment(name, account, **annotations):
    """An application with a sidecar."""
    container = {"name": "app", "image": BACKEND, "args": ["127.0.0.1", "3001"], "securityContext": RESTRICTED}
    spec = {"serviceAccountName": account, "securityContext": RESTRICTED_POD, "terminationGracePeriodSeconds": 1, "containers": [container]}
    meta = {"labels": {"app": name, "tidegate.dev/inject": "true"}, "annotations": {f"tidegate.dev/{k}": v for k, v in annotations.items()}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": SIDE}, "spec": {
        "selector": {"matchLabels": {"app": name}}, "template": {"metadata": meta, "spec": spec}}}  # fmt: skip


def wait_ready(cluster, name):
    cluster.wait_pods(1, f"app={name}", SIDE)
    return cluster.pods(f"app={name}", SIDE)[0]["metadata"]["name"]


def logs(cluster, pod, *words):
    """Until the sidecar's controller has said so."""
    said = wait_until(f"a line with {words}", lambda: next((
        line for line in cluster.kubectl("logs", "-n", SIDE, pod, "-c", "tidegate-controller").splitlines()
        if all(w in line for w in words)), None), 60, step=0.2)  # fmt: skip
    return said


def test_an_account_without_a_role_binding_is_named_and_its_pod_comes_once_it_has_one(cluster):
    cluster.api.apply(deployment("strange", STRANGER))
    said = cluster.wait_event(SIDE, "FailedCreate", "strange", f"{SIDE}/{STRANGER} may not")
    assert f"sidecar.serviceAccounts of the release {SPACE}/{RELEASE}" in said, said
    role = f"{SPACE}.{RELEASE}-sidecar"
    assert f"bind the ClusterRole {role} to it" in said, said
    cluster.kubectl("create", "rolebinding", "strange", "-n", SIDE, f"--clusterrole={role}", f"--serviceaccount={SIDE}:{STRANGER}")
    wait_ready(cluster, "strange")


def test_a_pod_that_no_server_fits_is_ready_and_says_so(cluster):
    pod = wait_ready(cluster, "strange")
    logs(cluster, pod, '"warn"', "no WebSocketServer of this namespace has a workloadSelector that fits this pod's labels")
    cluster.api.apply(server("early", SIDE, 9443, "ws://localhost:3001", workloadSelector={"matchLabels": {"app": "strange"}}))
    address = cluster.pods("app=strange", SIDE)[0]["status"]["podIP"]
    cluster.wait_message(9443, address=address)


def test_a_secret_of_a_sidecar_that_is_missing_is_named_by_the_pod_which_starts_once_it_is_there(cluster, certs, tls):
    cluster.api.apply(server("keyed", SIDE, 9444, "ws://localhost:3001", workloadSelector={"matchLabels": {"app": "keyed"}},
                             https=True, tls={"secretRef": {"name": "later"}}))  # fmt: skip
    cluster.api.apply(deployment("keyed", BOUND, **{"tls-secrets": "later"}))
    cluster.wait_event(SIDE, "FailedMount", "keyed", 'secret "later" not found')
    cluster.api.apply(secret("later", SIDE, certs.server))
    wait_ready(cluster, "keyed")
    cluster.wait_message(9444, tls, cluster.pods("app=keyed", SIDE)[0]["status"]["podIP"])


def test_a_secret_that_no_annotation_names_is_said_with_the_annotation(cluster):
    cluster.api.apply(server("unmounted", SIDE, 9445, "ws://localhost:3001", workloadSelector={"matchLabels": {"app": "unmounted"}},
                             https=True, tls={"secretRef": {"name": "later"}}))  # fmt: skip
    cluster.api.apply(deployment("unmounted", BOUND))
    pod = wait_ready(cluster, "unmounted")
    logs(cluster, pod, '"warn"', "Secret later is not mounted into this pod", "tidegate.dev/tls-secrets")


def test_an_image_of_a_sidecar_that_cannot_be_pulled_is_named_by_the_pod(cluster):
    """The gateway's own: test_release.py."""
    accounts = json.dumps([{"namespace": SIDE, "name": BOUND}])
    cluster.helm("upgrade", "--set-json", f"sidecar.serviceAccounts={accounts}",
                 values={"sidecar.enabled": "true", "image.repository": "nowhere"})  # fmt: skip
    image = cluster.image.replace("/tidegate:", "/nowhere:")

    def injected():
        probe = deployment("probe", BOUND)["spec"]["template"]
        answer = cluster.api.must("POST", f"/api/v1/namespaces/{SIDE}/pods?dryRun=All",
                                  {"apiVersion": "v1", "kind": "Pod", **probe, "metadata": {**probe["metadata"], "name": "probe"}})  # fmt: skip
        return answer["spec"]["initContainers"][0]["image"] == image

    wait_until("the new image is put in", injected, 60, step=0.2)
    cluster.api.apply(deployment("unpulled", BOUND))
    cluster.wait_event(SIDE, "Failed", "unpulled", image)
    assert not any(is_ready(p) for p in cluster.pods("app=unpulled", SIDE))
    cluster.helm_verb("rollback")
    cluster.wait_pods(2)
