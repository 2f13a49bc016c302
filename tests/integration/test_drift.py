"""One kind, said in three places: deploy/crd.yaml, the parser of proxy/spec and the documentation must say the same."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.fields import fields_of, spec_with, values
from support.proxy import run_proxy

REPO = Path(__file__).resolve().parents[2]
SPEC = REPO / "proxy/spec"

# What the parser knows and objects do not: they name Secrets, not files.
FILES = {"tls.certFile", "tls.keyFile", "tls.clientCAFile", "backendTLS.caFile"}
DOCUMENT = {"kind", "name"}
# What only objects have; the controller takes it out before the parser reads the rest (design.md 3).
OBJECTS = {"tls.secretRef", "tls.clientCARef", "backendTLS.secretRef", "backendTLS.caRef", "backendRef", "gatewayName", "workloadSelector"}

def schema():
    crd = yaml.safe_load((REPO / "deploy/crd.yaml").read_text())
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def is_of(path, those):
    return any(path == t or path.startswith(t + ".") for t in those)


def parser_fields():
    """{path: (kind, member)} from the tables of struct spec_field; a table belongs to the function that it stands in."""
    bodies, tables = {}, {}
    for file in sorted(SPEC.glob("*.c")):
        text = file.read_text()
        for name, body in re.findall(r"^[a-z][\w *]*?\b(\w+)\([^;{}]*\)\n\{\n(.*?)^\}", text, re.M | re.S):
            bodies[name] = body
        tables |= {"": t for t in re.findall(r"^static const struct spec_field server_fields\[\] = \{(.*?)^\};", text, re.M | re.S)}
    for name, body in bodies.items():
        for table in re.findall(r"static const struct spec_field fields\[\] = \{(.*?)^    \};", body, re.M | re.S):
            tables[name] = table

    def below(reader):
        """The name of the table that a reader's values are read by, if any."""
        names = [reader, *re.findall(r"\b(\w+)\(", bodies[reader])]
        return next((n for n in names if n in tables), None)

    def fields(table, at):
        found = {}
        for name, kind, reader, _, member in re.findall(
            r'\{"(\w+)",\s*SPEC_NODE_(\w+),\s*(\w+),\s*(AT\(([\w.]+)\)|0)', tables[table]
        ):
            found[at + name] = kind, member
            inner = below(reader)
            if inner:
                found |= fields(inner, f"{at}{name}{'[]' if kind == 'LIST' else ''}.")
        return found

    return fields("", "")


SCHEMA = fields_of(schema())
SHARED = {path: node for path, node in SCHEMA.items() if not is_of(path, OBJECTS)}
PARSER = parser_fields()


def test_objects_have_the_keys_of_the_parser():
    """Less files, plus what only objects have; nothing else on either side."""
    assert len(PARSER) > 40 and {"port", "tls.minVersion", "limits.maxConnectionsPerIP"} <= set(PARSER), "the tables were not found"
    assert set(OBJECTS) <= set(SCHEMA)
    assert set(SHARED) == set(PARSER) - FILES - DOCUMENT


def test_kinds_of_values_are_the_same():
    kinds = {"SCALAR": ("string", "integer", "boolean"), "MAP": ("object",), "LIST": ("array",)}
    for path, node in SHARED.items():
        assert node["type"] in kinds[PARSER[path][0]], path


# What --check says of a field for another reason than its value.
OTHER_REASONS = re.compile(
    "true needs a certificate|needs https: true|is not used while|given without its|no certificate in it|no private key|"
    "is for wss backends only|is shown to wss backends only|^missing; give"
)


def complaints(tmp_path, path, value):
    """What --check says of a field's value; JSON is YAML, and what the controller hands on."""
    file = tmp_path / "spec.yaml"
    file.write_text(json.dumps({"kind": "WebSocketServer", "name": "drift", **spec_with(path, value)}, ensure_ascii=False))
    done = run_proxy("--config", str(file), "--check")
    said = re.findall(r'^[^:]+:\d+:\d+: (?:server "drift": )?([\w.\[\]]+): (.*)', done.stdout + done.stderr, re.M)
    assert said, "port is missing at least"
    own = [t for f, t in said if (re.sub(r"\[\d+\]", "[]", f) + ".").startswith((path + ".", path + "["))]
    return [text for text in own if not OTHER_REASONS.search(text)]


