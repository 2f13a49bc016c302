"""A cluster with Tidegate in it, as somebody has it who ran `helm install`: the node, the release, an application, its clients."""

import contextlib
import fcntl
import http.client
import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path

from chart import CHART, helm
from gateway import GROUP, secret, server
from image import write_image
from server import REPO
from support.client import RawClient
from support.site import talk
from support.wait import wait_until

CACHE = REPO / "tests/.cache"
# A worker of pytest-xdist has a node of its own. The same each time: then what a crash left is ended by the next run.
FOLDER = CACHE / "-".join(filter(None, ["node-of-e2e", os.environ.get("PYTEST_XDIST_WORKER")]))
IMAGE = "tidegate.test/tidegate:e2e"  # unless it is given
BACKEND = "tidegate.test/backend:1"
RELEASE = "tidegate"
SPACE = "tidegate-system"  # of the release
SHOP = "shop"  # of the application
GATEWAY = "app.kubernetes.io/instance=tidegate,app.kubernetes.io/component=gateway"
PORT = 8443
RESTRICTED_POD = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
FORBIDDEN = re.compile(rb"\b403\b|[Ff]orbidden")


def make_images():
    """The archives: that of deploy/image, and the application's. Once a run, whichever worker comes first."""
    folder = CACHE / "images-of-e2e"
    folder.mkdir(exist_ok=True)
    archives = [folder / "gateway", folder / "backend.tar"]
    run, stamp = os.environ.get("PYTEST_XDIST_TESTRUNUID", ""), folder / "run"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not run or not stamp.exists() or stamp.read_text() != run:
            given = os.environ.get("TIDEGATE_IMAGE")
            archives[0].unlink(missing_ok=True)
            archives[0].symlink_to(Path(given).absolute() if given else make_image(folder))
            make_backend(folder)
            stamp.write_text(run)
    return archives


def make_image(folder):
    for old in folder.glob("tidegate-*.tar"):
        old.unlink()
    subprocess.run([REPO / "deploy/image", "--name", IMAGE, "--out", folder], check=True, cwd=REPO, timeout=900)
    return next(folder.glob("tidegate-*.tar"))


def make_backend(folder):
    """backend.tar, the application's."""
    program = folder / "backend"
    source = REPO / "tests/e2e/backend.c"
    subprocess.run(["gcc", "-static", "-O2", "-s", "-D_GNU_SOURCE", "-w", "-o", program, source, "-lcrypto"], check=True,
                   timeout=300, capture_output=True)  # fmt: skip
    return write_image(folder / "backend.tar", BACKEND, {"backend": (program.read_bytes(), 0o755)}, ["/backend"], "65532:65532")


class Logs:
    """The logs of every container that ever ran there: kubelet takes a deleted pod's away, but not our links to them."""

    def __init__(self, node, keep):
        self.source, self.keep = node.folder / "root/var/log/pods", Path(keep)
        self.excused = set()
        shutil.rmtree(self.keep, ignore_errors=True)
        self.keep.mkdir(parents=True)
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.ending.wait(0.2):
            with contextlib.suppress(OSError):  # a pod's folder went while we looked: the next look is for the others
                for log in self.source.glob("*/*/*.log"):
                    kept = self.keep / "_".join(log.parts[-3:])
                    if not kept.exists():
                        os.link(log, kept)

    def of(self, container):
        """[(which, its lines)]"""
        return [(p.name, p.read_bytes().splitlines()) for p in sorted(self.keep.glob(f"*_{container}_*.log"))]

    def refused(self):
        """What a controller was not allowed to do."""
        assert self.thread.is_alive()
        logs = [log for container in ("controller", "tidegate-controller") for log in self.of(container)]
        return [(which, line) for which, lines in logs if which not in self.excused for line in lines if FORBIDDEN.search(line)]

    def stop(self):
        self.ending.set()
        self.thread.join(5)


