"""python's websockets at both ends of the proxy, in one loop with the test: what a pair of programs cannot show."""

import asyncio
import contextlib
import http

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Opcode

from peers.legs import leg  # noqa: F401 (a fixture)


class SeesPings:
    """Keeps the control frames that came in, as (opcode, payload)."""

    def process_event(self, event):
        if getattr(event, "opcode", None) in (Opcode.PING, Opcode.PONG):
            self.__dict__.setdefault("controls", []).append((event.opcode, bytes(event.data)))
        super().process_event(event)


class SeeingServer(SeesPings, ServerConnection):
    pass


class SeeingClient(SeesPings, ClientConnection):
    pass


async def echo(peer):
    with contextlib.suppress(ConnectionClosed):
        async for message in peer:
            await peer.send(message)


class Route:
    """Backend and proxy of one test; connect() gives a client through them."""

    def __init__(self, leg, start_proxy):
        self.leg, self.start_proxy = leg, start_proxy

    @contextlib.asynccontextmanager
    async def serve(self, handler=echo, **kw):
        kw = {"ping_interval": None, "max_size": None, "create_connection": SeeingServer, **kw}
        async with serve(handler, "127.0.0.1", 0, ssl=self.leg.server_context(), **kw) as server:
            self.proxy, self.url = self.leg.start(self.start_proxy, server.sockets[0].getsockname()[1])
            yield server

    def connect(self, path="/", **kw):
        kw = {"ping_interval": None, "max_size": None, "proxy": None, "create_connection": SeeingClient, **kw}
        return connect(self.url + path, ssl=self.leg.client_context(), **kw)


@pytest.fixture
def route(leg, start_proxy):
    return Route(leg, start_proxy)


def run(coroutine):
    asyncio.run(asyncio.wait_for(coroutine, 60))


