#!/usr/bin/env python3
"""A real kube-apiserver with its etcd, on loopback, with RBAC: for tests, the bench and the quickstart.

As a program:  server.py up --dir DIR    starts both, prints the path of an admin's kubeconfig; kubectl is beside it
               server.py down --dir DIR  ends them; DIR stays
The binaries are those of tests/kube/build. Nothing but Python's own library and openssl is needed.
There is no controller manager: no garbage collection, no endpoints, no default ServiceAccount, and a namespace that is
deleted never goes. node.py has the rest of a cluster."""

import argparse
import base64
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
SERVICE_CIDR = "10.96.0.0/16"
READY_SECONDS = 120  # usually 4; machines may be slow and busy
STOP_SECONDS = 20


class Failed(Exception):
    """What was asked for did not come about; the text says why."""


def binaries():
    """The folder of kube-apiserver, kubectl and etcd."""
    folder = Path(os.environ.get("KUBEBUILDER_ASSETS") or REPO / "tests/.cache/kube/bin").absolute()
    if not os.access(folder / "kube-apiserver", os.X_OK):
        raise Failed(f"no kube-apiserver in {folder}: run tests/kube/build")
    return folder


def _free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_for(what, condition, seconds):
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds} s: {what}")
        time.sleep(0.02)


class Process:
    """A program that runs on after the one that started it; known by its pid file."""

    def __init__(self, folder, binary, wrap=()):
        """wrap: the words of a command that becomes this one."""
        self.binary = Path(binary)
        self.wrap = wrap
        self.pid_file = folder / f"{self.binary.name}.pid"
        self.log = folder / f"{self.binary.name}.log"
        self.child = None

    def start(self, args=(), env=None):
        words = [*self.wrap, str(self.binary), *args]
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                                          start_new_session=True)  # fmt: skip
        self.pid_file.write_text(f"{self.child.pid}\n")

    def pid(self):
        """None unless it runs: a pid that is somebody else's by now does not count."""
        if self.child:  # what /proc says of it changes under exec
            return self.child.pid if self.child.poll() is None else None
        try:
            pid = int(self.pid_file.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self.binary) in words else None

    def stop(self, signals=(signal.SIGTERM, signal.SIGKILL)):
        for number in signals:
            pid = self.pid()
            if pid is None:
                break
            os.kill(pid, number)
            try:
                wait_for(f"{self.binary.name} gone", lambda: self.pid() is None, STOP_SECONDS)
            except Failed:
                continue
        self.pid_file.unlink(missing_ok=True)

    def tail(self):
        return "".join(self.log.read_text(errors="replace").splitlines(True)[-15:]) if self.log.exists() else ""


