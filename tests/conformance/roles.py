"""The four peers of a conformance run, each a process of its own: `roles.py echo`, `testee URL`,
`fuzz-client URL OUT`, `fuzz-server OUT`.

echo and testee are python `websockets`, strict by default, with message sizes unlimited and permessage-deflate on; the two fuzzers are kosoku, which drives the Autobahn cases. A role that listens takes a free port and
prints it as its first line; a fuzzer writes {case: [behavior, behaviorClose, prose, prose]} to OUT.
"""

import argparse
import asyncio
import json
import os
import sys
from urllib.parse import quote

os.environ["WEBSOCKETS_MAX_FRAGMENTS"] = "1000000"  # read at import; 9.3.1 sends a message in 65,536 fragments

import kosoku
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory

AGENT = "tidegate-testee"
CASE_SECONDS = 600  # more than any case's own limit
FAST = {"memLevel": 5, "level": 1}  # zlib's level changes no verdict, and 12.* and 13.* echo 12 GB


async def echo_server():
    async def echo(peer):
        try:
            async for message in peer:
                await peer.send(message)
        except ConnectionClosed:
            pass  # a fuzzer ends connections in every way there is

    deflate = [ServerPerMessageDeflateFactory(compress_settings=FAST)]
    async with serve(
        echo, "127.0.0.1", 0, max_size=None, ping_interval=None, compression=None, extensions=deflate
    ) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until our starter lets go


async def testee(url, parallel):
    def dial(path):
        # Two offers: the server of 13.2, 13.5 and 13.6 takes only one that allows it client_no_context_takeover.
        deflate = [
            ClientPerMessageDeflateFactory(
                client_max_window_bits=True, client_no_context_takeover=alone, compress_settings=FAST
            )
            for alone in (False, True)
        ]
        return connect(
            url + path, max_size=None, ping_interval=None, open_timeout=20, proxy=None, compression=None,
            extensions=deflate,
        )

    async with dial("/getCaseCount") as peer:
        count = int(await peer.recv())
    slots = asyncio.Semaphore(parallel)

    async def one(number):
        async with slots:
            try:
                async with asyncio.timeout(CASE_SECONDS):
                    async with dial(f"/runCase?case={number}&agent={quote(AGENT)}") as peer:
                        async for message in peer:
                            await peer.send(message)
            except (WebSocketException, OSError, TimeoutError):
                pass  # the fuzzer's verdict counts, not ours

    await asyncio.gather(*(one(number) for number in range(1, count + 1)))
    async with dial(f"/updateReports?agent={quote(AGENT)}"):
        pass


def save(path, results):
    table = {r.case_id: [r.behavior.value, r.behavior_close.value, r.result, r.result_close] for r in results}
    with open(path, "w", encoding="utf-8") as out:
        json.dump(table, out, indent=1, sort_keys=True)
    os._exit(0)  # kosoku 0.1.0's own threads now and then abort an interpreter that ends in the usual way


async def fuzz_client(url, out, cases, exclude, parallel):
    try:
        results = await kosoku.run_fuzzingclient(url, cases or None, exclude or None, concurrency=parallel)
    except kosoku.FailureError as failure:
        results = failure.results
    save(out, results)


async def fuzz_server(out, cases, exclude):
    async with kosoku.run_fuzzingserver(cases or None, exclude or None, host="127.0.0.1", port=0) as server:
        print(server.port, flush=True)
        try:
            results = await server.get_result()
        except kosoku.FailureError as failure:
            results = failure.results
    save(out, results)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("role", choices=["echo", "testee", "fuzz-client", "fuzz-server"])
    parser.add_argument("arguments", nargs="*", help="URL, OUT or both")
    parser.add_argument("--case", action="append", default=[])
    parser.add_argument("--exclude", action="append", default=[])
    parser.add_argument("--parallel", type=int, default=1)
    args = parser.parse_args()
    match args.role:
        case "echo":
            asyncio.run(echo_server())
        case "testee":
            asyncio.run(testee(args.arguments[0], args.parallel))
        case "fuzz-client":
            asyncio.run(fuzz_client(*args.arguments, args.case, args.exclude, args.parallel))
        case "fuzz-server":
            asyncio.run(fuzz_server(*args.arguments, args.case, args.exclude))


if __name__ == "__main__":
    main()
