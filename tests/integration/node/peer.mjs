// node's ws as a peer; the same words and answers as peers/websockets_peer.py, where they are told.
import { readFileSync } from "node:fs";
import https from "node:https";
import http from "node:http";
import { parseArgs } from "node:util";
import { WebSocket, WebSocketServer } from "ws";

const { positionals: [role, url], values: options } = parseArgs({
  allowPositionals: true,
  options: {
    ca: { type: "string" },
    cert: { type: "string" },
    key: { type: "string" },
    protocol: { type: "string", multiple: true, default: [] },
    "ask-close": { type: "boolean", default: false },
  },
});
const file = (name) => (options[name] ? readFileSync(options[name]) : undefined);
const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");

function serve() {
  const tls = options.cert && { cert: file("cert"), key: file("key"), ca: file("ca"), requestCert: !!options.ca };
  const server = tls ? https.createServer(tls) : http.createServer();
  const sockets = new WebSocketServer({
    server,
    perMessageDeflate: true,
    handleProtocols: (offered) => options.protocol.find((name) => offered.has(name)) ?? false,
  });
  sockets.on("connection", (peer, request) => {
    const seen = { path: request.url, protocol: peer.protocol, deflate: peer.extensions !== "", pings: [] };
    peer.on("message", (data, binary) => {
      if (!binary && data.toString() === "close me") peer.close(4002, "as asked");
      else peer.send(data, { binary });
    });
    peer.on("ping", (data) => seen.pings.push(data.toString()));
    peer.on("close", (code, reason) => say({ ...seen, close: [code, reason.toString()] }));
    peer.on("error", (error) => (seen.error = error.message));
  });
  server.listen(0, "127.0.0.1", () => say({ port: server.address().port }));
  process.stdin.on("end", () => process.exit(0)).resume();
}

function next(peer, event) {
  return new Promise((resolve, reject) => {
    peer.once(event, (...values) => resolve(values));
    peer.once("error", reject);
    if (event !== "close") peer.once("close", (code) => reject(new Error(`closed ${code} before ${event}`)));
  });
}

async function call() {
  const seen = {};
  const peer = new WebSocket(url, options.protocol, { ca: file("ca"), perMessageDeflate: { threshold: 0 } });
  peer.on("unexpected-response", (_, response) => {
    seen.status = response.statusCode;
    peer.terminate();
  });
  try {
    await next(peer, "open");
    seen.protocol = peer.protocol;
    seen.deflate = peer.extensions !== "";
    peer.send("hello, wörld");
    seen.text = (await next(peer, "message"))[0].toString() === "hello, wörld";
    const half = Buffer.alloc(35000, "tidegate");
    peer.send(half, { binary: true, fin: false });
    peer.send(half, { binary: true, fin: true });
    const [data, binary] = await next(peer, "message");
    seen.binary = binary && data.equals(Buffer.concat([half, half]));
    peer.ping("tick");
    seen.pong = (await next(peer, "pong"))[0].toString();
    if (options["ask-close"]) peer.send("close me");
    else peer.close(4001, "done");
    const [code, reason] = await next(peer, "close");
    seen.close = [code, reason.toString()];
  } catch (error) {
    seen.error = error.message;
  }
  say(seen);
}

setTimeout(() => process.exit(3), 60000).unref();
await (role === "server" ? serve() : call());