class ApiServer:
    """folder: where everything of it lives; one that is up already is found again. tied: it ends with this process.
    node: what of a cluster it serves, if it does: .address of the node's own, and .wrap for its processes (see Process)."""

    def __init__(self, folder, tied=False, node=None):
        self.folder = Path(folder).absolute()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.node = node
        self.bin = binaries()
        self.kubeconfig = self.folder / "admin.kubeconfig"
        wrap = node.wrap if node else ["setpriv", "--pdeathsig", "KILL", "--"] if tied else []
        self._etcd = Process(self.folder, self.bin / "etcd", wrap)
        self._server = Process(self.folder, self.bin / "kube-apiserver", wrap)
        self._ports_file = self.folder / "ports.json"
        self._tls = None
        if self._ports_file.exists():
            self.port, self._etcd_port, self._peer_port = json.loads(self._ports_file.read_text())

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    # its life

    def up(self):
        """Everything, from nothing or from an earlier run's data; ready when this returns."""
        if not (self.folder / "ca.crt").exists():
            self._make_certificates()
        for attempt in range(3):  # a port that was free may be so no longer
            if not self._ports_file.exists() or attempt:
                self.port, self._etcd_port, self._peer_port = _free_ports(3)
                self._ports_file.write_text(json.dumps([self.port, self._etcd_port, self._peer_port]))
            try:
                self._start_etcd()
                self.start()
                break
            except Failed:
                self.down()
                if attempt == 2:
                    raise
        (self.folder / "kubectl").unlink(missing_ok=True)
        (self.folder / "kubectl").symlink_to(self.bin / "kubectl")
        return self

    def down(self):
        self.stop()
        self._etcd.stop()

    def start(self):
        """The API server alone, on the data and the port that it had."""
        pem = self.folder
        if self._server.pid() is None:
            self._server.start([
                f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
                f"--secure-port={self.port}",
                f"--tls-cert-file={pem}/server.crt",
                f"--tls-private-key-file={pem}/server.key",
                f"--client-ca-file={pem}/ca.crt",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={pem}/accounts.pub",
                f"--service-account-signing-key-file={pem}/accounts.key",
                f"--service-cluster-ip-range={SERVICE_CIDR}",
                "--authorization-mode=Node,RBAC",
                *(self._of_a_node() if self.node else [
                    "--bind-address=127.0.0.1",
                    "--endpoint-reconciler-type=none",  # its endpoints may not be loopback
                    "--disable-admission-plugins=ServiceAccount",  # nobody makes the default one
                ]),
            ])  # fmt: skip
        self._write_admin()
        self._await(self._server, self._ready)

    def _of_a_node(self):
        return [
            "--bind-address=0.0.0.0",
            f"--advertise-address={self.node.address}",
            "--enable-admission-plugins=NodeRestriction",
            "--kubelet-preferred-address-types=InternalIP",  # logs and exec would look up the node's name
            f"--kubelet-certificate-authority={self.folder}/ca.crt",
            f"--kubelet-client-certificate={self.folder}/kubelet-client.crt",
            f"--kubelet-client-key={self.folder}/kubelet-client.key",
        ]

    def stop(self):
        """The API server alone: an outage. Its data stays in etcd. One that is asked to end waits a minute for its open watches."""
        self._server.stop((signal.SIGKILL,))

    def _start_etcd(self):
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        if self._etcd.pid() is None:
            self._etcd.start([
                f"--data-dir={self.folder}/etcd", "--unsafe-no-fsync", "--log-level=warn",
                f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
            ])  # fmt: skip
        self._await(self._etcd, self._etcd_ready)

    def _await(self, process, ready):
        """Until it is ready; failed as soon as it is dead."""
        done = wait_for(f"{process.binary.name} ready", lambda: "dead" if process.pid() is None else ready(), READY_SECONDS)
        if done == "dead":
            raise Failed(f"{process.binary.name} ended:\n{process.tail()}")

    def _ready(self):
        try:
            return self.request("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def _etcd_ready(self):
        try:
            conn = http.client.HTTPConnection("127.0.0.1", self._etcd_port, timeout=2)
            conn.request("GET", "/health")
            return conn.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            conn.close()

    # certificates

    def _openssl(self, *args):
        done = subprocess.run(["openssl", *args], cwd=self.folder, capture_output=True, text=True, timeout=30)
        if done.returncode:
            raise Failed(f"openssl {args[0]}: {done.stderr}")

    def _make_certificates(self):
        (self.folder / "req.cnf").write_text("[req]\ndistinguished_name = dn\n[dn]\n")  # not the machine's own
        self.certificate("ca", "/CN=test cluster", "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign")
        names = "IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc"
        if self.node:
            names += f",IP:{self.node.address},IP:{SERVICE_CIDR.replace('.0/16', '.1')}"
            self.certificate("kubelet-client", "/CN=kube-apiserver-kubelet-client", "extendedKeyUsage=clientAuth", by="ca")
        self.certificate("server", "/CN=kube-apiserver", "extendedKeyUsage=serverAuth", f"subjectAltName={names}", by="ca")
        self.certificate("admin", "/O=system:masters/CN=admin", "extendedKeyUsage=clientAuth", by="ca")
        self._openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "accounts.key")
        self._openssl("pkey", "-in", "accounts.key", "-pubout", "-out", "accounts.pub")

    def certificate(self, name, subject, *extensions, by=None):
        """name.crt and name.key in the folder."""
        extra = [word for e in extensions for word in ("-addext", e)]
        issuer = ["-CA", f"{by}.crt", "-CAkey", f"{by}.key"] if by else []
        self._openssl("req", "-x509", "-config", "req.cnf", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                      "-days", "3650", "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.crt", *issuer, *extra)  # fmt: skip

    # kubeconfigs

    def write_kubeconfig(self, path, user, namespace="default"):
        """A kubeconfig for this server with that user entry. JSON is YAML."""
        data = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority-data": self._b64("ca.crt")}}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user", "namespace": namespace}}],
        }  # fmt: skip
        path = Path(path)
        new = path.with_name(path.name + ".new")
        new.touch(0o600)
        new.write_text(json.dumps(data, indent=2) + "\n")
        new.rename(path)
        return path

    def _b64(self, name):
        return base64.b64encode((self.folder / name).read_bytes()).decode()

    def _write_admin(self):
        user = {"client-certificate-data": self._b64("admin.crt"), "client-key-data": self._b64("admin.key")}
        self.write_kubeconfig(self.kubeconfig, user)

    def service_account_kubeconfig(self, name, namespace, rules=(), namespaced=None, seconds=36000):
        """A ServiceAccount and a kubeconfig with its token in a file beside it (<path>.token).

        rules: RBAC rules for the whole cluster. namespaced: {namespace: rules} for some namespaces only."""
        account = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        full = f"{namespace}-{name}"
        self.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})
        groups = [("ClusterRole", "", list(rules))] if rules else []
        groups += [("Role", f"/namespaces/{ns}", list(r)) for ns, r in (namespaced or {}).items()]
        for kind, where, what in groups:
            base = f"/apis/rbac.authorization.k8s.io/v1{where}/{kind.lower()}"
            self.create(f"{base}s", {"metadata": {"name": full}, "rules": what})
            role = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": full}
            self.create(f"{base}bindings", {"metadata": {"name": full}, "roleRef": role, "subjects": [account]})
        path = self.folder / f"{full}.kubeconfig"
        token = path.with_name(path.name + ".token")
        token.touch(0o600)
        token.write_text(self.token(name, namespace, seconds))
        return self.write_kubeconfig(path, {"tokenFile": str(token)}, namespace)

    def token(self, account, namespace, seconds=36000):
        """A new token of a ServiceAccount."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        return self.create(path, {"spec": {"expirationSeconds": seconds}})["status"]["token"]

    # requests

    def request(self, method, path, body=None, kind="application/json", timeout=30.0):
        """(status, answer) as admin; JSON answers are parsed. body: JSON as an object, or text."""
        conn = self._connection(timeout)
        try:
            data = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
            conn.request(method, path, data, {"Content-Type": kind} if data is not None else {})
            answer = conn.getresponse()
            text = answer.read().decode()
        finally:
            conn.close()
        is_json = (answer.getheader("Content-Type") or "").startswith("application/json")
        return answer.status, json.loads(text) if is_json else text

    def stream(self, path):
        """(its lines as they come, a call that ends it) of a watch."""
        conn = self._connection(None)
        conn.request("GET", path)
        answer = conn.getresponse()
        if answer.status != 200:
            raise Failed(f"GET {path}: {answer.status} {answer.read()}")
        return answer, lambda: conn.sock.shutdown(socket.SHUT_RDWR)

    def _connection(self, timeout):
        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=self.folder / "ca.crt")
            self._tls.load_cert_chain(self.folder / "admin.crt", self.folder / "admin.key")
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self._tls)

    def must(self, method, path, body=None, **kw):
        """The answer of a request that must succeed."""
        status, answer = self.request(method, path, body, **kw)
        if not 200 <= status < 300:
            raise Failed(f"{method} {path}: {status} {answer}")
        return answer

    def get(self, path):
        return self.must("GET", path)

    def create(self, path, obj):
        """POSTs it; what is there already is as good, whatever it says."""
        status, answer = self.request("POST", path, obj)
        if status == 409 and answer.get("reason") == "AlreadyExists":
            return answer
        if status not in (200, 201):
            raise Failed(f"POST {path}: {status} {answer}")
        return answer

    def namespace(self, name):
        self.create("/api/v1/namespaces", {"metadata": {"name": name}})
        return name

    def kubectl(self, *args, stdin=None, check=True, timeout=60.0):
        """What it printed; with check=False the CompletedProcess, whatever came of it."""
        words = [str(self.bin / "kubectl"), "--kubeconfig", str(self.kubeconfig), "--cache-dir", str(self.folder / "kubectl.cache")]
        done = subprocess.run([*words, *map(str, args)], input=stdin, capture_output=True, text=True, timeout=timeout)
        if not check:
            return done
        if done.returncode:
            raise Failed(f"kubectl {' '.join(map(str, args))}: {done.stderr}")
        return done.stdout

    def apply(self, text, *args):
        """kubectl apply of YAML, or of an object."""
        return self.kubectl("apply", *args, "-f", "-", stdin=text if isinstance(text, str) else json.dumps(text))

    def apply_crd(self, path):
        """A file of CustomResourceDefinitions, and until they are served."""
        self.kubectl("apply", "-f", path)
        # kubectl fails at once while there are no conditions at all
        wait = ("wait", "--for=condition=Established", "--timeout=30s", "-f", path)
        wait_for(f"{path} established", lambda: not self.kubectl(*wait, check=False).returncode, 30)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("up", "down"))
    parser.add_argument("--dir", required=True)
    args = parser.parse_args()
    try:
        server = ApiServer(args.dir)
        if args.what == "up":
            print(server.up().kubeconfig)
        else:
            server.down()
    except Failed as e:
        sys.exit(f"server.py: {e}")


if __name__ == "__main__":
    main()
