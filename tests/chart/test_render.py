"""What is rendered: pods that may do nothing they need not, labels, rights, and each part only when it is asked for."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

from chart import CHART, SETS, container, containers, gateway_pod, helm, is_test, pick, render, template
from server import REPO
from support.need import cannot_run

ALL = [*SETS, None]
LABELS = {"helm.sh/chart", *(f"app.kubernetes.io/{n}" for n in ("name", "instance", "version", "managed-by", "part-of", "component"))}
STABLE = {f"app.kubernetes.io/{n}" for n in ("name", "instance", "component")}
VOLUMES = {"configMap", "secret", "emptyDir", "projected", "downwardAPI", "csi", "ephemeral", "persistentVolumeClaim"}


def pods(objects):
    """The spec of each pod that comes of them."""
    return [gateway_pod(objects), *(o["spec"] for o in objects if o["kind"] == "Pod")]


def metrics_on(**more):
    return render({"metrics.enabled": "true", **more})


# the kind


def test_the_kind_is_the_one_of_deploy():
    due = yaml.safe_load((REPO / "deploy/crd.yaml").read_text())
    crd = pick(render(), "CustomResourceDefinition")
    assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert LABELS <= set(crd["metadata"].pop("labels"))
    assert crd == due


def test_the_kind_goes_with_the_release_only_when_told_to():
    assert "annotations" not in pick(render({"crds.keep": "false"}), "CustomResourceDefinition")["metadata"]


def test_a_second_release_shares_nothing_with_the_first():
    def names(objects):
        return {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects}

    first = names(render())
    assert not first & names(render(CHART / "ci/second-values.yaml", namespace="inner"))
    assert not first & names(render(CHART / "ci/second-values.yaml", name="inner"))
    # neither do those whose namespace and name are alike when put together
    values = {"crds.enabled": "false", "sidecar.enabled": "true"}
    assert not names(render(values, namespace="edge")) & names(render(values, name="prod-tidegate", namespace="edge"))
    assert not names(render(values, namespace="edge-prod")) & names(render(values, name="prod-tidegate", namespace="edge"))


# labels


@pytest.mark.parametrize("values", ALL, ids=str)
def test_every_object_is_labelled(values):
    for obj in render(values):
        labels = obj["metadata"]["labels"]
        assert LABELS <= set(labels), obj["metadata"]["name"]
        assert labels["app.kubernetes.io/component"] == ("test" if is_test(obj) else "gateway")
        assert all(isinstance(v, str) and len(v) <= 63 for v in labels.values())


@pytest.mark.parametrize("values", ALL, ids=str)
def test_selectors_hold_nothing_that_an_upgrade_changes(values):
    objects = render(values)
    selectors = [pick(objects, "Deployment")["spec"]["selector"]["matchLabels"]]
    selectors += [o["spec"]["selector"] for o in objects if o["kind"] == "Service"]
    for kind, key in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector"), ("PodMonitor", "selector")):
        selectors += [o["spec"][key]["matchLabels"] for o in objects if o["kind"] == kind]
    selectors += [c["labelSelector"]["matchLabels"] for c in gateway_pod(objects).get("topologySpreadConstraints", [])]
    for selector in selectors:
        assert set(selector) == STABLE
    labels = pick(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    for selector in selectors[:1]:
        assert selector.items() <= labels.items()


class Once(yaml.SafeLoader):
    """YAML in which no key stands twice, as kustomize, Flux and kubectl's strict validation want it."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"twice: {sorted(keys)} {node.start_mark}"
        return super().construct_mapping(node, deep)


def test_a_label_that_is_given_twice_stands_once():
    given = {where: f'{{"team":"{where}","app.kubernetes.io/part-of":"shop"}}' for where in ("commonLabels", "podLabels", "metrics.podMonitor.labels")}
    out = template({"metrics.podMonitor.enabled": "true", "podAnnotations": '{"kubectl.kubernetes.io/default-container":"controller"}', **given}).stdout
    objects = [o for o in yaml.load_all(out, Once) if o]
    pod = pick(objects, "Deployment")["spec"]["template"]["metadata"]
    labels = [o["labels"] for o in (pod, *(pick(objects, kind)["metadata"] for kind in ("Deployment", "PodMonitor")))]
    assert [o["team"] for o in labels] == ["podLabels", "commonLabels", "metrics.podMonitor.labels"]
    assert {o["app.kubernetes.io/part-of"] for o in labels} == {"shop"}
    assert pod["annotations"] == {"kubectl.kubernetes.io/default-container": "controller"}


