"""The API server of the tests is a real one, and it refuses what nobody allowed."""

import json
import os
import subprocess
import sys
import time

import server
from server import ApiServer


def as_account(api, kubeconfig, *args):
    return api.kubectl("--kubeconfig", kubeconfig, *args, check=False)


def test_it_is_the_version_that_tests_are_written_for(api):
    version = api.get("/version")
    assert version["gitVersion"] == "v1.36.3" or "KUBEBUILDER_ASSETS" in os.environ, version
    assert (version["major"], version["minor"]) == ("1", "36") or "KUBEBUILDER_ASSETS" in os.environ, version
    said = json.loads(api.kubectl("version", "-o", "json"))
    assert said["serverVersion"]["gitVersion"] == version["gitVersion"]


def test_kubectl_applies_and_reads(api, namespace):
    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": namespace}, "data": {"k": "v"}})
    assert api.kubectl("get", "-n", namespace, "configmap", "c", "-o", "jsonpath={.data.k}") == "v"


def test_an_account_without_rights_is_refused(api, namespace):
    kubeconfig = api.service_account_kubeconfig("nobody", namespace)
    done = as_account(api, kubeconfig, "get", "secrets", "-n", namespace)
    assert done.returncode and "Forbidden" in done.stderr, done
    assert as_account(api, kubeconfig, "get", "--raw", "/version").returncode == 0, "its token is no good"


def test_an_account_may_do_what_its_rules_say_and_only_where(api, namespace):
    read = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]
    kubeconfig = api.service_account_kubeconfig("here", namespace, namespaced={namespace: read})
    assert as_account(api, kubeconfig, "get", "secrets", "-n", namespace).returncode == 0
    assert as_account(api, kubeconfig, "get", "secrets", "-n", "default").returncode
    everywhere = api.service_account_kubeconfig("everywhere", namespace, read)
    assert as_account(api, everywhere, "get", "secrets", "-A").returncode == 0
    assert as_account(api, everywhere, "get", "configmaps", "-n", namespace).returncode


def test_an_outage_ends_with_the_same_port_and_data(api, namespace):
    port = api.port
    api.create(f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"name": "kept"}})
    api.stop()
    try:
        api.get("/version")
        raise AssertionError("it answers though it was stopped")
    except ConnectionRefusedError:
        pass
    api.start()
    assert api.port == port
    assert api.get(f"/api/v1/namespaces/{namespace}/configmaps/kept")


def test_as_a_program_it_comes_up_and_goes(tmp_path):
    script, start = server.__file__, time.monotonic()
    up = subprocess.run([sys.executable, script, "up", "--dir", tmp_path], capture_output=True, text=True, timeout=120)
    try:
        assert up.returncode == 0, up.stderr
        print(f"up within {time.monotonic() - start:.1f} s")
        kubectl = [tmp_path / "kubectl", "--kubeconfig", up.stdout.strip(), "get", "--raw", "/readyz"]
        assert subprocess.run(kubectl, capture_output=True, text=True, timeout=30).stdout == "ok"
        pids = [int((tmp_path / f"{name}.pid").read_text()) for name in ("etcd", "kube-apiserver")]
    finally:
        down = subprocess.run([sys.executable, script, "down", "--dir", tmp_path], capture_output=True, text=True, timeout=60)
    assert down.returncode == 0, down.stderr
    found = ApiServer(tmp_path)
    assert found._etcd.pid() is None and found._server.pid() is None
    for pid in pids:
        assert not os.path.exists(f"/proc/{pid}") or "\nState:\tZ" in open(f"/proc/{pid}/status").read()
