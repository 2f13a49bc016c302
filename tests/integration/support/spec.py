"""Spec files for the proxy."""

import json


def ws_spec(port, backend_port=None, *, name="test", https=False, backend=None, **extra):
    """One WebSocketServer document. extra: further keys, nested ones as dicts and lists (JSON is YAML).

    ws_spec(8080, 3001, timeouts={"handshake": "1s"}, allowedOrigins=["https://a.example"])"""
    lines = [
        "kind: WebSocketServer",
        f"name: {json.dumps(name)}",
        f"https: {json.dumps(https)}",
        f"port: {port}",
    ]
    if "backends" not in extra:
        lines.append(f"backend: {json.dumps(backend or f'ws://127.0.0.1:{backend_port}')}")
    lines += [f"{key}: {json.dumps(value)}" for key, value in extra.items()]
    return "\n".join(lines) + "\n"


def https_spec(port, backend_port=None, *, certs, pair=None, **extra):
    """Like ws_spec, with TLS to clients; pair: the certificate to show (default certs.server)."""
    pair = pair or certs.server
    return ws_spec(port, backend_port, https=True, certBase64=certs.b64(pair.cert), keyBase64=certs.b64(pair.key), **extra)
