"""deploy/crd.yaml on a real API server: what it takes, what it refuses and with which words, and what it makes of an object."""

import copy
import json
import re
from pathlib import Path

import pytest

from server import REPO
from support.fields import fields_of, spec_with, values
from support.wait import wait_until

HERE = Path(__file__).parent / "crd"
VALID = sorted((HERE / "valid").glob("*.yaml"))
INVALID = sorted((HERE / "invalid").glob("*.yaml"))
EXAMPLES = sorted((REPO / "deploy/examples").glob("*.yaml"))
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAME = "websocketservers.tidegate.dev"

pytestmark = pytest.mark.usefixtures("crd")


def path(namespace, name="", group="tidegate.dev"):
    return f"/apis/{group}/v1alpha1/namespaces/{namespace}/websocketservers" + (f"/{name}" if name else "")


def server(name, **spec):
    return {"apiVersion": "tidegate.dev/v1alpha1", "kind": "WebSocketServer", "metadata": {"name": name}, "spec": spec}


def try_to_create(api, namespace, obj, strict=True):
    """(status, answer); nothing stays. obj: an object, or the bytes of a file."""
    kind = "application/yaml" if isinstance(obj, bytes) else "application/json"
    query = "?dryRun=All" + ("&fieldValidation=Strict" if strict else "")
    return api.request("POST", path(namespace) + query, obj, kind=kind)


def causes(answer):
    """[(field, text)] of a refusal, less the line that says that rules were left out."""
    return [(c["field"], c["message"]) for c in answer["details"]["causes"] if c["field"] != "<nil>"]


def one(field):
    """spec.backends[0].url, spec.headers.set[X-A] -> with empty brackets"""
    return re.sub(r"\[[^]]*\]", "[]", field)


def expected(file):
    """[(field, text)] of its lines `# message: FIELD: TEXT`"""
    lines = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert lines, f"{file.name} does not say what is expected of it"
    return [re.fullmatch(r"# message: (\S+): (.*)", line).groups() for line in lines]


