"""helm on charts/tidegate: what it renders, and with what words it refuses."""

import functools
import os
import subprocess
from pathlib import Path

import yaml

from server import REPO
from support.need import cannot_run

CHART = REPO / "charts/tidegate"
SETS = sorted((CHART / "ci").glob("*-values.yaml"))
# what `helm template` cannot know of a cluster
MONITORING = ["monitoring.coreos.com/v1/PodMonitor", "monitoring.coreos.com/v1/PrometheusRule"]


def helm_binary():
    path = Path(os.environ.get("HELM") or REPO / "tests/.cache/kube/helm/helm")
    if not os.access(path, os.X_OK):
        cannot_run(f"no helm at {path}: run tests/kube/build-helm")
    return path


def helm(*args, check=True, env=None):
    """The CompletedProcess; with check it must have gone well."""
    words = [str(helm_binary()), *map(str, args)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})})
    assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done


def given(values):
    """Flags for values: the path of a file, or {dotted name: value} of what differs from the defaults."""
    if isinstance(values, Path):
        return ["-f", str(values)]
    return [word for name, value in (values or {}).items() for word in ("--set-json", f"{name}={value}")]


def template(values=None, *, name="tidegate", namespace="tidegate", knows=MONITORING, flags=(), check=True):
    versions = [word for v in knows for word in ("--api-versions", v)]
    return helm("template", name, CHART, "-n", namespace, *given(values), *versions, *flags, check=check)


@functools.cache
def _rendered(values, name, namespace):
    return template(dict(values) if isinstance(values, tuple) else values, name=name, namespace=namespace).stdout


def render(values=None, *, name="tidegate", namespace="tidegate"):
    """The objects, in order. Values are JSON texts: {"replicas": "3"}."""
    key = tuple(values.items()) if isinstance(values, dict) else values
    return [doc for doc in yaml.safe_load_all(_rendered(key, name, namespace)) if doc]


def pick(objects, kind, name=None):
    """The only one of this kind (and name)."""
    found = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} of {kind} {name or ''}"
    return found[0]


def containers(pod_spec):
    return [*pod_spec.get("initContainers", []), *pod_spec["containers"]]


def container(pod_spec, name):
    return next(c for c in containers(pod_spec) if c["name"] == name)


def gateway_pod(objects):
    return pick(objects, "Deployment")["spec"]["template"]["spec"]


def is_test(obj):
    return (obj["metadata"].get("annotations") or {}).get("helm.sh/hook") == "test"
