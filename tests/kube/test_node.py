"""The whole node of the tests behaves as a cluster does: what tests/e2e builds on, piece by piece."""

import itertools
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import node as node_module
from image import write_image
from node import Node
from server import REPO, Failed
from support.need import cannot_run
from support.wait import wait_until

pytestmark = pytest.mark.node
NUMBERS = itertools.count(1)
IMAGE = "tidegate.test/busybox:1"
TOOLS = ("cat", "echo", "httpd", "id", "mkdir", "nc", "nslookup", "printf", "sh", "sleep", "tail", "test",
         "touch")  # fmt: skip
FOLDER = REPO / "tests/.cache/node-of-tests"  # the same each time: then what a crash left is ended by the next run
READY_SECONDS = 30  # usually 5
RESTRICTED = {
    "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
    "container": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
}


def busybox(folder):
    if not os.access("/bin/busybox", os.X_OK):
        cannot_run("no /bin/busybox (busybox-static)")
    files = {"bin/busybox": (Path("/bin/busybox").read_bytes(), 0o755), **{f"bin/{t}": "busybox" for t in TOOLS}}
    return write_image(folder / "busybox.tar", IMAGE, files, ["/bin/busybox"])


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    try:
        node = Node(FOLDER)
    except Failed as e:
        cannot_run(str(e))
    archive = busybox(tmp_path_factory.mktemp("image"))
    start = time.monotonic()
    node.up()
    node.took = time.monotonic() - start
    try:
        assert node.import_image(archive) == [IMAGE]
        with node.inside():
            yield node
    finally:
        node.down()


@pytest.fixture
def namespace(node):
    return node.api.namespace(f"test-{next(NUMBERS)}")


def pod(name, script, **spec):
    container = {"name": "app", "image": IMAGE, "command": ["sh", "-c", script], **spec.pop("container", {})}
    meta = {"name": name, "labels": {"app": name}}
    grace = {"terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container], **grace, **spec}}


def run_pod(node, namespace, *args, **kw):
    """Until it is Ready."""
    obj = pod(*args, **kw)
    node.api.apply(obj, "-n", namespace)
    name = obj["metadata"]["name"]
    done = node.kubectl("wait", "-n", namespace, f"pod/{name}", "--for=condition=Ready", "--timeout=30s", check=False)
    assert done.returncode == 0, done.stderr + node.kubectl("describe", "pod", "-n", namespace, name)
    return name


def in_pod(node, namespace, name, script, timeout=30):
    done = node.kubectl("exec", "-n", namespace, name, "-c", "app", "--", "sh", "-c", script, check=False, timeout=timeout)
    assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def web(node, namespace):
    """A pod that says hello on port 8080, and a Service in front of it on port 80. The Service's address and node port."""
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    script = "mkdir /www && echo hello >/www/index.html && exec httpd -f -p 8080 -h /www"
    run_pod(node, namespace, "web", script, container={"readinessProbe": probe})
    ports = [{"port": 80, "targetPort": 8080}]
    made = node.api.create(f"/api/v1/namespaces/{namespace}/services",
                           {"metadata": {"name": "web"}, "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": ports}})  # fmt: skip
    return made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]


def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.read()
    except OSError:
        return None


def test_it_is_ready_within_seconds(node, figure):
    figure("%.1f s from nothing to Ready", node.took)
    assert node.took < READY_SECONDS
    info = node.api.get(f"/api/v1/nodes/{node_module.NAME}")["status"]["nodeInfo"]
    assert info["kubeletVersion"] == node.api.get("/version")["gitVersion"]
    assert info["containerRuntimeVersion"].startswith("containerd://2."), info


def test_a_pod_of_an_imported_image_runs_and_has_logs_and_exec(node, namespace):
    run_pod(node, namespace, "app", "echo it says this; exec sleep 1000")
    assert node.kubectl("logs", "-n", namespace, "app") == "it says this\n"
    assert in_pod(node, namespace, "app", "echo $HOSTNAME") == "app"


