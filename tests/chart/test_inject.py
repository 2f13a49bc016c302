"""The sidecar that a MutatingAdmissionPolicy puts into pods: where, what, what it leaves alone, and the words of a refusal."""

import copy
import json
import subprocess

import pytest
import yaml

from chart import container, pick, render, template
from conftest import restricted
from server import REPO
from support.proxy import BINARY
from support.wait import wait_until

INJECT = "tidegate.dev/inject"
OURS = ("tidegate-controller", "tidegate-proxy")
VALUES = {"sidecar.enabled": "true",
          "sidecar.serviceAccounts": '[{"namespace":"inject-apps","name":"chat"},{"namespace":"inject-all","name":"chat"}]'}  # fmt: skip


@pytest.fixture(scope="module")
def policy(api):
    """The policies and bindings of a release, in force."""
    for name in ("inject-apps", "inject-plain"):
        restricted(api, name)
    api.apply({"apiVersion": "v1", "kind": "Namespace",
               "metadata": {"name": "inject-all", "labels": {INJECT: "true", "pod-security.kubernetes.io/enforce": "restricted"}}})  # fmt: skip
    objects = [o for o in render(VALUES) if "sidecar" in o["metadata"]["name"]]
    assert {o["kind"] for o in objects} >= {"MutatingAdmissionPolicy", "ValidatingAdmissionPolicy", "RoleBinding"}
    api.apply({"apiVersion": "v1", "kind": "List", "items": objects}, "--server-side")

    def in_force():
        return all(injected(create(api, pod(), ns, {INJECT: "true"} if ns == "inject-apps" else {})) for ns in ("inject-apps", "inject-all"))

    wait_until("the policies in force", in_force, 30)
    # a refusal comes by another policy, which may take longer
    wait_until("refusals in force", lambda: refusal(api, {"tidegate.dev/log-level": "loud"}), 30)


def pod(**spec):
    """A pod that the restricted standard lets in."""
    tight = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "serviceAccountName": "chat", "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "app", "image": "app:1", "securityContext": tight}], **spec,
    }  # fmt: skip


def init(name, **more):
    return {"name": name, "image": "init:1", "securityContext": pod()["containers"][0]["securityContext"], **more}


def post(api, spec, namespace, labels=None, annotations=None, **meta):
    meta = {"name": "pod", "namespace": namespace, "labels": labels or {}, "annotations": annotations or {}, **meta}
    return api.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All",
                       {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})  # fmt: skip


def create(api, *args, **kw):
    status, answer = post(api, *args, **kw)
    assert status == 201, answer
    return answer


def refusal(api, annotations, spec=None):
    """What it is refused with, "" when it is not."""
    status, answer = post(api, spec or pod(), "inject-apps", {INJECT: "true"}, annotations)
    return "" if status == 201 else answer["message"]


def injected(obj):
    return [c["name"] for c in obj["spec"].get("initContainers", []) if c["name"] in OURS]


def without_ours(obj):
    """The pod but for what was put in."""
    spec = copy.deepcopy(obj["spec"])
    spec["initContainers"] = [c for c in spec.get("initContainers", []) if c["name"] not in OURS]
    spec["volumes"] = [v for v in spec.get("volumes", []) if not v["name"].startswith("tidegate-")]
    meta = {k: v for k, v in obj["metadata"].items() if k in ("annotations", "generateName", "ownerReferences", "finalizers")}
    return {**meta, **{k: v for k, v in spec.items() if v != []}}


