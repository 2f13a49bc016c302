"""Values on both sides of each bound of the fields of a WebSocketServer, for the parser and for the API server."""

import base64

# Where an object may hold less than a document, and why.
NARROWER = {
    "backends": "256 in a document; 64 keeps its rules in the API server's budget",
    "limits.clientMaxMessageBytes": "2^63 - 1 in a document; 2^53 - 1 is what every JSON reader keeps exact",
    "limits.backendMaxMessageBytes": "the same",
}


def fields_of(schema, at=""):
    """{path: schema} of each field below; those of a list's items stand under name[]."""
    found = {}
    for name, node in schema.get("properties", {}).items():
        found |= {at + name: node, **fields_of(node, f"{at}{name}."), **fields_of(node.get("items", {}), f"{at}{name}[].")}
    return found


def spec_with(path, value):
    """A spec with the value at a.b[].c"""
    for name in reversed(path.split(".")):
        if name == "backends[]":
            value = [{"url": "ws://a", **value}]
        value = {name.removesuffix("[]"): value}
    return value


def _pem(size):
    return base64.b64encode(b"A" * size).decode()


def _url(path, node):
    longest = "wss://a/" + "a" * (node["maxLength"] - 8)
    good = [longest, "ws://a:65535", "wss://[2001:db8::7]:1/x?y", "ws://a_b.C-d/@", *([""] if path == "backend" else [])]
    bad = [longest + "a", "http://a", "a", "WS://a", "ws://", "ws://u@a", "ws://a:65536", "ws://a:0", "ws://a b", "ws://a#b", "ws://é", "ws://-a"]
    return good, bad, []


def _integer(path, node):
    over = node["maximum"] + 1
    rest = [(over, True)] if path in NARROWER else []
    return [node["minimum"], node["maximum"]], [node["minimum"] - 1, *([] if rest else [over])], rest


def _duration(node):
    zeros, bad = ["0", "0s", "0ms"], ["24h1ms", "25h", "5 s", "5", "", "1d", "-1s", "1h 1m", "s", "0.0001s"]
    good = ["300ms", "1m30s", "1.5h", "24h", "86400s", "1ms"]
    finer = [("1000us", True), ("1000000ns", True)]  # an object has ms, s, m and h, which is all that anybody needs
    if "or 0" in node["x-kubernetes-validations"][0]["message"]:
        good += zeros
    else:
        bad += zeros
    bad.remove("")  # absent to the parser, and no duration to the API server
    return good, bad, [*finer, ("", True)]


def values(path, node):
    """(what both take, what both refuse, [(value, does the parser take it)] where they differ)"""
    many, more = range(node.get("maxItems", 0)), range(node.get("maxItems", 0) + 1)
    if path.endswith("Base64"):
        limit = 1 << 20 if path.lower().endswith("cabase64") else 65536
        # How long it is once decoded is the parser's to say.
        return [_pem(limit), "LS0t\nLS0t\r\n", " LS0t", ""], ["LS0*", "-----BEGIN", "LS0-"], [(_pem(limit + 1), False), ("LS0", False)]
    if "enum" in node:
        return node["enum"], [node["enum"][0].lower(), "x"], []
    if node["type"] == "integer":
        return _integer(path, node)
    if node["type"] == "boolean":
        return [True, False], ["yes", "true", 1], []
    if path in ("backend", "backends[].url"):
        return _url(path, node)
    if path == "backendTLS.serverName":
        good = ["feed.example.org", "10.0.0.7", "2001:db8::7", "a" * 63, ""]
        return good, ["a:1", "[::1]", "a/b", "a b", "-a", "a..b"], [("a.1", False), ("10.0.0.256", False)]
    if path == "backends[].host":
        return ["feed.example.org", "10.0.0.7:80", "[2001:db8::7]:1", ""], ["2001:db8::7", "a/b", "ws://a", "a:0"], []
    if path.startswith(("timeouts.", "ping.")):
        return _duration(node)
    if path == "allowedOrigins":
        good = [["https://a", "null"], ["http://[::1]:81"], [f"https://a{i}" for i in many]]
        bad = [["https://a/"], ["https://*.a"], ["a"], [""], [f"https://a{i}" for i in more]]
        return good, bad, [(["https://a:443"], False), (["https://a", "https://a"], True)]
    if path == "trustedProxies":
        good = [["10.0.0.0/8", "192.0.2.7", "fd00::/8"], [f"10.{i // 250}.{i % 250}.0/24" for i in many]]
        bad = [["10.0.0.0/33"], ["fd00::/129"], ["a"], [""], [f"10.{i // 250}.{i % 250}.0/24" for i in more]]
        return good, bad, [(["10.0.0.1/8"], False), (["10.0.0.300"], False)]
    if path == "headers.set":
        good = [{"X-A": "b", "X-B": ""}, {"X-A": "b" * 8189}, {f"h{i}": "" for i in range(node["maxProperties"])}]
        bad = [{"X-A": " b"}, {"X-A": "b "}, {"X-A": "b\nc"}, {"X-A": "\x01"}, {"X-A": "\u2028"}, {"X-A": "b" * 8190}]
        bad += [{f"h{i}": "" for i in range(node["maxProperties"] + 1)}]
        return good, bad, [({"a b": ""}, False), ({"Host": ""}, False)]  # CEL has no budget for keys of any length
    if path == "headers.remove":
        good = [["Cookie", "x_d"], ["a" * 256], [f"h{i}" for i in many]]
        bad = [["Host"], ["te"], ["sec-websocket-key"], ["a b"], ["a" * 257], [""], ["a", "a"], [f"h{i}" for i in more]]
        return good, bad, [(["a", "A"], False)]
    if path == "backends":
        good = [[], [{"url": f"ws://a{i}"} for i in many]]
        bad = [[{"url": "ws://a"}, {"url": "ws://a"}], [{"weight": 1}], ["ws://a"]]
        return good, bad, [([{"url": f"ws://a{i}"} for i in more], True), ([{"url": "ws://a"}, {"url": "ws://a/b"}], False)]
    assert node["type"] == "object", f"no values to try {path} with; say some here"
    return [{}], ["text", []], []
