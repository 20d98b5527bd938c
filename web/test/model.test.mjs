import { test } from "node:test";
import assert from "node:assert/strict";
import { Model } from "../assets/room/model.js";
import { again } from "../assets/room/again.js";

function inRoom(me) {
  const m = new Model();
  m.reset({ participant: { id: "me", muted: false, ...me }, room: { participants: [{ id: "me" }, { id: "bob" }] }, seq: 1 });
  return m;
}

test("a mute outlives the seat: who was put out for lack of sound comes back muted", () => {
  const m = inRoom();
  m.apply({ seq: 2, type: "changed", participant: { id: "me", muted: true } });
  m.apply({ seq: 3, type: "left", reason: "lost", participant: { id: "me", muted: true } });
  assert.equal(m.self, undefined); // nobody sees a row of it
  assert.deepEqual(again(m.seat, null), { muted: true, moderated: false });
  m.reset({ participant: { id: "me2", muted: true }, room: {}, seq: 4 }); // the new seat
  assert.equal(m.seat.id, "me2");
  assert.deepEqual(again(m.seat, null), { muted: true, moderated: false });
});

test("an unmute outlives it too, and a mute that the node does not know yet goes first", () => {
  const m = inRoom({ muted: true });
  m.apply({ seq: 2, type: "changed", participant: { id: "me", muted: false } });
  m.apply({ seq: 3, type: "left", participant: { id: "me", muted: false } });
  assert.deepEqual(again(m.seat, null), { muted: false, moderated: false });
  assert.deepEqual(again(m.seat, true), { muted: true, moderated: false });
});

test("a moderator's mute is kept and told apart from one's own", () => {
  const m = inRoom();
  m.apply({ seq: 2, type: "changed", participant: { id: "me", muted: true, muted_by: "bob" } });
  m.apply({ seq: 3, type: "left", participant: { id: "me", muted: true, muted_by: "bob" } });
  assert.deepEqual(again(m.seat, null), { muted: true, moderated: true });
});

test("before the first seat nothing is known", () => assert.equal(again(new Model().seat, null), null));