VOLUME = {"name": "data", "emptyDir": {}}
OWNER = [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "chat", "uid": "0a", "controller": True}]
# Shapes of pods: (spec, metadata)
SHAPES = {
    "bare": (pod(), {}),
    "no annotations": (pod(), {"annotations": None}),
    "others' annotations": (pod(), {"annotations": {"a/b": "c", "prometheus.io/scrape": "true"}}),
    "others' labels": (pod(), {"labels": {"app": "chat", "team": "edge"}}),
    "generated name": (pod(), {"name": None, "generateName": "chat-"}),
    "of a ReplicaSet": (pod(), {"ownerReferences": OWNER}),
    "a finalizer": (pod(), {"finalizers": ["example.org/wait"]}),
    "volumes": (pod(volumes=[VOLUME]), {}),
    "no volumes, an empty list": (pod(volumes=[]), {}),
    "an init container": (pod(initContainers=[init("first")]), {}),
    "three init containers, one a sidecar": (pod(initContainers=[init("a"), init("b", restartPolicy="Always"), init("c")]), {}),
    "an empty list of init containers": (pod(initContainers=[]), {}),
    "two containers": (pod(containers=[*pod()["containers"], {**pod()["containers"][0], "name": "second"}]), {}),
    "of a Job": (pod(restartPolicy="Never", activeDeadlineSeconds=60), {}),
    "no grace": (pod(terminationGracePeriodSeconds=0), {}),
    "a long grace": (pod(terminationGracePeriodSeconds=3600), {}),
    "no token for the app": (pod(automountServiceAccountToken=False), {}),
    "a user and a group of files": (pod(securityContext={**pod()["securityContext"], "runAsUser": 1000, "fsGroup": 2000}), {}),
    "a user of OpenShift": (pod(securityContext={**pod()["securityContext"], "runAsUser": 1000650000, "fsGroup": 1000650000}), {}),
    "one process namespace": (pod(shareProcessNamespace=True), {}),
    "probes, ports and a preStop of its own": (pod(containers=[{
        **pod()["containers"][0], "ports": [{"containerPort": 3001}], "readinessProbe": {"tcpSocket": {"port": 3001}},
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
    }]), {}),
    "a node, tolerations and a priority": (pod(nodeSelector={"a": "b"}, tolerations=[{"operator": "Exists"}], dnsPolicy="None",
                                               dnsConfig={"nameservers": ["192.0.2.1"]}), {}),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_put_in_front_and_nothing_else_is_touched(api, policy, shape):
    spec, meta = SHAPES[shape]
    meta = dict(meta)
    labels = meta.pop("labels", {})
    asked = create(api, spec, "inject-apps", {**labels, INJECT: "true"}, **meta)
    assert [c["name"] for c in asked["spec"]["initContainers"]][:2] == list(OURS)
    assert without_ours(asked) == without_ours(create(api, spec, "inject-apps", labels, **meta))
    assert asked["metadata"]["labels"] == {**labels, INJECT: "true"}
    for c in asked["spec"]["containers"]:
        assert not [m for m in c.get("volumeMounts", []) if m["name"].startswith("tidegate")]
    # once more, as when a policy is invoked again or the pod is a copy
    again = create(api, asked["spec"], "inject-apps", {**labels, INJECT: "true"}, **meta)
    assert again["spec"] == asked["spec"]


@pytest.mark.parametrize("where, labels, due", [
    ("inject-apps", {}, False), ("inject-apps", {INJECT: "true"}, True), ("inject-apps", {INJECT: "false"}, False),
    ("inject-apps", {INJECT: "yes"}, False), ("inject-all", {}, True), ("inject-all", {INJECT: "true"}, True),
    ("inject-all", {INJECT: "false"}, False), ("kube-system", {INJECT: "true"}, False),
])  # fmt: skip
def test_pods_have_it_that_ask_or_whose_namespace_asks(api, policy, where, labels, due):
    assert injected(create(api, pod(), where, labels)) == (list(OURS) if due else [])


LEFT_ALONE = {
    "the node's network": (pod(hostNetwork=True), "a pod with hostNetwork gets none"),
    "Windows by its field": (pod(os={"name": "windows"}, securityContext={}, containers=[{"name": "app", "image": "app:1"}]), "a pod for Windows gets none"),
    "Windows by its nodes": (pod(nodeSelector={"kubernetes.io/os": "windows"}), "a pod for Windows gets none"),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_a_pod_that_cannot_have_it_is_left_alone_and_told(api, policy, name):
    spec, words = LEFT_ALONE[name]
    api.namespace("inject-loose")
    assert injected(create(api, spec, "inject-loose", {INJECT: "true"})) == []
    obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "inject-loose", "labels": {INJECT: "true"}}, "spec": spec}
    said = api.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(obj), check=False)
    assert words in said.stderr and not said.returncode


def test_mirror_pods_are_left_alone():
    policy = pick(render(VALUES), "MutatingAdmissionPolicy")
    assert any("kubernetes.io/config.mirror" in c["expression"] for c in policy["spec"]["matchConditions"])


