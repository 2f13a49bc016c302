"""On a real API server: every set of values is taken, rights are what is needed and no more, and the pair of a release runs with them."""

import json
import os
import re
import subprocess

import pytest
import yaml

from chart import CHART, SETS, container, gateway_pod, given, helm, is_test, pick, render
from conftest import restricted
from gateway import CONTROLLER, FORBIDDEN, GROUP, Controller, echoes, endpoint_slice, own_address, secret, server, service
from server import REPO
from support import metrics
from support.backend import RawBackend, echo
from support.certs import Certs
from support.proxy import BINARY, Proxy, free_port
from support.wait import wait_until

@pytest.fixture(scope="module")
def crd(api):
    api.apply_crd(REPO / "deploy/crd.yaml")


def in_namespace(api, namespace, *args, **kw):
    return helm(*args, "--namespace", namespace, env={"KUBECONFIG": str(api.kubeconfig)}, **kw)


@pytest.fixture
def release(api, crd, namespace):
    """release(values) -> the objects of a release named tidegate in the test's namespace, as the API server has them."""

    def install(values=None, verb="install"):
        # the kind is the session's, not the release's
        out = in_namespace(api, namespace, verb, "tidegate", CHART, *given(values), "--set", "crds.enabled=false")
        manifest = in_namespace(api, namespace, "get", "manifest", "tidegate").stdout
        return [o for o in yaml.safe_load_all(manifest) if o], out.stdout

    yield install
    in_namespace(api, namespace, "uninstall", "tidegate", check=False)


# what the API server says to it


@pytest.mark.parametrize("values", SETS, ids=lambda p: p.stem)
def test_the_api_server_takes_every_set_of_values(api, crd, namespace, values):
    for name in ("chart-a", "chart-b"):
        restricted(api, name)
    objects = render(values, namespace=namespace)
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    out = api.kubectl("apply", "--dry-run=server", "--server-side", "--validate=strict", "-f", "-", stdin=text)
    assert len(out.splitlines()) == len(objects)


def test_install_yaml_is_taken_as_it_is(api, crd):
    api.namespace("tidegate")
    out = api.kubectl("apply", "--dry-run=server", "--server-side", "--force-conflicts", "--validate=strict", "-f", REPO / "deploy/install.yaml")
    assert "deployment.apps/tidegate serverside-applied (server dry run)" in out


@pytest.mark.parametrize("values", SETS, ids=lambda p: p.stem)
def test_pods_are_let_in_where_the_restricted_standard_is_enforced(api, namespace, values):
    objects = render(values, namespace=namespace)
    pods = [gateway_pod(objects), *(o["spec"] for o in objects if o["kind"] == "Pod")]
    for n, spec in enumerate(pods):
        spec = {k: v for k, v in spec.items() if k != "topologySpreadConstraints"}  # its matchLabelKeys are for the pods of a Deployment
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{n}", "namespace": namespace}, "spec": spec}
        status, answer = api.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)
        assert status == 201, answer


def test_a_pod_that_is_not_restricted_would_not_be_let_in(api, namespace):
    """The test above can fail."""
    spec = json.loads(json.dumps(gateway_pod(render(namespace=namespace))))
    spec["containers"][0]["securityContext"]["capabilities"] = {}
    spec.pop("topologySpreadConstraints")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", "namespace": namespace}, "spec": spec}
    status, answer = api.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)
    assert status == 403 and "restricted" in answer["message"]


# rights


