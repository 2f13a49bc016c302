"""hold.py URL: one WebSocket that stays open; each line of stdin is sent, and what comes back is printed."""

import asyncio
import sys

import websockets


async def main(url):
    async with websockets.connect(url, open_timeout=10) as ws:
        while line := await asyncio.to_thread(sys.stdin.readline):
            await ws.send(line.rstrip("\n"))
            print("came back", await asyncio.wait_for(ws.recv(), 10), flush=True)


try:
    asyncio.run(main(sys.argv[1]))
except (OSError, asyncio.TimeoutError, websockets.WebSocketException) as why:
    sys.exit(f"hold.py: {type(why).__name__}: {why}")