class Cluster:
    """Made inside of the node's network, and to be used there."""

    def __init__(self, node, image):
        """image: the name of Tidegate's."""
        self.image = image
        self.node, self.api = node, node.api
        self.logs = Logs(node, FOLDER / "logs")
        self.helm_env = {"KUBECONFIG": str(node.api.kubeconfig), "HELM_CACHE_HOME": str(node.folder / "helm"),
                         "HELM_CONFIG_HOME": str(node.folder / "helm"), "HELM_DATA_HOME": str(node.folder / "helm")}  # fmt: skip
        for name in (SPACE, SHOP):
            self.namespace(name)

    def namespace(self, name):
        """One that lets in as little as one can."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})

    # the release

    def helm(self, verb, *args, values=None, name=RELEASE, namespace=SPACE, check=True):
        """With the image that is there, a Service that needs no cloud, and no wait that no test is about."""
        registry, rest = self.image.split("/", 1)
        repository, tag = rest.split(":")
        values = {"image.registry": registry, "image.repository": repository, "image.tag": tag, "service.type": "ClusterIP",
                  "pdb.enabled": "true", "minReadySeconds": "1", **(values or {})}  # fmt: skip
        sets = [word for k, v in values.items() for word in ("--set", f"{k}={v}")]
        done = helm(verb, name, CHART, "--namespace", namespace, *sets, *args, env=self.helm_env, check=check)
        return done.stdout if check else done

    def helm_verb(self, verb, *args, name=RELEASE, namespace=SPACE):
        return helm(verb, name, "--namespace", namespace, *args, env=self.helm_env).stdout

    def installed(self, certs, *args, values=None):
        """The release with these values and the application with its Secret, whatever there was before; all are ready."""
        self.app()
        self.api.apply(secret("chat-tls", SHOP, certs.server))
        self.helm("upgrade", "--install", *args, values=values)
        self.wait_rolled_out()
        self.wait_pods(2)
        self.wait_rolled_out("chat", SHOP)
        self.wait_pods(2, "app=chat", SHOP)

    def uninstall(self, *args, name=RELEASE, namespace=SPACE):
        """Until its pods are gone. helm takes their rights away while they drain: what they say of that is no fault."""
        assert not self.logs.refused()
        said = self.helm_verb("uninstall", *args, name=name, namespace=namespace)
        wait_until("its pods are gone", lambda: not self.pods(f"app.kubernetes.io/instance={name}", namespace), 180, step=0.2)
        self.logs.excused |= {which for which, _ in self.logs.of("controller") if which.startswith(f"{namespace}_")}
        return said

    def kubectl(self, *args, **kw):
        return self.api.kubectl(*args, **kw)

    def pods(self, selector=GATEWAY, namespace=SPACE):
        path = f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector.replace('=', '%3D').replace(',', '%2C')}"
        return self.api.get(path)["items"]

    def wait_rolled_out(self, name=RELEASE, namespace=SPACE, timeout=180):
        """Until the new pods are all there and the old ones have ended."""
        done = self.kubectl("rollout", "status", "-n", namespace, f"deployment/{name}", f"--timeout={timeout}s",
                            check=False, timeout=timeout + 10)  # fmt: skip
        assert done.returncode == 0, done.stderr + self.describe(namespace)

    def wait_pods(self, count, selector=GATEWAY, namespace=SPACE, timeout=180):
        """Until so many are left, all of them ready."""

        def right():
            pods = self.pods(selector, namespace)
            return len(pods) == count and all(is_ready(p) for p in pods)

        wait_until(f"{count} ready pods", right, timeout, step=0.2)

    def wait_event(self, namespace, reason, about, *words, timeout=60):
        """Until an Event says so of an object whose name begins like that: its note."""

        def said():
            events = self.api.get(f"/api/v1/namespaces/{namespace}/events")["items"]
            return next((e["message"] for e in events if e["reason"] == reason and e["involvedObject"]["name"].startswith(about)
                         and all(w in e["message"] for w in words)), None)  # fmt: skip

        try:
            return wait_until(f"Event {reason} of {about}: {words}", said, timeout, step=0.2)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.describe(namespace)}") from None

    def describe(self, namespace):
        return "\n".join([
            self.kubectl("get", "pods", "-n", namespace, "-o", "wide"),
            self.kubectl("get", "events", "-n", namespace, "--sort-by=.lastTimestamp"),
            self.kubectl("describe", "pods", "-n", namespace)[-6000:],
        ])  # fmt: skip

    def leader(self):
        """The pod that holds the Lease."""
        lease = self.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{SPACE}/leases/tidegate-controller-tidegate")
        return (lease["spec"].get("holderIdentity") or "").split("_")[0]

    # processes in it

    def processes(self, program, pod):
        """The pids of a program in a pod, as this machine counts."""
        uid = next(p["metadata"]["uid"] for p in self.pods() if p["metadata"]["name"] == pod)
        found = []
        for proc in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (proc / "cmdline").read_bytes().split(b"\0")
                if os.path.basename(words[0].decode()) == program and uid in (proc / "cgroup").read_text():
                    found.append(int(proc.name))
        assert found, f"no {program} in {pod}"
        return found

    def kill(self, program, pod):
        for pid in self.processes(program, pod):
            os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def frozen(self, program, pod):
        pids = self.processes(program, pod)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def service(self):
        return self.api.get(f"/api/v1/namespaces/{SPACE}/services/{RELEASE}")

    def service_ports(self):
        return {p["name"]: p["port"] for p in self.service()["spec"]["ports"]}

    @property
    def address(self):
        return self.service()["spec"]["clusterIP"]

    # objects

    def condition(self, name, kind="Ready", namespace=SHOP):
        """(status, reason, message)"""
        obj = self.api.get(f"{GROUP}/namespaces/{namespace}/websocketservers/{name}")
        for c in (obj.get("status") or {}).get("conditions") or []:
            if c["type"] == kind and c.get("observedGeneration") == obj["metadata"]["generation"]:
                return c["status"], c["reason"], c["message"]
        return None, None, None

    def wait_condition(self, name, kind="Ready", status="True", reason=None, timeout=60):
        def right():
            now = self.condition(name, kind)
            return now[0] == status and reason in (None, now[1])

        try:
            wait_until(f"{kind}={status} of {name}", right, timeout, step=0.05)
        except AssertionError:
            raise AssertionError(self.kubectl("describe", "wss", "-n", SHOP, name)) from None
        return self.condition(name, kind)

    def client(self, port=PORT, tls=None, **kw):
        return RawClient(port, self.address, tls=tls, **kw)

    def wait_message(self, port=PORT, tls=None, address=None, timeout=60):
        """Until one is echoed: by which pod."""
        address = address or self.address
        return wait_until("a message", lambda: try_echo(address, port, tls), timeout, step=0.1)

    def app(self, replicas=2, args=("0.0.0.0", "3001"), **template):
        """The Deployment and the Service of the application."""
        container = {
            "name": "app", "image": BACKEND, "args": list(args), "securityContext": RESTRICTED,
            "readinessProbe": {"tcpSocket": {"port": 3001}, "periodSeconds": 1},
        }  # fmt: skip
        spec = {"securityContext": RESTRICTED_POD, "terminationGracePeriodSeconds": 8, "containers": [container], **template}
        labels = {"app": "chat"}
        self.api.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "chat", "namespace": SHOP}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec},
        }})  # fmt: skip
        self.api.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "chat", "namespace": SHOP},
                        "spec": {"selector": labels, "ports": [{"port": 3001}]}})  # fmt: skip


def chat(name="chat", port=PORT, **spec):
    """The object of the application, by wss."""
    return server(name, SHOP, port, backendRef={"name": "chat", "port": 3001}, https=True,
                  tls={"secretRef": {"name": "chat-tls"}}, **spec)  # fmt: skip


def echo(address, port=PORT, tls=None, headers=()):
    """A message there and back: by which pod."""
    with RawClient(port, address, tls=tls) as client:
        head = client.handshake("/", headers=list(headers))
        talk(client)
        return head.get("X-Backend")


def try_echo(*args, **kw):
    try:
        return echo(*args, **kw)
    except (OSError, AssertionError):
        return None


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


def is_ready(pod):
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