@pytest.mark.parametrize("tag", ["0.1.0_" + "a" * 56 + "_b", "_a", "a" * 128])
def test_every_tag_of_an_image_makes_a_label(tag):
    version = pick(render({"image.tag": json.dumps(tag)}), "Deployment")["metadata"]["labels"]["app.kubernetes.io/version"]
    assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", version)


def test_names_that_look_like_numbers_stay_texts():
    values = {"gatewayName": '"123"', "watchNamespaces": '["456"]', "serviceAccount.name": '"789"', "fullnameOverride": '"gate"'}
    for obj in render(values, name="12", namespace="345"):
        meta = obj["metadata"]
        texts = [meta["name"], meta.get("namespace", ""), *meta["labels"].values(), *(s["name"] for s in obj.get("subjects", []))]
        assert all(isinstance(text, str) for text in texts), obj
    assert pick(render(values), "WebSocketServer")["spec"]["gatewayName"] == "123"


# pods


@pytest.mark.parametrize("values", ALL, ids=str)
def test_pods_may_do_as_little_as_can_be(values):
    for spec in pods(render(values)):
        assert spec["automountServiceAccountToken"] is False
        user = spec["securityContext"]
        assert user["runAsNonRoot"] is True and user["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for volume in spec.get("volumes", []):
            assert set(volume) - {"name"} <= VOLUMES
        for c in containers(spec):
            assert c["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }, c["name"]  # fmt: skip
            assert c["resources"]["requests"] and c["resources"]["limits"]["memory"], c["name"]
            assert not any("hostPort" in p for p in c.get("ports", []))


def test_all_run_as_one_user_or_as_the_cluster_says():
    for spec in pods(render()):
        assert {spec["securityContext"][k] for k in ("runAsUser", "runAsGroup", "fsGroup")} == {65532}
    for spec in pods(render({"runAsUser": "1000650000"})):
        assert spec["securityContext"]["runAsUser"] == 1000650000
    for spec in pods(render(CHART / "ci/openshift-values.yaml")):
        assert not {"runAsUser", "runAsGroup", "fsGroup", "sysctls"} & set(spec["securityContext"])


def test_the_controller_alone_has_a_token():
    spec = gateway_pod(render())
    token = next(v for v in spec["volumes"] if "projected" in v)
    assert [next(iter(s)) for s in token["projected"]["sources"]] == ["serviceAccountToken", "configMap", "downwardAPI"]
    holders = {c["name"] for c in containers(spec) for m in c["volumeMounts"] if m["name"] == token["name"]}
    assert holders == {"controller"}
    mount = next(m for m in container(spec, "controller")["volumeMounts"] if m["name"] == token["name"])
    assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount" and mount["readOnly"]
    assert pick(render(), "ServiceAccount")["automountServiceAccountToken"] is False


def test_the_two_share_a_directory_in_memory_and_their_processes():
    spec = gateway_pod(render())
    assert spec["shareProcessNamespace"] is True
    run = next(v for v in spec["volumes"] if v["name"] == "run")
    assert run["emptyDir"]["medium"] == "Memory" and run["emptyDir"]["sizeLimit"]
    for name in ("proxy", "controller"):
        assert {"name": "run", "mountPath": "/run/tidegate"} in container(spec, name)["volumeMounts"]


def test_the_image_is_one_and_named_in_full():
    images = {c["image"] for spec in pods(render()) for c in containers(spec)}
    assert images == {"tidegate:0.1.0"}
    digest = "sha256:" + "ab" * 32
    values = {"image.registry": '"images.example:5000"', "image.tag": '"1.2"', "image.digest": f'"{digest}"'}
    assert {c["image"] for c in containers(gateway_pod(render(values)))} == {f"images.example:5000/tidegate:1.2@{digest}"}


def test_ports_below_1024_need_no_capability():
    assert gateway_pod(render())["securityContext"]["sysctls"] == [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]


@pytest.mark.parametrize("name, port", [("proxy", 9900), ("controller", 9903)])
def test_probes_ask_the_loop_for_life_and_the_spec_for_readiness(name, port):
    c = container(gateway_pod(render()), name)
    assert f"--health=:{port}" in c["args"]
    number = {p["name"]: p["containerPort"] for p in c["ports"]}
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        get = c[probe]["httpGet"]
        assert (get["path"], number[get["port"]]) == (path, port)
    assert c["startupProbe"]["failureThreshold"] * c["startupProbe"]["periodSeconds"] >= 60


@pytest.mark.parametrize("values", ALL, ids=str)
def test_the_grace_covers_the_stop(values):
    spec = gateway_pod(render(values))
    proxy = container(spec, "proxy")
    wait = proxy["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = int(re.search(r"--max-drain=(\d+)s", " ".join(proxy["args"]))[1])
    assert wait + drain + 5 <= spec["terminationGracePeriodSeconds"]
    # it follows endpoints for as long as the proxy takes connections
    assert container(spec, "controller")["lifecycle"] == proxy["lifecycle"]


def test_a_rollout_takes_no_pod_away_before_the_next_is_ready():
    for values in ALL:
        strategy = pick(render(values), "Deployment")["spec"]["strategy"]
        assert strategy["type"] == "RollingUpdate" and strategy["rollingUpdate"]["maxUnavailable"] == 0
        assert strategy["rollingUpdate"]["maxSurge"]


def test_a_new_version_of_the_chart_alone_ends_no_pod(tmp_path):
    """Whatever changes the pods costs each client a reconnect."""
    newer = tmp_path / "tidegate"
    shutil.copytree(CHART, newer)
    text = (newer / "Chart.yaml").read_text()
    (newer / "Chart.yaml").write_text(text.replace("\nversion: 0.1.0", "\nversion: 0.1.1"))
    out = helm("template", "tidegate", newer, "-n", "tidegate").stdout
    assert "helm.sh/chart: tidegate-0.1.1" in out
    after = pick([o for o in yaml.safe_load_all(out) if o], "Deployment")
    assert after["spec"]["template"] == pick(render(), "Deployment")["spec"]["template"]


def test_two_pods_are_spread_unless_told_otherwise():
    deployment = pick(render(), "Deployment")["spec"]
    assert deployment["replicas"] == 2
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert [s["topologyKey"] for s in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert all(s["matchLabelKeys"] == ["pod-template-hash"] for s in spread)
    assert "topologySpreadConstraints" not in gateway_pod(render({"spread.topologyKeys": "[]"}))


# flags


def flags(values, name):
    return container(gateway_pod(render(values)), name)["args"]


def test_local_backends_are_for_those_who_say_so():
    assert "--deny-local-backends" in flags(None, "proxy") and "--allow-local-backends" not in flags(None, "controller")
    values = {"allowLocalBackends": "true"}
    assert "--deny-local-backends" not in flags(values, "proxy") and "--allow-local-backends" in flags(values, "controller")


@pytest.mark.parametrize("values", [
    {"metrics.enabled": "true"}, {"metrics.podMonitor.enabled": "true"}, {"hpa.enabled": "true"}, None,
], ids=str)  # fmt: skip
def test_metrics_are_on_the_pods_address_only_when_somebody_reads_them(values):
    due = bool(values)
    for name, port in (("proxy", 9901), ("controller", 9902)):
        c = container(gateway_pod(render(values)), name)
        assert (f"--admin=:{port}" in c["args"]) == due
        assert any(a.startswith("--admin") for a in c["args"]) == due  # else its default, loopback
        assert any(p["containerPort"] == port for p in c["ports"]) == due


def test_the_service_is_the_gateways_or_the_charts():
    objects = render()
    assert "--service=tidegate" in flags(None, "controller") and pick(objects, "Service", "tidegate")
    fixed = render(CHART / "ci/fixed-ports-values.yaml")
    assert not any(a.startswith("--service") for a in container(gateway_pod(fixed), "controller")["args"])
    ports = {p["name"]: (p["port"], p["targetPort"], p.get("nodePort")) for p in pick(fixed, "Service", "tidegate")["spec"]["ports"]}
    assert ports == {"health": (9900, 9900, None), "chat": (443, 443, 30443), "feed": (8443, 8443, None)}
    role = pick(fixed, "Role", "tidegate")
    assert all(rule["resources"] == ["leases"] for rule in role["rules"])


# rights


def rules_of(objects, kind):
    return [(o["metadata"]["name"], rule) for o in objects if o["kind"] == kind for rule in o["rules"]]


@pytest.mark.parametrize("values", ALL, ids=str)
def test_no_right_is_a_wildcard(values):
    objects = render(values)
    for _, rule in [*rules_of(objects, "Role"), *rules_of(objects, "ClusterRole")]:
        assert not any("*" in w for key in ("apiGroups", "resources", "verbs") for w in rule[key])


def test_with_namespaces_nothing_of_the_cluster_is_made():
    objects = render(CHART / "ci/namespaced-values.yaml")
    assert not [o["kind"] for o in objects if o["kind"].startswith(("Cluster", "Custom"))]
    assert {o["metadata"]["namespace"] for o in objects if o["kind"] == "Role"} == {"tidegate", "chart-a", "chart-b"}
    args = container(gateway_pod(objects), "controller")["args"]
    assert "--namespace=chart-a" in args and "--namespace=chart-b" in args


def test_rights_can_be_somebody_elses():
    kinds = {o["kind"] for o in render({"rbac.create": "false", "rbac.aggregate": "false"})}
    assert not kinds & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


def test_who_edits_a_namespace_edits_its_objects_and_who_views_does_not_see_their_keys():
    role = pick(render(), "ClusterRole", "tidegate.tidegate-edit")
    given = {k.rsplit("-", 1)[1] for k in role["metadata"]["labels"] if "aggregate-to" in k}
    assert given == {"edit", "admin"}
    assert [r["resources"] for r in role["rules"]] == [["websocketservers"]]


# what is asked for


ASKED = {
    "PodDisruptionBudget": "pdb.enabled",
    "HorizontalPodAutoscaler": "hpa.enabled",
    "NetworkPolicy": "networkPolicy.enabled",
    "PodMonitor": "metrics.podMonitor.enabled",
    "PrometheusRule": "metrics.prometheusRule.enabled",
    "ConfigMap": "metrics.dashboard.enabled",
}


def test_nothing_is_there_that_nobody_asked_for():
    assert not {o["kind"] for o in render()} & set(ASKED)


@pytest.mark.parametrize("kind", ASKED)
def test_what_is_asked_for_is_there_alone(kind):
    assert {o["kind"] for o in render({ASKED[kind]: "true"})} & set(ASKED) == {kind}


def test_the_hpa_is_not_reset_by_upgrades():
    objects = render({"hpa.enabled": "true"})
    assert "replicas" not in pick(objects, "Deployment")["spec"]
    hpa = pick(objects, "HorizontalPodAutoscaler")["spec"]
    assert hpa["scaleTargetRef"]["name"] == pick(objects, "Deployment")["metadata"]["name"]
    assert hpa["metrics"][0]["pods"]["metric"]["name"] == "tidegate_connections"
    assert hpa["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 600
    big = pick(render({"hpa.enabled": "true", "hpa.connectionsPerPod": "2000000"}), "HorizontalPodAutoscaler")["spec"]
    assert big["metrics"][0]["pods"]["target"]["averageValue"] == "2000000"


def test_the_budget_is_one_of_two_numbers():
    budget = pick(render({"pdb.enabled": "true"}), "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1 and "minAvailable" not in budget
    budget = pick(render(CHART / "ci/everything-values.yaml"), "PodDisruptionBudget")["spec"]
    assert budget["minAvailable"] == "50%" and "maxUnavailable" not in budget


def test_the_policy_lets_clients_in_and_keeps_metrics_for_monitors():
    def allows(policy, port, spec):
        return [spec.get("from") for spec in policy[spec] for p in spec["ports"] if p["port"] <= port <= p.get("endPort", p["port"])]

    policy = pick(metrics_on(**{"networkPolicy.enabled": "true"}), "NetworkPolicy")["spec"]
    for port in (1, 443, 9899, 9900, 9903, 9904, 65535):
        assert allows(policy, port, "ingress") == [None], port
    for port in (9901, 9902):
        assert allows(policy, port, "ingress") == [[{"namespaceSelector": {}}]]
    assert policy["policyTypes"] == ["Ingress"]
    closed = pick(render(CHART / "ci/everything-values.yaml"), "NetworkPolicy")["spec"]
    assert not allows(closed, 9000, "ingress") and allows(closed, 8500, "ingress") == [[{"ipBlock": {"cidr": "10.0.0.0/8"}}]]
    assert closed["policyTypes"] == ["Ingress", "Egress"]
    assert {(p["protocol"], p["port"]) for rule in closed["egress"] for p in rule.get("ports", [])} == {("UDP", 53), ("TCP", 53), ("TCP", 6443)}


def test_the_monitor_finds_ports_that_are_there():
    objects = render({"metrics.podMonitor.enabled": "true"})
    ports = {p["name"] for c in containers(gateway_pod(objects)) for p in c["ports"]}
    assert {e["port"] for e in pick(objects, "PodMonitor")["spec"]["podMetricsEndpoints"]} == {"metrics", "ctl-metrics"} <= ports


# metrics that are named somewhere


def known_metrics():
    source = "".join((REPO / f).read_text() for f in ("proxy/admin/metrics.c", "controller/pages.c"))
    names = set(re.findall(r'"(tidegate_[a-z_]+)"', source)) | set(re.findall(r'"(tidegate_[a-z_]+)[{ ]', source))
    return names | {"tidegate_handshake_seconds_bucket"}


def expressions():
    alerts = pick(render({"metrics.prometheusRule.enabled": "true"}), "PrometheusRule")["spec"]
    board = json.loads(pick(render({"metrics.dashboard.enabled": "true"}), "ConfigMap")["data"]["tidegate.json"])
    found = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    found += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return found + [v["query"]["query"] for v in board["templating"]["list"] if v["type"] == "query"]


def test_alerts_and_dashboard_name_metrics_that_exist():
    known = known_metrics()
    for text in expressions():
        assert (names := set(re.findall(r"\btidegate_[a-z_]+", text))) and names <= known, (text, names - known)


@pytest.mark.parametrize("drain, seconds", [(30, 300), (3600, 3660)])
def test_a_drain_raises_no_alarm_before_it_must_be_over(drain, seconds):
    values = {"metrics.prometheusRule.enabled": "true", "drain.maxSeconds": str(drain), "terminationGracePeriodSeconds": str(drain + 30)}
    rules = pick(render(values), "PrometheusRule")["spec"]["groups"][0]["rules"]
    assert next(r for r in rules if r["alert"] == "TidegateNotReady")["for"] == f"{seconds}s"


def test_alerts_are_such_for_prometheus(tmp_path):
    if not shutil.which("promtool"):
        cannot_run("no promtool: install prometheus")
    spec = pick(render({"metrics.prometheusRule.enabled": "true"}), "PrometheusRule")["spec"]
    board = [e.replace("$__rate_interval", "5m") for e in expressions() if "label_values" not in e]
    spec["groups"].append({"name": "board", "rules": [{"record": f"a:b{n}", "expr": e} for n, e in enumerate(board)]})
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    done = subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


# helm test


def test_the_test_goes_through_the_service_to_an_object_of_the_gateway():
    objects = render({"gatewayName": '"outer"'})
    tests = [o for o in objects if is_test(o)]
    assert [o["kind"] for o in sorted(tests, key=lambda o: o["kind"])] == ["Pod", "Service", "WebSocketServer"]
    assert all("hook-succeeded" in o["metadata"]["annotations"]["helm.sh/hook-delete-policy"] for o in tests)
    obj, pod = pick(tests, "WebSocketServer"), pick(tests, "Pod")
    assert obj["spec"]["gatewayName"] == "outer"
    assert container(pod["spec"], "connect")["args"] == ["--connect", f"ws://tidegate.tidegate.svc:{obj['spec']['port']}/feed"]
    behind = pick(tests, "Service")
    assert behind["spec"]["publishNotReadyAddresses"] is True  # else it would wait for its own client
    assert obj["spec"]["backendRef"] == {"name": behind["metadata"]["name"], "port": behind["spec"]["ports"][0]["port"]}
    assert behind["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    gateway = pick(objects, "Service", "tidegate")["spec"]["selector"]
    assert not gateway.items() <= pod["metadata"]["labels"].items()


def test_the_test_runs_on_the_nodes_of_the_gateway():
    objects = render({"tolerations": '[{"key":"edge","operator":"Exists"}]', "nodeSelector": '{"pool":"edge"}'})
    for spec in pods(objects):
        assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "pool": "edge"} and spec["tolerations"][0]["key"] == "edge"


def test_the_test_lives_where_the_gateway_looks():
    tests = [o for o in render(CHART / "ci/namespaced-values.yaml") if is_test(o)]
    assert {o["metadata"]["namespace"] for o in tests} == {"chart-a"}
    no_port = render({"service.managed": "false", "service.ports": '[{"name":"a","port":443}]'})
    assert not [o for o in no_port if is_test(o)]


def test_install_yaml_is_the_chart_without_its_tests():
    docs = [d for d in yaml.safe_load_all((REPO / "deploy/install.yaml").read_text()) if d]
    assert docs[0]["kind"] == "Namespace" and docs[0]["metadata"]["name"] == "tidegate"
    assert docs[1:] == [o for o in render() if not is_test(o)]
