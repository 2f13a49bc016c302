// The live page: /feed sends the counters once a second; rates, quantiles and history are made here.
// Whatever comes from the feed enters the page by textContent only.
"use strict";

const HISTORY = 180; // samples in a sparkline, one a second
const WINDOW_MS = 30000; // handshake times are of the last one to two of these
const PAGE_ROWS = 100; // rows drawn at once; thousands of servers are a matter of the filter
const SILENCE_MS = 4000; // without news for so long: lost
const MIN_SPAN = 60; // samples that a young sparkline leaves room for
const FEW_CHIPS = 4; // of a cell, until someone asks for all
const RESORT_MS = 3000; // rows hold still that long, though the numbers move
const CODES = {
  1000: "normal", 1001: "going away", 1002: "protocol error", 1003: "unsupported data", 1007: "invalid text",
  1008: "policy", 1009: "too big", 1010: "extension missing", 1011: "server error", 1012: "restart",
  1013: "try again", 1014: "bad gateway", "3xxx": "registered by a library", "4xxx": "the application's own",
  none: "no code: the connection broke off, or its Close bore none",
};
const LIMITS = { max_connections: "connections", max_connections_per_ip: "per address", handshakes_per_second: "rate" };
const STATES = ["active", "stale", "failed", "draining"];

const $ = (id) => document.getElementById(id);
const make = (tag, className, text) => {
  const el = document.createElement(tag);
  if (className) el.className = className;
  if (text !== undefined) el.textContent = text;
  return el;
};
const setText = (el, text) => {
  if (el.textContent !== text) el.textContent = text;
};
const sum = (list) => list.reduce((a, b) => a + b, 0);

// numbers for people

function short(n) {
  if (n < 0.05) return "0";
  if (n < 10 && n % 1) return n.toFixed(1);
  if (n < 1000) return String(Math.round(n));
  const unit = Math.min(Math.floor(Math.log10(n) / 3), 4);
  const value = n / 1000 ** unit;
  return value.toFixed(value < 9.95 ? 1 : 0) + " " + ["", "k", "M", "G", "T"][unit];
}

function bytes(n) {
  if (n < 1000) return Math.round(n) + " B";
  return short(n) + "B";
}

function took(us) {
  if (us === null) return "–";
  if (us === Infinity) return "> 10 s";
  if (us < 1000) return "< 1 ms";
  return us < 1e6 ? short(us / 1000) + " ms" : short(us / 1e6) + " s";
}

function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min " + (s % 60) + " s";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor((s % 86400) / 3600) + " h";
}

// The bound of the bucket in which the q-th handshake lies, straight between its two bounds; null: there was none.
function quantile(counts, bounds, q) {
  const total = sum(counts);
  let left = total * q;
  if (!total) return null;
  for (let i = 0; i < counts.length; i++) {
    if (left <= counts[i] && counts[i]) {
      if (i >= bounds.length) return Infinity;
      const low = i ? bounds[i - 1] : 0;
      return low + ((bounds[i] - low) * left) / counts[i];
    }
    left -= counts[i];
  }
  return Infinity;
}

// what is known of a server (or of all together), over the samples

class Track {
  constructor() {
    this.connections = new Float32Array(HISTORY);
    this.messages = new Float32Array(HISTORY);
    this.length = 0;
    this.rates = { opened: 0, up: 0, down: 0, upBytes: 0, downBytes: 0, answers: {} };
    this.moved = new Map(); // chip -> when its count last grew
  }

  // `s` holds counters; a counter that fell means another life of the proxy, or of the server's name
  take(s, at) {
    const last = this.last;
    if (last && at > last.at && s.opened >= last.s.opened && s.bytes[0] >= last.s.bytes[0]) {
      const seconds = (at - last.at) / 1000;
      const rate = (now, before, old) => 0.6 * (Math.max(0, now - before) / seconds) + 0.4 * old;
      const r = this.rates;
      r.opened = rate(s.opened, last.s.opened, r.opened);
      r.up = rate(s.messages[0], last.s.messages[0], r.up);
      r.down = rate(s.messages[1], last.s.messages[1], r.down);
      r.upBytes = rate(s.bytes[0], last.s.bytes[0], r.upBytes);
      r.downBytes = rate(s.bytes[1], last.s.bytes[1], r.downBytes);
      for (const kind of ["101", "4xx", "5xx", "else"])
        r.answers[kind] = rate(answers(s)[kind], answers(last.s)[kind], r.answers[kind] || 0);
      this.notice(s, last.s, at);
      this.push(s.connections, r.up + r.down);
    } else {
      this.base = this.older = { at, took: s.took.map(() => 0) };
      this.push(s.connections, 0);
    }
    if (at - this.base.at > WINDOW_MS) {
      this.older = this.base;
      this.base = { at, took: s.took };
    }
    this.last = { s, at };
    this.took = s.took.map((n, i) => n - this.older.took[i]);
  }