def nodes(schema, at="spec"):
    """Every schema under spec with its path."""
    yield at, schema
    for name, below in schema.get("properties", {}).items():
        yield from nodes(below, f"{at}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], at + "[]")


@pytest.fixture(scope="module")
def definition(api, crd):
    return api.get(f"{CRD}/{NAME}")


@pytest.fixture(scope="module")
def schema(definition):
    return definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def test_it_is_established_and_structural(definition):
    said = {c["type"]: c["status"] for c in definition["status"]["conditions"]}
    assert said == {"Established": "True", "NamesAccepted": "True"}, "NonStructural would stand here"
    assert definition["spec"].get("preserveUnknownFields", False) is False
    assert definition["status"]["storedVersions"] == ["v1alpha1"]


def test_the_server_warns_of_nothing_in_it(api):
    done = api.kubectl("apply", "--dry-run=server", "-f", REPO / "deploy/crd.yaml", check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_each_field_has_a_description_a_type_and_bounds(schema):
    for at, node in [*nodes(schema["properties"]["spec"]), *nodes(schema["properties"]["status"], "status")]:
        assert node.get("type"), f"{at} has no type"
        assert len(node.get("description", "")) > 8, f"{at} has no description"
        if node["type"] == "string":
            assert "enum" in node or "maxLength" in node, f"{at} has no bound"
        if node["type"] == "integer":
            assert "minimum" in node and ("maximum" in node or at.startswith("status")), f"{at} has no bound"
        if node["type"] == "array":
            assert "maxItems" in node and "x-kubernetes-list-type" in node, at
        if "additionalProperties" in node:
            assert "maxProperties" in node, f"{at} has no bound"
        if "default" in node:
            name = at.rpartition(".")[2]
            assert not any(name in n.get("required", ()) for p, n in nodes(schema["properties"]["spec"]) if f"{p}.{name}" == at), (
                f"{at} is required and has a default"
            )
        for rule in node.get("x-kubernetes-validations", ()):
            assert rule["message"] and rule["reason"], f"{at}: {rule['rule']}"


@pytest.mark.parametrize("file", [*VALID, *EXAMPLES], ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_good_objects_are_taken(api, namespace, file):
    status, answer = try_to_create(api, namespace, file.read_bytes())
    assert status == 201, answer["message"]


@pytest.mark.parametrize("file", INVALID, ids=lambda f: f.stem)
def test_bad_objects_are_refused_with_these_words(api, namespace, file):
    """All of them, and no others. Its mate in valid/ shows that the rule lets the mended object pass."""
    assert HERE / "valid" / file.name in VALID, f"{file.name} has no mate in valid/"
    status, answer = try_to_create(api, namespace, file.read_bytes())
    assert status == 422, answer
    said, wanted = causes(answer), expected(file)
    for field, text in wanted:
        assert any(f == field and t.endswith(text) for f, t in said), f"{field}: {text}\nnot in {json.dumps(said, indent=1)}"
    assert len(said) == len(wanted), json.dumps(said, indent=1)


def test_each_rule_of_the_schema_has_its_bad_object(schema):
    rules = set()
    for at, node in nodes(schema["properties"]["spec"]):
        for rule in node.get("x-kubernetes-validations", ()):
            key = at + rule.get("fieldPath", ""), rule["message"]
            assert key not in rules, f"two rules say the same of {key[0]}: {key[1]}"
            rules.add(key)
    shown = {(one(field), text) for file in INVALID for field, text in expected(file)}
    assert len(rules) > 30, "the rules were not found"
    assert rules - shown == set(), "no file in invalid/ is refused by these"
    assert shown - rules == set(), "no rule of the schema says this"


def around(at, value):
    """An object whose spec has the value at spec.a.b[].c"""
    for name in reversed(at.split(".")[1:]):
        if name.endswith("[]"):
            value = {"k": value} if name[:-2] in ("set", "matchLabels") else [value]
        value = {name.removesuffix("[]"): value}
    return server("bounds", **{"port": 1, **value})


def just_outside(node):
    if "minimum" in node:
        yield node["minimum"] - 1
    if "maximum" in node:
        yield node["maximum"] + 1
    if "maxLength" in node:
        yield "a" * (node["maxLength"] + 1)
    if node.get("minLength") or "pattern" in node:
        yield "-" if "pattern" in node else ""
    if "enum" in node:
        yield node["enum"][0].lower() + "x"
    if "maxItems" in node:
        element = {"url": "ws://a"} if node["items"]["type"] == "object" else None
        yield [element or f"https://a{i}" for i in range(node["maxItems"] + 1)]
    if "maxProperties" in node:
        yield {f"k{i}": "v" for i in range(node["maxProperties"] + 1)}
    if node["type"] != "string":
        yield "text"
    else:
        yield 17


def test_each_bound_is_kept(api, namespace, schema):
    tried = 0
    for at, node in nodes(schema["properties"]["spec"]):
        for value in just_outside(node) if at != "spec" else ():
            status, answer = try_to_create(api, namespace, around(at, value))
            assert status == 422, f"{at}: {str(value)[:40]} is taken"
            fields = [one(f) for f, _ in causes(answer)]
            assert any(f.startswith(at.removesuffix("[]")) for f in fields), f"{at}: {str(value)[:40]}: {answer['message'][:300]}"
            tried += 1
    assert tried > 100


def test_it_takes_and_refuses_what_the_parser_does(api, namespace, schema):
    """Field by field; tests/integration/test_drift.py tries the same values on the parser."""
    wrong = []
    for at, node in fields_of(schema["properties"]["spec"]).items():
        if at.endswith(("Ref", "Ref.name", "Ref.namespace", ".scheme", "backendRef.port", "gatewayName", "matchLabels", "workloadSelector")):
            continue  # in objects only
        good, bad, other = values(at, node)
        wanted = [(v, True) for v in good] + [(v, False) for v in bad] + [(v, not taken) for v, taken in other]
        for value, taken in wanted:
            _, answer = try_to_create(api, namespace, server("v", **{"port": 1, "backend": "wss://a", **spec_with(at, value)}))
            said = [] if answer["kind"] == "WebSocketServer" else [c for c in causes(answer) if is_about(c, "spec." + at)]
            if bool(said) == taken:
                wrong.append(f"{at} {str(value)[:60]!r}: {said}")
    assert not wrong, "\n".join(wrong)


def is_about(cause, at):
    """A complaint of the field or of what is below it, for its value and not for what stands beside it."""
    field, text = cause
    beside = ("needs a certificate", "needs https", "is given", "is for wss", "shown to wss", "exclude each other", "there is no backend")
    return (one(field) + ".").startswith((at + ".", at + "[")) and not any(b in text for b in beside)


def test_an_unknown_key_is_refused_by_name(api, namespace, schema):
    for at, node in nodes(schema["properties"]["spec"]):
        if "properties" not in node:
            continue
        obj = around(at, {"certfile": "x"}) if at != "spec" else server("u", port=1, backend="ws://a", certfile="x")
        status, answer = try_to_create(api, namespace, obj)
        assert status == 400 and 'unknown field "spec' in answer["message"] and "certfile" in answer["message"], (at, answer)


def test_what_may_be_a_secret_is_not_quoted(api, namespace, schema):
    """A key in the wrong form, a password in a URL, a token in a header: the answer ends in audit logs."""
    secret, kept = "c2VjcmV0", []
    bad = [
        {"keyBase64": f"-----BEGIN {secret}"}, {"certBase64": f"{secret}*"}, {"keyBase64": secret * 20000}, {"keyBase64": [secret]},
        {"wssKeyBase64": f"{secret}*"}, {"wssCertBase64": f"{secret}*"}, {"tls": {"clientCABase64": f"{secret}*"}},
        {"backendTLS": {"caBase64": f"{secret}*"}}, {"backend": f"ws://u:{secret}@h"}, {"backend": f"http://u:{secret}@h"},
        {"backends": [{"url": f"ws://u:{secret}@h"}]}, {"headers": {"set": {"Authorization": f" {secret}"}}},
        {"headers": {"set": {"Authorization": f"{secret}\n"}}}, {"headers": {"set": {"Authorization": secret * 1100}}},
    ]  # fmt: skip
    for spec in bad:
        status, answer = try_to_create(api, namespace, server("secret", port=1, **spec))
        assert status == 422, spec
        kept += [str(spec)[:60]] if secret in json.dumps(answer) else []
    assert not kept, f"the answer quotes {kept}"


def test_defaults_appear(api, namespace):
    spec = {"port": 10020, "https": True, "tls": {"secretRef": {"name": "t"}}, "backendTLS": {}, "headers": {}, "timeouts": {}, "ping": {}}
    obj = server("d", **spec, limits={}, backendRef={"name": "s", "port": 1, "scheme": "wss"})
    got = api.must("POST", path(namespace), obj)["spec"]
    assert got["gatewayName"] == "tidegate" and got["tls"]["minVersion"] == "TLSv1.2"
    assert got["backendTLS"] == {"insecureSkipVerify": False} and got["headers"] == {"keepHost": True}
    assert got["timeouts"] == {"connect": "5s", "handshake": "10s", "idle": "0", "maxAge": "0", "drain": "30s"}
    assert got["ping"] == {"interval": "0", "timeout": "10s"}
    assert set(got["limits"].values()) == {0} and len(got["limits"]) == 5
    got = api.must("POST", path(namespace), server("e", port=1, backendRef={"name": "s", "port": 1}))["spec"]
    assert got["backendRef"]["scheme"] == "ws" and got["https"] is False
    got = api.must("POST", path(namespace), server("f", port=1, backends=[{"url": "ws://a"}]))["spec"]
    assert got["backends"] == [{"url": "ws://a", "weight": 1}]
    assert not {"tls", "backendTLS", "headers", "timeouts", "ping", "limits", "workloadSelector"} & set(got), "defaults grew objects"


def test_null_is_absent(api, namespace):
    """Helm and people write keys without a value."""
    spec = {"port": 1, "backend": "ws://a", "https": None, "tls": None, "certBase64": None, "backends": None, "gatewayName": None}
    got = api.must("POST", path(namespace), server("n", **spec, timeouts={"idle": None}, headers=None, workloadSelector=None))["spec"]
    assert got.pop("timeouts") == {"connect": "5s", "handshake": "10s", "idle": "0", "maxAge": "0", "drain": "30s"}
    assert got == {"port": 1, "backend": "ws://a", "https": False, "gatewayName": "tidegate"}


def test_before_a_controller_has_spoken_the_status_says_so(api, namespace):
    got = api.must("POST", path(namespace), server("n", port=1, backend="ws://a"))
    got = api.get(path(namespace, got["metadata"]["name"]))
    said = {c["type"]: (c["status"], c["reason"], c["message"]) for c in got["status"]["conditions"]}
    assert said == dict.fromkeys(("Accepted", "Programmed", "Ready"), ("Unknown", "Pending", "Waiting for controller"))


def condition(kind, status, **more):
    return {"type": kind, "status": status, "reason": "Tested", "message": "m", "lastTransitionTime": "2026-11-24T09:00:00Z", **more}


def apply_status(api, namespace, name, manager, conditions, **more):
    body = {"apiVersion": "tidegate.dev/v1alpha1", "kind": "WebSocketServer", "metadata": {"name": name}}
    body["status"] = {"conditions": conditions, **more}
    where = path(namespace, name) + f"/status?fieldManager={manager}&force=true"
    return api.must("PATCH", where, body, kind="application/apply-patch+yaml")


def test_status_and_spec_are_written_apart(api, namespace):
    made = api.must("POST", path(namespace), {**server("s", port=1, backend="ws://a"), "status": {"observedGeneration": 7}})
    assert made["metadata"]["generation"] == 1 and "observedGeneration" not in made.get("status", {})
    got = apply_status(api, namespace, "s", "c", [condition("Accepted", "True", observedGeneration=1)], observedGeneration=1)
    assert got["metadata"]["generation"] == 1 and got["status"]["observedGeneration"] == 1
    got["spec"]["port"] = 2
    got["status"]["observedGeneration"] = 9
    got = api.must("PUT", path(namespace, "s"), got)
    assert got["metadata"]["generation"] == 2 and got["spec"]["port"] == 2, "the spec is written at the object"
    assert got["status"]["observedGeneration"] == 1, "and the status is not"
    got["spec"]["port"] = 3
    got = api.must("PUT", path(namespace, "s") + "/status", got)
    assert got["spec"]["port"] == 2, "the spec is not written at /status"


def test_conditions_are_kept_by_type(api, namespace):
    """Two writers with a type each leave the other's alone."""
    api.must("POST", path(namespace), server("c", port=1, backend="ws://a"))
    apply_status(api, namespace, "c", "one", [condition("Accepted", "True"), condition("Ready", "False")])
    got = apply_status(api, namespace, "c", "two", [condition("Programmed", "True")])
    said = {c["type"]: c["status"] for c in got["status"]["conditions"]}
    assert said == {"Accepted": "True", "Ready": "False", "Programmed": "True"}


def test_status_is_bounded(api, namespace):
    api.must("POST", path(namespace), server("b", port=1, backend="ws://a"))
    for wrong in ({"message": "m" * 32769}, {"reason": ""}, {"status": "Maybe"}, {"reason": "not a word"}):
        body = {"status": {"conditions": [condition("Accepted", "True", **{}) | wrong]}}
        status, _ = api.request("PATCH", path(namespace, "b") + "/status", body, kind="application/merge-patch+json")
        assert status == 422, wrong
    body = {"status": {"conditions": [condition("Accepted", "True", message="m" * 32768)]}}
    api.must("PATCH", path(namespace, "b") + "/status", body, kind="application/merge-patch+json")


def test_kubectl_shows_it_by_its_short_name(api, namespace):
    spec = {"https": True, "certBase64": "LS0tLS0t", "keyBase64": "a2V5LWtleS1r", "backend": "ws://chat:3001"}
    api.must("POST", path(namespace), server("chat", port=10020, **spec))
    apply_status(api, namespace, "chat", "c", [condition("Accepted", "True"), condition("Ready", "False", reason="PortConflict")])
    head, row = (line.split() for line in api.kubectl("get", "-n", namespace, "wss").splitlines())
    assert head == ["NAME", "PORT", "BACKEND", "ACCEPTED", "PROGRAMMED", "READY", "AGE"]
    assert row[:4] + row[5:6] == ["chat", "10020", "ws://chat:3001", "True", "False"]
    wide = api.kubectl("get", "-n", namespace, "wss", "-o", "wide")
    assert "REASON" in wide and "PortConflict" in wide
    assert "a2V5" not in wide
    assert "chat" in api.kubectl("get", "-n", namespace, "tidegate"), "the category"


def test_kubectl_shows_the_service_that_an_object_refers_to(api, namespace):
    api.must("POST", path(namespace), server("chat", port=10020, backendRef={"name": "chat-service", "port": 3001}))
    _, row = (line.split() for line in api.kubectl("get", "-n", namespace, "wss").splitlines())
    assert row[:3] == ["chat", "10020", "chat-service"]


def test_kubectl_explains_it(api):
    said = api.kubectl("explain", "wss.spec.tls.secretRef")
    assert "tls.crt" in said and "namespace" in said, said


def test_objects_of_one_gateway_can_be_selected(api, namespace):
    for name, gateway in (("a", "inner"), ("b", "outer")):
        api.must("POST", path(namespace), server(name, port=1, backend="ws://a", gatewayName=gateway))
    got = api.get(path(namespace) + "?fieldSelector=spec.gatewayName%3Douter")
    assert [i["metadata"]["name"] for i in got["items"]] == ["b"]


# An object that was stored under a schema which allowed more than today's.


@pytest.fixture
def older(api, definition):
    """Puts the schema of a group of its own in place: older() without rules and bounds, older(True) today's."""
    group = "older.tidegate.dev"

    def put(today=False):
        schema = copy.deepcopy(definition["spec"]["versions"][0]["schema"])
        if not today:
            spec = schema["openAPIV3Schema"]["properties"]["spec"]
            for _, node in nodes(spec):
                for key in ("x-kubernetes-validations", "maxLength", "pattern", "enum", "maximum", "minimum", "maxItems"):
                    node.pop(key, None)
            spec["properties"]["robots"] = {"type": "string"}
        version = {**definition["spec"]["versions"][0], "schema": schema}
        names = {"kind": "WebSocketServer", "plural": "websocketservers"}
        spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
        body = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": spec}
        body["metadata"] = {"name": f"websocketservers.{group}"}
        api.apply(body)
        api.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/websocketservers.{group}")

    put()
    yield lambda: put(today=True)
    api.must("DELETE", f"{CRD}/websocketservers.{group}")


def test_objects_of_an_older_schema_stay_writable(api, namespace, older):
    """They can be read, labelled, given a status, mended and deleted; only a change that leaves them bad is refused."""
    group = "older.tidegate.dev"
    where = path(namespace, "old", group)
    bad = {"port": 99999, "backend": "http://chat", "keyBase64": "***", "robots": "yes", "timeouts": {"idle": "soon"}}
    api.must("POST", path(namespace, group=group), {**server("old", **bad), "apiVersion": f"{group}/v1alpha1"})
    older()

    def taken(spec):
        """Today's schema is in force once it refuses a new object like that one."""
        obj = {**server("new", **spec), "apiVersion": f"{group}/v1alpha1"}
        return api.request("POST", path(namespace, group=group) + "?dryRun=All", obj)[0] == 201

    wait_until("today's schema is in force", lambda: not taken(bad), timeout=10)
    got = api.get(where)
    assert got["spec"]["port"] == 99999 and "robots" not in got["spec"], "what is unknown now is not handed out"
    merge = {"kind": "application/merge-patch+json"}
    api.must("PATCH", where, {"metadata": {"labels": {"team": "blue"}}}, **merge)
    status = {"status": {"observedGeneration": 1, "conditions": [condition("Accepted", "False")]}}
    got = api.must("PATCH", where + "/status", status, **merge)
    assert got["status"]["conditions"][0]["status"] == "False", "the controller can say what is wrong with it"
    code, answer = api.request("PATCH", where, {"spec": {"https": True}}, **merge)
    assert code == 422 and "spec.backend: Invalid value: must begin with ws:// or wss://" in answer["message"], answer
    good = {"port": 1, "backend": "ws://chat", "keyBase64": None, "timeouts": None}
    got = api.must("PATCH", where, {"spec": good}, **merge)
    assert got["spec"]["backend"] == "ws://chat"
    api.must("DELETE", where)
