"""Every client of ours with every server of ours, through the proxy: software that shares no line with it."""

import pytest

from peers.legs import leg  # noqa: F401 (a fixture)
from peers.process import KINDS, Server, call
from support.proxy import free_port
from support.spec import ws_spec

# After its Close, libwebsockets' client drops a TLS connection as it is, our close_notify unread.
LWS_DROPS = ["the client ended TLS without close_notify", "the client's connection was reset"]


def compresses(client):
    return client != "libwebsockets"  # whose client offers none; each of the servers takes an offer


@pytest.mark.parametrize("server", KINDS)
@pytest.mark.parametrize("client", KINDS)
def test_pair(client, server, leg, start_proxy):
    """Text, a message in two fragments, a Ping that the backend answers, subprotocol, compression, path and query, and
    a Close of either side with code and reason pass between independent peers; "ws-ws" is example 1 of the original
    design as written apart from its ports, "wss-wss" example 2 with a backend that asks for the client certificate."""
    with Server(server, protocols=["chat.v2"], **leg.server_options) as backend:
        proxy, url = leg.start(start_proxy, backend.port)
        for ask_close, close in ((False, [4001, "done"]), (True, [4002, "as asked"])):
            before = len(proxy.logs)
            seen = call(client, url + "/room/7?user=anna", protocols=["chat.v2"], ask_close=ask_close, **leg.client_options)
            deflate = compresses(client)
            assert seen == {
                "protocol": "chat.v2", "deflate": deflate, "text": True, "binary": True, "pong": "tick", "close": close,
            }
            told = backend.report()
            assert told.pop("pings", ["tick"]) == ["tick"]  # libwebsockets' server does not tell
            assert told == {"path": "/room/7?user=anna", "protocol": "chat.v2", "deflate": deflate, "close": close}

            opened = proxy.wait_log("open", since=before)
            assert opened["protocol"] == "chat.v2" and opened["host"].startswith("localhost")
            assert opened.get("tls") == ("TLSv1.3" if leg.client_tls else None)
            ended = proxy.wait_log("close", since=before, conn=opened["conn"])
            assert (ended["code"], ended["reason"]) == tuple(close)
            assert ended["initiator"] == ("backend" if ask_close else "client")
            rough = leg.client_tls and client == "libwebsockets"
            assert ended.get("detail") in (LWS_DROPS if rough else [None])
            assert ended["client_messages"] == (5 if ask_close else 4)  # control frames count
            assert ended["backend_messages"] == 4


@pytest.mark.parametrize("client", KINDS)
def test_no_subprotocol(client, leg, start_proxy):
    """Without an offer there is no subprotocol, on the wire and in the log."""
    with Server("websockets", **leg.server_options) as backend:
        proxy, url = leg.start(start_proxy, backend.port)
        assert call(client, url + "/", **leg.client_options)["protocol"] == ""
        assert backend.report()["protocol"] == ""
        assert "protocol" not in proxy.wait_log("open")


@pytest.mark.parametrize("client", KINDS)
def test_backend_is_down(client, leg, start_proxy):
    """Nobody listens at the backend: the peer is told 502 and does not believe in a WebSocket."""
    with Server("websockets", **leg.server_options) as backend:
        port = backend.port
    proxy, url = leg.start(start_proxy, port)
    assert call(client, url + "/", **leg.client_options).get("status") == 502
    refused = proxy.wait_log("refuse", status=502, by="gateway")
    assert refused["path"] == "/" and refused["why"]


def test_wss_backend_wants_a_certificate(certs, start_proxy):
    """A backend that asks for a client certificate refuses a proxy that was given none: 502, no tunnel."""
    with Server("websockets", pair=certs.server, ca=certs.ca) as backend:
        port = free_port()
        proxy = start_proxy(
            ws_spec(port, backend=f"wss://localhost:{backend.port}", backendTLS={"caBase64": certs.b64(certs.ca.cert)})
        )
        assert call("websockets", f"ws://localhost:{port}/").get("status") == 502
        proxy.wait_log("refuse", status=502)
        assert not proxy.logged("open")