  notice(s, before, at) {
    for (const who of Object.keys(s.closes))
      for (const [code, n] of Object.entries(s.closes[who]))
        if (n > (before.closes[who][code] || 0)) this.moved.set(who + code, at);
    for (const [limit, n] of Object.entries(s.limited)) if (n > (before.limited[limit] || 0)) this.moved.set(limit, at);
  }

  push(connections, messages) {
    if (this.length === HISTORY) {
      this.connections.copyWithin(0, 1);
      this.messages.copyWithin(0, 1);
      this.length--;
    }
    this.connections[this.length] = connections;
    this.messages[this.length++] = messages;
  }
}

function answers(s) {
  const out = { 101: 0, "4xx": 0, "5xx": 0, else: 0 };
  for (const [code, n] of Object.entries(s.handshakes)) {
    const kind = code === "101" ? "101" : code[0] === "4" ? "4xx" : code[0] === "5" ? "5xx" : "else";
    out[kind] += n;
  }
  return out;
}

function addUp(servers, buckets) {
  const all = { connections: 0, opening: 0, opened: 0, messages: [0, 0], bytes: [0, 0], handshakes: {}, limited: {},
    closes: { client: {}, backend: {}, gateway: {} }, took: new Array(buckets).fill(0), drained: 0, cut: 0 };
  const into = (to, from) => {
    for (const [key, n] of Object.entries(from)) to[key] = (to[key] || 0) + n;
  };
  for (const s of servers) {
    for (const key of ["connections", "opening", "opened", "drained", "cut"]) all[key] += s[key];
    for (const key of ["messages", "bytes", "took"]) s[key].forEach((n, i) => (all[key][i] += n));
    into(all.handshakes, s.handshakes);
    into(all.limited, s.limited);
    for (const who of Object.keys(all.closes)) into(all.closes[who], s.closes[who]);
  }
  return all;
}

// pieces of the page

function spark(className) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", className);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const name of ["area", "line"]) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", name);
    svg.append(path);
  }
  return svg;
}

function drawSpark(svg, values, length) {
  const width = Math.max(MIN_SPAN, length) - 1;
  let top = 1;
  for (let i = 0; i < length; i++) top = Math.max(top, values[i]);
  let line = "";
  for (let i = 0; i < length; i++)
    line += `${i ? "L" : "M"}${width - length + 1 + i} ${(97 - (94 * values[i]) / top).toFixed(1)}`;
  svg.setAttribute("viewBox", `0 0 ${width} 100`);
  svg.lastChild.setAttribute("d", length > 1 ? line : "");
  svg.firstChild.setAttribute("d", length > 1 ? `${line}L${width} 100L${width - length + 1} 100Z` : "");
}

// items: {key, className, title, parts: [text, bold]}; chips are kept by key, so that one that moves can be seen
function drawChips(box, items) {
  const old = new Map([...box.children].map((el) => [el.dataset.key, el]));
  items.forEach((item, i) => {
    let el = old.get(item.key);
    if (!el) {
      el = make("span");
      el.dataset.key = item.key;
      el.append(document.createTextNode(""), make("b"));
    }
    old.delete(item.key);
    el.className = "chip " + (item.className || "");
    el.title = item.title || "";
    if (el.firstChild.data !== item.text + " ") el.firstChild.data = item.text + " ";
    setText(el.lastChild, item.bold);
    if (box.children[i] !== el) box.insertBefore(el, box.children[i] || null);
  });
  for (const el of old.values()) el.remove();
}

// A rate while there is one, in colour; else how many there were.
function answerChips(track) {
  const colour = { 101: "good", "4xx": "warn", "5xx": "bad", else: "" };
  const counts = answers(track.last.s);
  return ["101", "4xx", "5xx", "else"].filter((kind) => counts[kind]).map((kind) => {
    const rate = short(track.rates.answers[kind] || 0);
    return {
      key: kind, className: rate === "0" ? "" : colour[kind], text: kind === "else" ? "other" : kind,
      bold: rate === "0" ? short(counts[kind]) : rate + "/s", title: `${counts[kind]} since the start`,
    };
  });
}

