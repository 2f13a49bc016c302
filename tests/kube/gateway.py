"""tidegate-controller and tidegate-proxy as one pod has them: a run dir, an account with just its rights, and what people see of it."""

import base64
import contextlib
import ctypes
import http.client
import json
import os
import re
import socket
import threading
from pathlib import Path

from support.client import RawClient
from support.hold import EchoBackend, Hold
from support.need import cannot_run
from support.proxy import BINARY, REPO, Proxy, free_port
from support.site import is_open, talk
from support.wait import wait_until

CONTROLLER = os.environ.get("TIDEGATE_CONTROLLER", str(REPO / "build/controller/tidegate-controller"))
GROUP = "/apis/tidegate.dev/v1alpha1"
CONDITIONS = ("Accepted", "ResolvedRefs", "Programmed", "Ready")
FORBIDDEN = re.compile(r"\b403\b|forbidden", re.IGNORECASE)

CLONE_NEWNET = 0x40000000

READ = ["get", "list", "watch"]
# what a gateway may do, and no more
CLUSTER_RULES = {
    "websocketservers": {"apiGroups": ["tidegate.dev"], "resources": ["websocketservers"], "verbs": READ},
    "status": {"apiGroups": ["tidegate.dev"], "resources": ["websocketservers/status"], "verbs": ["patch"]},
    "services": {"apiGroups": [""], "resources": ["services"], "verbs": READ},
    "slices": {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": READ},
    "secrets": {"apiGroups": [""], "resources": ["secrets"], "verbs": READ},
    "grants": {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["referencegrants"], "verbs": READ},
    "events": {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
}
SIDECAR_RULES = [CLUSTER_RULES["websocketservers"]]


def release_rules(lease, service):
    """What the gateway may do in the namespace that it is installed in."""
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    return [
        {**leases, "verbs": ["create"]},
        {**leases, "resourceNames": [lease], "verbs": ["get", "update"]},
        {"apiGroups": [""], "resources": ["services"], "resourceNames": [service], "verbs": [*READ, "patch"]},
    ]


def b64(data):
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def server(name, namespace, port, backend=None, **spec):
    """A WebSocketServer. backend: a URL or the port of a local one."""
    if isinstance(backend, int):
        backend = f"ws://localhost:{backend}"
    spec = {"port": port, **({"backend": backend} if backend else {}), **spec}
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "tidegate.dev/v1alpha1", "kind": "WebSocketServer", "metadata": meta, "spec": spec}


def secret(name, namespace, pair=None, ca=None, kind="kubernetes.io/tls", **data):
    """A Secret; pair and ca: those of support/certs.py."""
    if pair:
        data = {"tls.crt": b64(pair.cert), "tls.key": b64(pair.key), **data}
    if ca:
        data = {"ca.crt": b64(ca.cert), **data}
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": kind if pair else "Opaque", "data": data}


def service(name, namespace, port, target=None, port_name="ws", **spec):
    meta = {"name": name, "namespace": namespace}
    ports = [{"name": port_name, "port": port, "targetPort": target or port, "protocol": "TCP"}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": ports, **spec}}


def endpoint_slice(name, namespace, of, addresses, port, port_name="ws", family="IPv4", **conditions):
    """addresses: each an endpoint of its own, with these conditions (ready=False ...)."""
    meta = {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": of}}
    conditions = conditions or {"ready": True}
    return {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": family,
        "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [a], "conditions": conditions} for a in addresses],
    }  # fmt: skip


class Controller(Proxy):
    """tidegate-controller: logs, metrics and its end are as those of a proxy."""


class Gateway:
    """One replica. api: an ApiServer. release: the namespace that it is installed in (account, Lease, Service). flags: further
    ones of the controller. without: names of CLUSTER_RULES that its account lacks."""

    def __init__(self, api, folder, release, *, name="tidegate-0", flags=(), account="gateway", rules=None, without=(),
                 namespaced=None, local=True, forbidden_is_fine=False, netns=False):  # fmt: skip
        """rules, namespaced: as in ApiServer.service_account_kubeconfig, instead of what a gateway has. local: with
        --allow-local-backends. netns: the proxy has a network of its own."""
        self.api, self.release, self.name = api, release, name
        self.folder = Path(folder) / name
        self.run_dir = self.folder / "run"
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.sidecar = "sidecar" in flags
        self.forbidden_is_fine, self.netns = forbidden_is_fine, netns
        self.secrets = []  # texts that must show up nowhere
        if rules is None:
            rules = [rule for key, rule in CLUSTER_RULES.items() if key not in without]
            namespaced = namespaced or {release: release_rules("tidegate", "tidegate")}
        self.kubeconfig = api.service_account_kubeconfig(account, release, rules, namespaced)
        self.flags = [*(["--allow-local-backends"] if local and not self.sidecar else []), *map(str, flags)]
        self.env = {"POD_NAME": name, "POD_NAMESPACE": release}
        self.controllers, self.proxies = [], []
        self.controller = self.proxy = None

    def start(self):
        """Both; served is what there is when this returns."""
        self.start_controller(wait=False)
        self.start_proxy()
        self.wait_ready()
        return self

    @contextlib.contextmanager
    def outage(self):
        """The API server is away. One that has just come back refuses everybody for a moment: it has not read its roles yet."""
        self.forbidden_is_fine = True
        self.api.stop()
        try:
            yield
        finally:
            self.api.start()

    # its two processes

    def start_controller(self, wait=True):
        port = free_port()
        command = [CONTROLLER, "--kubeconfig", str(self.kubeconfig), "--run-dir", str(self.run_dir), "--log-level", "debug",
                   "--admin", f"127.0.0.1:{port}", *self.flags]  # fmt: skip
        assert os.path.exists(CONTROLLER), f"{CONTROLLER} is not built"
        self.controller = Controller(command, self.env, run_dir=self.run_dir, admin_port=port)
        self.controllers.append(self.controller)
        if wait:
            self.wait_ready()
        return self.controller

    def start_proxy(self, wait=True):
        port = free_port()
        config = self.run_dir / "servers.yaml"
        wrap = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "-"] if self.netns else []
        command = [*wrap, BINARY, "--config", str(config), "--run-dir", str(self.run_dir), "--log-level", "debug",
                   "--workers", "1", "--admin", f"127.0.0.1:{port}", "--max-drain", "2s"]  # fmt: skip
        self.proxy = Proxy(command, config=config, run_dir=self.run_dir, admin_port=port)
        self.proxies.append(self.proxy)
        if wait:
            self.proxy.wait_log(event="ready", timeout=20)
        return self.proxy

    def is_ready(self, process=None):
        try:
            return (process or self.controller).get("/readyz")[0] == 200
        except OSError:
            return False

    def wait_ready(self, timeout=20.0):
        try:
            wait_until("the controller's /readyz", self.is_ready, timeout)
        except AssertionError as e:
            raise AssertionError(f"{e}; its last lines: {self.controller.logs[-8:]} {self.controller.garbage[-8:]}") from None

    def servers(self):
        """servers.yaml as it stands."""
        try:
            return (self.run_dir / "servers.yaml").read_text()
        except FileNotFoundError:
            return ""

    # objects

    def path(self, name, namespace=None):
        return f"{GROUP}/namespaces/{namespace or self.release}/websocketservers/{name}"

    def get(self, name, namespace=None):
        return self.api.get(self.path(name, namespace))

    def apply(self, *objects):
        """By kubectl, together; their keys must show up nowhere afterwards."""
        for obj in objects:
            self.hide(obj)
        self.api.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def hide(self, obj):
        spec = obj.get("spec") or {}
        for text in (spec.get("keyBase64"), spec.get("wssKeyBase64"), (obj.get("data") or {}).get("tls.key")):
            if text:
                self.secrets += key_texts(text)

    def delete(self, kind, name, namespace=None):
        self.api.kubectl("delete", kind, name, "-n", namespace or self.release, "--wait=false")

    def condition(self, name, kind, namespace=None):
        """The condition of an object, {} before there is one that speaks of its newest generation."""
        obj = self.get(name, namespace)
        for c in (obj.get("status") or {}).get("conditions") or []:
            if c["type"] == kind and c.get("observedGeneration") == obj["metadata"]["generation"]:
                return c
        return {}

    def wait_condition(self, name, kind="Ready", status="True", reason=None, *, says=None, namespace=None, timeout=10.0):
        """Until it stands so at the object's generation; the condition then. says: words of its message."""

        def holds():
            c = self.condition(name, kind, namespace)
            return c.get("status") == status and reason in (None, c["reason"]) and (says or "") in c["message"] and c

        try:
            return wait_until(f"{name}: {kind}={status} {reason or ''} {says or ''}", holds, timeout, step=0.03)
        except AssertionError as e:
            conditions = self.get(name, namespace).get("status")
            raise AssertionError(f"{e}; status: {conditions}; the last lines: {self.controller.logs[-6:]}") from None

    def wait_settled(self, *names, **kw):
        for name in names:
            self.wait_condition(name, **kw)

    def events(self, name, reason=None, *, says="", namespace=None):
        """The Events about an object, with this reason and these words."""
        items = self.api.get(f"/apis/events.k8s.io/v1/namespaces/{namespace or self.release}/events")["items"]
        about = [e for e in items if e["regarding"]["name"] == name and says in e.get("note", "")]
        return [e for e in about if reason in (None, e["reason"])]

    def wait_event(self, name, reason=None, *, says="", namespace=None, timeout=10.0, kind="Warning"):
        def found():
            return [e for e in self.events(name, reason, says=says, namespace=namespace) if e["type"] == kind]

        try:
            return wait_until(f"an Event {reason or ''} {says} about {name}", found, timeout, step=0.05)[0]
        except AssertionError as e:
            raise AssertionError(f"{e}; there are {self.events(name, namespace=namespace)}") from None

    def is_programmed(self, name, namespace=None):
        """This replica's own word, not the leader's."""
        metrics = self.controller.metrics().get("tidegate_server_programmed", {})
        return metrics.get(frozenset([("server", f"{namespace or self.release}/{name}")])) == 1

    def wait_programmed(self, name, namespace=None, timeout=10.0):
        wait_until(f"{name} programmed", lambda: self.is_programmed(name, namespace), timeout)

    # the end

    def check_quiet(self):
        """No right was missing, and no key shows up in what others can read."""
        said = {f"log of {p.process.args[0]}": json.dumps(p.logs) for p in (*self.controllers, *self.proxies)}
        for path in (f"{GROUP}/websocketservers", "/apis/events.k8s.io/v1/events", "/apis/coordination.k8s.io/v1/leases"):
            items = self.api.get(path)["items"]
            said[path] = json.dumps([{k: v for k, v in i.items() if k not in ("spec", "metadata")} for i in items])
        for process in (self.controller, self.proxy):
            for pid in process.processes() if process else ():
                for file in ("cmdline", "environ"):
                    with contextlib.suppress(OSError):
                        said[f"{file} of {pid}"] = Path(f"/proc/{pid}/{file}").read_text(errors="replace")
        for where, text in said.items():
            for hidden in self.secrets:
                assert hidden not in text, f"key material in {where}"
        if not self.forbidden_is_fine:
            refused = [e for c in self.controllers for e in c.logs if FORBIDDEN.search(json.dumps(e))]
            assert not refused, f"the account lacks a right: {refused[:3]}"

    def stop(self):
        """The controller first: it must need no proxy for its end."""
        failures = []
        for process in (*self.controllers, *self.proxies):
            try:
                process.stop()
            except AssertionError as e:
                failures.append(str(e))
        assert not failures, "\n".join(failures)

    def kill(self):
        for process in (*self.controllers, *self.proxies):
            process.kill()


def key_texts(text):
    """What must not be seen of a key that is base64 of PEM: itself, and each line of it."""
    lines = base64.b64decode(text).decode("latin-1").splitlines()
    return [text[:60], *(line for line in lines if len(line) >= 40 and "-----" not in line)]


class Still:
    """An object that no test touches, and a crowd that echoes on it all the while: nothing of it may close."""

    def __init__(self, gateway, count=60, period_ms=100, name="still"):
        self.parts = contextlib.ExitStack()
        try:
            echo = self.parts.enter_context(EchoBackend())
            self.port = free_port()
            gateway.apply(server(name, gateway.release, self.port, echo.port))
            gateway.wait_condition(name)
            self.crowd = self.parts.enter_context(Hold(self.port, count, period_ms=period_ms))
        except BaseException:
            self.parts.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.crowd.check(self.crowd.finish())
        finally:
            self.parts.close()


class Watch:
    """Every version of an object from now on, as a watch tells it: .seen, of (type, object)."""

    def __init__(self, api, path):
        folder, name = path.rsplit("/", 1)
        version = api.get(path)["metadata"]["resourceVersion"]
        self.seen = []
        self.lines, self.end = api.stream(f"{folder}?watch=true&fieldSelector=metadata.name={name}&resourceVersion={version}")
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        with contextlib.suppress(OSError, http.client.HTTPException):  # it was ended
            for line in self.lines:
                event = json.loads(line)
                self.seen.append((event["type"], event["object"]))

    def statuses(self, kind):
        """What a condition stood at, in order, without doubles side by side."""
        found = []
        for _, obj in list(self.seen):
            for c in (obj.get("status") or {}).get("conditions") or []:
                if c["type"] == kind and found[-1:] != [c["status"]]:
                    found.append(c["status"])
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
        self.thread.join(5)
        assert not self.thread.is_alive()


def own_address():
    """An address of this machine that is not loopback, for endpoints: the API takes no others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))  # sends nothing
            address = s.getsockname()[0]
        except OSError as e:
            cannot_run(f"this machine has no address but loopback: {e}")
    if address.startswith("127."):
        cannot_run("this machine has no address but loopback")
    return address


@contextlib.contextmanager
def network_of(pid):
    """What this thread opens meanwhile is in that process's network."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as own, open(f"/proc/{pid}/ns/net") as other:
        assert libc.setns(other.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(own.fileno(), CLONE_NEWNET) == 0


def echoes(port, *, tls=None, path="/", text="well?"):
    """One client, its handshake, one echo; the head of its 101."""
    with RawClient(port, tls=tls) as client:
        head = client.handshake(path)
        talk(client, text)
        return head


def wait_closed(port, timeout=10.0):
    wait_until(f"port {port} closed", lambda: not is_open(port), timeout)
