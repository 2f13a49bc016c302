"""A cluster with Tidegate in it, as somebody has it who ran `helm install`: the node, the release, an application, its clients."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from chart import CHART, helm
from gateway import GROUP
from image import write_image
from server import REPO
from support import frames
from support.client import RawClient
from support.peer import Eof
from support.wait import wait_until

FOLDER = REPO / "tests/.cache/node-of-e2e"  # the same each time: then what a crash left is ended by the next run
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


def make_images(folder):
    """The archives: that of deploy/image, and the application's."""
    given = os.environ.get("TIDEGATE_IMAGE")
    if given:
        archive = Path(given)
    else:
        subprocess.run([REPO / "deploy/image", "--name", IMAGE, "--out", folder], check=True, cwd=REPO, timeout=600)
        archive = next(folder.glob("tidegate-*.tar"))
    return [archive, make_backend(folder)]


def make_backend(folder):
    """The application's."""
    program = folder / "backend"
    source = REPO / "tests/e2e/backend.c"
    subprocess.run(["gcc", "-static", "-O2", "-s", "-D_GNU_SOURCE", "-w", "-o", program, source, "-lcrypto"], check=True,
                   timeout=120, capture_output=True)  # fmt: skip
    files = {"backend": (program.read_bytes(), 0o755)}
    return write_image(folder / "backend.tar", BACKEND, files, ["/backend"], "65532:65532")


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
        while not self.ending.wait(0.1):
            for log in self.source.glob("*/*/*.log"):
                kept = self.keep / "_".join(log.parts[-3:])
                if not kept.exists():
                    with contextlib.suppress(OSError):
                        os.link(log, kept)

    def of(self, container):
        """[(which, its lines)]"""
        return [(p.name, p.read_bytes().splitlines()) for p in sorted(self.keep.glob(f"*_{container}_*.log"))]

    def refused(self):
        """What a controller was not allowed to do."""
        return [(which, line) for which, lines in self.of("controller") if which not in self.excused
                for line in lines if FORBIDDEN.search(line)]  # fmt: skip

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
            labels = {"pod-security.kubernetes.io/enforce": "restricted"}
            self.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})

    # the release

    def helm(self, verb, *args, values=None, name=RELEASE, namespace=SPACE):
        """With the image that is there and a Service that needs no cloud."""
        registry, rest = self.image.split("/", 1)
        repository, tag = rest.split(":")
        values = {"image.registry": registry, "image.repository": repository, "image.tag": tag, "service.type": "ClusterIP",
                  "pdb.enabled": "true", **(values or {})}  # fmt: skip
        sets = [word for k, v in values.items() for word in ("--set", f"{k}={v}")]
        return helm(verb, name, CHART, "--namespace", namespace, *sets, *args, env=self.helm_env).stdout

    def helm_verb(self, verb, *args, name=RELEASE, namespace=SPACE):
        return helm(verb, name, "--namespace", namespace, *args, env=self.helm_env).stdout

    def uninstall(self, name=RELEASE, namespace=SPACE):
        """Until its pods are gone. helm takes their rights away while they drain: what they say of that is no fault."""
        assert not self.logs.refused()
        self.helm_verb("uninstall", name=name, namespace=namespace)
        wait_until("its pods are gone", lambda: not self.pods(f"app.kubernetes.io/instance={name}", namespace), 90, step=0.2)
        self.logs.excused |= {which for which, _ in self.logs.of("controller") if which.startswith(f"{namespace}_")}

    def kubectl(self, *args, **kw):
        return self.api.kubectl(*args, **kw)

    def pods(self, selector=GATEWAY, namespace=SPACE):
        path = f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector.replace('=', '%3D').replace(',', '%2C')}"
        return self.api.get(path)["items"]

    def wait_rolled_out(self, name=RELEASE, namespace=SPACE, timeout=120):
        """Until the new pods are all there and the old ones have ended."""
        done = self.kubectl("rollout", "status", "-n", namespace, f"deployment/{name}", f"--timeout={timeout}s",
                            check=False, timeout=timeout + 10)  # fmt: skip
        assert done.returncode == 0, done.stderr + self.describe(namespace)

    def wait_pods(self, count, selector=GATEWAY, namespace=SPACE, timeout=100):
        """Until so many are left, all of them ready."""

        def right():
            pods = self.pods(selector, namespace)
            return len(pods) == count and all(is_ready(p) for p in pods)

        wait_until(f"{count} ready pods", right, timeout, step=0.2)

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

    def wait_condition(self, name, kind="Ready", status="True", reason=None, timeout=30):
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


