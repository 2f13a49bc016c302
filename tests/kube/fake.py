"""A scripted API server: what a real one does only by accident, on demand, and a record of every request.

Left alone it behaves: objects are put in and taken out by the test, listed in pages, watched, patched; Leases, Events and
discovery work as far as a controller asks. fake.script(...) puts answers in front of that; fake.watching(...) hands out an
open watch, into which any bytes can be written, and which can end in any way. Every wait has a deadline."""

import copy
import itertools
import json
import re
import select
import socket
import ssl
import struct
import threading
import time
import urllib.parse
from dataclasses import dataclass, field

from support.wait import wait_until

KINDS = {
    "websocketservers": ("tidegate.dev/v1alpha1", "WebSocketServer"),
    "secrets": ("v1", "Secret"),
    "services": ("v1", "Service"),
    "endpointslices": ("discovery.k8s.io/v1", "EndpointSlice"),
    "referencegrants": ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant"),
    "leases": ("coordination.k8s.io/v1", "Lease"),
    "events": ("events.k8s.io/v1", "Event"),
}
PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>[^/]+)(?:/namespaces/(?P<ns>[^/]+))?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?$"
)
GATEWAY_API = "gateway.networking.k8s.io"
HEAD_BYTES = 1 << 16


@dataclass
class Request:
    method: str
    path: str
    query: dict
    headers: dict  # names in lower case
    body: bytes
    at: float  # time.monotonic()
    connection: int
    fresh: bool  # the first one on its connection
    verb: str  # get, list, watch, create, update, patch, discover
    ns: str = None
    plural: str = None
    name: str = None
    sub: str = None
    code: int = None  # of the answer, once there is one

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def token(self):
        return self.headers.get("authorization", "").removeprefix("Bearer ")


# Answers: what a script gives a request instead of what would be due. Each is called with the connection and the request.


def answer(code, value, headers=(), kind="application/json"):
    """Any answer with a body."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()

    def send(connection, request):
        connection.reply(request, code, body, headers, kind)

    return send


def status(code, reason, message="as the test wants it", retry_after=None, details=None):
    """A Status, as the server's errors are."""
    value = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
             "reason": reason, "message": message}
    if details:
        value["details"] = details
    return answer(code, value, [("Retry-After", str(retry_after))] if retry_after else ())


def reset(connection, request):
    """The connection is reset, without an answer."""
    connection.reset()


def fin(connection, request):
    """The connection ends, without an answer."""
    connection.fin()


def silence(connection, request):
    """No answer, ever; the connection stays."""
    connection.wait_left()


def short_watch(connection, request):
    """A watch that is opened and ends at once."""
    connection.begin_stream(request)
    connection.end_stream()


class Watch:
    """An open watch. `held`: the events that are due do not come by themselves."""

    def __init__(self, connection, request):
        self.connection, self.request, self.held, self.over = connection, request, False, False

    def send(self, data, step=0):
        """These bytes, or so many of them at once, each in a chunk, a TLS record and a segment of its own."""
        for at in range(0, len(data), step or len(data)):
            self.connection.chunk(data[at : at + step] if step else data)

    def event(self, kind, obj, step=0):
        self.send(event(kind, obj), step)

    def tell(self, kind, obj):
        """What is due by itself."""
        try:
            if self.request.ns in (None, obj["metadata"].get("namespace")):
                self.event(kind, obj)
        except Gone:
            self.over = True

    def bookmark(self, version):
        api, kind = KINDS[self.request.plural]
        self.event("BOOKMARK", {"kind": kind, "apiVersion": api, "metadata": {"resourceVersion": version}})

    def end(self):
        """As when timeoutSeconds are over."""
        self.over = True
        self.connection.end_stream()
        self.connection.leave()

    def reset(self):
        self.over = True
        self.connection.leave("reset")

    def fin(self):
        self.over = True
        self.connection.leave("fin")


def event(kind, obj):
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


class Gone(Exception):
    """The connection is over."""