def test_an_archive_must_name_its_image_in_full(node, tmp_path):
    archive = write_image(tmp_path / "short.tar", "busybox:1", {"bin/sh": "busybox"}, ["sh"])
    with pytest.raises(Failed, match="'busybox:1' is not registry/name:tag"):
        node.import_image(archive)
    archive.write_bytes(b"no archive")
    with pytest.raises(Failed, match="no OCI archive"):
        node.import_image(archive)


def test_an_image_that_nobody_imported_is_not_looked_for_elsewhere(node, namespace):
    node.api.apply(pod("app", "true", container={"image": "tidegate.test/nowhere:1"}), "-n", namespace)

    def reason():
        status = node.api.get(f"/api/v1/namespaces/{namespace}/pods/app")["status"]
        return [s["state"].get("waiting", {}).get("reason") for s in status.get("containerStatuses", [])]

    wait_until("ErrImagePull", lambda: set(reason()) & {"ErrImagePull", "ImagePullBackOff"}, timeout=30, step=0.2)


def test_a_service_is_reached_from_the_node_and_from_pods_by_address_and_name(node, namespace):
    address, port = web(node, namespace)
    wait_until("the Service answers the node", lambda: fetch(f"http://{address}/") == b"hello\n", timeout=20, step=0.1)
    wait_until("its node port, too", lambda: fetch(f"http://{node.address}:{port}/") == b"hello\n", timeout=20, step=0.1)
    run_pod(node, namespace, "client", "exec sleep 1000")
    get = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {} 80 | tail -n 1"  # a static busybox's wget crashes
    for host in (address, "web", f"web.{namespace}.svc.cluster.local"):
        assert in_pod(node, namespace, "client", get.format(host)) == "hello"
    # a pod may reach itself through its Service
    assert in_pod(node, namespace, "web", get.format(address)) == "hello"


def test_names_resolve_in_pods_and_unknown_ones_do_not(node, namespace):
    run_pod(node, namespace, "client", "exec sleep 1000")
    assert "10.96.0.1" in in_pod(node, namespace, "client", "nslookup -type=a kubernetes.default.svc.cluster.local")
    done = node.kubectl("exec", "-n", namespace, "client", "--", "nslookup", "nothing.default.svc.cluster.local", check=False)
    assert done.returncode and "NXDOMAIN" in done.stdout, done


def test_the_api_server_is_a_service_with_a_certificate_for_its_address(node):
    tls = ssl.create_default_context(cafile=node.api.folder / "ca.crt")
    with socket.create_connection(("10.96.0.1", 443), 5) as s, tls.wrap_socket(s, server_hostname="10.96.0.1"):
        pass