function closeChips(track, at) {
  const out = [];
  for (const who of ["client", "backend", "gateway"])
    for (const [code, n] of Object.entries(track.last.s.closes[who])) {
      const bad = who !== "gateway" && !["1000", "1001", "4xxx", "3xxx"].includes(code);
      const moved = at - (track.moved.get(who + code) ?? -1e9) < 1500;
      out.push({ n, key: who + code, text: `${code === "none" ? "no code" : code} ${who}`, bold: short(n), title: `${code}: ${CODES[code] || "reserved"}; ${n} begun by the ${who}`,
        className: (who === "gateway" ? "gateway" : bad ? "warn" : "") + (moved ? " moved" : "") });
    }
  return out.sort((a, b) => b.n - a.n);
}

function limitChips(track, at) {
  const s = track.last.s;
  const out = Object.entries(s.limited).map(([limit, n]) => ({
    key: limit, text: LIMITS[limit] || limit, bold: short(n), title: `${n} refused or shed: ${limit.replaceAll("_", " ")}`,
    className: "bad" + (at - (track.moved.get(limit) ?? -1e9) < 1500 ? " moved" : ""),
  }));
  if (s.drained) out.push({ key: "drained", text: "drained", bold: short(s.drained), className: "warn", title: "told to go: Close 1001" });
  if (s.cut) out.push({ key: "cut", text: "cut", bold: short(s.cut), className: "bad", title: "cut at the end of the drain" });
  return out;
}

function expiry(notAfter, now) {
  if (!notAfter) return { text: "–", className: "quiet" };
  const days = (Date.parse(notAfter) - now) / 86400000;
  const text = days < 0 ? "expired" : days < 2 ? Math.floor(days * 24) + " h" : Math.floor(days) + " d";
  return { text, className: "expiry " + (days < 3 ? "bad" : days < 15 ? "warn" : ""), title: notAfter };
}

// The first few of them, and a button for the rest.
function drawFewChips(el, name, items) {
  const all = expanded.has(el.kind + name);
  el.cell.classList.toggle("nothing", !items.length);
  el.rest.hidden = items.length <= FEW_CHIPS + 1;
  setText(el.rest, all ? "fewer" : `+${items.length - FEW_CHIPS}`);
  el.rest.dataset.key = el.kind + name;
  drawChips(el.box, all || el.rest.hidden ? items : items.slice(0, FEW_CHIPS));
}

function buildFewChips(cell, kind) {
  const box = make("div", "chips");
  const rest = make("button", "rest");
  rest.type = "button";
  rest.addEventListener("click", () => {
    if (!expanded.delete(rest.dataset.key)) expanded.add(rest.dataset.key);
    drawAll();
  });
  cell.append(box, rest);
  return { cell, box, rest, kind };
}

// columns: how a server's cell is made, filled and sorted

