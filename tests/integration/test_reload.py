"""Live configuration: what a reload changes, what it must leave alone, and what a wrong spec leads to."""

import hashlib
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from support import shims
from support.backend import RawBackend, echo, echo_as, serve
from support.client import RawClient, client_context
from support.frames import TEXT
from support.need import cannot_run
from support.proxy import free_port, revision_of, run_proxy
from support.site import Site, documents, enter, is_open, talk
from support.spec import https_spec, ws_spec
from support.wait import wait_until


@pytest.fixture
def site(start_proxy, run_dir):
    """Its crowd is judged at the end of the test, too."""
    with Site(start_proxy, run_dir) as site:
        yield site


def der_of(client):
    return client.tls.getpeercert(binary_form=True)


def der(pair):
    return pair.x509.public_bytes(Encoding.DER)


def states(status):
    return {server["name"]: server["state"] for server in status["servers"]}


def shows(port, context, pair):
    """Does a new client of the port see this certificate?"""
    try:
        with RawClient(port, tls=context) as client:
            return der_of(client) == der(pair)
    except OSError:
        return False


# each kind of change


def test_new_certificate_is_for_new_handshakes(site, certs):
    """S55: an open TLS connection goes on with what it has; the next one sees the new certificate, and so does the status."""
    port, other = free_port(), certs.make_server("rotated", ["localhost"])
    context = client_context(certs)
    site.apply(https_spec(port, site.echo.port, certs=certs, name="tls"))
    with enter(port, tls=context)[0] as old:
        site.apply(https_spec(port, site.echo.port, certs=certs, pair=other, name="tls"))
        with enter(port, tls=context)[0] as new:
            assert der_of(old) == der(certs.server) != der_of(new) == der(other)
            talk(old)
            talk(new)
        digest = hashlib.sha256(der(other)).hexdigest()
        assert site.proxy.server("tls")["cert_sha256"] == digest


def test_new_backend_is_for_new_connections(site):
    """S55: a connection stays with the backend that it has."""
    port = free_port()
    with RawBackend(echo_as("a")) as a, RawBackend(echo_as("b")) as b:
        site.apply(ws_spec(port, a.port, name="moves"))
        old, answer = enter(port)
        with old:
            assert answer.get("X-Backend") == "a"
            site.apply(ws_spec(port, b.port, name="moves"))
            new, answer = enter(port)
            with new:
                assert answer.get("X-Backend") == "b"
                talk(old)
                talk(new)
        a.check()
        b.check()


def test_new_limits_are_for_new_connections(site):
    """S55: a limit that comes with a reload ends nothing that is there."""
    port = free_port()
    site.apply(ws_spec(port, site.echo.port, name="limits"))
    with enter(port)[0] as old:
        site.apply(ws_spec(port, site.echo.port, name="limits", limits={"clientMaxMessageBytes": 10}))
        with enter(port)[0] as new:
            new.send_frame(TEXT, "x" * 11)
            new.expect_close(1009)
            talk(old, "x" * 1000)


def test_new_headers_and_origins_are_for_new_handshakes(site):
    """S55: what the next handshake says and is asked."""
    port = free_port()
    with RawBackend(echo) as backend:
        site.apply(ws_spec(port, backend.port, name="heads", headers={"set": {"X-Version": "1"}}))
        with enter(port)[0] as old:
            site.apply(ws_spec(port, backend.port, name="heads", headers={"set": {"X-Version": "2"}},
                               allowedOrigins=["https://a.example"]))  # fmt: skip
            with enter(port, headers=[("Origin", "https://a.example")])[0] as new:
                assert [c.request.get("X-Version") for c in backend.conns] == ["1", "2"]
                talk(old)
                talk(new)
            with RawClient(port) as client:
                client.handshake(headers=[("Origin", "https://b.example")], expect=403)


def test_server_is_added_and_removed(site):
    """S57: a new server serves; one that is deleted stops listening at once and says goodbye to its clients: 1001."""
    port = free_port()
    doc = ws_spec(port, site.echo.port, name="guest", timeouts={"drain": "500ms"})
    assert not is_open(port)
    site.apply(doc)
    assert site.proxy.server("guest")["state"] == "active" and site.proxy.server("guest")["port"] == port
    with enter(port)[0] as client:
        talk(client)
        site.apply()
        wait_until("the port to be closed", lambda: not is_open(port))
        close = client.expect_close(1001, timeout=3)
        assert close.reason
        client.send_close(1001)
        client.expect_gone()
    site.proxy.wait_status("the server to be gone", lambda s: [x["name"] for x in s["servers"]] == ["still"])
    site.apply(doc)
    with enter(port)[0] as client:
        talk(client)


