"""What is measured: how each proxy is configured, started on one core and ended. See README.md."""

import os
import random
import resource
import shutil
import socket
import subprocess
import time

START_LIMIT_S = 10
STOP_LIMIT_S = 5
PORTS = range(20000, 32000)  # below the ephemeral ports: no outgoing connection can take one
HARD_LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
FILES = 1 << 20 if HARD_LIMIT == resource.RLIM_INFINITY else HARD_LIMIT


class Failed(Exception):
    """A measurement that could not be made; the text says why."""


def free_port():
    for _ in range(100):
        port = random.choice(PORTS)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed("no free port on 127.0.0.1")


def on_core(core, files=FILES):
    """What a child does before exec: one core, this many descriptors."""

    def prepare():
        os.sched_setaffinity(0, {core})
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    return prepare


def end(process):
    """Ends a child and waits for it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            for pid in pids_of(process.pid)[1:]:
                os.kill(pid, 9)
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            pipe.close()


def pids_of(pid):
    """The process and all that it started."""
    found = [pid]
    for p in found:
        for task in os.listdir(f"/proc/{p}/task"):
            with open(f"/proc/{p}/task/{task}/children") as f:
                found += [int(c) for c in f.read().split()]
    return found


def cpu_files(pid):
    return [f"/proc/{p}/task/{t}/schedstat" for p in pids_of(pid) for t in os.listdir(f"/proc/{p}/task")]


def anonymous_bytes(pid):
    total = 0
    for p in pids_of(pid):
        with open(f"/proc/{p}/smaps_rollup") as f:
            total += next(int(line.split()[1]) for line in f if line.startswith("Pss_Anon:"))
    return total * 1024


NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {dir}/nginx.pid;
error_log {dir}/nginx.log;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {dir}/nginx-body;
    proxy_temp_path {dir}/nginx-proxy;
    fastcgi_temp_path {dir}/nginx-fastcgi;
    uwsgi_temp_path {dir}/nginx-uwsgi;
    scgi_temp_path {dir}/nginx-scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    server {{
        listen 127.0.0.1:{port}{listen_tls};
        {tls}
        location / {{
            proxy_pass http://127.0.0.1:{backend};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
            {buffers}
        }}
    }}
}}
"""
NGINX_64K = "proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;"

HAPROXY = """
global
    nbthread 1
    maxconn {connections}
defaults
    mode http
    option forwardfor
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout tunnel 1h
frontend clients
    bind 127.0.0.1:{port}{tls}
    default_backend backends
backend backends
    server one 127.0.0.1:{backend}
"""

TIDEGATE = """kind: WebSocketServer
name: bench
https: {https}
port: {port}
backend: ws://127.0.0.1:{backend}
{tls}"""


class Subject:
    """One proxy on one port, from `with` to its end."""

    def __init__(self, name, env, tls, files=FILES):
        self.name, self.env, self.tls, self.files = name, env, tls, files
        self.port, self.process, self.log = 0, None, None

    def write(self, name, text):
        path = os.path.join(self.env.dir, f"{self.name}-{name}")
        with open(path, "w") as f:
            f.write(text)
        return path

    def command(self):
        e, kind = self.env, self.name.split("-")[0]
        if kind == "relay":
            return [e.program("relay"), "--port", str(self.port), "--backend", str(e.backend)]
        if kind == "nginx":
            tls = f"ssl_certificate {e.cert}; ssl_certificate_key {e.key}; ssl_protocols TLSv1.3;"
            return ["nginx", "-c", self.write("conf", NGINX.format(
                dir=e.dir, files=FILES, port=self.port, backend=e.backend, listen_tls=" ssl" if self.tls else "",
                tls=tls if self.tls else "", buffers=NGINX_64K if self.name == "nginx-64k" else ""))]
        if kind == "haproxy":
            tls = f" ssl crt {e.pem} ssl-min-ver TLSv1.3"
            return ["haproxy", "-db", "-f", self.write("cfg", HAPROXY.format(
                connections=min(9000, FILES // 2 - 100), port=self.port, backend=e.backend,
                tls=tls if self.tls else ""))]
        tls = f"tls: {{certFile: {e.cert}, keyFile: {e.key}}}\n"
        return [e.proxy, "--workers", "1", "--admin", "off", "--config", self.write("yaml", TIDEGATE.format(
            https="true" if self.tls else "false", port=self.port, backend=e.backend, tls=tls if self.tls else ""))]

    def __enter__(self):
        self.port = free_port()
        command = self.command()
        # Nobody's log is read: as the others have theirs off, ours goes nowhere, but for the row that shows its cost.
        self.log = open(os.path.join(self.env.dir, "tidegate.log") if self.name == "tidegate-log" else os.devnull, "w")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.log,
                                        preexec_fn=on_core(self.env.subject_core, self.files))
        try:
            self.wait_ready(command)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        end(self.process)
        self.log.close()

    def wait_ready(self, command):
        """Until any answer, or an EOF, comes back for a request: then the worker works."""
        limit = time.monotonic() + START_LIMIT_S
        while time.monotonic() < limit:
            if self.process.poll() is not None:
                said = subprocess.run(command, capture_output=True, text=True, timeout=START_LIMIT_S).stderr.strip()
                raise Failed(f"{self.name} ended at its start: {said[-500:]}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as s:
                    s.sendall(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                    s.recv(1)
                    return
            except ConnectionResetError:
                return
            except OSError:
                time.sleep(0.01)
        raise Failed(f"{self.name} does not answer on port {self.port} within {START_LIMIT_S} s")


def missing(name, env):
    """Why the subject cannot be measured, or None."""
    kind = name.split("-")[0]
    if kind == "tidegate":
        return None if os.access(env.proxy, os.X_OK) else f"{env.proxy} is not built"
    if kind == "relay":
        return None
    return None if shutil.which(kind) else f"{kind} is not installed"


def version(kind, env):
    command = {"nginx": ["nginx", "-v"], "haproxy": ["haproxy", "-v"], "tidegate": [env.proxy, "--version"],
               "openssl": ["openssl", "version"]}[kind]
    try:
        r = subprocess.run(command, capture_output=True, text=True, timeout=START_LIMIT_S)
    except OSError:
        return f"{kind} missing"
    return " ".join((r.stdout + r.stderr).splitlines()[0].split()[:3])