class _Connection(threading.Thread):
    def __init__(self, fake, sock, number):
        super().__init__(daemon=True)
        self.fake, self.raw, self.number = fake, sock, number
        self.sock, self.data, self.lock = None, b"", threading.Lock()
        self.left, self.how = threading.Event(), None  # the watch on it was ended by the test
        self.used = False

    def run(self):
        try:
            self.raw.settimeout(60)
            self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock = self.fake.context.wrap_socket(self.raw, server_side=True)
            while True:
                self.fake.serve(self, self.read_request())
        except (OSError, Gone, ValueError):
            pass
        finally:
            self.close()
            self.fake.connections.discard(self)

    def close(self):
        for sock in (self.sock, self.raw):
            try:
                if sock:
                    sock.close()
            except OSError:
                pass

    def _more(self):
        data = self.sock.recv(65536)
        if not data:
            raise Gone
        self.data += data

    def read_request(self):
        while b"\r\n\r\n" not in self.data:
            if len(self.data) > HEAD_BYTES:
                raise Gone
            self._more()
        head, _, self.data = self.data.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (f.partition(":") for f in fields)}
        length = int(headers.get("content-length", 0))
        while len(self.data) < length:
            self._more()
        body, self.data = self.data[:length], self.data[length:]
        method, target, _ = line.split(" ")
        fresh, self.used = not self.used, True
        return _request(method, target, headers, body, self.number, fresh)

    def send(self, data):
        with self.lock:
            try:
                self.sock.sendall(data)
            except (OSError, ValueError) as e:
                raise Gone from e

    def reply(self, request, code, body, headers=(), kind="application/json"):
        request.code = code
        head = [f"HTTP/1.1 {code} Said", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
        head += [f"{n}: {v}" for n, v in headers]
        self.send("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    def begin_stream(self, request):
        request.code = 200
        self.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")

    def chunk(self, data):
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end_stream(self):
        self.send(b"0\r\n\r\n")

    def leave(self, how="stay"):
        """Ends the watch that is served here: `stay` for the next request, `reset`, `fin`."""
        self.how = how
        self.left.set()

    def shut(self):
        """FIN, without the close_notify that would make it a proper end."""
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        except OSError:
            pass

    def reset(self):
        """RST: what the peer has not read yet is lost to it as well."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Gone

    def fin(self):
        self.shut()
        raise Gone

    def wait_left(self):
        """Until the client leaves, or the test has ended the watch. No thread reads while another one may write: OpenSSL
        does not bear that."""
        while not self.left.is_set():
            if select.select([self.sock], [], [], 0.02)[0]:
                with self.lock:
                    self._more()  # the next request may come before the end of this one is noticed
        self.left.clear()
        if self.how != "stay":
            getattr(self, self.how)()


def _request(method, target, headers, body, number, fresh):
    path, _, query = target.partition("?")
    query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    found = PATH.match(path)
    words = {k: urllib.parse.unquote(v) for k, v in found.groupdict().items() if v} if found else {}
    words.pop("group", None)
    words.pop("version", None)
    verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "GET": "get", "DELETE": "delete"}.get(method, method)
    if verb == "get" and not found:
        verb = "discover"
    elif verb == "get" and not words.get("name"):
        verb = "watch" if query.get("watch") in ("1", "true") else "list"
    return Request(method, path, query, headers, body, time.monotonic(), number, fresh, verb, **words)


def merged(old, new):
    """What a merge patch makes of it; good enough for an apply."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    out = dict(old)
    for key, value in new.items():
        out[key] = merged(old.get(key), value)
    return out


@dataclass
class _Script:
    verb: str
    plural: str
    when: object
    answers: list = field(default_factory=list)

    def fits(self, r):
        return r.verb == self.verb and r.plural == self.plural and (not self.when or self.when(r))


class Fake:
    """certs: support.certs.Certs. Objects are kept as they are put in; the version of the world rises with each change."""

    def __init__(self, folder, certs):
        self.folder, self.certs = folder, certs
        self.lock = threading.RLock()
        self.requests, self.scripts, self.watches = [], [], []
        self.connections, self.numbers = set(), itertools.count()
        self.objects = {plural: {} for plural in KINDS}
        self.history = {plural: [] for plural in KINDS}  # (version, type, object): what a watch begins with
        self.versions = itertools.count(1001)
        self.version = "1000"
        self.page = 500  # no page is larger, whatever is asked for
        self.tokens = {"token-1"}
        self.grants = False  # does the API know ReferenceGrants?
        self.context = None
        self.use(certs.server)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.accepting = threading.Thread(target=self._accept, daemon=True)
        self.accepting.start()

    # what it is

    def use(self, pair):
        """Shows this certificate to connections that come from now on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert_path, pair.key_path)
        self.context = context

    def kubeconfig(self):
        """A file with the CA and the token beside it, to be rewritten by the test: ca.crt and token."""
        (self.folder / "ca.crt").write_bytes(self.certs.ca.cert)
        (self.folder / "token").write_text("token-1")
        path = self.folder / "kubeconfig"
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "tidegate"}}],
            "clusters": [{"name": "c", "cluster": {"server": f"https://127.0.0.1:{self.port}",
                                                   "certificate-authority": "ca.crt"}}],
            "users": [{"name": "u", "user": {"tokenFile": "token"}}],
        }))
        return path

    def close(self):
        self.listener.close()
        self.drop_all()

    def drop_all(self):
        """All connections end."""
        for connection in list(self.connections):
            connection.shut()

    # the world

    def put(self, plural, obj, tell=True):
        """Creates or changes an object; its watches are told. Unless `tell` is false: those that are open then get nothing
        more by themselves, what comes after them begins with it. Returns it as it is kept."""
        with self.lock:
            api, kind = KINDS[plural]
            obj = {"apiVersion": api, "kind": kind, **copy.deepcopy(obj)}
            meta = obj.setdefault("metadata", {})
            key = meta.get("namespace"), meta["name"]
            old = self.objects[plural].get(key)
            version = str(next(self.versions))
            generation = old["metadata"]["generation"] + (old.get("spec") != obj.get("spec")) if old else 1
            meta.setdefault("uid", old["metadata"]["uid"] if old else f"uid-{version}")
            meta.setdefault("creationTimestamp", "2026-11-24T10:00:00Z")
            meta.update(generation=generation, resourceVersion=version)
            self.objects[plural][key] = obj
            self._tell(plural, version, "MODIFIED" if old else "ADDED", obj, tell)
            return obj

    def drop(self, plural, ns, name, tell=True):
        with self.lock:
            obj = copy.deepcopy(self.objects[plural].pop((ns, name)))
            version = str(next(self.versions))
            obj["metadata"]["resourceVersion"] = version
            self._tell(plural, version, "DELETED", obj, tell)
            return obj

    def _tell(self, plural, version, kind, obj, tell):
        self.version = version
        self.history[plural].append((version, kind, obj))
        for watch in self.watches:
            if watch.request.plural != plural or watch.held or watch.over:
                continue
            if tell:
                watch.tell(kind, obj)
            else:
                watch.held = True

    # the script

    def script(self, verb, plural, *answers, when=None):
        """The next requests of this kind (for which when(request) holds) get these answers, one each; then things go on as
        usual."""
        with self.lock:
            self.scripts.append(_Script(verb, plural, when, list(answers)))

    def for_ever(self, verb, plural, one, when=None):
        """All requests of this kind get this answer, until the function that is returned is called."""
        script = _Script(verb, plural, when, itertools.repeat(one))
        with self.lock:
            self.scripts.append(script)
        return lambda: self.scripts.remove(script)

    def _scripted(self, request):
        with self.lock:
            for script in self.scripts:
                if not script.fits(request):
                    continue
                if not isinstance(script.answers, list):
                    return next(script.answers)
                if script.answers:
                    return script.answers.pop(0)
        return None

    # the record

    def seen(self, verb=None, plural=None, since=0, **wanted):
        """The requests so far, in order, from index `since` on."""
        with self.lock:
            return [r for r in self.requests[since:] if verb in (None, r.verb) and plural in (None, r.plural)
                    and all(getattr(r, k) == v for k, v in wanted.items())]

    def mark(self):
        """For `since`: what comes from now on."""
        with self.lock:
            return len(self.requests)

    def wait(self, verb, plural, count=1, since=0, timeout=15, **wanted):
        """Those requests, once there are so many."""
        try:
            return wait_until(f"{count} x {verb} {plural}",
                              lambda: (s := self.seen(verb, plural, since, **wanted)) and len(s) >= count and s, timeout)
        except AssertionError as e:
            last = [(r.verb, r.plural, r.query, r.code) for r in self.requests[-12:]]
            raise AssertionError(f"{e}; the last requests: {last}") from None

    def watching(self, plural, since=0, timeout=15):
        """The open watch of this kind, once there is one whose request came after `since`."""

        def one():
            with self.lock:
                after = self.requests[since:]
                return [w for w in self.watches if w.request.plural == plural and not w.over and
                        any(w.request is r for r in after)]

        return wait_until(f"a watch of {plural}", one, timeout)[-1]

    # serving

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            connection = _Connection(self, sock, next(self.numbers))
            self.connections.add(connection)
            connection.start()

    def serve(self, connection, request):
        with self.lock:
            self.requests.append(request)
        if request.token not in self.tokens:
            status(401, "Unauthorized", "Unauthorized")(connection, request)
            return
        act = self._scripted(request) or getattr(self, f"_{request.verb}", None)
        if not act:
            status(405, "MethodNotAllowed")(connection, request)
            return
        if request.verb != "discover" and request.plural not in KINDS:
            status(404, "NotFound", "the server could not find the requested resource")(connection, request)
            return
        act(connection, request)

    def _discover(self, connection, request):
        group = request.path.removeprefix("/apis/").split("/")
        if not self.grants or group[0] != GATEWAY_API:
            answer(404, b"404 page not found\n", kind="text/plain")(connection, request)
        elif len(group) == 1:
            version = {"groupVersion": f"{GATEWAY_API}/v1beta1", "version": "v1beta1"}
            answer(200, {"kind": "APIGroup", "apiVersion": "v1", "name": GATEWAY_API, "versions": [version],
                         "preferredVersion": version})(connection, request)
        else:
            answer(200, {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "/".join(group), "resources": [
                {"name": "referencegrants", "singularName": "referencegrant", "namespaced": True,
                 "kind": "ReferenceGrant", "verbs": ["get", "list", "watch"]}]})(connection, request)

    def _items(self, request):
        found = sorted((k, o) for k, o in self.objects[request.plural].items())
        wanted = request.query.get("fieldSelector", "")
        name = wanted.removeprefix("metadata.name=") if wanted.startswith("metadata.name=") else None
        return [o for (ns, n), o in found if request.ns in (None, ns) and name in (None, n)]

    def _list(self, connection, request):
        if request.plural == "referencegrants" and not self.grants:
            status(404, "NotFound")(connection, request)
            return
        with self.lock:
            items = self._items(request)
            at = int(request.query.get("continue", "token-0").removeprefix("token-"))
            limit = min(int(request.query.get("limit", len(items) or 1)), self.page)
            meta = {"resourceVersion": self.version}
            if "limit" in request.query and at + limit < len(items):
                meta |= {"continue": f"token-{at + limit}", "remainingItemCount": len(items) - at - limit}
            else:
                limit = len(items)
            api, kind = KINDS[request.plural]
            # The objects of a list have no kind of their own, as with the real one's built-in kinds.
            page = [{k: v for k, v in o.items() if k not in ("kind", "apiVersion") or request.plural == "websocketservers"}
                    for o in items[at : at + limit]]
            body = json.dumps({"kind": f"{kind}List", "apiVersion": api, "metadata": meta, "items": page}).encode()
        connection.reply(request, 200, body)

    def _watch(self, connection, request):
        watch = Watch(connection, request)
        with self.lock:
            connection.begin_stream(request)
            for version, kind, obj in self.history[request.plural]:
                if int(version) > int(request.query.get("resourceVersion", "0")):
                    watch.tell(kind, obj)
            self.watches.append(watch)
        try:
            connection.wait_left()
        finally:
            watch.over = True
            with self.lock:
                self.watches.remove(watch)

    def _get(self, connection, request):
        obj = self.objects[request.plural].get((request.ns, request.name))
        if obj:
            answer(200, obj)(connection, request)
        else:
            status(404, "NotFound", f'{request.plural} "{request.name}" not found')(connection, request)

    def _create(self, connection, request):
        obj = request.json
        key = request.ns, obj["metadata"]["name"]
        obj["metadata"]["namespace"] = request.ns
        with self.lock:
            if key in self.objects[request.plural]:
                send = status(409, "AlreadyExists", f'{request.plural} "{key[1]}" already exists')
            else:
                send = answer(201, self.put(request.plural, obj))
        send(connection, request)

    def _update(self, connection, request):
        obj = request.json
        with self.lock:
            old = self.objects[request.plural].get((request.ns, request.name))
            if not old:
                send = status(404, "NotFound")
            elif obj["metadata"].get("resourceVersion") not in (None, old["metadata"]["resourceVersion"]):
                send = status(409, "Conflict", "the object has been modified")
            else:
                send = answer(200, self.put(request.plural, obj))
        send(connection, request)

    def _patch(self, connection, request):
        with self.lock:
            old = self.objects[request.plural].get((request.ns, request.name))
            if not old:
                status(404, "NotFound")(connection, request)
                return
            obj = self.put(request.plural, merged(old, request.json))
        answer(200, obj)(connection, request)


def websocket_server(name, port, ns="shop", **spec):
    """A WebSocketServer that any gateway takes."""
    return {"metadata": {"name": name, "namespace": ns},
            "spec": {"port": port, "backend": "ws://192.0.2.1:9000", **spec}}
