"""Values: each described and in the schema, wrong ones refused with a sentence."""

import json
import re
import subprocess
import sys

import pytest
import yaml

from chart import CHART, SETS, given, helm, helm_binary, template
from server import REPO


@pytest.mark.parametrize("values", SETS, ids=lambda p: p.stem)
def test_the_chart_passes_the_strict_lint(values):
    # it has no --api-versions, and its view of the cluster knows no monitors
    off = ["--set", "metrics.podMonitor.enabled=false,metrics.prometheusRule.enabled=false"]
    done = helm("lint", "--strict", CHART, *given(values), *off)
    assert "WARNING" not in done.stdout and "ERROR" not in done.stdout, done.stdout


def test_what_is_made_of_the_chart_is_up_to_date():
    done = subprocess.run([sys.executable, REPO / "deploy/chart-files", "--check"], capture_output=True, text=True, timeout=120,
                          env={"HELM": str(helm_binary()), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"})  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr


def test_the_schema_has_the_values_and_no_others():
    def known(schema):
        return {k: known(v) if v.get("properties") and not v.get("additionalProperties", True) else None
                for k, v in schema["properties"].items()}  # fmt: skip

    def check(values, schema, at):
        assert set(values) == set(schema), at
        for key, below in schema.items():
            # free maps and resources stand as a whole in values.yaml
            if below and isinstance(values[key], dict) and key not in ("resources", "affinity"):
                check(values[key], below, f"{at}.{key}")

    check(yaml.safe_load((CHART / "values.yaml").read_text()), known(json.loads((CHART / "values.schema.json").read_text())), "")


def test_the_everything_set_is_everything():
    """Each value that can be another than its default is so in it, but for those that exclude others."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    everything = yaml.safe_load((CHART / "ci/everything-values.yaml").read_text())
    left_out = {"watchNamespaces", "allowLocalBackends", "global", "enabled", "replicas", "lowPorts"}
    assert set(defaults) - set(everything) == left_out


def test_versions_are_those_of_the_build():
    project = re.search(r"project\(tidegate VERSION ([\d.]+)", (REPO / "CMakeLists.txt").read_text())[1]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (project, project)
    assert chart["kubeVersion"] == ">=1.30.0-0" and chart["apiVersion"] == "v2" and chart["icon"]


def test_an_older_cluster_is_refused():
    assert "incompatible with Kubernetes v1.29" in template(flags=["--kube-version", "1.29.9"], check=False).stderr
    template(flags=["--kube-version", "v1.30.1-eks-1234"])


WRONG = {
    "a typo": ({"replicaCount": "3"}, "additional properties 'replicaCount' not allowed"),
    "a typo further down": ({"service.tpye": '"NodePort"'}, "additional properties 'tpye' not allowed"),
    "a text for a number": ({"replicas": '"bad"'}, "/replicas"),
    "a number for a switch": ({"crds.keep": "1"}, "/crds/keep"),
    "an unknown level": ({"logLevel": '"loud"'}, "'debug', 'info', 'warn', 'error'"),
    "a Service of no type": ({"service.type": '"Loadbalancer"'}, "'LoadBalancer', 'NodePort', 'ClusterIP'"),
    "a digest that is none": ({"image.digest": '"sha256:12"'}, "/image/digest"),
    "root": ({"runAsUser": "0"}, "/runAsUser"),
    "no name of a gateway": ({"gatewayName": '"My_Gateway"'}, "/gatewayName"),
    "no name of a namespace": ({"watchNamespaces": '["a.b"]'}, "/watchNamespaces/0"),
    "a namespace twice": ({"watchNamespaces": '["a","a"]'}, "/watchNamespaces"),
    "a port that is none": ({"test.port": "65536"}, "/test/port"),
    "a port without a name": ({"service.managed": "false", "service.ports": '[{"port":443}]'}, "missing property 'name'"),
    "workers that are none": ({"proxy.workers": '"many"'}, "/proxy/workers"),
    "a memory that is none": ({"proxy.resources": '{"limits":{"memory":"much"}}'}, "/proxy/resources/limits/memory"),
    "too little time to drain": ({"drain.maxSeconds": "60"}, "too short for drain.preStopSeconds + drain.maxSeconds + 5, and sockets would be cut; give at least 75"),
    "a second too little": ({"terminationGracePeriodSeconds": "44"}, "give at least 45"),
    "ports that the gateway keeps": ({"service.ports": '[{"name":"a","port":443}]'}, "set service.managed=false"),
    "no port at all": ({"service.managed": "false"}, "at least one port is needed"),
    "a port of the gateway's own": ({"service.managed": "false", "service.ports": '[{"name":"a","port":9902}]'}, "9902 is one of the gateway's own"),
    "a port twice": ({"service.managed": "false", "service.ports": '[{"name":"a","port":443},{"name":"b","port":443}]'}, "each port may stand there once"),
    "the name of the health port": ({"service.managed": "false", "service.ports": '[{"name":"health","port":443}]'}, "the name health is taken"),
    "a nodePort without nodes": ({"service.type": '"ClusterIP"', "service.managed": "false", "service.ports": '[{"name":"a","port":443,"nodePort":30443}]'}, "use NodePort or LoadBalancer"),
    "a policy for traffic from nowhere": ({"service.type": '"ClusterIP"', "service.externalTrafficPolicy": '"Local"'}, "only for service.type NodePort and LoadBalancer"),
    "a class without a balancer": ({"service.type": '"NodePort"', "service.loadBalancerClass": '"a/b"'}, "only for service.type LoadBalancer"),
    "two families in one stack": ({"service.ipFamilyPolicy": '"SingleStack"', "service.ipFamilies": '["IPv4","IPv6"]'}, "SingleStack takes one family"),
    "a test on a port of the gateway's own": ({"test.port": "9900"}, "test.port: 9900 is one of the gateway's own"),
    "a low port for the test": ({"lowPorts": "false", "test.port": "80"}, "needs lowPorts=true"),
    "a sidecar's account without a namespace": ({"sidecar.serviceAccounts": '[{"name":"a"}]'}, "missing property 'namespace'"),
    "Secrets of other namespaces than the objects": ({"watchNamespaces": '["a"]', "rbac.secretNamespaces": '["b"]'}, "leave one of the two out"),
    "an account without a name": ({"serviceAccount.create": "false"}, "name the ServiceAccount to use"),
    "a budget both ways": ({"pdb.enabled": "true", "pdb.minAvailable": "1"}, "either minAvailable or maxUnavailable"),
    "a budget in no way": ({"pdb.enabled": "true", "pdb.maxUnavailable": "null"}, "either minAvailable or maxUnavailable"),
    "a budget for one pod": ({"pdb.enabled": "true", "replicas": "1"}, "keeps nodes from being drained"),
    "a budget for one pod of the HPA": ({"pdb.enabled": "true", "hpa.enabled": "true", "hpa.minReplicas": "1"}, "keeps nodes from being drained"),
    "a budget that keeps every pod": ({"pdb.enabled": "true", "pdb.maxUnavailable": "0"}, "no pod of 2 may ever go"),
    "a budget that all pods are needed for": ({"pdb.enabled": "true", "pdb.maxUnavailable": "null", "pdb.minAvailable": "2"}, "no pod of 2 may ever go"),
    "a budget of all": ({"pdb.enabled": "true", "pdb.maxUnavailable": "null", "pdb.minAvailable": '"100%"'}, "no pod of 2 may ever go"),
    "a share of nothing": ({"hpa.enabled": "true", "hpa.cpuUtilization": "70", "proxy.resources.requests.cpu": "null"}, "is per cent of proxy.resources.requests.cpu"),
    "ports of metrics for clients": ({"networkPolicy.clientPorts": '[{"port":8000,"endPort":9999}]'}, "has the ports of metrics"),
    "a range the wrong way": ({"networkPolicy.clientPorts": '[{"port":9000,"endPort":8000}]'}, "9000 to 8000 is no range"),
    "a name of a gateway that no object can have": ({"gatewayName": '"a.b"'}, "/gatewayName"),
    "a typo in a toleration": ({"tolerations": '[{"kye":"edge"}]'}, "additional properties 'kye' not allowed"),
    "a label that is none": ({"podLabels": '{"a":"b c"}'}, "/podLabels/a"),
    "a label that selectors need": ({"commonLabels": '{"app.kubernetes.io/name":"x"}'}, "commonLabels: app.kubernetes.io/name is the chart's own"),
    "a sidecar for the gateway": ({"podLabels": '{"tidegate.dev/inject":"true"}'}, "podLabels: tidegate.dev/inject is the chart's own"),
    "no number where one is needed": ({"drain.maxSeconds": "null"}, "missing property 'maxSeconds'"),
    "no group where one is needed": ({"drain": "null"}, "missing property 'drain'"),
    "a name that a Service cannot have": ({"fullnameOverride": '"1st"'}, "set fullnameOverride"),
    "more at least than at most": ({"hpa.enabled": "true", "hpa.minReplicas": "5", "hpa.maxReplicas": "4"}, "hpa.maxReplicas: 4 is less than hpa.minReplicas, 5"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused_and_say_why(name):
    values, words = WRONG[name]
    done = template(values, check=False)
    assert done.returncode and words in done.stderr and not done.stdout, done.stderr or done.stdout[:400]


@pytest.mark.parametrize("kind", ["podMonitor", "prometheusRule"])
def test_a_monitor_without_the_operator_is_refused(kind):
    done = template({f"metrics.{kind}.enabled": "true"}, knows=[], check=False)
    assert done.returncode and "install the Prometheus operator first" in done.stderr


def optional(schema, at=""):
    for key, below in schema["properties"].items():
        if key not in schema.get("required", []):
            yield f"{at}{key}"
        elif "properties" in below:
            yield from optional(below, f"{at}{key}.")


def test_a_value_that_is_null_is_refused_or_as_good_as_empty():
    """Helm takes a null for "no such value", and then a template fails on it, or a flag has no argument."""
    parts = ("sidecar", "hpa", "networkPolicy", "metrics.podMonitor", "metrics.prometheusRule", "metrics.dashboard")
    nulls = {path: "null" for path in optional(json.loads((CHART / "values.schema.json").read_text()))}
    assert "podLabels" in nulls and "drain.maxSeconds" not in nulls
    out = template({**{f"{part}.enabled": "true" for part in parts}, **nulls}).stdout
    assert not re.findall(r"(?m)^ +- --[a-z-]+=s?$", out)
    everything = list(yaml.safe_load_all(out))
    assert {"HorizontalPodAutoscaler", "NetworkPolicy", "MutatingAdmissionPolicy"} <= {o["kind"] for o in everything if o}


def test_an_umbrella_may_have_it_on_a_condition():
    assert template({"enabled": "true"}).stdout == template().stdout


def test_values_of_an_umbrella_are_let_through():
    out = template({"global": '{"imageRegistry":"mirror.example","other":{"a":1}}'}).stdout
    assert 'image: "mirror.example/tidegate:' in out
