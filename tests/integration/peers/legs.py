"""The ways through the proxy that every peer takes: TLS or not on either leg."""

import ssl

import pytest

from support.proxy import free_port
from support.spec import https_spec, ws_spec

LEGS = ["ws-ws", "wss-ws", "ws-wss", "wss-wss"]

# Example 1 of the original design; only the ports are the test's own.
EXAMPLE_1 = """\
kind: WebSocketServer
name: websocketSvr          # rendered: namespace/name
https: false                # clients come by https/wss when true; then certBase64 and keyBase64 (or tls) are required
certBase64:                 # PEM, base64
keyBase64:
port: {port}
backend: ws://localhost:{backend}  # ws:// or wss://; ports default to 80 and 443
wssCertBase64:              # certificate and key the proxy shows a wss backend (client certificate)
wssKeyBase64:
"""

# Example 2, with the CA of the test's own.
EXAMPLE_2 = """\
kind: WebSocketServer
name: websocketSvr
https: true
certBase64: {cert}
keyBase64: {key}
port: {port}
backend: wss://localhost:{backend}
wssCertBase64: {wss_cert}
wssKeyBase64: {wss_key}
backendTLS:
  caFile: {ca_file}
"""


class Leg:
    """One of LEGS: the spec, and what client and backend need for it."""

    def __init__(self, name, certs):
        self.name, self.certs = name, certs
        self.client_tls, self.backend_tls = (side == "wss" for side in name.split("-"))
        self.asks_client_cert = name == "wss-wss"

    def spec(self, port, backend):
        c = self.certs
        if self.name == "ws-ws":
            return EXAMPLE_1.format(port=port, backend=backend)
        if self.name == "wss-wss":
            return EXAMPLE_2.format(
                port=port, backend=backend, cert=c.b64(c.server.cert), key=c.b64(c.server.key),
                wss_cert=c.b64(c.client.cert), wss_key=c.b64(c.client.key), ca_file=c.ca.cert_path,
            )
        if self.name == "wss-ws":
            return https_spec(port, backend, certs=c)
        return ws_spec(port, backend=f"wss://localhost:{backend}", backendTLS={"caBase64": c.b64(c.ca.cert)})

    def start(self, start_proxy, backend):
        """The proxy in front of the backend at that port; gives it and the URL for clients, without a path."""
        port = free_port()
        proxy = start_proxy(self.spec(port, backend))
        return proxy, f"{'wss' if self.client_tls else 'ws'}://localhost:{port}"

    @property
    def server_options(self):
        """For peers.process.Server."""
        if not self.backend_tls:
            return {}
        return {"pair": self.certs.server, "ca": self.certs.ca if self.asks_client_cert else None}

    @property
    def client_options(self):
        """For peers.process.call."""
        return {"ca": self.certs.ca} if self.client_tls else {}

    def server_context(self):
        """For a backend in python, or None."""
        if not self.backend_tls:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certs.server.cert_path, self.certs.server.key_path)
        if self.asks_client_cert:
            context.load_verify_locations(self.certs.ca.cert_path)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self):
        return ssl.create_default_context(cafile=self.certs.ca.cert_path) if self.client_tls else None


@pytest.fixture(params=LEGS)
def leg(request, certs):
    return Leg(request.param, certs)