const two = (cell, withSpark) => {
  const lines = make("div", "lines");
  const up = make("div"), down = make("div");
  lines.append(up, down);
  cell.append(lines);
  if (withSpark) cell.append(spark("spark"));
  return { up, down, spark: cell.querySelector("svg") };
};
const COLUMNS = [
  { key: "name", label: "Server", sort: (v) => v.s.name,
    build(cell) {
      const name = make("div", "name"), text = make("span"), badge = make("span", "badge");
      const under = make("div", "under"), message = make("div", "message");
      name.append(make("span", "dot"), text, badge);
      cell.append(name, under, message);
      return { text, badge, under, message };
    },
    fill(el, { s }) {
      setText(el.text, s.name);
      setText(el.badge, s.state);
      setText(el.under, `${s.tls ? "https" : "http"} → ${s.backend || "no backend"}`);
      setText(el.message, s.message || "");
    } },
  { key: "port", label: "Port", num: true, sort: (v) => v.s.port,
    fill(el, { s }) { setText(el.cell, s.port ? String(s.port) : "–"); } },
  { key: "connections", label: "Connections", num: true, desc: true, sort: (v) => v.s.connections,
    build(cell) { const n = make("div"); const svg = spark("spark"); cell.append(n, svg); return { n, svg }; },
    fill(el, { s, track }) {
      setText(el.n, s.connections.toLocaleString("en") + (s.opening ? ` +${s.opening}` : ""));
      el.n.title = s.opening ? `${s.opening} are in their handshake` : "";
      drawSpark(el.svg, track.connections, track.length);
    } },
  { key: "new", label: "New/s", num: true, desc: true, sort: (v) => v.track.rates.opened,
    fill(el, { track }) { setText(el.cell, short(track.rates.opened)); } },
  { key: "messages", label: "Messages/s", num: true, desc: true, sort: (v) => v.track.rates.up + v.track.rates.down,
    build: (cell) => two(cell, true),
    fill(el, { track }) {
      setText(el.up, "↑ " + short(track.rates.up));
      setText(el.down, "↓ " + short(track.rates.down));
      drawSpark(el.spark, track.messages, track.length);
    } },
  { key: "bytes", label: "Bytes/s", num: true, desc: true, sort: (v) => v.track.rates.upBytes + v.track.rates.downBytes,
    build: (cell) => two(cell, false),
    fill(el, { track }) {
      setText(el.up, "↑ " + bytes(track.rates.upBytes));
      setText(el.down, "↓ " + bytes(track.rates.downBytes));
    } },
  { key: "answers", label: "Answers", desc: true, sort: (v) => (v.track.rates.answers["5xx"] || 0) * 1e6 + (v.track.rates.answers["4xx"] || 0),
    build(cell) { const box = make("div", "chips"); cell.append(box); return { box, cell }; },
    fill(el, { track }) { const items = answerChips(track); drawChips(el.box, items); el.cell.classList.toggle("nothing", !items.length); } },
  { key: "took", label: "p50 / p99", num: true, desc: true, sort: (v) => v.p99 ?? -1,
    build: (cell) => two(cell, false),
    fill(el, v) {
      setText(el.up, took(v.p50));
      setText(el.down, took(v.p99));
    } },
  { key: "closes", label: "Closes", desc: true, sort: (v) => sum(Object.values(v.s.closes).flatMap((c) => Object.values(c))),
    build: (cell) => buildFewChips(cell, "closes"),
    fill(el, { s, track }, at) { drawFewChips(el, s.name, closeChips(track, at)); } },
  { key: "limits", label: "Limits hit", desc: true, sort: (v) => sum(Object.values(v.s.limited)) + v.s.cut,
    build: (cell) => buildFewChips(cell, "limits"),
    fill(el, { s, track }, at) { drawFewChips(el, s.name, limitChips(track, at)); } },
  { key: "expiry", label: "Certificate", num: true, sort: (v) => (v.s.not_after ? Date.parse(v.s.not_after) : Infinity),
    build(cell) { const text = make("span"); cell.append(text); return { text }; },
    fill(el, { s }, at, now) {
      const e = expiry(s.not_after, now);
      setText(el.text, e.text);
      el.text.className = e.className;
      el.text.title = e.title || "not TLS";
    } },
];

// state of the page

let news = null; // the newest feed text, parsed
let newsAt = 0; // when it came, by performance.now()
let tracks = new Map(); // by server name
let total = new Track();
let rows = new Map(); // by server name: {tr, cells}
let order = []; // names, sorted
let orderAt = 0;
const expanded = new Set(); // cells that show all of their chips
let limit = PAGE_ROWS;
let wanted = null; // state to filter by
let sortKey = "name";
let sortDown = false;

function take(text) {
  const next = JSON.parse(text);
  if (news && (news.pid !== next.pid || news.started_at !== next.started_at)) {
    tracks = new Map();
    total = new Track();
  }
  const kept = new Map();
  for (const s of next.servers) {
    const track = tracks.get(s.name) || new Track();
    track.take(s, next.at_ms);
    kept.set(s.name, track);
  }
  tracks = kept;
  total.take(addUp(next.servers, next.bounds_us.length + 1), next.at_ms);
  news = next;
  newsAt = performance.now();
  document.body.classList.remove("waiting");
}

function drawHead() {
  const state = news.stopping ? ["draining", "warn"] : news.ready ? ["ready", "good"] : ["not ready", "bad"];
  setText($("state"), state[0]);
  $("state").className = "pill " + state[1];
  document.title = (state[0] === "ready" ? "" : state[0] + " · ") + "Tidegate";
  setText($("uptime"), span((Date.parse(news.time) - Date.parse(news.started_at)) / 1000));
  setText($("revision"), news.revision ? news.revision.slice(0, 12) : "none yet");
  $("revision").title = news.revision || "";
  setText($("applied"), news.applied_at ? span((Date.parse(news.time) - Date.parse(news.applied_at)) / 1000) + " ago" : "–");
  $("applied").title = news.applied_at || "";
  setText($("pressure"), ["calm", "short: no new handshakes", "very short: idle ones go"][news.pressure] || "–");
  $("pressure").className = ["", "warn", "bad"][news.pressure] || "";
  setText($("version"), news.version);
  setText($("foot"), `Master ${news.pid} · news of ${news.time.slice(11, 19)} UTC · ↑ from clients, ↓ from backends · closes and limits count since the start · handshake times of the last minute`);
}

