// The calls that the node makes, as the operator's page words them.
import { test } from "node:test";
import assert from "node:assert/strict";
import { said, who } from "../assets/operator/calls.js";

test("a call is worded by what was told of it last", () => {
  assert.equal(said({ state: "reaching" }), "looking for their devices");
  assert.equal(said({ state: "ringing", device: "d" }), "ringing");
  assert.equal(said({ state: "refused", status: 486, reason: "Busy Here" }), "486 Busy Here");
  assert.equal(said({ state: "failed", code: "unreachable", reason: "nobody is online" }), "nobody is online");
  assert.equal(said({ state: "failed", code: "full" }), "full");
  assert.equal(said({ state: "failed" }), "failed");
});

test("who is called is short", () => {
  assert.equal(who("0123456789abcdef0123456789abcdef01234567"), "01234567…");
  assert.equal(who("jami:0123456789abcdef0123456789abcdef01234567"), "jami:01234567…");
  assert.equal(who("sip:bob@pbx.example.org"), "sip:bob@pbx.example.org");
});
