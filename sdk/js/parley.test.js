import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { connect } from "./parley.js";

const allow = [`parley.v1.${"a".repeat(40)}.room.main.cmd.echo.get`];
const jwt = ["header", JSON.stringify({ name: "echo", nats: { pub: { allow } } }), "signature"].map((s) => Buffer.from(s).toString("base64url")).join(".");
const user = `-----BEGIN NATS USER JWT-----\n${jwt}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\nSUAMK2FG4MI6UE3ACF3FK3OIQBCEIEZV7NSWFFEW63UXMRLFM2XLAXK4GY\n------END USER NKEY SEED------\n`;
const bus = `-----BEGIN PARLEY BUS-----\n${JSON.stringify({ urls: ["nats://127.0.0.1:1"], tls: true, server_name: "parley-bus" })}\n------END PARLEY BUS------\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`;

// What connect says of a file with that text; nobody listens where it goes to.
async function said(t, text) {
  const dir = mkdtempSync(join(tmpdir(), "parley-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const creds = join(dir, "echo.creds");
  writeFileSync(creds, text);
  const e = await connect({ creds, url: "nats://127.0.0.1:1" }).then(() => null, (e) => e);
  assert(e instanceof Error);
  assert(e.message.includes(creds), e.message);
  return e.message;
}

test("a whole file is read", async (t) => {
  for (const text of [user, user + bus, (user + bus).replaceAll("\n", "\r\n")]) assert.match(await said(t, text), /no connection to the bus/);
});

test("a file that was cut short says what it is and what makes another", async (t) => {
  for (let at = 0; at < user.length - 3; at += 5) assert.match(await said(t, user.slice(0, at)), /cut short.*parley bot create/, `cut at ${at}`);
  for (let at = 30; at < bus.length - 3; at += 5) assert.match(await said(t, user + bus.slice(0, at)), /cut short.*parley bot create/, `cut at ${at} of the bus`);
  assert.match(await said(t, user.replace(jwt, "a.b.c")), /cut short.*parley bot create/);
});
