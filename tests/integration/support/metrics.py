"""The admin port, asked as Prometheus and probes ask it."""

import http.client
import re

SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')


def get(port, path, timeout=5.0):
    """(status, content type, body as text) of GET http://127.0.0.1:port/path."""
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        conn.request("GET", path)
        answer = conn.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read().decode()
    finally:
        conn.close()


def parse(text):
    """Prometheus text 0.0.4 -> {name: {labels: value}}; labels: a frozenset of (name, value). Strict."""
    found = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = SAMPLE.fullmatch(line)
        assert match, f"no sample: {line!r}"
        name, labels, value = match.groups()
        assert not LABEL.sub("", labels or ""), f"no labels: {line!r}"
        pairs = [(k, re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), v)) for k, v in LABEL.findall(labels or "")]
        key = frozenset(pairs)
        assert len(key) == len({k for k, _ in pairs}) == len(pairs), f"a label twice: {line!r}"
        assert key not in found.setdefault(name, {}), f"a sample twice: {line!r}"
        found[name][key] = float(value)
    return found


def total(metrics, name, **labels):
    """The sum of all samples of `name` that bear these labels, 0 without any."""
    return sum(v for key, v in metrics.get(name, {}).items() if labels.items() <= dict(key).items())