def test_removed_server_drains_while_clients_are_there(site):
    """A deleted server is `draining` in the status until its last client has gone."""
    port = free_port()
    site.apply(ws_spec(port, site.echo.port, name="guest", timeouts={"drain": "30s"}))
    with enter(port)[0]:
        site.apply()
        site.proxy.wait_status("draining", lambda s: states(s) == {"still": "active", "guest": "draining"})  # fmt: skip
    # max-drain of these tests is a second: whoever is left is cut then
    site.proxy.wait_status("its end", lambda s: len(s["servers"]) == 1)


def test_port_moves_and_its_connections_live_on(site):
    """S55: the new port is open before the old one is closed, and who came in by the old one stays."""
    old_port, new_port = free_port(), free_port()
    site.apply(ws_spec(old_port, site.echo.port, name="moves"))
    with enter(old_port)[0] as old:
        site.apply(ws_spec(new_port, site.echo.port, name="moves"))
        wait_until("the old port to be closed", lambda: not is_open(old_port))
        with enter(new_port)[0] as new:
            talk(old)
            talk(new)
        assert site.proxy.server("moves")["port"] == new_port


def test_two_servers_swap_their_ports(site):
    """One reload swaps them: no port is closed in between, each serves the other's backend afterwards."""
    ports = free_port(), free_port()
    failures, stop = [], threading.Event()
    with RawBackend(echo_as("a")) as a, RawBackend(echo_as("b")) as b:

        def docs(turned):
            first, second = ports[::-1] if turned else ports
            return ws_spec(first, a.port, name="a"), ws_spec(second, b.port, name="b")

        def connect(port):
            while not stop.is_set():
                try:
                    with enter(port)[0] as client:
                        talk(client)
                except Exception as e:  # noqa: BLE001 - judged below
                    failures.append((port, repr(e)))

        site.apply(*docs(False))
        clients = [enter(port)[0] for port in ports]
        threads = [threading.Thread(target=connect, args=(port,), daemon=True) for port in ports]
        for thread in threads:
            thread.start()
        for turn in range(1, 11):
            site.apply(*docs(turn % 2 == 1))
            for i, port in enumerate(ports):
                client, answer = enter(port)
                assert answer.get("X-Backend") == "ab"[(i + turn) % 2]
                clients.append(client)
        stop.set()
        for thread in threads:
            thread.join(10)
        assert not failures, failures[:5]
        for client in clients:
            talk(client)
            client.close()


def test_tls_is_spoken_from_the_next_connection_on(site, certs):
    """A server that turns to https on the port that it has."""
    port = free_port()
    site.apply(ws_spec(port, site.echo.port, name="turns"))
    with enter(port)[0] as plain:
        site.apply(https_spec(port, site.echo.port, certs=certs, name="turns"))
        with enter(port, tls=client_context(certs))[0] as secure:
            talk(plain)
            talk(secure)