def test_a_port_of_the_node_leads_to_a_pod_that_asks_for_it(node, namespace):
    script = "echo here >/tmp/index.html; exec httpd -f -p 8080 -h /tmp"
    mount = {"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}
    run_pod(node, namespace, "host", script, volumes=[{"name": "tmp", "emptyDir": {"medium": "Memory"}}],
            container={"ports": [{"containerPort": 8080, "hostPort": 8085}], **mount})  # fmt: skip
    url = f"http://{node.address}:8085/"
    wait_until("hostPort answers", lambda: fetch(url) == b"here\n", timeout=10, step=0.1)


def test_a_native_sidecar_starts_before_the_app_and_ends_after_it(node, namespace):
    shared = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    up = {"exec": {"command": ["test", "-f", "/shared/up"]}}
    sidecar = {"name": "side", "image": IMAGE, "restartPolicy": "Always", "startupProbe": {**up, "periodSeconds": 1}, **shared,
               "command": ["sh", "-c", "trap 'echo told; exit' TERM; touch /shared/up; while :; do sleep 0.1; done"]}  # fmt: skip
    job = pod("job", "test -f /shared/up && echo app ran", initContainers=[sidecar], restartPolicy="Never",
              terminationGracePeriodSeconds=20, volumes=[{"name": "shared", "emptyDir": {}}], container=shared)  # fmt: skip
    node.api.apply(job, "-n", namespace)
    node.kubectl("wait", "-n", namespace, "pod/job", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=40s")
    assert node.kubectl("logs", "-n", namespace, "job", "-c", "app") == "app ran\n"
    assert node.kubectl("logs", "-n", namespace, "job", "-c", "side") == "told\n"


def test_a_restricted_namespace_takes_a_restricted_pod_and_no_other(node, namespace):
    node.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    refused = node.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(pod("loose", "true")), check=False)
    assert refused.returncode and "restricted" in refused.stderr, refused
    run_pod(node, namespace, "app", "exec sleep 1000", securityContext=RESTRICTED["securityContext"],
            container={"securityContext": RESTRICTED["container"]})  # fmt: skip
    assert in_pod(node, namespace, "app", "id -u") == "65532"
    assert in_pod(node, namespace, "app", "touch /x 2>&1 || echo read-only").endswith("read-only")


def test_a_pod_has_the_token_of_its_account(node, namespace):
    run_pod(node, namespace, "app", "exec sleep 1000")
    token = in_pod(node, namespace, "app", "cat /var/run/secrets/kubernetes.io/serviceaccount/token")
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    review = node.api.must("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)["status"]
    assert review["user"]["username"] == f"system:serviceaccount:{namespace}:default", review


def test_a_deployment_rolls_and_a_deleted_namespace_goes_with_all_in_it(node, namespace):
    template = pod("app", "exec sleep 1000")
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "app"}},
        "template": {"metadata": {"labels": {"app": "app"}}, "spec": template["spec"]}}}  # fmt: skip
    node.api.apply(deployment, "-n", namespace)
    node.kubectl("rollout", "status", "-n", namespace, "deployment/app", "--timeout=40s")
    node.kubectl("rollout", "restart", "-n", namespace, "deployment/app")
    node.kubectl("rollout", "status", "-n", namespace, "deployment/app", "--timeout=40s")
    node.kubectl("delete", "namespace", namespace, "--timeout=60s", timeout=90)
    assert node.api.request("GET", f"/api/v1/namespaces/{namespace}")[0] == 404


def program(*words):
    return subprocess.run([sys.executable, node_module.__file__, *map(str, words)], capture_output=True, text=True, timeout=150)


def left_of(folder, network):
    """Whatever of a node is still there: processes that name its folder or have its network, mounts, cgroups."""
    left = [str(p) for p in Path("/sys/fs/cgroup").glob(f"*/{Node(folder).cgroup}")]
    left += [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line]
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            words = (proc / "cmdline").read_bytes()
            if bytes(folder) in words or os.readlink(proc / "ns/net") == network:
                left.append(words.replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return left


def test_after_a_crash_it_comes_up_anew_and_down_leaves_nothing(tmp_path, node):
    """As a program, beside the other node."""
    folder = tmp_path / "n"
    settings = [Path("/proc/sys", name).read_text() for name in node_module.SYSCTLS]
    try:
        up = program("up", "--dir", folder)
        assert up.returncode == 0, up.stderr
        done = program("import", "--dir", folder, busybox(tmp_path))
        assert done.returncode == 0, done.stderr
        second = Node(folder)
        with second.inside():
            run_pod(second, "default", "app", "exec sleep 1000")
        network = os.readlink(f"/proc/{second._holder.pid()}/ns/net")
        assert network != os.readlink("/proc/self/ns/net")
        assert len(left_of(folder, network)) > 10, "the search for what is left finds nothing"
        for name in ("holder", "containerd", "kubelet"):
            os.kill(int((folder / f"run/{name}.pid").read_text()), signal.SIGKILL)
        assert "not up" in program("shell", "--dir", folder, "true").stderr
        up = program("up", "--dir", folder)
        assert up.returncode == 0, up.stderr
        shell = program("shell", "--dir", folder, "kubectl", "get", "pods", "-o", "name")
        assert (shell.returncode, shell.stdout) == (0, ""), shell
    finally:
        down = program("down", "--dir", folder)
    assert down.returncode == 0, down.stderr
    assert left_of(folder, network) == []
    assert [Path("/proc/sys", name).read_text() for name in node_module.SYSCTLS] == settings
    assert (folder / "run/kubelet.log").exists()
    shutil.rmtree(folder)