MAY = [
    ("list", "websocketservers.tidegate.dev", "other", True), ("watch", "websocketservers.tidegate.dev", "other", True),
    ("patch", "websocketservers.tidegate.dev/status", "other", True), ("list", "secrets", "other", True),
    ("watch", "services", "other", True), ("list", "endpointslices.discovery.k8s.io", "other", True),
    ("list", "referencegrants.gateway.networking.k8s.io", "other", True), ("create", "events.events.k8s.io", "other", True),
    ("patch", "events.events.k8s.io", "other", True), ("create", "leases.coordination.k8s.io", None, True),
    ("get", "leases.coordination.k8s.io/tidegate-controller-tidegate", None, True),
    ("update", "leases.coordination.k8s.io/tidegate-controller-tidegate", None, True), ("patch", "services/tidegate", None, True),
    # and not
    ("update", "websocketservers.tidegate.dev", "other", False), ("patch", "websocketservers.tidegate.dev", "other", False),
    ("delete", "websocketservers.tidegate.dev", "other", False), ("update", "websocketservers.tidegate.dev/status", "other", False),
    ("create", "secrets", None, False), ("patch", "secrets", None, False), ("delete", "secrets", None, False),
    ("patch", "services/tidegate", "other", False), ("patch", "services/another", None, False), ("create", "services", None, False),
    ("update", "services/tidegate", None, False), ("delete", "services/tidegate", None, False),
    ("update", "leases.coordination.k8s.io/another", None, False), ("create", "leases.coordination.k8s.io", "other", False),
    ("delete", "leases.coordination.k8s.io/tidegate-controller-tidegate", None, False), ("list", "leases.coordination.k8s.io", None, False),
    ("get", "pods", None, False), ("list", "configmaps", None, False), ("list", "namespaces", None, False),
    ("create", "serviceaccounts/token", None, False), ("create", "pods", None, False), ("get", "nodes", None, False),
    ("patch", "deployments.apps", None, False), ("escalate", "roles.rbac.authorization.k8s.io", None, False),
]  # fmt: skip


def may(api, account, verb, what, namespace):
    """What the API server's own authorizer says of this account."""
    name, _, rest = what.partition("/")
    resource, _, group = name.partition(".")
    is_sub = rest in ("status", "token")
    attributes = {"verb": verb, "group": group, "resource": resource, "namespace": namespace,
                  **({"subresource": rest} if is_sub else {"name": rest})}  # fmt: skip
    review = {"spec": {"user": f"system:serviceaccount:{account}", "resourceAttributes": attributes,
                       "groups": ["system:serviceaccounts", "system:authenticated"]}}  # fmt: skip
    return api.must("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"]


def test_the_account_may_do_what_it_needs_and_nothing_else(api, namespace, release):
    release()
    # kubectl asks as the account itself would
    out = api.kubectl("auth", "can-i", "list", "secrets", "-A", "--as", f"system:serviceaccount:{namespace}:tidegate", check=False)
    assert out.stdout.strip() == "yes"
    wrong = [(verb, what, where or "its own") for verb, what, where, due in MAY
             if may(api, f"{namespace}:tidegate", verb, what, where or namespace) != due]  # fmt: skip
    assert not wrong


def test_with_namespaces_it_may_nothing_elsewhere(api, namespace, release):
    for name in ("chart-a", "chart-b"):
        restricted(api, name)
    release(CHART / "ci/namespaced-values.yaml")
    account = f"{namespace}:tidegate"
    for what in ("websocketservers.tidegate.dev", "secrets", "services", "endpointslices.discovery.k8s.io"):
        assert may(api, account, "list", what, "chart-a") and may(api, account, "list", what, "chart-b")
        assert not may(api, account, "list", what, "other") and not may(api, account, "list", what, "")
    assert may(api, account, "patch", "services/tidegate", namespace) and not may(api, account, "list", "secrets", namespace)