def is_ready(pod):
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


class Told:
    """When each pod was told to end: .at {name: time}."""

    def __init__(self, cluster, selector, namespace):
        self.cluster, self.where = cluster, (selector, namespace)
        self.at = {}
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self.ending.wait(0.05):
            for pod in self.cluster.pods(*self.where):
                if "deletionTimestamp" in pod["metadata"]:
                    self.at.setdefault(pod["metadata"]["name"], time.time())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join(10)


class Arrivals:
    """A new client every 50 ms that echoes once and goes: .came [(time, which backend)], .failed [(time, why)]."""

    def __init__(self, cluster, *, port=PORT, tls=None, address=None):
        self.address, self.port, self.tls = address or cluster.address, port, tls
        self.came, self.failed = [], []
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self.ending.wait(0.05):
            since = time.time()
            try:
                with RawClient(self.port, self.address, tls=self.tls, timeout=10) as client:
                    head = client.handshake("/")
                    self.came.append((since, head.get("X-Backend")))
                    client.send_frame(frames.TEXT, "well?")
                    client.expect_frame(frames.TEXT, "well?")
                    client.send_close(1000)
                    client.expect_close(1000)
            except Exception as e:  # noqa: BLE001 - whatever it is, it is counted
                self.failed.append((round(since, 2), repr(e)[:400]))

    def check(self):
        assert self.came and not self.failed, f"{len(self.failed)} of {len(self.came)}: {self.failed[:5]}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join(15)


class Crowd:
    """Clients that each echo every 0.2 s, answer a Close, and then come again at once. What befell them is in
    .closes [(code, reason, time, backend)], .cut (ends without a Close) and .failed (a new connection that did not succeed)."""

    def __init__(self, cluster, count=100, *, port=PORT, tls=None, again=True, address=None):
        self.address, self.port, self.tls, self.again = address or cluster.address, port, tls, again
        self.closes, self.cut, self.failed, self.backends = [], [], [], []
        self.opened = self.echoes = self.open = 0
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self._live, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()
        wait_until(f"{count} sockets open", lambda: self.open == count or self.failed, 30)
        self.check()
        self.count = count

    def check(self):
        assert not self.cut and not self.failed, (self.cut[:5], self.failed[:5], len(self.cut), len(self.failed))

    def _live(self):
        while not self.ending.is_set():
            since = time.monotonic()
            try:
                client = RawClient(self.port, self.address, tls=self.tls, timeout=10)
                head = client.handshake("/")
            except Exception as e:  # noqa: BLE001 - whatever it is, it is counted
                self.failed.append((round(time.time(), 2), round(time.monotonic() - since, 2), repr(e)[:300]))
                return
            with self.lock:
                self.opened += 1
                self.open += 1
                self.backends.append((time.time(), head.get("X-Backend")))
            try:
                self._talk(client, head.get("X-Backend"))
            except (OSError, Eof, AssertionError) as e:
                self.cut.append((round(time.time(), 2), repr(e)[:300]))
                return
            finally:
                with self.lock:
                    self.open -= 1
                client.close()
            if not self.again:
                return

    def _talk(self, client, backend):
        while not self.ending.is_set():
            client.send_frame(frames.TEXT, "well?")
            frame = client.read_frame(10)
            if frame.opcode == frames.TEXT:
                with self.lock:
                    self.echoes += 1
                with contextlib.suppress(TimeoutError):
                    frame = client.read_frame(0.2)  # whatever comes between is a Close
            if frame.opcode == frames.CLOSE:
                with self.lock:
                    self.closes.append((frame.code, frame.reason, time.time(), backend))
                client.send_close(frame.code)
                client.expect_eof(10)
                return

    def finish(self):
        self.ending.set()
        for thread in self.threads:
            thread.join(15)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.finish()
