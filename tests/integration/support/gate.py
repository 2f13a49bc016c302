"""A proxy between a raw client and a raw backend: the frame of most tests."""

import contextlib

from . import http1
from .backend import RawBackend, manual, server_context
from .client import RawClient, client_context
from .proxy import free_port
from .spec import https_spec, ws_spec


class Gate:
    """start: a start_proxy fixture. certs: TLS to clients; backend_certs: TLS to the backend. spec: further keys."""

    def __init__(self, start, script=manual, *, certs=None, backend_certs=None, backend=None, log_level="debug", args=(),
                 wrap=(), env=None, backend_kw=None, **spec):
        tls = server_context(backend_certs.server) if backend_certs else None
        self.backend = RawBackend(script, tls=tls, **(backend_kw or {}))
        self.port = free_port()
        self.context = client_context(certs) if certs else None
        if backend_certs:
            spec["backendTLS"] = {"caBase64": backend_certs.b64(backend_certs.ca.cert)}
        url = backend or f"{'wss' if backend_certs else 'ws'}://127.0.0.1:{self.backend.port}"
        build = https_spec if certs else ws_spec
        if certs:
            spec["certs"] = certs
        self.proxy = start(build(self.port, backend=url, **spec), log_level=log_level, args=args, wrap=wrap, env=env)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.backend.close()

    def client(self, **kw):
        since = len(self.proxy.logs)
        kw.setdefault("tls", self.context)
        client = RawClient(self.port, **kw)
        client.since = since  # an older line may name the same port
        return client

    @contextlib.contextmanager
    def tunnel(self, path="/", headers=(), answer=(), **kw):
        """Client and backend's end of an open connection (the backend being `manual`). answer: fields of the 101."""
        with self.client(**kw) as client:
            client.send(http1.upgrade_request(path, headers=headers))
            with self.backend.accept() as conn:
                conn.answer_101(headers=answer)
                head = client.read_head()
                assert head.status == 101, head.raw
                yield client, conn

    def line(self, event, client, timeout=5.0):
        """The log line of this client's connection."""
        return self.proxy.wait_log(
            event=event, client="%s:%d" % client.addr[:2], timeout=timeout, since=client.since
        )

    def close_line(self, client, timeout=5.0):
        """The close line of this client's connection: found by the number that the open line gave it."""
        conn = self.line("open", client)["conn"]
        return self.proxy.wait_log(event="close", conn=conn, timeout=timeout)