@pytest.mark.parametrize("path", SHARED)
def test_the_parser_takes_and_refuses_what_the_schema_does(path, tmp_path):
    """tests/kube/test_crd.py tries the same values on the API server."""
    good, bad, other = values(path, SHARED[path])
    wanted = [(v, True) for v in good] + [(v, False) for v in bad] + other
    wrong = [f"{str(v)[:60]!r}: {said}" for v, taken in wanted if bool(said := complaints(tmp_path, path, v)) == taken]
    assert not wrong, path + ": " + "\n".join(wrong)


def test_the_parser_knows_no_other_key(tmp_path):
    """What only objects have must never reach it, and what is not built yet is in neither."""
    for path in sorted(OBJECTS) + ["hosts", "path", "loadBalance", "healthCheck", "proxyProtocol", "tls.cipherSuites"]:
        assert complaints(tmp_path, path, "x") == ["unknown key; remove it"] or "did you mean" in complaints(tmp_path, path, "x")[0], path
        assert path in OBJECTS or path not in SCHEMA


def test_the_controller_takes_out_what_only_objects_have():
    text = (REPO / "controller/wss.c").read_text()
    taken = set(re.findall(r'\b(?:take|json_object_del)\(spec, "(\w+)"\)', text))
    taken |= {f"{parent}.{key}" for parent, key in re.findall(r'take_ref\(p, \w+, "(\w+)", "(\w+)"', text)}
    assert taken == OBJECTS
    tables = {frozenset(re.findall(r'"(\w+)"', t)) for t in re.findall(r"keys\[\] = \{(.*?), NULL\}", text)}
    assert tables == {frozenset(n["properties"]) for p, n in SCHEMA.items() if is_of(p, OBJECTS) and "properties" in n}


def ms(text):
    number, unit = re.fullmatch(r"([0-9.]+)(ms|s|m|h)?", text).groups()
    return int(float(number) * {"ms": 1, "s": 1000, "m": 60000, "h": 3600000, None: 1}[unit])


def test_defaults_are_those_of_the_parser():
    init = re.search(r"static void server_init.*?^\}", (SPEC / "spec_parse.c").read_text(), re.M | re.S)[0]
    given = dict(re.findall(r"s->([\w.]+) = (\w+);", init))
    given |= dict(re.findall(r"\(struct spec_backend\)\{\.(weight) = (\d+)", "".join(f.read_text() for f in SPEC.glob("*.c"))))
    used = set()
    for path, node in SHARED.items():
        if "default" not in node:
            continue
        member = PARSER[path][1]
        used.add(member)
        mine = {"true": True, "false": False}.get(given.get(member, "0"), given.get(member, "0"))
        its = node["default"]
        if path == "tls.minVersion":
            assert its == "TLSv1.2" and re.search(r"SPEC_TLS_1_2 = 0", (SPEC / "spec.h").read_text())
        else:
            assert (ms(its) if isinstance(its, str) else its) == (int(mine) if isinstance(mine, str) else mine), path
    assert set(given) <= used, "the parser has a default that the schema lacks"
    optional = {p for p, n in SHARED.items() if n["type"] in ("integer", "boolean") and p != "port"}
    assert optional <= {p for p, n in SHARED.items() if "default" in n}
    gateway = re.search(r'#define WSS_GATEWAY +"(\w+)"', (REPO / "controller/wss.h").read_text())[1]
    assert SCHEMA["gatewayName"]["default"] == gateway


def test_descriptions_name_the_defaults():
    for path, node in SCHEMA.items():
        if "default" in node:
            value = str(node["default"]).lower() if isinstance(node["default"], bool) else str(node["default"])
            assert f"Default: {value}." in node["description"], path


def readme_fields():
    """{path: default} of the table in the proxy's README."""
    found = {}
    text = (REPO / "proxy/README.md").read_text()
    for names, default in re.findall(r"^\| (`[\w.\[\]]+`(?:, `[\w.\[\]]+`)*) \|.*\| ?([^|]*?) ?\|$", text.split("## The spec")[1].split("\n## ")[0], re.M):
        names, values = re.findall(r"`([^`]+)`", names), default.split(", ")
        values = values if len(values) == len(names) else values * len(names)
        found |= dict(zip(names, values))
    return found


def test_the_readme_has_the_fields_and_defaults_of_the_parser():
    said = readme_fields()
    parents = {p for p in PARSER if any(q.startswith(p + ".") for q in PARSER)}
    assert set(said) == set(PARSER) - parents
    for path, node in SHARED.items():
        if "default" in node:
            assert said[path] == str(node["default"]).replace("True", "true").replace("False", "false"), path


def test_the_reference_is_made_from_the_schema():
    done = subprocess.run([sys.executable, REPO / "deploy/crd-doc", "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
