import { test } from "node:test";
import assert from "node:assert/strict";
import { archive, contactActions, contactCount, contactState, jamiId, presenceState, revocable, revokeElsewhere } from "../assets/operator/words.js";
import { Pages } from "../assets/operator/pages.js";

const id = "4f891b21a87d5e3c41f96563e358a295aba4e960";

test("a Jami Id as people paste it", () => {
  assert.equal(jamiId(id), id);
  assert.equal(jamiId(` jami:${id.toUpperCase()}\n`), id);
  assert.equal(jamiId("ring:" + id), id);
  for (const no of ["", "alice", id.slice(1), id + "0", "jami:" + id.replace("4", "g"), `${id}<b>`]) assert.equal(jamiId(no), "");
});

test("who can revoke, and how else", () => {
  for (const kind of ["plain", "password"]) {
    assert.equal(revocable({ archive: kind }), true);
    assert.equal(revokeElsewhere({ archive: kind }), null);
  }
  assert.equal(revocable({ archive: "locked" }), false);
  assert.match(revokeElsewhere({ archive: "locked", id }).command, new RegExp(`^parley account device revoke .*--archive-password-file .*${id}$`));
  const managed = { archive: "server", server: "https://jams.example" };
  assert.equal(revocable(managed), false);
  assert.match(revokeElsewhere(managed).words, /https:\/\/jams\.example/);
  assert.match(archive(managed), /https:\/\/jams\.example manages/);
  assert.match(archive({ archive: "locked" }), /does not have/);
});

test("a contact's state and what can be done about it", () => {
  for (const [c, word, actions] of [
    [{ active: true, confirmed: true }, "Active", "remove,block"],
    [{ active: true, confirmed: false }, "Not confirmed yet", "remove,block"],
    [{ active: false, banned: true }, "Blocked", "unblock,add"],
    [{ active: false, banned: false }, "Removed", "add,block"],
  ]) {
    assert.equal(contactState(c)[1], word);
    assert.equal(contactActions(c).join(), actions);
  }
});

test("who is online", () => {
  assert.deepEqual(presenceState({ online: true, since: 0 }).slice(0, 2), ["ok", "Online"]);
  assert.deepEqual(presenceState({ online: false, since: 0 }).slice(0, 2), ["", "Offline"]);
  assert.match(presenceState({ online: false, since: 0 })[2], /^since /);
  assert.equal(presenceState(undefined)[1], "–");
});

test("how many contacts", () => {
  const page = (n, total, next = "") => ({ contacts: Array(n).fill({}), total, next });
  assert.equal(contactCount(page(0, 0), ""), "No contacts yet.");
  assert.equal(contactCount(page(1, 1), ""), "1 contact");
  assert.equal(contactCount(page(50, 50000, "x"), ""), "50 of 50,000 contacts");
  assert.equal(contactCount(page(0, 50000), "ab"), "Nobody is found.");
  assert.equal(contactCount(page(3, 50000), "ab"), "3 contacts found");
  assert.equal(contactCount(page(50, 50000, "x"), "ab"), "The first 50 contacts found");
});

test("pages of contacts", async () => {
  const all = ["a", "b", "c"];
  const p = new Pages(async (_, after) => {
    const rest = all.filter((c) => c > after);
    return { contacts: rest.slice(0, 2), total: all.length, next: rest.length > 2 ? rest[1] : "" };
  }, "contacts");
  assert.deepEqual((await p.read()).contacts, ["a", "b"]);
  p.next();
  all.pop();
  assert.deepEqual((await p.read()).contacts, ["a", "b"]);
});