function drawProblems() {
  const { result, errors } = news.seen;
  $("problems").hidden = !errors.length;
  setText($("problems-title"), `The last file read was ${result === "refused" ? "refused; the one before it serves on" : "applied in part"}:`);
  const list = $("problems-list");
  while (list.children.length > errors.length) list.lastChild.remove();
  errors.forEach((text, i) => setText(list.children[i] || list.appendChild(make("li")), text));
}

const TILES = [
  { label: "Connections", history: "connections", big: (t) => t.last.s.connections.toLocaleString("en"),
    sub: (t) => `${short(t.rates.opened)} new/s · ${t.last.s.opening} opening` },
  { label: "Messages/s", history: "messages", big: (t) => short(t.rates.up + t.rates.down),
    sub: (t) => `↑ ${short(t.rates.up)} · ↓ ${short(t.rates.down)}` },
  { label: "Bytes/s", big: (t) => bytes(t.rates.upBytes + t.rates.downBytes),
    sub: (t) => `↑ ${bytes(t.rates.upBytes)} · ↓ ${bytes(t.rates.downBytes)}` },
  { label: "Handshake p50 / p99", big: (t) => `${took(quantile(t.took, news.bounds_us, 0.5))} / ${took(quantile(t.took, news.bounds_us, 0.99))}`,
    chips: answerChips },
  { label: "Closes", big: (t) => short(sum(Object.values(t.last.s.closes).flatMap((c) => Object.values(c)))),
    chips: (t) => closeChips(t, t.last.at).slice(0, 4) },
];

function drawTiles() {
  const box = $("tiles");
  for (const tile of TILES) {
    if (!tile.el) {
      tile.el = make("div", "tile");
      tile.el.append(make("div", "label", tile.label), make("div", "big"), make("div", tile.chips ? "chips" : "sub"));
      if (tile.history) tile.el.append(spark("spark"));
      box.append(tile.el);
    }
    setText(tile.el.children[1], tile.big(total));
    if (tile.chips) drawChips(tile.el.children[2], tile.chips(total));
    else setText(tile.el.children[2], tile.sub(total));
    if (tile.history) drawSpark(tile.el.children[3], total[tile.history], total.length);
  }
}

function drawWorkers() {
  const box = $("workers");
  while (box.children.length > news.workers.length) box.lastChild.remove();
  news.workers.forEach((w, i) => {
    const el = box.children[i] || box.appendChild(make("div"));
    el.className = "worker" + (!w.pid ? " bad" : w.current ? "" : " warn");
    if (!el.children.length) el.append(make("span", "", "worker " + i), make("b"), make("span"), make("span"));
    setText(el.children[1], w.pid ? `${short(w.connections)} connections` : "dead");
    setText(el.children[2], w.pid ? `pid ${w.pid}` : "");
    setText(el.children[3], (w.restarts ? `${w.restarts} restart${w.restarts > 1 ? "s" : ""}` : "") + (w.current ? "" : " · older spec"));
  });
}

function drawStates() {
  const box = $("states");
  for (const state of [null, ...STATES]) {
    const n = state ? news.servers.filter((s) => s.state === state).length : news.servers.length;
    let el = box.querySelector(`[data-state="${state}"]`);
    if (!el) {
      el = make("button");
      el.dataset.state = state;
      el.type = "button";
      el.addEventListener("click", () => { wanted = state; limit = PAGE_ROWS; orderAt = 0; drawAll(); });
      box.append(el);
    }
    setText(el, `${state || "all"} ${n}`);
    el.hidden = state && !n && wanted !== state;
    el.setAttribute("aria-pressed", String(wanted === state));
  }
}

function sortRows(views) {
  const column = COLUMNS.find((c) => c.key === sortKey);
  const filter = $("filter").value.trim().toLowerCase();
  order = [...views.values()]
    .filter((v) => (!wanted || v.s.state === wanted) && v.s.name.toLowerCase().includes(filter))
    .map((v) => ({ name: v.s.name, key: column.sort(v) }))
    .sort((a, b) => {
      const d = typeof a.key === "string" ? a.key.localeCompare(b.key, "en", { numeric: true }) : a.key - b.key;
      return (sortDown ? -d : d) || a.name.localeCompare(b.name, "en", { numeric: true });
    })
    .map((v) => v.name);
  orderAt = performance.now();
}

