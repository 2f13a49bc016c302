"""An echo WebSocket server on localhost, in the role of a backend.

echo.py PORT                     ws
echo.py PORT CERT KEY CLIENT_CA  wss; clients must show a certificate of that CA
"""

import asyncio
import signal
import ssl
import sys

import websockets


async def echo(ws, *_):
    tls = ws.transport.get_extra_info("ssl_object")
    if tls:
        subject = dict(pair for rdn in tls.getpeercert()["subject"] for pair in rdn)
        print(f"client certificate of {subject['commonName']}, {tls.version()}", flush=True)
    try:
        async for message in ws:
            await ws.send(message)
    except websockets.ConnectionClosed:
        pass


async def main(port, cert=None, key=None, client_ca=None):
    tls = None
    if cert:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
        tls.load_cert_chain(cert, key)
        tls.verify_mode = ssl.CERT_REQUIRED
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with websockets.serve(echo, "localhost", port, ssl=tls):
        print("ready", flush=True)
        await stop.wait()


asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
