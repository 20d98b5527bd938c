import { test } from "node:test";
import assert from "node:assert/strict";
import { Away, InVain, standing } from "../assets/room/standing.js";

test("after 15 s without a way for sound it is said, until there is one", () => {
  const v = new InVain();
  let now = 0;
  const pass = (s, state) => { for (let i = 0; i < s; i++) v.see(state, (now += 1000)); };
  pass(15, { open: true, connected: false });
  assert.equal(v.over, false);
  pass(1, { open: true, connected: false });
  assert.equal(v.over, true);
  pass(3, { open: false, connected: false }); // put out, and coming back
  assert.equal(v.over, true);
  pass(1, { open: true, connected: true });
  assert.equal(v.over, false);
  pass(60, { open: false, connected: false }); // the node is away
  assert.equal(v.over, false);
  now += 3600_000; // the machine slept
  pass(1, { open: true, connected: false });
  assert.equal(v.over, false);
});

test("after 30 s without an answer it is said once, until there is one", () => {
  const a = new Away();
  let now = 0;
  const pass = (s, open) => { let said = 0; for (let i = 0; i < s; i++) said += a.see({ open }, (now += 1000)); return said; };
  assert.equal(pass(30, false), 0);
  assert.equal(pass(60, false), 1);
  assert.equal(a.over, true);
  assert.equal(pass(1, true), 0);
  assert.equal(a.over, false);
  assert.equal(pass(31, false), 1);
  assert.equal(standing({ signalling: "waiting", audio: "failed", away: true }).text, "No answer, trying on");
  assert.equal(standing({ signalling: "waiting", audio: "connected", flowing: true, away: true }).text, "Reconnecting, sound is on");
});

test("what is said of the connection", () => {
  const said = (s) => standing(s).text;
  assert.equal(said({ signalling: "open", audio: "connecting" }), "Connecting…");
  assert.deepEqual(standing({ signalling: "open", audio: "connecting", inVain: true }), { mark: "poor", text: "No sound gets through" });
  assert.equal(said({ signalling: "open", audio: "failed", inVain: true }), "No sound gets through");
  assert.equal(said({ signalling: "open", audio: "failed" }), "Sound is interrupted, reconnecting…");
  assert.equal(said({ signalling: "open", audio: "connected", quality: { lost_pct: 20 } }), "Poor connection");
  assert.equal(said({ signalling: "open", audio: "connected" }), "Connected");
});

test("sound is said to be on only while it comes", () => {
  assert.equal(standing({ signalling: "waiting", audio: "connected", flowing: true }).text, "Reconnecting, sound is on");
  assert.equal(standing({ signalling: "waiting", audio: "connected", flowing: false }).text, "Reconnecting…");
  assert.equal(standing({ signalling: "waiting", audio: "connecting", flowing: true }).text, "Reconnecting…");
});
