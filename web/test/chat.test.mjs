import { test } from "node:test";
import assert from "node:assert/strict";
import { Log, fill } from "../assets/room/log.js";
import { Outbox } from "../assets/room/outbox.js";

const T0 = Date.parse("2026-01-01T00:00:00Z");
const message = (n, more = {}) => ({ id: `m${n}`, body: `text ${n}`, from: "bob", time: new Date(T0 + Math.floor(n / 3) * 1000).toISOString(), ...more });

// shown is a Log and what a page would show of it.
function shown() {
  const rows = [];
  const log = new Log({ insert: (i, m) => rows.splice(i, 0, m.id), remove: (i) => rows.splice(i, 1) });
  return { log, rows };
}

// history is the node's side: pages of a list.
const history = (list, limit = 50) => async (before) => {
  const end = before ? list.findIndex((m) => m.id === before) : list.length;
  return { messages: list.slice(Math.max(0, end - limit), end), more: end > limit };
};

const all = (n) => Array.from({ length: n }, (_, i) => message(i));
const ids = (from, to) => Array.from({ length: to - from }, (_, i) => `m${from + i}`);

test("the newest page comes first and is in order", async () => {
  const { log, rows } = shown();
  log.hole();
  log.add(message(119)); // an event before the history
  const { missed, more } = await fill(log, history(all(120)));
  assert.deepEqual(rows, ids(70, 120));
  assert.equal(more, true);
  assert.deepEqual(missed, []); // who comes has missed nothing
  const page = await history(all(120))(log.oldest);
  log.page(page.messages, log.oldest);
  assert.deepEqual(rows, ids(20, 120));
});

test("a hole of more than a page is filled, also behind messages that came since", async () => {
  const { log, rows } = shown();
  log.hole();
  await fill(log, history(all(60)));
  log.hole();
  log.add(message(199));
  const { missed, more } = await fill(log, history(all(200)));
  assert.deepEqual(rows, ids(10, 200));
  assert.equal(missed.length, 139);
  assert.equal(more, null);
});

test("a hole that cannot be read is still known the next time", async () => {
  const { log, rows } = shown();
  log.hole();
  await fill(log, history(all(10)));
  log.hole();
  await assert.rejects(fill(log, () => Promise.reject(new Error("busy"))));
  log.add(message(99));
  await fill(log, history(all(100)));
  assert.deepEqual(rows, ids(0, 100));
});

test("before a hole that is too long nothing is kept", async () => {
  const { log, rows } = shown();
  log.hole();
  await fill(log, history(all(10)));
  log.hole();
  const { more } = await fill(log, history(all(1000)), 2);
  assert.deepEqual(rows, ids(900, 1000));
  assert.equal(more, true);
});

test("a message that came late stands where its time is", () => {
  const { log, rows } = shown();
  for (const n of [0, 9, 3, 6]) log.add(message(n));
  log.add(message(3));
  assert.deepEqual(rows, ["m0", "m3", "m6", "m9"]);
});

// box is an Outbox at a node that does what answer says.
function box(answer) {
  const out = { sent: [], stored: [], refused: [], waiting: 0, self: "me", timers: [], missed: [] };
  out.box = new Outbox({
    send: async (m) => {
      out.sent.push(`${m.key} ${m.body}`);
      return answer(m, out);
    },
    self: () => out.self,
    catchUp: async () => out.missed.forEach((m) => out.box.seen(m)),
    onstored: (w, m) => out.stored.push(m.id),
    onwaiting: () => out.waiting++,
    onrefused: (w) => out.refused.push(w.key),
    later: (fn) => out.timers.push(fn),
  });
  return out;
}

const settle = () => new Promise((go) => setImmediate(go));
const retry = (code) => Object.assign(new Error(code), { code, retry: true });

test("what the node cannot store is sent again under its key, in order", async () => {
  let up = false;
  const o = box((m) => (up ? { id: "s-" + m.key, from: "me", body: m.body } : Promise.reject(retry("unavailable"))));
  o.box.add({ key: "a", body: "one" });
  o.box.add({ key: "b", body: "two" });
  await settle();
  assert.deepEqual(o.sent, ["a one"]);
  assert.equal(o.timers.length, 1); // though the socket never closed
  up = true;
  o.timers[0]();
  await settle();
  assert.deepEqual(o.sent, ["a one", "a one", "b two"]);
  assert.deepEqual(o.stored, ["s-a", "s-b"]);
});

test("a new seat does not send what the old one stored", async () => {
  let fail = true;
  const o = box((m) => (fail ? Promise.reject(retry("timeout")) : { id: "n-" + m.key, from: "me2", body: m.body }));
  o.box.add({ key: "a", body: "ok" });
  o.box.add({ key: "b", body: "ok" });
  await settle();
  o.self = "me2";
  fail = false;
  o.missed = [{ id: "x", from: "me", body: "ok" }];
  await o.box.again();
  assert.deepEqual(o.stored, ["x", "n-b"]);
  assert.deepEqual(o.sent, ["a ok", "b ok"]);
});

test("an event that overtakes the answer counts once", async () => {
  const o = box((m, out) => {
    const stored = { id: "s-" + m.key, from: "me", body: m.body };
    out.box.seen(stored);
    return stored;
  });
  o.box.add({ key: "a", body: "ok" });
  o.box.add({ key: "b", body: "ok" });
  await settle();
  assert.deepEqual(o.stored, ["s-a", "s-b"]);
});

test("what is refused for good is given back and holds up nothing", async () => {
  const o = box((m) => (m.key === "a" ? Promise.reject(Object.assign(new Error("no"), { retry: false })) : { id: "s", from: "me", body: m.body }));
  o.box.add({ key: "a", body: "one" });
  o.box.add({ key: "b", body: "two" });
  await settle();
  assert.deepEqual(o.refused, ["a"]);
  assert.deepEqual(o.stored, ["s"]);
});
