import { test } from "node:test";
import assert from "node:assert/strict";
import { facts, link } from "../assets/operator/connection.js";

const of = (c) => Object.fromEntries(facts(c));

test("a browser behind a relay", () => {
  const f = of({ path: { protocol: "udp", local: "192.0.2.9:4000", local_type: "host", remote: "198.51.100.7:49160", remote_type: "relay", dtls: "DTLS 1.2", suite: "TLS_X" },
    quality: { cipher: "AEAD_AES_128_GCM", lost_pct: 1.25, far_lost_pct: 0, jitter_ms: 3.4, rtt_ms: 41.6 }, signalled: { over: "websocket", remote: "203.0.113.1:5000", tls: "TLS 1.3", suite: "TLS_Y" } });
  assert.equal(f.Path, "UDP through the far end's relay");
  assert.equal(f["Node's address"], "192.0.2.9:4000 (host)");
  assert.equal(f["Far address"], "198.51.100.7:49160 (relay)");
  assert.equal(f["Keys by"], "DTLS 1.2, TLS_X");
  assert.equal(f.Cipher, "AEAD_AES_128_GCM");
  assert.equal(f.Loss, "1.3 % here, 0.0 % there");
  assert.equal(f["Round trip"], "42 ms");
  assert.equal(f["Protected by"], "TLS 1.3, TLS_Y");
  assert.equal(f.Signalling, "WebSocket");
});

test("what is not known is said so, and what is not there is left out", () => {
  const phone = of({ transport: "rtp", path: { protocol: "udp", local: "192.0.2.9:4000", local_type: "sdp" }, quality: {}, signalled: { over: "udp" } });
  assert.equal(phone["Far address"], "none yet");
  assert.equal(phone.Cipher, "none: in clear");
  assert.equal(phone["Round trip"], "not known");
  assert.equal(phone["Protected by"], "nothing here");
  assert.ok(!("Keys by" in phone) && !("Signalling at" in phone));
  for (const c of [{ transport: "webrtc" }, { transport: "srtp" }]) assert.equal(of({ ...c, path: { protocol: "udp" }, quality: {} }).Cipher, "not agreed yet");
  assert.deepEqual(facts({ path: { protocol: "bus" } }), [["Audio", "over the bus"]]);
  assert.deepEqual(facts({}), [["Audio", "no leg just now"]]);
});

test("who has no connection for sound has no good one", () => {
  const quality = { packets_in: 0, jitter_ms: 0 };
  assert.deepEqual(link({ connected: false, quality }, { away: 3000 }), ["warn", "Connecting"]);
  assert.deepEqual(link({ connected: false, quality }, { away: 15000 }), ["bad", "No sound"]);
  assert.deepEqual(link({ connected: false, quality }, { had: true }), ["bad", "No sound"]);
  assert.deepEqual(link({ connected: true, quality }), ["ok", "Good"]);
  assert.deepEqual(link({ connected: true, quality: { lost_pct: 9 } }), ["bad", "Poor"]);
  assert.deepEqual(link({ connected: true }), ["", "–"]);
});
