"""python's websockets as a peer; lws_client.c, lws_server.c and node/peer.mjs speak the same.

    server [--cert F --key F [--ca F]] [--protocol P]...
        Takes a free port, says {"port": N}, echoes; the text "close me" is answered by a Close 4002 "as asked".
        With --ca clients must show a certificate. When a connection ends it says
        {"path", "protocol", "deflate", "pings": [...], "close": [code, reason]}. Ends with its standard input.
    client URL [--ca F] [--protocol P]... [--ask-close]
        Text, a binary message of 70,000 bytes in two fragments, a Ping; each echo and the Pong awaited; then closes
        with 4001 "done", or has the server close. Says
        {"protocol", "deflate", "text": true, "binary": true, "pong", "close": [code, reason]}, or "status" or "error".
"""

import argparse
import asyncio
import json
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import Opcode

TEXT = "hello, wörld"
HALF = (b"tidegate" * 5000)[:35000]


def say(value):
    print(json.dumps(value), flush=True)


class Watching(ServerConnection):
    """Keeps the payload of each Ping that comes in."""

    def process_event(self, event):
        if getattr(event, "opcode", None) is Opcode.PING:
            self.pings = [*getattr(self, "pings", []), bytes(event.data).decode()]
        super().process_event(event)


def ended(peer):
    return [peer.close_code, peer.close_reason]


async def server(args):
    tls = None
    if args.cert:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(args.cert, args.key)
        if args.ca:
            tls.load_verify_locations(args.ca)
            tls.verify_mode = ssl.CERT_REQUIRED

    async def echo(peer):
        try:
            async for message in peer:
                await (peer.close(4002, "as asked") if message == "close me" else peer.send(message))
        except ConnectionClosed:
            pass
        await peer.wait_closed()
        say({
            "path": peer.request.path, "protocol": peer.subprotocol or "", "deflate": bool(peer.protocol.extensions),
            "pings": getattr(peer, "pings", []), "close": ended(peer),
        })

    async with serve(
        echo, "127.0.0.1", 0, ssl=tls, subprotocols=args.protocol or None, create_connection=Watching, ping_interval=None
    ) as listener:
        say({"port": listener.sockets[0].getsockname()[1]})
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def client(args):
    tls = ssl.create_default_context(cafile=args.ca) if args.url.startswith("wss:") else None
    seen = {}
    try:
        async with connect(args.url, ssl=tls, subprotocols=args.protocol or None, ping_interval=None, proxy=None) as peer:
            seen |= {"protocol": peer.subprotocol or "", "deflate": bool(peer.protocol.extensions)}
            await peer.send(TEXT)
            seen["text"] = await peer.recv() == TEXT
            await peer.send([HALF, HALF])
            seen["binary"] = await peer.recv() == HALF + HALF
            await (await peer.ping("tick"))
            seen["pong"] = "tick"
            if args.ask_close:
                await peer.send("close me")
                await peer.wait_closed()
            else:
                await peer.close(4001, "done")
            seen["close"] = ended(peer)
    except InvalidStatus as e:
        seen["status"] = e.response.status_code
    except (OSError, WebSocketException) as e:
        seen["error"] = str(e)
    say(seen)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["server", "client"])
    parser.add_argument("url", nargs="?")
    parser.add_argument("--ca")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--protocol", action="append")
    parser.add_argument("--ask-close", action="store_true")
    args = parser.parse_args()
    asyncio.run(server(args) if args.role == "server" else asyncio.wait_for(client(args), 60))


if __name__ == "__main__":
    main()
