"""What is to be seen of a controller from outside: probes, metrics, its end, and what it never tells."""

import contextlib
import os
import subprocess

import pytest

from gateway import CONTROLLER, Controller, b64, server
from support import metrics
from support.backend import RawBackend, echo
from support.need import cannot_run
from support.proxy import free_port
from support.wait import wait_until


def test_promtool_is_content_with_its_metrics(gateway, namespace):
    with RawBackend(echo) as backend:
        gateway.apply(server("seen", namespace, free_port(), backend.port))
        gateway.wait_condition("seen")
    status, kind, text = gateway.controller.get("/metrics")
    assert status == 200 and kind.startswith("text/plain; version=0.0.4"), (status, kind)
    try:
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        cannot_run("no promtool here")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done
    found = metrics.parse(text)
    assert metrics.total(found, "tidegate_server_programmed", server=f"{namespace}/seen") == 1
    assert metrics.total(found, "tidegate_controller_config_last_reload_successful") == 1
    assert metrics.total(found, "tidegate_controller_status_writes_total") >= 1
    for resource in ("websocketservers", "secrets", "services", "endpointslices"):
        assert metrics.total(found, "tidegate_controller_synced", resource=resource) == 1, resource


def test_the_health_port_has_the_probes_and_nothing_else(start_gateway):
    port = free_port()
    start_gateway(flags=["--health", f"127.0.0.1:{port}"])
    assert [metrics.get(port, path)[0] for path in ("/healthz", "/readyz", "/metrics", "/")] == [200, 200, 404, 404]


def test_it_is_not_ready_before_the_proxy_has_said_so(start_gateway):
    gateway = start_gateway(wait=False)
    controller = gateway.start_controller(wait=False)
    wait_until("servers.yaml", gateway.servers, 20)
    assert metrics.get(controller.admin_port, "/healthz")[0] == 200
    assert not gateway.is_ready(), "no proxy runs"
    gateway.start_proxy()
    gateway.wait_ready()


def test_an_object_says_the_same_thing_only_once(gateway, namespace):
    """A status that is as it should be is not written again, whatever else changes in the object."""
    with RawBackend(echo) as backend:
        gateway.apply(server("calm", namespace, free_port(), backend.port))
        gateway.wait_condition("calm")
        before = gateway.controller.metric("tidegate_controller_status_writes_total")
        gateway.api.kubectl("label", "wss", "calm", "-n", namespace, "tier=web")
        gateway.apply(server("other", namespace, free_port(), backend.port))
        gateway.wait_condition("other")
        version = gateway.get("calm")["metadata"]["resourceVersion"]
        gateway.apply(server("third", namespace, free_port(), backend.port))
        gateway.wait_condition("third")
    assert gateway.get("calm")["metadata"]["resourceVersion"] == version
    assert gateway.controller.metric("tidegate_controller_status_writes_total") - before <= 6, "of two objects that are new"


def test_what_must_stay_secret_is_looked_for_where_it_could_be(gateway, namespace, certs):
    """check_quiet finds a key in a status, an Event and a log line: else it would say nothing of their absence."""
    key = b64(certs.server.key)
    gateway.hide({"spec": {"keyBase64": key}})
    gateway.check_quiet()
    gateway.controller.logs.append({"event": "made up", "msg": f"key {key}"})
    with pytest.raises(AssertionError, match="key material"):
        gateway.check_quiet()
    gateway.controller.logs.pop()
    gateway.controller.logs.append({"event": "made up", "msg": "secrets is forbidden"})
    with pytest.raises(AssertionError, match="lacks a right"):
        gateway.check_quiet()
    gateway.controller.logs.pop()


def test_another_process_of_its_user_cannot_look_into_it(gateway, tmp_path):
    """As the proxy of its pod could, which sees its processes and runs as its user: /proc/PID/root leads to the token."""
    # root may look into everything, unless it goes without
    bare = ["setpriv", "--bounding-set", "-sys_ptrace"] if os.geteuid() == 0 else []

    def can_look_into(pid):
        return subprocess.run([*bare, "readlink", f"/proc/{pid}/root"], capture_output=True, timeout=10).returncode == 0

    port = free_port()
    flags = ["--kubeconfig", str(gateway.kubeconfig), "--run-dir", str(tmp_path), "--admin", f"127.0.0.1:{port}"]
    controller = Controller([*bare, CONTROLLER, *flags], gateway.env, admin_port=port)
    other = subprocess.Popen([*bare, "sleep", "60"])
    try:
        wait_until("it turns", lambda: answers(port), 20)
        wait_until("another can be looked into", lambda: can_look_into(other.pid), 10)
        assert not can_look_into(controller.pid)
        controller.stop()
    finally:
        other.kill()
        other.wait()
        controller.kill()


def answers(port):
    with contextlib.suppress(OSError):
        return metrics.get(port, "/healthz")[0] == 200


@pytest.mark.parametrize("args, says", [
    (["--mode", "other"], "--mode"),
    (["--run-dir"], "--run-dir"),
    (["--no-such-flag"], "--no-such-flag"),
    (["--kubeconfig", "/nonexistent"], "/nonexistent"),
])  # fmt: skip
def test_a_wrong_flag_is_named(args, says, tmp_path):
    extra = [] if "--run-dir" in args else ["--run-dir", str(tmp_path)]
    done = subprocess.run([CONTROLLER, *extra, *args], capture_output=True, text=True, timeout=10)
    assert done.returncode not in (0, -6, -11) and says in done.stderr, done
