import { test } from "node:test";
import assert from "node:assert/strict";
import { bucketWords, dropWords, health, perSecond, size, tableWords, traffic } from "../assets/operator/dht_words.js";

const table = { family: "ipv4", good: 9, dubious: 2, failed: 1, incoming: 3, depth: 2, estimate: 1234.4, buckets: [{ good: 8, dubious: 0, failed: 0 }, { good: 1, dubious: 2, failed: 1 }] };

test("sizes and rates", () => {
  for (const [n, words] of [[0, "0 B"], [1023, "1023 B"], [1536, "1.5 KiB"], [64 << 20, "64 MiB"], [3 * 2 ** 30, "3.0 GiB"]]) assert.equal(size(n), words);
  for (const [n, words] of [[null, "–"], [0, "0"], [0.25, "0.3"], [12.6, "13"], [12345, "12,345"]]) assert.equal(perSecond(n), words);
});

test("the health of an overlay", () => {
  assert.deepEqual(health({ tables: [table] }), ["ok", "9 good nodes"]);
  assert.deepEqual(health({ tables: [{ ...table, good: 1 }] }), ["ok", "1 good node"]);
  assert.equal(health({ tables: [{ ...table, good: 0 }] })[0], "warn");
  const nobody = { tables: [{ ...table, good: 0, dubious: 0 }], bootstrap: [], overlay: "libp2p" };
  assert.deepEqual(health(nobody), ["", "By itself"]);
  assert.deepEqual(health({ ...nobody, overlay: "opendht" }), ["bad", "Alone"]);
  assert.deepEqual(health({ ...nobody, bootstrap: [{ addr: "a", answers: false }] }), ["bad", "Alone"]);
});

test("a routing table", () => {
  assert.deepEqual(tableWords(table), ["9 good, 2 dubious, 1 failed", "3 asked this node lately, depth 2, network of about 1,234"]);
  assert.deepEqual(tableWords({ ...table, good: 0, dubious: 0, failed: 0 }), ["Nobody", ""]);
  assert.match(bucketWords(table), /0: 8, 1: 1$/);
});

test("traffic and what is dropped", () => {
  const kinds = [{ kind: "ping", in: 1, in_bytes: 10, out: 2, out_bytes: 20 }, { kind: "get", in: 3, in_bytes: 30, out: 4, out_bytes: 40 }];
  assert.deepEqual(traffic({ traffic: kinds }), { in: 4, in_bytes: 40, out: 6, out_bytes: 60, packets: true });
  assert.equal(traffic({ traffic: [{ kind: "stream", in: 0, in_bytes: 1, out: 0, out_bytes: 1 }] }).packets, false);
  assert.equal(dropWords({ dropped: [{ name: "rate", n: 2 }, { name: "own", n: 0 }, { name: "malformed", n: 1500 }] }), "Dropped: 1,500 not of OpenDHT, 2 over the limit of questions.");
  assert.equal(dropWords({ dropped: [{ name: "rate", n: 0 }] }), "No packet was dropped.");
  assert.equal(dropWords({ dropped: [] }), "");
});
