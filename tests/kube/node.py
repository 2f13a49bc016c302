#!/usr/bin/env python3
"""A whole node on one machine without a container engine: API server, controller manager, scheduler, kubelet, containerd,
kube-proxy and CoreDNS. tests/kube/node runs it as a program; with it as a module:

    node = Node(folder).up()              a new cluster, its one node Ready; what an earlier run left in folder is ended first
    with node.inside():                   this thread and what it starts stand in the node's network: pods, Services,
        node.api.get(...)                   and the API server are reachable from there only
    node.kubectl("apply", "-f", path)     these three enter by themselves
    node.import_image(archive)
    node.run_in_namespace(["sh", "-c", "..."])
    node.down()

All of it has a network namespace and a mount namespace of its own, which end with their last process, and a cgroup by
which every process of it is found: what `down` needs is the folder's name, not what a crash may have lost. The directories
that kubelet, containerd and CNI insist on (OWN) are the folder's there; on the machine they stay, made empty if they were
missing. Needs root; 5 to 6 s, 700 MB."""

import argparse
import contextlib
import ctypes
import hashlib
import http.client
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

from image import write_image
from server import REPO, ApiServer, Failed, Process, wait_for

NAME = "node"
ADDRESS = "10.97.0.1"
POD_CIDR = "10.244.0.0/24"
DNS_ADDRESS = "10.96.0.10"
PAUSE = "tidegate.test/pause:1"
OWN = ("/run/containerd", "/var/lib/containerd", "/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", "/var/log/containers")
# kubelet sets these for the whole machine: here it finds them set
SYSCTLS = {"vm/overcommit_memory": 1, "vm/panic_on_oom": 0, "kernel/panic": 10, "kernel/panic_on_oops": 1,
           "kernel/keys/root_maxkeys": 1000000, "kernel/keys/root_maxbytes": 25000000}  # fmt: skip
START_SECONDS = 180  # usually 6; three of them may start at once on a busy machine
CLONE_NEWNET = 0x40000000

HOLDER = """#!/bin/sh
# Makes the node's network and mounts in namespaces of its own, and holds them.
set -e
{mounts}
ip link set lo up
ip link add node0 type bridge # some kernels have no dummy device
ip addr add {address}/32 dev node0
ip link set node0 up
ip route add default dev node0 # kubelet wants one
touch {ready}
while :; do sleep 86400; done
"""

CONTAINERD = """version = 4
disabled_plugins = ["io.containerd.nri.v1.nri"]
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = {restrict}
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "{cni}"
"""

COREFILE = """cluster.local:53 10.in-addr.arpa:53 {{
    bind {address}
    errors
    ready 127.0.0.1:8181
    kubernetes {{
        kubeconfig {kubeconfig}
    }}
}}
.:53 {{
    bind {address}
    template ANY ANY {{
        rcode NXDOMAIN # at once: nothing else can be reached
    }}
}}
"""


def node_binaries():
    folder = REPO / "tests/.cache/kube/node"
    if not os.access(folder / "kubelet", os.X_OK):
        raise Failed(f"no kubelet in {folder}: run tests/kube/build-node")
    return folder.resolve()


