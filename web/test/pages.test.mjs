import { test } from "node:test";
import assert from "node:assert/strict";
import { Pages, count } from "../assets/operator/pages.js";

// server has accounts by name, in pages of two.
const server = (names) => async (query, after) => {
  const found = names.filter((n) => n.includes(query));
  const rest = found.filter((n) => n > after);
  return { accounts: rest.slice(0, 2).map((name) => ({ name })), total: found.length, next: rest.length > 2 ? rest[1] : "" };
};

const names = (page) => page.accounts.map((a) => a.name).join();

test("forth and back through pages", async () => {
  const p = new Pages(server(["a", "b", "c", "d", "e"]));
  assert.equal(names(await p.read()), "a,b");
  assert.equal(p.hasPrevious, false);
  p.next();
  assert.equal(names(await p.read()), "c,d");
  p.next();
  assert.equal(names(await p.read()), "e");
  assert.equal(p.hasNext, false);
  p.next(); // there is none
  assert.equal(names(await p.read()), "e");
  p.previous();
  assert.equal(names(await p.read()), "c,d");
});

test("other words begin at the first page", async () => {
  const p = new Pages(server(["a1", "a2", "a3", "b1"]));
  await p.read();
  p.next();
  assert.equal(p.find("a"), true);
  assert.equal(p.find("a"), false);
  assert.equal(names(await p.read()), "a1,a2");
});

test("a late answer to an old question is not shown", async () => {
  const waiting = [];
  const p = new Pages((query) => new Promise((go) => waiting.push(() => go({ accounts: [{ name: query }], total: 1 }))));
  const old = p.read();
  p.find("new");
  const fresh = p.read();
  waiting[1]();
  assert.equal(names(await fresh), "new");
  waiting[0]();
  assert.equal(await old, null);
  assert.equal(names(p.shown), "new");
});

test("a page that has become empty gives way to the one before", async () => {
  const list = ["a", "b", "c"];
  const p = new Pages((q, after) => server(list)(q, after));
  await p.read();
  p.next();
  assert.equal(names(await p.read()), "c");
  list.pop();
  assert.equal(names(await p.read()), "a,b");
  assert.equal(p.hasPrevious, false);
});

test("how many", () => {
  const page = (n, total) => ({ accounts: Array(n).fill({}), total });
  assert.equal(count(page(0, 0), ""), "No account was handed out yet.");
  assert.equal(count(page(0, 0), "x"), "Nobody is found.");
  assert.equal(count(page(1, 1), ""), "1 account");
  assert.equal(count(page(50, 10000), ""), "50 of 10,000 accounts");
  assert.equal(count(page(50, 70), "x"), "50 of 70 accounts found");
});