def test_reloads_leave_nothing_behind(site, certs, sanitized):
    """S55: memory and descriptors are the same after 60 reloads as after 20; what stays is what was opened meanwhile."""
    port, moving, kept = free_port(), [free_port(), free_port()], []
    pairs = [certs.server, certs.make_server("again", ["localhost"])]
    master, worker = site.proxy.pid, site.proxy.worker

    def apply(i):
        docs = [https_spec(port, site.echo.port, certs=certs, pair=pairs[i % 2], name="tls"),
                ws_spec(moving[i // 2 % 2], site.echo.port, name="moves", headers={"set": {"X-N": str(i)}})]  # fmt: skip
        site.apply(*docs, *([ws_spec(free_port(), site.echo.port, name=f"new-{i}")] if i % 3 == 0 else []))

    def settle(fds):
        site.proxy.wait_status("nothing to drain", lambda s: len(s["servers"]) == 3)
        wait_until(f"{fds} descriptors", lambda: not fds or (site.proxy.fds(master), site.proxy.fds(worker)) == fds)
        return site.proxy.anon(master), site.proxy.anon(worker)

    for i in range(61):
        apply(i)
        if i % 10 == 0:
            kept.append(enter(moving[i // 2 % 2])[0])
        if i == 20:
            before, fds = settle(None), (site.proxy.fds(master), site.proxy.fds(worker))
    apply(20)
    after = settle((fds[0], fds[1] + 2 * 4))  # pairs that were opened since
    if not sanitized:
        assert max(b - a for a, b in zip(before, after)) < 200 << 10, (before, after)
    for client in kept:
        talk(client)
        client.close()


def test_versions_live_as_long_as_they_are_used(start_proxy, run_dir):
    """S55: a version of a server is there while it is the current one or a connection has it, and no longer."""
    with Site(start_proxy, run_dir, count=5, admin=True) as site:
        port = free_port()
        clients = []
        for n in range(6):
            site.apply(ws_spec(port, site.echo.port, name="many", headers={"set": {"X-N": str(n)}}))
            if n % 2 == 0:
                clients.append(enter(port)[0])

        def versions():
            return site.proxy.metric("tidegate_server_versions")

        # `still`, the current one, and those of three clients
        wait_until("the versions in use", lambda: versions() == 1 + 1 + 3)
        for left, client in zip((2, 1, 0), clients):
            talk(client)
            client.close()
            wait_until("one version less", lambda: versions() == 1 + 1 + left)  # noqa: B023


# how a reload begins


@pytest.mark.parametrize("how", ["rename", "in place"])
def test_a_change_is_seen_without_a_signal(site, how):
    """A lost signal heals: the file's folder is watched, and looked at each second."""
    port = free_port()
    spec = documents(site.still, ws_spec(port, site.echo.port, name="new"))
    if how == "rename":
        site.proxy.replace(spec)
    else:
        site.proxy.config.write_text(spec)
    site.proxy.wait_revision(revision_of(spec), 3)
    enter(port)[0].close()


def test_storm_of_signals_ends_in_the_latest_state(site):
    """500 signals and 50 files make fewer reloads than files, and the last file is what is served."""
    port = free_port()
    before = site.proxy.status()["applied_at"]
    for i in range(50):
        revision = site.proxy.replace(documents(site.still, ws_spec(port, site.echo.port, name=f"v{i}")))
        for _ in range(10):
            site.proxy.hup()
    status = site.proxy.wait_revision(revision)
    assert {name for name, state in states(status).items() if state == "active"} == {"still", "v49"}
    assert status["applied_at"] >= before
    enter(port)[0].close()


def is_blocked(pid, number):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigBlk:"):
            return int(line.split()[1], 16) >> (number - 1) & 1
    return False


def test_signal_at_the_start_is_survived(start_proxy, run_dir):
    """SIGHUP from the first moment on, long before anything is read: it starts all the same."""
    with RawBackend(echo) as backend:
        port = free_port()
        # The loader leaves a signal its deadly default: what is sent before main can only wait when it is blocked by then.
        blocked = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP]); " \
                  "os.kill(os.getpid(), signal.SIGHUP); os.execv(sys.argv[1], sys.argv[1:])"  # fmt: skip
        proxy = start_proxy(ws_spec(port, backend.port), run_dir=run_dir, wrap=["/usr/bin/python3", "-c", blocked], timeout=0)
        wait_until("signals to be blocked", lambda: is_blocked(proxy.pid, signal.SIGHUP), step=0.001)
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            proxy.hup()
        proxy.wait_log(event="ready")
        proxy.wait_revision(revision_of(ws_spec(port, backend.port)))
        with enter(port)[0] as client:
            talk(client)


# a file that cannot be judged


def bad_file(kind, path):
    """Puts something in the spec's place that is no spec."""
    new = path.with_name("bad")
    if kind == "directory":
        path.unlink()
        path.mkdir()
        return
    if kind == "missing":
        path.unlink()
        return
    if kind == "emptied in place":
        os.truncate(path, 0)
        return
    if kind == "dangling link":
        new.symlink_to("nowhere")
    elif kind == "fifo":
        os.mkfifo(new)
    elif kind == "too large":
        new.write_bytes(b"")
        os.truncate(new, 65 << 20)
    else:
        new.write_bytes({"garbage": os.urandom(2000), "no YAML": b"kind: WebSocketServer\nname: [\n",
                         "NUL": b"kind: WebSocketServer\nname: a\0b\n"}[kind])  # fmt: skip
    new.rename(path)


@pytest.mark.parametrize("kind", ["garbage", "no YAML", "NUL", "missing", "directory", "dangling link", "fifo", "too large",
                                  "emptied in place"])  # fmt: skip
def test_spec_that_cannot_be_read_changes_nothing(site, kind):
    """S54: what was served goes on, the status says `refused` and why; a good file mends it."""
    port = free_port()
    doc = ws_spec(port, site.echo.port, name="kept")
    revision = site.apply(doc)
    with enter(port)[0] as client:
        bad_file(kind, site.proxy.config)
        site.proxy.hup()
        status = site.proxy.wait_status("refused", lambda s: s["seen"]["result"] == "refused")
        assert status["revision"] == revision and status["seen"]["errors"]
        assert states(status) == {"still": "active", "kept": "active"}
        talk(client)
        with enter(port)[0] as new:
            talk(new)
        if kind == "directory":
            site.proxy.config.rmdir()
        site.apply(doc, ws_spec(free_port(), site.echo.port, name="more"))
        assert site.proxy.status()["seen"] == {**status["seen"], "revision": site.proxy.status()["revision"],
                                               "result": "applied", "errors": []}  # fmt: skip
        talk(client)


def test_truncated_spec_keeps_the_server_that_it_cuts(site):
    """A file that ends inside a document: that server's last version serves on."""
    port = free_port()
    doc = ws_spec(port, site.echo.port, name="cut")
    site.apply(doc)
    whole = documents(site.still, doc)
    cut = whole[: whole.rindex("backend:")]
    with enter(port)[0] as client:
        revision = site.proxy.apply(cut)
        status = site.proxy.wait_seen(revision)
        assert status["seen"]["result"] == "partial" and "cut" in " ".join(status["seen"]["errors"])
        assert site.proxy.server("cut")["state"] == "stale"
        talk(client)
        enter(port)[0].close()


# one server that is wrong


@pytest.mark.parametrize("wrong", ["mismatched pair", "expired syntax", "unknown key", "no backend"])
def test_wrong_server_keeps_its_last_version_and_the_others_change(site, certs, wrong):
    """S49, S50: `partial`: the good ones apply, the wrong one is stale, says why and serves on; mended, it is active."""
    port, other_port = free_port(), free_port()
    pair, stranger = certs.server, certs.other_server
    good = https_spec(port, site.echo.port, certs=certs, name="tls")
    bad = {
        "mismatched pair": good.replace(certs.b64(pair.key), certs.b64(stranger.key)),
        "expired syntax": good.replace(certs.b64(pair.cert), certs.b64(b"-----BEGIN CERTIFICATE-----\nAA==\n")),
        "unknown key": good + "nope: 1\n",
        "no backend": "\n".join(line for line in good.splitlines() if not line.startswith("backend:")) + "\n",
    }[wrong]
    context = client_context(certs)
    site.apply(good)
    with enter(port, tls=context)[0] as old:
        revision = site.apply(bad, ws_spec(other_port, site.echo.port, name="other"))
        status = site.proxy.wait_seen(revision)
        assert status["seen"]["result"] == "partial" and status["seen"]["errors"]
        server = site.proxy.server("tls")
        assert server["state"] == "stale" and server["message"]
        for pem in (pair.key, stranger.key):
            assert certs.b64(pem)[100:160] not in str(status), "a key is in the status"
        talk(old)
        assert shows(port, context, pair)
        enter(other_port)[0].close()
        site.apply(good + "headers: {set: {X-V: '2'}}\n")
        assert site.proxy.server("tls")["state"] == "active" and not site.proxy.server("tls")["message"]
        talk(old)


def test_server_that_was_never_good_is_failed(site, certs):
    """S50: without a last version nothing serves on its port; once good, it does."""
    port = free_port()
    site.apply(ws_spec(port, site.echo.port, name="new", nope=1))
    assert site.proxy.server("new")["state"] == "failed" and site.proxy.server("new")["message"]
    assert not is_open(port)
    site.apply(ws_spec(port, site.echo.port, name="new"))
    assert site.proxy.server("new")["state"] == "active"
    enter(port)[0].close()


# ports


def taken_port():
    s = socket.socket()
    s.bind(("0.0.0.0", 0))
    s.listen()
    return s, s.getsockname()[1]


def test_port_that_comes_free_is_taken_by_itself(site):
    """A new server whose port another process holds is failed and says so; no more than freeing the port is needed."""
    holder, port = taken_port()
    site.apply(ws_spec(port, site.echo.port, name="waits"))
    server = site.proxy.server("waits")
    assert server["state"] == "failed" and str(port) in server["message"]
    assert site.proxy.status()["seen"]["result"] == "partial"
    holder.close()
    site.proxy.wait_status("the port to be taken",
                           lambda s: states(s)["waits"] == "active", 4)  # fmt: skip
    with enter(port)[0] as client:
        talk(client)
    assert site.proxy.status()["seen"]["result"] == "applied"


def test_move_to_a_taken_port_waits_on_the_old_one(site):
    """The old port serves, with what it had, until the new one comes free; then it closes, and its connections live on."""
    old_port = free_port()
    site.apply(ws_spec(old_port, site.echo.port, name="moves"))
    holder, port = taken_port()
    site.apply(ws_spec(port, site.echo.port, name="moves"))
    server = site.proxy.server("moves")
    assert (server["state"], server["port"]) == ("stale", old_port)
    with enter(old_port)[0] as client:
        holder.close()
        wait_until("the move", lambda: (s := site.proxy.server("moves")) and (s["state"], s["port"]) == ("active", port))
        wait_until("the old port to be closed", lambda: not is_open(old_port))
        talk(client)
        enter(port)[0].close()


# files that the spec names


def test_certificate_files_are_followed(site, certs, tmp_path):
    """S49: no signal is sent when a file that the spec names changes. While the pair does not match (one of two is
    written) the last good one is shown."""
    other, port = certs.make_server("followed", ["localhost"]), free_port()
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    cert.write_bytes(certs.server.cert)
    key.write_bytes(certs.server.key)
    context = client_context(certs)
    site.apply(ws_spec(port, site.echo.port, name="files", https=True, tls={"certFile": str(cert), "keyFile": str(key)}))
    with enter(port, tls=context)[0] as old:
        cert.write_bytes(other.cert)
        site.proxy.wait_status("the mismatch to be seen",
                               lambda s: states(s)["files"] == "stale")  # fmt: skip
        assert shows(port, context, certs.server)
        key.write_bytes(other.key)
        wait_until("the new certificate", lambda: shows(port, context, other))
        site.proxy.wait_status("the server to be active", lambda s: states(s)["files"] == "active")
        talk(old)


def test_secrets_are_swapped_as_kubernetes_does(site, certs, tmp_path):
    """S49: a mounted Secret changes by the rename of its `..data` link; both files are new at once, and none is touched."""
    other, port, folder = certs.make_server("mounted", ["localhost"]), free_port(), tmp_path / "secret"

    def write(version, cert, key):
        (folder / version).mkdir(parents=True)
        (folder / version / "tls.crt").write_bytes(cert)
        (folder / version / "tls.key").write_bytes(key)
        (folder / "..data_tmp").symlink_to(version)
        (folder / "..data_tmp").rename(folder / "..data")

    write("..1", certs.server.cert, certs.server.key)
    for name in ("tls.crt", "tls.key"):
        (folder / name).symlink_to(f"..data/{name}")
    context = client_context(certs)
    site.apply(ws_spec(port, site.echo.port, name="files", https=True,
                       tls={"certFile": str(folder / "tls.crt"), "keyFile": str(folder / "tls.key")}))  # fmt: skip
    with enter(port, tls=context)[0] as old:
        write("..2", other.cert, other.key)
        wait_until("the new certificate", lambda: shows(port, context, other))
        write("..3", other.cert, certs.server.key)
        site.proxy.wait_status("the mismatch to be seen",
                               lambda s: states(s)["files"] == "stale")  # fmt: skip
        assert shows(port, context, other)
        write("..4", certs.server.cert, certs.server.key)
        wait_until("the first certificate again", lambda: shows(port, context, certs.server))
        talk(old)


# the run dir


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True).returncode:
        cannot_run("no right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True, timeout=10)


def test_full_disk_costs_the_status_only(start_proxy, small_disk):
    """S54: with no room for status.json the change is served all the same, the old status stays whole, and it is written
    once there is room."""
    with Site(start_proxy, small_disk) as site:
        with open(small_disk / "ballast", "wb", buffering=0) as f, pytest.raises(OSError):
            while True:
                f.write(bytes(4096))
        before, port = site.proxy.status(), free_port()
        revision = site.apply(ws_spec(port, site.echo.port, name="new"), wait=False)
        wait_until("the new server", lambda: is_open(port))
        with enter(port)[0] as client:
            talk(client)
        assert site.proxy.status() == before
        (small_disk / "ballast").unlink()
        site.proxy.wait_revision(revision, 3)
        assert {p.name for p in small_disk.iterdir()} == {"proxy.pid", "status.json"}, "no temporary file is left"


def test_one_proxy_a_run_dir(start_proxy, run_dir, tmp_path):
    """S58: the second one ends with a line that names the first; the first one serves on."""
    with Site(start_proxy, run_dir) as site:
        spec = tmp_path / "second.yaml"
        spec.write_text(ws_spec(free_port(), 1))
        done = run_proxy("--config", str(spec), "--run-dir", str(run_dir))
        assert done.returncode == 1 and str(site.proxy.pid) in done.stderr
        assert site.proxy.status()["pid"] == site.proxy.pid
        site.apply(ws_spec(free_port(), site.echo.port, name="more"))


def test_stale_pid_file_means_nothing(start_proxy, run_dir):
    """S58: the lock ends with its process: what a killed proxy leaves behind keeps nobody from starting."""
    (run_dir / "proxy.pid").write_text("1\n")
    (run_dir / "status.json").write_text("{")
    port = free_port()
    with RawBackend(serve) as backend:
        proxy = start_proxy(ws_spec(port, backend.port), run_dir=run_dir)
        status = proxy.wait_revision(revision_of(ws_spec(port, backend.port)))
        assert status["pid"] == proxy.pid and is_open(port)


@pytest.mark.parametrize("first", ["none", "garbage", "all wrong"])
def test_first_spec_is_waited_for(start_proxy, run_dir, first):
    """With a run dir a missing or refused first spec is no end: nothing is ready, and the first good one is served."""
    port = free_port()
    with RawBackend(echo) as backend:
        good = ws_spec(port, backend.port)
        text = {"none": None, "garbage": "[", "all wrong": good + "nope: 1\n"}[first]
        proxy = start_proxy(text, run_dir=run_dir, admin=True, timeout=0)
        wait_until("the admin port", lambda: is_open(proxy.admin_port))
        status = proxy.wait_status("a status", lambda s: True)
        assert status["pid"] == proxy.pid
        if first != "all wrong":
            assert proxy.get("/readyz")[0] == 503 and proxy.get("/healthz")[0] == 200
        assert not is_open(port)
        # in a pod the controller has yet to write it: no error for an operator to look at
        if first != "all wrong":
            proxy.wait_log("waiting", level="info" if first == "none" else "warn")
        if first == "none":
            assert proxy.logged(level="error") == []
        else:
            proxy.wait_log(level="error")
        proxy.replace(good)
        proxy.wait_revision(revision_of(good), 4)
        wait_until("ready", lambda: proxy.get("/readyz")[0] == 200)
        with enter(port)[0] as client:
            talk(client)


# the clock


@pytest.mark.parametrize("days", [1, -1])
def test_a_clock_that_jumps_ends_nothing(start_proxy, run_dir, tmp_path, sanitized, days):
    """S58: a wall clock moved by a day fires no timer: not idle, not ping, not the heartbeat; reloads go on."""
    control = tmp_path / "clock"
    env = {**shims.preload(shims.build("clock_shim", tmp_path), sanitized), "CLOCK_SHIM_CONTROL": str(control)}
    still = {"timeouts": {"idle": "2s"}}
    with Site(start_proxy, run_dir, env=env, still=still) as site:
        mark, worker = len(site.proxy.logs), site.proxy.worker
        control.write_text(str(days * 86400))
        site.apply(ws_spec(free_port(), site.echo.port, name="new"))
        logged = site.proxy.wait_log(event="applied", since=mark)["ts"][:10]
        assert logged == time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * 86400)), "the shim was not in the way"
        with enter(site.port)[0] as client:
            talk(client)
        start = time.monotonic()
        wait_until("a second", lambda: time.monotonic() - start > 1, 2)
        site.check()
        assert site.proxy.worker == worker
        control.unlink()
        site.apply()
        assert site.proxy.worker == worker