function buildRow() {
  const tr = make("tr");
  const cells = COLUMNS.map((column) => {
    const cell = make("td", column.num ? "num" : column.key);
    cell.dataset.label = column.label;
    tr.append(cell);
    return column.build ? column.build(cell) : { cell };
  });
  return { tr, cells };
}

function drawRows() {
  const views = new Map();
  const now = Date.parse(news.time);
  for (const s of news.servers) {
    const track = tracks.get(s.name);
    views.set(s.name, { s, track, p50: quantile(track.took, news.bounds_us, 0.5), p99: quantile(track.took, news.bounds_us, 0.99) });
  }
  if (performance.now() - orderAt > RESORT_MS || order.some((name) => !views.has(name))) sortRows(views);
  const shown = order.slice(0, limit);
  const body = $("rows");
  const kept = new Map();
  shown.forEach((name, i) => {
    const row = rows.get(name) || buildRow();
    kept.set(name, row);
    const view = views.get(name);
    row.tr.className = view.s.state;
    row.tr.dataset.name = name;
    COLUMNS.forEach((column, k) => column.fill(row.cells[k], view, news.at_ms, now));
    if (body.children[i] !== row.tr) body.insertBefore(row.tr, body.children[i] || null);
  });
  for (const [name, row] of rows) if (!kept.has(name)) row.tr.remove();
  rows = kept;
  setText($("shown"), `${order.length} of ${news.servers.length} servers` + (shown.length < order.length ? `, the first ${shown.length}` : ""));
  $("more").hidden = shown.length === order.length;
  setText($("more"), `Show ${Math.min(PAGE_ROWS, order.length - shown.length)} more`);
  $("empty").hidden = order.length > 0;
  setText($("empty"), news.servers.length ? "No server matches." : "The spec names no server.");
}

function drawHeads() {
  for (const [i, column] of COLUMNS.entries()) {
    const th = $("heads").children[i];
    if (column.key === sortKey) th.setAttribute("aria-sort", sortDown ? "descending" : "ascending");
    else th.removeAttribute("aria-sort");
  }
  $("sort").value = sortKey;
}

function drawAll() {
  if (!news) return;
  drawHead();
  drawProblems();
  drawTiles();
  drawWorkers();
  drawStates();
  drawRows();
}

function sortBy(key, toggle) {
  const column = COLUMNS.find((c) => c.key === key);
  sortDown = toggle && key === sortKey ? !sortDown : Boolean(column.desc);
  sortKey = key;
  orderAt = 0;
  drawHeads();
  drawAll();
}

function build() {
  for (const column of COLUMNS) {
    const th = make("th", column.num ? "num" : "");
    const button = make("button", "", column.label);
    th.scope = "col";
    button.type = "button";
    button.addEventListener("click", () => sortBy(column.key, true));
    th.append(button);
    $("heads").append(th);
    const option = make("option", "", column.label);
    option.value = column.key;
    $("sort").append(option);
  }
  $("sort").addEventListener("change", () => sortBy($("sort").value, false));
  $("filter").addEventListener("input", () => { limit = PAGE_ROWS; orderAt = 0; drawAll(); });
  $("more").addEventListener("click", () => { limit += PAGE_ROWS; drawAll(); });
  drawHeads();
}

// the connection

let retryMs = 500;

function showLost() {
  const silent = news ? performance.now() - newsAt > SILENCE_MS : retryMs > 1000;
  const lost = document.body.classList.contains("gone") || silent;
  document.body.classList.toggle("lost", lost && (news !== null || retryMs > 500));
  $("lost").hidden = !document.body.classList.contains("lost");
  if ($("lost").hidden) return;
  setText($("lost"), "Connection to the proxy lost, retrying…" + (news ? ` The figures are ${span((performance.now() - newsAt) / 1000)} old.` : ""));
  setText($("state"), "lost");
  $("state").className = "pill bad";
}

function connect() {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/feed`);
  socket.addEventListener("message", (event) => {
    retryMs = 500;
    document.body.classList.remove("gone");
    take(event.data);
    showLost();
    drawAll();
  });
  socket.addEventListener("close", () => {
    document.body.classList.add("gone");
    setTimeout(connect, retryMs);
    retryMs = Math.min(retryMs * 2, 4000);
    showLost();
  });
}

build();
connect();
setInterval(showLost, 1000);