def test_annotations_change_what_they_name(api, policy):
    notes = {"tidegate.dev/log-level": "debug", "tidegate.dev/drain-seconds": "7", "tidegate.dev/cpu-request": "300m",
             "tidegate.dev/cpu-limit": "2", "tidegate.dev/memory-request": "100Mi", "tidegate.dev/memory-limit": "1Gi",
             "tidegate.dev/tls-secrets": "chat-tls, feed-ca"}  # fmt: skip
    spec = create(api, pod(), "inject-apps", {INJECT: "true"}, notes)["spec"]
    proxy, controller = container(spec, "tidegate-proxy"), container(spec, "tidegate-controller")
    assert {"--log-level=debug", "--max-drain=7s"} <= set(proxy["args"]) and "--log-level=debug" in controller["args"]
    assert proxy["resources"] == {"requests": {"cpu": "300m", "memory": "100Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
    mounted = {m["mountPath"]: m["name"] for m in controller["volumeMounts"]}
    secrets = {v["name"]: v["secret"] for v in spec["volumes"] if "secret" in v}
    for name in ("chat-tls", "feed-ca"):
        assert secrets[mounted[f"/etc/tidegate/secrets/{name}"]] == {"secretName": name, "defaultMode": 0o644}
    for c in (proxy, *spec["containers"]):
        assert not [m for m in c.get("volumeMounts", []) if m["name"] in secrets]


@pytest.mark.parametrize("grace, drain", [(0, 1), (5, 1), (11, 1), (12, 2), (30, 20), (3600, 3590), (86410, 86400), (604800, 86400)])
def test_the_drain_fits_the_grace(api, policy, grace, drain):
    spec = create(api, pod(terminationGracePeriodSeconds=grace), "inject-apps", {INJECT: "true"})["spec"]
    args = container(spec, "tidegate-proxy")["args"]
    assert f"--max-drain={drain}s" in args
    taken = subprocess.run([BINARY, *args, "--help"], capture_output=True, text=True, timeout=30)
    assert taken.returncode == 0, taken.stderr


WRONG = {
    "no name of a Secret": ({"tidegate.dev/tls-secrets": "Chat_TLS"}, "tidegate.dev/tls-secrets: Chat_TLS: must be names of Secrets"),
    "a path": ({"tidegate.dev/tls-secrets": "../x"}, "must be names of Secrets"),
    "an empty name": ({"tidegate.dev/tls-secrets": "a,,b"}, "must be names of Secrets"),
    "a Secret twice": ({"tidegate.dev/tls-secrets": "a,b,a"}, "each Secret once"),
    "too many Secrets": ({"tidegate.dev/tls-secrets": ",".join(f"s{n}" for n in range(33))}, "at most 32"),
    "Secrets without end": (
        {"tidegate.dev/tls-secrets": ",".join(f"s{n}" for n in range(20000))}, "at most 32"),
    "no level": ({"tidegate.dev/log-level": "loud"}, "tidegate.dev/log-level: loud: use debug, info, warn or error"),
    "a drain beyond the grace": ({"tidegate.dev/drain-seconds": "21"}, "tidegate.dev/drain-seconds: 21: must be 1 to 20"),
    "a drain that is no number": ({"tidegate.dev/drain-seconds": "5s"}, "must be 1 to 20"),
    "a drain that no integer holds": ({"tidegate.dev/drain-seconds": "9" * 30}, "must be 1 to 20"),
    "no quantity": ({"tidegate.dev/memory-limit": "much"}, "tidegate.dev/memory-limit: much: must be a quantity"),
    "more than the limit": ({"tidegate.dev/memory-request": "1Gi"}, "must be less than or equal to memory limit"),
    "a typo": ({"tidegate.dev/tls-secret": "a"}, "tidegate.dev/tls-secret: unknown; there are tidegate.dev/tls-secrets"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_annotation_is_refused_in_words(api, policy, name):
    annotations, words = WRONG[name]
    said = refusal(api, annotations)
    assert words in said and "expression" not in said, said


def test_a_port_of_the_sidecars_own_is_refused(api, policy):
    app = {**pod()["containers"][0], "ports": [{"containerPort": 9900}]}
    assert "use another" in refusal(api, {}, pod(containers=[app]))
    assert "use another" in refusal(api, {}, pod(initContainers=[init("first", restartPolicy="Always", ports=[{"containerPort": 9903}])]))


def test_a_pod_whose_account_may_not_read_is_refused_and_told_where_to_name_it(api, policy):
    spec = pod(serviceAccountName="other")
    said = refusal(api, {}, spec)
    assert "inject-apps/other may not; name it in the value sidecar.serviceAccounts of the release tidegate/tidegate" in said, said
    assert "expression" not in said
    create(api, spec, "inject-apps", {})


def test_annotations_of_pods_that_are_not_injected_are_nobodys_business(api, policy):
    create(api, pod(), "inject-apps", {}, {"tidegate.dev/log-level": "loud"})


# by hand


def test_the_form_by_hand_runs_the_same_containers(api, policy):
    docs = list(yaml.safe_load_all((REPO / "deploy/sidecar.yaml").read_text()))
    spec = pick(docs, "Deployment")["spec"]["template"]["spec"]
    spec["containers"][0]["securityContext"] = pod()["containers"][0]["securityContext"]
    spec["securityContext"] = pod()["securityContext"]
    by_hand = create(api, spec, "inject-plain")
    bare = copy.deepcopy(spec)
    bare["initContainers"], bare["volumes"] = [], []
    by_policy = create(api, bare, "inject-apps", {INJECT: "true"}, {"tidegate.dev/tls-secrets": "chat-tls"})
    assert by_policy["spec"] == by_hand["spec"]


def test_the_form_by_hand_is_taken_and_gives_the_same_rights(api, policy):
    api.apply_crd(REPO / "deploy/crd.yaml")
    out = api.kubectl("apply", "--dry-run=server", "--validate=strict", "-n", "inject-plain", "-f", REPO / "deploy/sidecar.yaml")
    assert "websocketserver.tidegate.dev/chat created" in out
    role = pick(list(yaml.safe_load_all((REPO / "deploy/sidecar.yaml").read_text())), "Role")
    assert role["rules"] == pick(render(VALUES), "ClusterRole", "tidegate.tidegate-sidecar")["rules"]


# the chart


def test_only_the_accounts_that_are_named_may_read(api, policy):
    def may(account, verb="list", namespace="inject-apps", resource="websocketservers.tidegate.dev"):
        words = ("auth", "can-i", verb, resource, "-n", namespace, "--as", f"system:serviceaccount:inject-apps:{account}")
        return api.kubectl(*words, check=False).stdout.strip() == "yes"

    assert may("chat") and may("chat", "watch") and may("chat", "get")
    assert not may("other") and not may("chat", namespace="inject-all") and not may("chat", "patch")
    assert not may("chat", "get", resource="secrets") and not may("chat", "list", resource="services")


def test_nothing_is_injected_unless_asked_for():
    for objects in (render(), yaml.safe_load_all((REPO / "deploy/install.yaml").read_text())):
        assert not [o for o in objects if "Admission" in o["kind"] or "sidecar" in o["metadata"]["name"]]


def test_a_cluster_without_such_policies_is_told_the_way_by_hand():
    done = template({"sidecar.enabled": "true"}, flags=["--kube-version", "1.35.2"], check=False)
    assert done.returncode and "deploy/sidecar.yaml" in done.stderr


def test_the_gateway_has_no_sidecar_of_its_own():
    assert pick(render(), "Deployment")["spec"]["template"]["metadata"]["labels"][INJECT] == "false"
    assert pick(render(), "Pod")["metadata"]["labels"][INJECT] == "false"


def test_without_resources_it_has_none(api, policy):
    null = '{"requests":null,"limits":null}'
    values = {"sidecar.enabled": "true", "sidecar.proxy.resources": null, "sidecar.controller.resources": null, "runAsUser": "null"}
    objects = [o for o in render(values, name="bare", namespace="bare") if o["metadata"]["name"].startswith("bare.bare")]
    text = json.dumps({"items": [o for o in objects if "Mutating" in o["kind"]]}).replace(INJECT, "tidegate.dev/bare")
    text = json.dumps({"apiVersion": "v1", "kind": "List", **json.loads(text)})
    api.apply(text, "--server-side")
    try:
        spec = wait_until("in force", lambda: (p := create(api, pod(), "inject-plain", {"tidegate.dev/bare": "true"})) and injected(p) and p, 30)["spec"]
        assert all(c["resources"] == {} for c in spec["initContainers"])
        assert not any("runAsUser" in c["securityContext"] for c in spec["initContainers"])
    finally:
        api.kubectl("delete", "-f", "-", stdin=text)


def test_two_releases_that_inject_do_so_once(api, policy):
    values = {**VALUES, "crds.enabled": "false", "sidecar.serviceAccounts": '[{"namespace":"inject-plain","name":"chat"}]'}
    objects = [o for o in render(values, name="inner", namespace="inner") if "sidecar" in o["metadata"]["name"]]
    first = {(o["kind"], o["metadata"]["name"]) for o in render(VALUES)}
    assert objects and not first & {(o["kind"], o["metadata"]["name"]) for o in objects}
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    api.apply(text, "--server-side")
    try:
        # what it alone injects shows that it is in force
        own = json.loads(text.replace("tidegate.dev/inject", "tidegate.dev/second").replace("inner.inner", "inner.probe"))
        api.apply(own, "--server-side")
        wait_until("the second in force", lambda: injected(create(api, pod(), "inject-plain", {"tidegate.dev/second": "true"})), 30)
        assert injected(create(api, pod(), "inject-apps", {INJECT: "true"})) == list(OURS)
        api.kubectl("delete", "-f", "-", stdin=json.dumps(own))
    finally:
        api.kubectl("delete", "-f", "-", stdin=text)