def _cgroup_mounts():
    """[(path, its controllers)]; the controllers of version 2 are None."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, path, kind, options = line.split()[:4]
        if kind in ("cgroup", "cgroup2"):
            found.append((Path(path), options.split(",") if kind == "cgroup" else None))
    return found


class Node:
    """folder: where everything of it lives; one that is up already is found again. down() leaves its logs there."""

    address = ADDRESS

    def __init__(self, folder):
        if os.geteuid():
            raise Failed("a node needs root")
        self.folder = Path(folder).absolute()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.bin = node_binaries()
        self.run = self.folder / "run"
        self.cgroup = "tidegate-" + hashlib.sha256(bytes(self.folder)).hexdigest()[:8]
        mounts = _cgroup_mounts()
        self._cgroups = [path / self.cgroup for path, _ in mounts]
        # Version 2 where it is alone; else one hierarchy of version 1 is enough to find every process.
        own = next(path for path, controllers in mounts if controllers is None or "pids" in controllers)
        self._members = own / self.cgroup
        self._daemons = self._members / "daemons"
        self._started = []
        self._holder = Process(self.run, self.run / "holder", self._joined("unshare", "--net", "--mount", "--propagation", "slave"))
        self.api = ApiServer(self.folder / "api", node=self) if self._holder.pid() else None

    # its life

    def up(self):
        """A new cluster, whatever there was; its node is Ready when this returns."""
        self.down()
        for name in ("run", "root", "api"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.run.mkdir()
        try:
            self._make_cgroups()
            self._hold()
            self._containerd = self._daemon("containerd", "--config", self._write("containerd.toml", self._containerd_config()))
            with self.inside():
                self.api = ApiServer(self.folder / "api", node=self).up()
                self._start_cluster()
                self._import_pause()
                self.wait_node_ready()
        except BaseException:
            self._end()
            raise
        return self

    def down(self):
        """Ends every process of it, and with them its namespaces and mounts; removes its cgroups, images and volumes."""
        self._end()
        self.api = None
        for name in ("run", "var/lib"):
            shutil.rmtree(self.folder / "root" / name, ignore_errors=True)

    def _end(self):
        def ended():
            pids = [int(p) for f in self._members.rglob("cgroup.procs") for p in _words(f)]
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not pids

        def removed():
            for top in self._cgroups:
                for path, _, _ in os.walk(top, topdown=False):
                    with contextlib.suppress(OSError):  # busy while a process is about to go
                        os.rmdir(path)
            return not any(top.exists() for top in self._cgroups)

        wait_for("the node's processes gone", ended, START_SECONDS)
        wait_for("the node's cgroups gone", removed, START_SECONDS)

    def wait_node_ready(self):
        """Until the node is Ready, and its Services and names are served."""
        with self.inside():
            for what, port, path in (("kube-proxy", 10256, "/healthz"), ("CoreDNS", 8181, "/ready")):
                self._await(what, lambda port=port, path=path: _answers(port, path))
            self._await("node", self._node_ready)
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            self._await("default ServiceAccount", lambda: self.api.request("GET", account)[0] == 200)

    def _await(self, what, condition):
        def done():
            dead = [d for d in self._started if d.pid() is None]
            if dead:
                raise Failed(f"{dead[0].binary.name} ended:\n{dead[0].tail()}")
            return condition()

        wait_for(f"{what} ready", done, START_SECONDS)

    def _node_ready(self):
        status, node = self.api.request("GET", f"/api/v1/nodes/{NAME}")
        conditions = node["status"].get("conditions", []) if status == 200 else []
        untainted = status == 200 and not node["spec"].get("taints")
        return untainted and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    # its namespaces

    @contextlib.contextmanager
    def inside(self):
        """This thread, and the threads and processes that it starts, stand in the node's network meanwhile."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _enter(self._namespace("net"))
            try:
                yield self
            finally:
                _enter(f"/proc/self/fd/{own}")
        finally:
            os.close(own)

    def _namespace(self, kind):
        pid = self._holder.pid()
        if pid is None:
            raise Failed(f"the node in {self.folder} is not up")
        return f"/proc/{pid}/ns/{kind}"

    def _entry(self):
        """`ip netns exec` would mount another /sys, without cgroups."""
        return ["nsenter", f"--net={self._namespace('net')}", f"--mount={self._namespace('mnt')}", "--"]

    def _joined(self, *words):
        return ["sh", "-c", f'echo $$ >{shlex.quote(str(self._daemons))}/cgroup.procs && exec "$@"', "sh", *words]

    @property
    def wrap(self):
        return self._joined(*self._entry())

    def run_in_namespace(self, words, **kw):
        """subprocess.run of a command in the node's network and mounts; kubectl, ctr and $KUBECONFIG are at its hand.
        What still runs of it at down() is ended."""
        words, env = self.entered(words, kw.pop("env", os.environ))
        return subprocess.run(words, env=env, **kw)

    def entered(self, words, env):
        """(words, env) with which such a command is started."""
        words = [*self.wrap, *map(str, words)]  # says so when it is not up
        path = f"{self.bin}:{self.api.folder}:{env.get('PATH', os.defpath)}"
        return words, {**env, "KUBECONFIG": str(self.api.kubeconfig), "PATH": path}

    def kubectl(self, *args, **kw):
        with self.inside():
            return self.api.kubectl(*args, **kw)

    def import_image(self, archive):
        """An OCI archive; the names that are written in it, which pods call its images by."""
        archive = Path(archive).absolute()
        names = _image_names(archive)
        words = ["ctr", "-n", "k8s.io", "images", "import", archive]
        done = self.run_in_namespace(words, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise Failed(f"import of {archive}: {done.stderr}{done.stdout}")
        return names

    # what it is made of

    def _write(self, name, text):
        path = self.run / name
        path.write_text(text if isinstance(text, str) else json.dumps(text, indent=2))
        return path

    def _daemon(self, name, *args):
        process = Process(self.run, self.bin / name, self.wrap)
        process.start(list(map(str, args)), env={"PATH": f"{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.run)})
        self._started.append(process)
        return process

    def _make_cgroups(self):
        for top in self._cgroups:
            top.mkdir()
        self._daemons.mkdir()
        for top in self._cgroups:
            for controller in _words(top.parent / "cgroup.controllers"):  # version 2
                with contextlib.suppress(OSError):
                    (top.parent / "cgroup.subtree_control").write_text(f"+{controller}")
            for name in ("cpuset.cpus", "cpuset.mems"):  # version 1 starts with none
                if (top.parent / name).exists():
                    (top / name).write_text((top.parent / name).read_text())

    def _hold(self):
        mounts = []
        for path in OWN:
            mine = self.folder / "root" / path.lstrip("/")
            mine.mkdir(parents=True)
            Path(path).mkdir(parents=True, exist_ok=True)
            mounts.append(f"mount --bind {shlex.quote(str(mine))} {path}")
        resolver = self._write("resolv.conf", f"nameserver {ADDRESS}\n")
        if os.path.exists("/etc/resolv.conf"):
            mounts.append(f"mount --bind {shlex.quote(str(resolver))} /etc/resolv.conf")
        for path, value in SYSCTLS.items():
            file = self._write(path.replace("/", "."), f"{value}\n")
            mounts.append(f"mount --bind {shlex.quote(str(file))} /proc/sys/{path}")
        ready = self.run / "holder.ready"
        text = HOLDER.format(mounts="\n".join(mounts), address=ADDRESS, ready=shlex.quote(str(ready)))
        self._write("holder", text).chmod(0o700)
        self._holder.start()
        self._started = [self._holder]
        self._await("namespaces", ready.exists)

    def _containerd_config(self):
        cni = self.run / "cni"
        cni.mkdir()
        # Each pod has a link of its own, no bridge: then Services work whether or not the kernel filters on bridges.
        ipam = {"type": "host-local", "ranges": [[{"subnet": POD_CIDR}]], "routes": [{"dst": "0.0.0.0/0"}]}
        plugins = [{"type": "ptp", "ipam": ipam}, {"type": "portmap", "capabilities": {"portMappings": True}}]
        (cni / "10-node.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "node", "plugins": plugins}))
        effective = next(line.split()[1] for line in _lines("/proc/self/status") if line.startswith("CapEff"))
        may = int(effective, 16) >> 24 & 1  # CAP_SYS_RESOURCE
        return CONTAINERD.format(pause=PAUSE, cni=cni, restrict="false" if may else "true")

    def _import_pause(self):
        program = self.run / "pause"
        source = REPO / "tests/kube/pause.c"
        subprocess.run(["gcc", "-static", "-O2", "-s", "-o", program, source], check=True, timeout=60)
        archive = write_image(self.run / "pause.tar", PAUSE, {"pause": (program.read_bytes(), 0o755)}, ["/pause"], "65535:65535")
        alive = ["ctr", "--connect-timeout", "1s", "version"]
        self._await("containerd", lambda: not self.run_in_namespace(alive, capture_output=True, timeout=30).returncode)
        self.import_image(archive)

    def _start_cluster(self):
        api, pem = self.api, self.api.folder
        self._grant()
        config = {}
        for name, subject in {
            "kube-controller-manager": "/CN=system:kube-controller-manager",
            "kube-scheduler": "/CN=system:kube-scheduler",
            "kube-proxy": "/CN=system:kube-proxy",
            "coredns": "/CN=system:coredns",
            "kubelet": f"/O=system:nodes/CN=system:node:{NAME}",
        }.items():
            serves = [f"subjectAltName=IP:{ADDRESS},DNS:{NAME}"] if name == "kubelet" else []
            api.certificate(name, subject, "extendedKeyUsage=clientAuth,serverAuth", *serves, by="ca")
            user = {"client-certificate": f"{pem}/{name}.crt", "client-key": f"{pem}/{name}.key"}
            config[name] = api.write_kubeconfig(pem / f"{name}.kubeconfig", user)

        def ours(name):
            return [f"--kubeconfig={config[name]}", "--leader-elect=false", "--bind-address=127.0.0.1", f"--cert-dir={self.run}"]

        self._daemon("kubelet", f"--kubeconfig={config['kubelet']}", f"--hostname-override={NAME}", f"--node-ip={ADDRESS}",
                     f"--config={self._write('kubelet.json', self._kubelet_config())}")  # fmt: skip
        self._daemon("kube-controller-manager", *ours("kube-controller-manager"), "--use-service-account-credentials",
                     f"--service-account-private-key-file={pem}/accounts.key", f"--root-ca-file={pem}/ca.crt",
                     "--kube-api-qps=500", "--kube-api-burst=500")  # fmt: skip # it asks for each controller's token: 4 s by default
        self._daemon("kube-scheduler", *ours("kube-scheduler"))
        self._daemon("kube-proxy", f"--kubeconfig={config['kube-proxy']}", f"--hostname-override={NAME}", "--proxy-mode=nftables",
                     "--conntrack-max-per-core=0")  # fmt: skip
        corefile = self._write("Corefile", COREFILE.format(address=ADDRESS, kubeconfig=config["coredns"]))
        self._daemon("coredns", "-conf", corefile)
        self._serve_dns()

    def _kubelet_config(self):
        pem = self.api.folder
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "authentication": {"x509": {"clientCAFile": f"{pem}/ca.crt"}, "webhook": {"enabled": True},
                               "anonymous": {"enabled": False}},
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{pem}/kubelet.crt", "tlsPrivateKeyFile": f"{pem}/kubelet.key",
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{self.cgroup}", "failCgroupV1": False,
            "failSwapOn": False, "localStorageCapacityIsolation": False,
            # A full disk of the machine's is no reason to evict a test's pods or images.
            "evictionHard": {"nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "clusterDNS": [DNS_ADDRESS], "clusterDomain": "cluster.local", "resolvConf": "/dev/null",
            "volumePluginDir": f"{self.run}/volume-plugins",
        }  # fmt: skip

    def _grant(self):
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        read = [{"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}]  # fmt: skip
        self.api.create(f"{rbac}/clusterroles", {"metadata": {"name": "system:coredns"}, "rules": read})
        for user, role in (("system:coredns", "system:coredns"),
                           ("kube-apiserver-kubelet-client", "system:kubelet-api-admin")):  # fmt: skip
            group = "rbac.authorization.k8s.io"
            self.api.create(f"{rbac}/clusterrolebindings", {
                "metadata": {"name": f"{user}-on-the-node"},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
            })  # fmt: skip

    def _serve_dns(self):
        """CoreDNS is a process of the node's, so its Service has no selector."""
        ports = [{"name": p.lower(), "protocol": p, "port": 53} for p in ("UDP", "TCP")]
        self.api.create("/api/v1/namespaces/kube-system/services", {
            "metadata": {"name": "kube-dns"}, "spec": {"clusterIP": DNS_ADDRESS, "ports": ports},
        })  # fmt: skip
        self.api.create("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", {
            "metadata": {"name": "kube-dns", "labels": {"kubernetes.io/service-name": "kube-dns"}},
            "addressType": "IPv4", "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}], "ports": ports,
        })  # fmt: skip


def _enter(namespace):
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(namespace, os.O_RDONLY)
    try:
        if libc.setns(fd, CLONE_NEWNET):
            raise Failed(f"setns {namespace}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(fd)


def _image_names(archive):
    try:
        with tarfile.open(archive) as tar:
            manifests = json.load(tar.extractfile("index.json"))["manifests"]
    except (OSError, KeyError, ValueError, tarfile.TarError) as e:
        raise Failed(f"{archive} is no OCI archive: {e}") from e
    notes = [m.get("annotations", {}) for m in manifests]
    names = [n.get("io.containerd.image.name") or n.get("org.opencontainers.image.ref.name", "") for n in notes]
    for name in names:
        registry, slash, rest = name.partition("/")
        if not slash or "." not in registry or ":" not in rest:  # kubelet would look for it under docker.io
            raise Failed(f"{archive}: the name {name!r} is not registry/name:tag, as in tidegate.test/proxy:1")
    return names


def _lines(path):
    return Path(path).read_text().splitlines()


def _words(path):
    try:
        return path.read_text().split()
    except OSError:  # it went meanwhile
        return []


def _answers(port, path):
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        conn.request("GET", path)
        return conn.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        conn.close()


def main():
    parser = argparse.ArgumentParser(prog="node", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    for name, text in (("up", "a new node; prints how to use it"), ("down", "ends it, also after a crash"),
                       ("import", "an OCI archive into its images"), ("shell", "a shell, or a command, in its network")):  # fmt: skip
        command = commands.add_parser(name, help=text)
        command.add_argument("--dir", required=True)
        if name == "import":
            command.add_argument("archive")
        if name == "shell":
            command.add_argument("words", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    try:
        node = Node(args.dir)
        if args.what == "up":
            node.up()
            print(f"tests/kube/node shell --dir {shlex.quote(args.dir)} kubectl get pods -A")
        elif args.what == "down":
            node.down()
        elif args.what == "import":
            print(*node.import_image(args.archive), sep="\n")
        else:
            sys.exit(node.run_in_namespace(args.words or [os.environ.get("SHELL", "bash")]).returncode)
    except Failed as e:
        sys.exit(f"node: {e}")


if __name__ == "__main__":
    main()
