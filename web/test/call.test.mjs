// The relays of the room page's call.
import { test, mock } from "node:test";
import assert from "node:assert/strict";
import { Call } from "../assets/room/call.js";

const servers = [{ urls: ["turn:a"], username: "u", credential: "p" }];

// A connection that says what it is told to.
class Connection {
  constructor(config) {
    this.config = config;
    this.connectionState = "new";
    Connection.made.push(this);
  }
  addTransceiver() {}
  async createOffer(options) {
    this.restarted = options?.iceRestart;
    return { sdp: "offer" };
  }
  async setLocalDescription(d) { this.localDescription = d; }
  async setRemoteDescription() {}
  setConfiguration(config) { this.config = config; }
  close() { this.connectionState = "closed"; }
  becomes(state) {
    this.connectionState = state;
    this.onconnectionstatechange?.();
  }
}

function call() {
  Connection.made = [];
  globalThis.RTCPeerConnection = Connection;
  const said = [];
  const c = new Call({}, { onstate() {}, onlost: () => said.push("lost"), ondead: () => said.push("dead") });
  return { c, said };
}

test("relays are tried when no direct way opens, and not before", async () => {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1e12 });
  try {
    const { c, said } = call();
    await c.fresh(null);
    c.known({ servers, seconds: 3600 });
    await c.answer("o=- 1 1\r\n");
    assert.deepEqual(Connection.made[0].config.iceServers, []);
    mock.timers.tick(1999);
    assert.deepEqual(said, []);
    mock.timers.tick(1);
    assert.deepEqual(said, ["lost"]);
    await c.again(true);
    assert.deepEqual(Connection.made[0].config.iceServers, servers);
    assert.equal(Connection.made[0].restarted, true);
    assert.equal(c.stale, false);
    mock.timers.tick(3600_000);
    assert.equal(c.stale, true); // asked for anew before the next restart
    c.known({ servers, seconds: 3600 });
    assert.equal(c.stale, false);
    await c.fresh(null);
    assert.deepEqual(Connection.made[1].config.iceServers, servers);
    c.close();
  } finally {
    mock.timers.reset();
  }
});

test("a direct way needs no relay", async () => {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1e12 });
  try {
    const { c, said } = call();
    await c.fresh(null);
    c.known({ servers, seconds: 3600 });
    await c.answer("o=- 1 1\r\n");
    Connection.made[0].becomes("connected");
    mock.timers.tick(10_000);
    assert.deepEqual(said, []);
    Connection.made[0].becomes("failed"); // the network changed: now all ways are tried
    assert.deepEqual(said, ["lost"]);
    await c.again(true);
    assert.deepEqual(Connection.made[0].config.iceServers, servers);
    c.close();
  } finally {
    mock.timers.reset();
  }
});

test("without relays nothing is tried", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const { c, said } = call();
    await c.fresh(null);
    c.known(undefined);
    await c.answer("o=- 1 1\r\n");
    mock.timers.tick(10_000);
    assert.deepEqual(said, []);
    c.close();
    mock.timers.tick(10_000);
    assert.deepEqual(said, []);
  } finally {
    mock.timers.reset();
  }
});

test("expired credentials are not tried before the node gave others", async () => {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1e12 });
  try {
    const { c, said } = call();
    c.known({ servers, seconds: 3600 });
    c.relayed = true;
    mock.timers.tick(3600_000);
    await c.fresh(null);
    assert.deepEqual(Connection.made[0].config.iceServers, []);
    c.known({ servers, seconds: 3600 }); // by the answer to join
    await c.answer("o=- 1 1\r\n");
    mock.timers.tick(2000);
    assert.deepEqual(said, ["lost"]);
    c.close();
  } finally {
    mock.timers.reset();
  }
});
