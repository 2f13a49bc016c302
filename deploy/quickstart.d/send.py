"""send.py URL MESSAGE [CA]: one message through a WebSocket; prints what comes back, exit 1 when it is not the same."""

import asyncio
import ssl
import sys

import websockets


async def main(url, message, ca=None):
    tls = {"ssl": ssl.create_default_context(cafile=ca)} if ca else {}
    async with websockets.connect(url, open_timeout=10, **tls) as ws:
        await ws.send(message)
        answer = await asyncio.wait_for(ws.recv(), 10)
    print(answer)
    return 0 if answer == message else 1


try:
    sys.exit(asyncio.run(main(*sys.argv[1:])))
except (OSError, asyncio.TimeoutError, websockets.WebSocketException) as why:
    sys.exit(f"send.py: {type(why).__name__}: {why}")