def test_echo(route):
    """Text and binary of every length encoding, and of 1 MiB, come back as they went, in order."""

    async def scenario():
        async with route.serve(), route.connect(compression=None) as peer:
            for size in (0, 1, 125, 126, 65535, 65536, 1024 * 1024):
                for message in ("é" * (size // 2), bytes(range(256)) * (size // 256 + 1)):
                    await peer.send(message)
                    assert await peer.recv() == message

    run(scenario())


def test_both_directions_at_once(route):
    """400 messages in flight each way, none awaited before the next: order holds and nobody waits for the other."""

    async def talk(peer, prefix):
        async def send():
            for i in range(400):
                await peer.send(f"{prefix}{i}".ljust(4000))

        sending = asyncio.create_task(send())
        got = [await peer.recv() for _ in range(400)]
        await sending
        return [message.rstrip() for message in got]

    async def scenario():
        got = asyncio.get_running_loop().create_future()

        async def handler(peer):
            got.set_result(await talk(peer, "b"))

        async with route.serve(handler), route.connect() as peer:
            assert await talk(peer, "c") == [f"b{i}" for i in range(400)]
            assert await got == [f"c{i}" for i in range(400)]

    run(scenario())


def test_fragments_stay_as_they_are(route):
    """A fragmented message arrives in the same fragments, each as soon as it was sent, in both directions."""

    async def scenario():
        async def handler(peer):
            async def answer():
                async for part in peer.recv_streaming():
                    yield part.upper()

            await peer.send(answer())  # a fragment goes back before the next one is there
            await peer.wait_closed()

        async with route.serve(handler), route.connect() as peer:
            parts = [f"part {i};" for i in range(10)]
            back = asyncio.Queue()

            async def collect():
                async for part in peer.recv_streaming():
                    if part:
                        await back.put(part)

            async def send():
                for part in parts:
                    yield part
                    assert await back.get() == part.upper()

            collecting = asyncio.create_task(collect())
            await peer.send(send())
            await collecting
            assert back.empty()

    run(scenario())


@pytest.mark.parametrize("compressed", [True, False])
def test_deflate(route, compressed):
    """permessage-deflate is agreed by the ends, and what passes is really compressed; without it nothing is."""

    async def scenario():
        text = "tide and gate " * 70000
        async with route.serve(compression="deflate" if compressed else None):
            async with route.connect(compression="deflate") as peer:
                assert [e.name for e in peer.protocol.extensions] == (["permessage-deflate"] if compressed else [])
                await peer.send(text)
                assert await peer.recv() == text
            close = await asyncio.to_thread(route.proxy.wait_log, "close")
            for side in ("client_bytes", "backend_bytes"):
                assert (close[side] < len(text) / 50) is compressed

    run(scenario())


@pytest.mark.parametrize("offered, known, chosen", [
    (["a.v1", "b.v2"], ["b.v2"], "b.v2"), (["b.v2", "a.v1"], ["a.v1", "b.v2"], "a.v1"), (None, ["b.v2"], None),
    (["x"], [], None),
])  # fmt: skip
def test_subprotocol(route, offered, known, chosen):
    """The backend's choice among the client's offers reaches the client; no choice is none."""

    async def scenario():
        def choose(_, names):
            return next((name for name in known if name in names), None)

        async with route.serve(select_subprotocol=choose), route.connect(subprotocols=offered) as peer:
            assert peer.subprotocol == chosen
            assert (await asyncio.to_thread(route.proxy.wait_log, "open")).get("protocol") == chosen

    run(scenario())


@pytest.mark.parametrize("code, reason", [(1000, ""), (1000, "bye"), (1001, "going"), (1011, "ö" * 61), (3000, "x"), (4999, "")])
@pytest.mark.parametrize("by", ["client", "backend"])
def test_close(route, by, code, reason):
    """Code and reason of a Close reach the other end, whoever begins, and the log."""

    async def scenario():
        ended = asyncio.get_running_loop().create_future()

        async def handler(peer):
            if by == "backend":
                await peer.close(code, reason)
            await peer.wait_closed()
            ended.set_result((peer.close_code, peer.close_reason))

        async with route.serve(handler), route.connect() as peer:
            if by == "client":
                await peer.close(code, reason)
            await peer.wait_closed()
            assert (peer.close_code, peer.close_reason) == (code, reason)
            assert await ended == (code, reason)
        close = await asyncio.to_thread(route.proxy.wait_log, "close")
        assert (close["code"], close["reason"], close["initiator"]) == (code, reason, by)

    run(scenario())


def test_pings_are_relayed(route):
    """A Ping reaches the other end, and only that end's Pong comes back: none of the proxy's own, either way."""

    async def scenario():
        peers = asyncio.get_running_loop().create_future()

        async def handler(peer):
            await (await peer.ping(b"from backend"))
            peers.set_result(peer)
            await echo(peer)

        async with route.serve(handler), route.connect() as client:
            server = await peers
            await (await client.ping(b"from client"))
            await client.pong(b"unasked")
            await client.send("last")  # all control frames before it have passed once it is back
            await client.recv()
            ping, pong = Opcode.PING, Opcode.PONG
            assert client.controls == [(ping, b"from backend"), (pong, b"from client")]
            assert server.controls == [(pong, b"from backend"), (ping, b"from client"), (pong, b"unasked")]

    run(scenario())


def test_100_clients(route):
    """100 clients at the same time get their own echoes, and each is logged once."""

    async def one(number):
        async with route.connect(f"/{number}") as peer:
            for i in range(10):
                await peer.send(f"{number}/{i}")
                assert await peer.recv() == f"{number}/{i}"

    async def scenario():
        async with route.serve():
            await asyncio.gather(*(one(number) for number in range(100)))
            for number in range(100):
                opened = await asyncio.to_thread(route.proxy.wait_log, "open", path=f"/{number}")
                await asyncio.to_thread(route.proxy.wait_log, "close", conn=opened["conn"], code=1000)
            assert len(route.proxy.logged("open")) == len(route.proxy.logged("close")) == 100

    run(scenario())


@pytest.mark.parametrize("status, header", [(401, ("WWW-Authenticate", 'Basic realm="x"')), (503, ("Retry-After", "7"))])
def test_refusal_of_the_backend(route, status, header):
    """An answer other than 101 reaches the client whole: status, headers, both cookies, body."""

    async def scenario():
        def refuse(peer, _):
            response = peer.respond(http.HTTPStatus(status), "not you\n")
            response.headers[header[0]] = header[1]
            response.headers["Set-Cookie"] = "a=1; Path=/"
            response.headers["Set-Cookie"] = "b=2"
            return response

        async with route.serve(process_request=refuse):
            with pytest.raises(InvalidStatus) as refused:
                async with route.connect():
                    pass
            response = refused.value.response
            assert (response.status_code, response.body) == (status, b"not you\n")
            assert response.headers[header[0]] == header[1]
            assert response.headers.get_all("Set-Cookie") == ["a=1; Path=/", "b=2"]
            entry = await asyncio.to_thread(route.proxy.wait_log, "refuse", by="backend")
            assert entry["status"] == status
            assert not route.proxy.logged("open")

    run(scenario())


def test_redirect(route):
    """A 302 reaches the client, which follows it through the proxy to where the backend sends it."""

    async def scenario():
        def move(peer, request):
            if request.path == "/there?x=1":
                return None
            response = peer.respond(http.HTTPStatus.FOUND, "over there\n")
            response.headers["Location"] = "/there?x=1"
            return response

        async with route.serve(process_request=move), route.connect("/here") as peer:
            await peer.send("found you")
            assert await peer.recv() == "found you"
            assert peer.request.path == "/there?x=1"
            await asyncio.to_thread(route.proxy.wait_log, "refuse", status=302, by="backend", path="/here")

    run(scenario())


def test_headers_of_the_101(route):
    """Headers that the backend adds to its 101 reach the client, repeated ones too; the client's reach the backend."""

    async def scenario():
        asked = {}

        def note(_, request):
            asked.update(request.headers.raw_items())

        def add(_peer, _request, response):
            response.headers["Set-Cookie"] = "session=1; HttpOnly"
            response.headers["Set-Cookie"] = "theme=dark"
            response.headers["X-Backend"] = "blue"

        async with route.serve(process_request=note, process_response=add):
            headers = {"Authorization": "Bearer t0ken", "Cookie": "c=3"}
            async with route.connect(additional_headers=headers, origin="https://app.example") as peer:
                assert peer.response.headers.get_all("Set-Cookie") == ["session=1; HttpOnly", "theme=dark"]
                assert peer.response.headers["X-Backend"] == "blue"
        asked_lower = {name.lower(): value for name, value in asked.items()}
        assert asked_lower["authorization"] == "Bearer t0ken" and asked_lower["cookie"] == "c=3"
        assert asked_lower["origin"] == "https://app.example"
        assert asked_lower["x-forwarded-proto"] == ("https" if route.leg.client_tls else "http")
        assert asked_lower["host"] == route.url.split("//")[1]

    run(scenario())