def test_who_may_edit_a_namespace_may_edit_its_objects(api, namespace, release):
    release()
    role = api.get(f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{namespace}.tidegate-edit")
    # the controller manager adds up such roles; there is none here
    assert role["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    verbs = {v for rule in role["rules"] for v in rule["verbs"]}
    assert verbs >= {"get", "list", "watch", "create", "update", "patch", "delete"}


# the pair, with the flags and the account of a release


class Pair:
    """Both containers of a release's pod as processes: their flags and rights, on ports and a run dir of the test's."""

    def __init__(self, api, objects, namespace, folder):
        spec = gateway_pod(objects)
        account = spec["serviceAccountName"]
        token = folder / "token"
        token.write_text(api.token(account, namespace))
        kubeconfig = api.write_kubeconfig(folder / "kubeconfig", {"tokenFile": str(token)}, namespace)
        self.run_dir = folder / "run"
        self.run_dir.mkdir()
        self.ports = {port: free_port() for port in range(9900, 9904)}
        env = {"POD_NAME": "tidegate-0", "POD_NAMESPACE": namespace}
        names = {e["name"]: e["valueFrom"]["fieldRef"]["fieldPath"] for e in container(spec, "controller")["env"]}
        assert names == {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}
        args = self.args(container(spec, "controller"))
        self.controller = Controller([CONTROLLER, *args, "--kubeconfig", str(kubeconfig)], env, admin_port=self.ports[9902])
        proxy = [BINARY, *self.args(container(spec, "proxy")), "--config", str(self.run_dir / "servers.yaml")]
        self.proxy = Proxy(proxy, run_dir=self.run_dir, admin_port=self.ports[9901])

    def args(self, c):
        moved = [re.sub("^--run-dir=.*", f"--run-dir={self.run_dir}", arg) for arg in c["args"]]
        return [re.sub(r"=:(990\d)$", lambda m: f"=127.0.0.1:{self.ports[int(m[1])]}", arg) for arg in moved]

    def is_ready(self, port):
        try:
            return metrics.get(self.ports[port], "/readyz")[0] == 200
        except OSError:
            return False

    def wait_ready(self):
        for port in (9903, 9900):
            try:
                wait_until(f"/readyz of {port}", lambda p=port: self.is_ready(p), 20)
            except AssertionError as e:
                raise AssertionError(f"{e}; {self.controller.logs[-6:]} {self.controller.garbage} {self.proxy.garbage}") from None

    def check_rights(self):
        refused = [e for e in self.controller.logs if FORBIDDEN.search(json.dumps(e))]
        assert not refused, f"the account lacks a right: {refused[:3]}"

    def stop(self):
        for process in (self.controller, self.proxy):
            process.stop()

    def kill(self):
        for process in (self.controller, self.proxy):
            process.kill()


@pytest.fixture
def start_pair(api, namespace, tmp_path):
    pairs = []

    def start(objects):
        pairs.append(Pair(api, objects, namespace, tmp_path))
        pairs[-1].wait_ready()
        return pairs[-1]

    try:
        yield start
        for pair in pairs:
            pair.check_rights()
            pair.stop()
    finally:
        for pair in pairs:
            pair.kill()
        api.kubectl("delete", "websocketservers", "-A", "--all", "--wait=false")


def condition(api, obj, kind="Ready"):
    meta = obj["metadata"]
    found = api.get(f"{GROUP}/namespaces/{meta['namespace']}/websocketservers/{meta['name']}")
    conditions = (found.get("status") or {}).get("conditions") or []
    return next((c["status"] for c in conditions if c["type"] == kind), None)


def wait_ready(api, obj):
    wait_until(f"{obj['metadata']['name']} ready", lambda: condition(api, obj) == "True", 20)


def service_ports(api, namespace):
    ports = api.get(f"/api/v1/namespaces/{namespace}/services/tidegate")["spec"]["ports"]
    return {p["name"]: p["port"] for p in ports}


METRICS = {"metrics.enabled": "true", "service.type": '"ClusterIP"', "drain.maxSeconds": "1"}


def test_an_object_is_served_with_the_rights_of_the_release(api, namespace, release, start_pair):
    objects, _ = release(METRICS)
    pair = start_pair(objects)
    address, port = own_address(), free_port()
    with RawBackend(echo, host=address) as backend:
        obj = server("chat", namespace, port, backendRef={"name": "app", "port": 80})
        for part in (service("app", namespace, 80), endpoint_slice("app-1", namespace, "app", [address], backend.port), obj):
            api.apply(part)
        wait_ready(api, obj)
        echoes(port)
    assert service_ports(api, namespace) == {"health": 9900, f"p-{port}": port}
    assert api.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/tidegate-controller-tidegate")["spec"]["holderIdentity"]
    events = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    wait_until("its Event", lambda: any(e["regarding"]["name"] == "chat" for e in api.get(events)["items"]), 10)
    assert pair.proxy.metrics()["tidegate_connections_total"]


def test_a_cluster_without_the_gateway_api_raises_no_alarm(api, namespace, release, start_pair):
    """As the alert TidegateControllerNotSynced sees it: referencegrants are a kind that is not there, and need not be."""
    assert api.request("GET", "/apis/gateway.networking.k8s.io")[0] == 404
    objects, _ = release(METRICS)
    pair = start_pair(objects)
    found = metrics.parse(pair.controller.get("/metrics")[2])["tidegate_controller_synced"]
    assert {dict(labels)["resource"] for labels in found} >= {"websocketservers", "secrets", "services", "referencegrants"}
    assert min(found.values()) == 1, found


def test_an_upgrade_leaves_the_ports_of_the_objects_in_place(api, namespace, release, start_pair):
    objects, _ = release(METRICS)
    start_pair(objects)
    obj = server("chat", namespace, free_port(), "ws://192.0.2.1:80")
    api.apply(obj)
    wait_ready(api, obj)
    due = {"health": 9900, f"p-{obj['spec']['port']}": obj["spec"]["port"]}
    wait_until("its port", lambda: service_ports(api, namespace) == due, 10)
    release({**METRICS, "service.annotations": '{"example.org/a":"b"}', "proxy.workers": "2"}, "upgrade")
    assert api.get(f"/api/v1/namespaces/{namespace}/services/tidegate")["metadata"]["annotations"]["example.org/a"] == "b"
    assert service_ports(api, namespace) == due
    in_namespace(api, namespace, "rollback", "tidegate", "1")
    assert service_ports(api, namespace) == due


def test_a_loopback_backend_is_refused(api, namespace, release, start_pair):
    objects, _ = release(METRICS)
    start_pair(objects)
    obj = server("inside", namespace, free_port(), "ws://127.0.0.1:3001")
    api.apply(obj)
    wait_until("it is not accepted", lambda: condition(api, obj, "Accepted") == "False", 20)


def test_namespaces_that_are_named_are_served_without_a_right_elsewhere(api, namespace, release, start_pair):
    for name in ("chart-a", "chart-b"):
        restricted(api, name)
    objects, _ = release(CHART / "ci/namespaced-values.yaml")
    pair = start_pair(objects)
    inside, outside = (server("chat", ns, free_port(), "ws://192.0.2.1:80") for ns in ("chart-b", namespace))
    api.apply(outside)
    api.apply(inside)
    wait_ready(api, inside)
    assert f"{namespace}/chat" not in (pair.run_dir / "servers.yaml").read_text()
    wait_until("its port", lambda: f"p-{inside['spec']['port']}" in service_ports(api, namespace), 10)


def test_secrets_of_namespaces_that_are_named_are_read_without_a_right_elsewhere(api, namespace, release, start_pair, tmp_path):
    for name in ("chart-a", "chart-b"):
        restricted(api, name)
    objects, _ = release({**METRICS, "rbac.secretNamespaces": '["chart-a"]'})
    account = f"{namespace}:tidegate"
    assert may(api, account, "list", "secrets", "chart-a") and may(api, account, "list", "services", "chart-b")
    assert not may(api, account, "list", "secrets", "chart-b") and not may(api, account, "list", "secrets", "")
    start_pair(objects)
    pair = Certs(tmp_path).server
    inside, outside = (server("tls", ns, free_port(), "ws://192.0.2.1:80", https=True, tls={"secretRef": {"name": "tls"}})
                       for ns in ("chart-a", "chart-b"))  # fmt: skip
    for obj in (secret("tls", "chart-a", pair), secret("tls", "chart-b", pair), inside, outside):
        api.apply(obj)
    wait_ready(api, inside)
    wait_until("the other has no Secret", lambda: condition(api, outside, "ResolvedRefs") == "False", 10)


@pytest.mark.parametrize("values", SETS, ids=lambda p: p.stem)
def test_both_binaries_take_the_flags_of_every_set(values):
    for name, binary in (("proxy", BINARY), ("controller", CONTROLLER)):
        args = container(gateway_pod(render(values)), name)["args"]
        assert os.path.exists(binary), f"{binary} is not built"
        for words, code in ((args, 0), ([*args, "--no-such-flag"], 2)):
            done = subprocess.run([binary, *words, "--help"], capture_output=True, text=True, timeout=30)
            assert done.returncode == code, (words, done.stderr)


def test_what_helm_test_runs_opens_a_websocket_through_the_gateway(api, namespace, release, start_pair, tmp_path):
    """Its objects and commands, without a kubelet: the pod's address is this machine's, and no name leads to the Service."""
    address, behind, port = own_address(), free_port(), free_port()
    values = {**METRICS, "test.port": str(port)}
    release(values)
    start_pair(render(values, namespace=namespace))
    tests = [o for o in render(values, namespace=namespace) if is_test(o)]
    pod, obj, app = (pick(tests, kind) for kind in ("Pod", "WebSocketServer", "Service"))
    (tmp_path / "test").mkdir()
    moved = {"--run-dir=/run/tidegate": f"--run-dir={tmp_path}/test", "--admin=:9901": f"--admin=:{behind}"}
    words = container(pod["spec"], "backend")["args"]
    assert set(moved) <= set(words)
    backend = Proxy([BINARY, *(moved.get(w, w) for w in words)], run_dir=tmp_path / "test", admin_port=behind)
    try:
        for part in (app, endpoint_slice("test-1", namespace, app["metadata"]["name"], [address], behind), obj):
            api.apply(part)
        wait_ready(api, obj)
        flag, url = container(pod["spec"], "connect")["args"]
        host = f"tidegate.{namespace}.svc"
        assert host in url
        wait_until("its page answers", lambda: backend.get("/healthz")[0] == 200, 10)
        done = subprocess.run([BINARY, flag, url.replace(host, "127.0.0.1")], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0 and "status: 101" in done.stdout and "pong" in done.stdout, done.stdout + done.stderr
        backend.stop()
    finally:
        backend.kill()


# what people are told, and what stays


def test_the_notes_say_what_to_do_next(api, namespace, release):
    _, out = release({"gatewayName": '"outer"', "allowLocalBackends": "true", "replicas": "1"})
    for words in ("gatewayName: outer", "kubectl get wss -A", f"helm test tidegate -n {namespace}", "WARNING: allowLocalBackends", "WARNING: with a single pod"):
        assert words in out
    first = re.search(r"<<EOF\n(.*?)\n +EOF", out, re.S)[1]
    api.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin="\n".join(line[5:] for line in first.splitlines()))


def test_what_a_release_leaves_behind_is_the_kind_and_its_objects(api, crd, namespace):
    """The same objects, with the kind in the release: it is the last test to need it from elsewhere."""
    name = "websocketservers.tidegate.dev"
    api.kubectl("delete", "crd", name)
    in_namespace(api, namespace, "install", "tidegate", CHART)
    api.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{name}")
    second = restricted(api, f"{namespace}-second")
    in_namespace(api, second, "install", "inner", CHART, *given(CHART / "ci/second-values.yaml"))
    obj = server("chat", namespace, 8080, "ws://192.0.2.1:80")
    wait_until("the kind is served", lambda: api.kubectl("apply", "-f", "-", stdin=json.dumps(obj), check=False).returncode == 0, 20)
    in_namespace(api, second, "uninstall", "inner")
    out = in_namespace(api, namespace, "uninstall", "tidegate").stdout
    assert "kept due to the resource policy" in out and name in out
    assert api.get(f"{GROUP}/namespaces/{namespace}/websocketservers/chat")
    left = api.kubectl("get", "deployments,services,roles,serviceaccounts", "-n", namespace, "-o", "name").split()
    assert not [o for o in left if "tidegate" in o]
    api.kubectl("delete", "websocketserver", "chat", "-n", namespace)
