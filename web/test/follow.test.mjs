import { test } from "node:test";
import assert from "node:assert/strict";
import { Follow } from "../assets/room/follow.js";
import { Model } from "../assets/room/model.js";

const settle = () => new Promise((go) => setImmediate(go));
const voice = (seq) => ({ seq, type: "voice", participant: { id: "bob", speaking: seq % 2 === 0 } });
const snapshot = (seq) => ({ participant: { id: "me" }, room: { participants: [{ id: "me" }, { id: "bob" }] }, seq });

function follow(read) {
  const out = { news: [], reads: 0, waits: [], clock: 0 };
  out.f = new Follow({
    model: new Model(),
    happened: (e) => out.news.push(e.seq),
    read: () => {
      out.reads++;
      return read(out);
    },
    wait: async (ms) => {
      out.waits.push(ms);
      out.clock += ms;
    },
    now: () => out.clock,
  });
  out.f.reset(snapshot(1));
  return out;
}

test("after a gap the room is read once, and what came meanwhile is not lost", async () => {
  let answer;
  const o = follow(() => new Promise((go) => { answer = go; }));
  o.f.events([voice(2), voice(4)]);
  await settle();
  for (let seq = 5; seq < 300; seq++) o.f.events([voice(seq)]);
  await settle();
  assert.equal(o.reads, 1);
  o.f.reset(snapshot(200));
  answer();
  await settle();
  assert.equal(o.reads, 1);
  assert.equal(o.f.model.seq, 299);
  assert.deepEqual([o.news[0], o.news[1], o.news.at(-1)], [2, 201, 299]);
});

test("a reading that fails is tried again, at most once a second", async () => {
  const o = follow(async (out) => {
    if (out.reads < 4) throw new Error("unavailable");
    out.f.reset(snapshot(9));
  });
  o.f.events([voice(4)]);
  for (let i = 0; i < 10; i++) await settle();
  assert.equal(o.reads, 4);
  assert.deepEqual(o.waits.slice(1), [1000, 1000, 1000]);
});

test("a snapshot by resume ends the reading", async () => {
  const o = follow((out) => {
    out.f.reset(snapshot(5));
    return Promise.reject(new Error("connection lost"));
  });
  o.f.again();
  o.f.again();
  for (let i = 0; i < 5; i++) await settle();
  assert.equal(o.reads, 1);
});
