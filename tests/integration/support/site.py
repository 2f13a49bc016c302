"""A proxy with a run dir, and a crowd that echoes on its server `still` all the while: what reloads must not touch."""

import contextlib

from .client import RawClient
from .frames import TEXT
from .hold import EchoBackend, Hold
from .proxy import free_port
from .spec import ws_spec


def documents(*specs):
    """Several documents as one file."""
    return "---\n".join(specs)


def talk(client, text="well?"):
    """One echo."""
    client.send_frame(TEXT, text)
    client.expect_frame(TEXT, text)


def enter(port, path="/", *, tls=None, headers=(), session=None):
    """A client through its handshake, and the head of the answer."""
    client = RawClient(port, tls=tls, session=session)
    try:
        return client, client.handshake(path, headers=headers)
    except BaseException:
        client.close()
        raise


def is_open(port):
    """Does anybody listen there?"""
    try:
        RawClient(port).close()
        return True
    except (ConnectionRefusedError, ConnectionResetError):  # reset: it was closed meanwhile
        return False


class Site:
    def __init__(self, start, run_dir, *, count=60, period_ms=100, args=(), env=None, still=None, **kw):
        """still: further keys of the server `still`; kw goes to start_proxy."""
        self.parts = contextlib.ExitStack()
        try:
            self.echo = self.parts.enter_context(EchoBackend())
            self.port = free_port()
            self.still = ws_spec(self.port, self.echo.port, name="still", **(still or {}))
            self.proxy = start(self.still, run_dir=run_dir, args=args, env=env, **kw)
            self.crowd = self.parts.enter_context(Hold(self.port, count, period_ms=period_ms))
        except BaseException:
            self.parts.close()
            raise

    def apply(self, *docs, wait=True, timeout=10.0):
        """The spec becomes `still` and these documents; returns its revision."""
        return self.proxy.apply(documents(self.still, *docs), wait, timeout)

    def check(self):
        """Nothing of the crowd is closed, every echo was right and none is late."""
        report = self.crowd.check()
        assert report["overdue"] == 0, report
        return report

    def close(self):
        self.parts.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None and self.crowd.final is None:
                self.crowd.check(self.crowd.finish())
        finally:
            self.close()
