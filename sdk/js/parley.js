// A bot for a room of a Parley node: it hears the mix and each speaker, speaks, chats
// and moderates, as far as its credentials allow. It needs a NATS client, no more.
//
//   import { connect } from "@parley-jami/parley";
//   const room = await connect({ creds: "echo.creds" });
//   await room.join("Echo");
//   for await (const f of await room.listen({ speakers: "s16le-24000" })) {
//     if (f.speaker !== room.me) await room.say(f.format, f.data);
//   }
//
// Commands are repeated while the node restarts one of its parts, with the same
// idempotency key: each has one effect. Refusals are ParleyError, with a code.
import { readFileSync } from "node:fs";
import { connect as dial, credsAuthenticator, headers, nuid, Empty, Events } from "nats";

const commandMs = 10_000; // how long a command is repeated
const tryMs = 2_000; // how long each try waits
const pauseMs = 100; // between two
const stayMs = [200, 5_000]; // before the first try to come back, and at most: twice as long each time
const goodMs = 30_000; // a stay so long was none that failed at once
// NATS says "503" when nobody serves, "TIMEOUT" when nobody answers.
const again = new Set(["unavailable", "timeout", "busy", "503", "TIMEOUT"]);

/** A refusal of the node: code is stable, message says what to do. */
export class ParleyError extends Error {
  constructor({ code, message, retry }) {
    super(`${code}: ${message}`);
    Object.assign(this, { code, retry });
  }
}

const pause = (ms, signal) => new Promise((done) => {
  const end = () => { clearTimeout(t); signal?.removeEventListener("abort", end); done(); };
  const t = setTimeout(end, ms);
  signal?.addEventListener("abort", end);
});

// Reads a bot's credentials: whose they are, and how its bus is reached. A file that was cut
// short is told of as such, wherever the cut is.
function credentials(file) {
  const raw = readFileSync(file);
  const text = raw.toString();
  const ends = (what) => (text.match(new RegExp(`-+BEGIN ${what}-+\\s`, "g"))?.length ?? 0) === (text.match(new RegExp(`-+END ${what}-{5}`, "g"))?.length ?? 0);
  try {
    const whole = ["NATS USER JWT", "USER NKEY SEED", "PARLEY BUS", "CERTIFICATE"].every(ends);
    const jwt = /BEGIN NATS USER JWT-+\s+(\S+)\s+-+END/.exec(text)?.[1];
    if (!whole || !jwt || !/BEGIN USER NKEY SEED-+\s+S\S+\s+-+END/.test(text)) throw new Error("a part of it is missing");
    const { nats } = JSON.parse(Buffer.from(jwt.split(".")[1] ?? "", "base64url").toString());
    const bus = access(text);
    if (bus.tls?.servername && !bus.tls.ca) throw new Error("the certificate that verifies the bus is missing");
    return { raw, bus, subjects: [...nats?.pub?.allow ?? [], ...nats?.tags ?? []] };
  } catch (cause) {
    throw new Error(`${file} is no file of credentials, or was cut short (${cause.message}): copy it again, or make another with "parley bot create" on the node`, { cause });
  }
}

// What credentials say of the bus: where it is, and what verifies it where it encrypts.
function access(text) {
  const part = /-----BEGIN PARLEY BUS-----\r?\n(.+)\r?\n------END PARLEY BUS------\r?\n([^]*)/.exec(text);
  if (!part) return {};
  const { urls, tls, server_name } = JSON.parse(part[1]);
  if (!tls) return { urls };
  const ca = part[2].match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g)?.join("\n");
  return { urls, tls: { ...(ca && { ca }), ...(server_name && { servername: server_name }) } };
}

/**
 * Connects. A bot's credentials say its account, room and name; others name them.
 * @param {{creds?: string, url?: string, account?: string, room?: string, name?: string}} o
 */
export async function connect({ creds, url, account, room, name, ...more } = {}) {
  if (creds) {
    const { raw, bus, subjects } = credentials(creds);
    url ??= bus.urls;
    more.tls ??= bus.tls;
    more.authenticator = credsAuthenticator(new Uint8Array(raw));
    for (const s of subjects) {
      const m = /^parley\.v1\.([^.*]+)\.room\.([^.*]+)\.cmd\.([^.*]+)\.get$/.exec(s);
      if (m) [, account, room, name] = m;
    }
  }
  url ??= "nats://127.0.0.1:4223";
  if (!account || !room || !name) throw new Error("the credentials are not of a bot: name account, room and bot");
  let nc;
  try {
    nc = await dial({ servers: url, name, maxReconnectAttempts: -1, reconnectTimeWait: 200, ...more });
  } catch (cause) {
    const why = cause.code?.startsWith("AUTH")
      ? `the bus at ${url} does not accept ${creds ?? "these credentials"} (revoked, or made for another node? "parley bot list" shows the node's bots)`
      : `no connection to the bus at ${url} with ${creds ?? "these credentials"} (is the node running, is the address right? give the url of its bus)`;
    throw Object.assign(new Error(`${why}: ${cause.message}`, { cause }), { code: cause.code });
  }
  return new Room(nc, account, room, name);
}

/** A connection to one room. */
export class Room {
  #nc;
  #lease; // {instance, epoch} while this replica leads

  constructor(nc, account, name, me) {
    this.#nc = nc;
    this.account = account;
    this.name = name;
    this.me = me; // the bot's name and participant id
    this.prefix = `parley.v1.${account}.room.${name}.`;
  }

  /** Ends the connection. Leave first, or the bot stays in the roster. */
  close() { return this.#nc.drain(); }

  /** Sends a command of the room: "kick", {participant}. */
  async call(command, body = {}, { ms = commandMs, signal } = {}) {
    const h = this.#headers("Key", nuid.next());
    const end = Date.now() + ms;
    for (;;) {
      try {
        return await this.#request(`${this.prefix}cmd.${this.me}.${command}`, JSON.stringify(body), h, Math.min(tryMs, ms));
      } catch (e) {
        if (!again.has(e.code) || Date.now() >= end || signal?.aborted) throw e;
      }
      await pause(pauseMs, signal);
    }
  }

  // Says which replica speaks, too: the node refuses those whose lease has gone.
  #headers(key, value) {
    const h = headers();
    h.set(`Parley-${key}`, value);
    if (this.#lease) {
      h.set("Parley-Instance", this.#lease.instance);
      h.set("Parley-Epoch", String(this.#lease.epoch));
    }
    return h;
  }

  async #request(subject, data, h, timeout) {
    const m = await this.#nc.request(subject, data, { headers: h, timeout });
    if (!m.headers?.get("Nats-Service-Error-Code")) return m.json();
    let refusal = { code: "internal", message: m.headers.get("Nats-Service-Error"), retry: false };
    try { refusal = m.json(); } catch { /* not from Parley: the headers say it */ }
    throw new ParleyError(refusal);
  }

  /** Enters the room; name is what people see. */
  join(name) { return this.call("join", { name, kind: "bot", transport: "bus" }); }
  leave() { return this.call("leave"); }
  get() { return this.call("get"); }
  /** Writes a message; it is on the node's disk when this resolves. */
  chat(body, reply_to) { return this.call("chat", { body, reply_to, key: nuid.next() }); }
  /** Reads the chat: {before, limit}, newest last. */
  history(query = {}) { return this.call("history", query); }
  /** Mutes or unmutes a participant; "" is the bot itself. */
  mute(participant, muted = true) { return this.call("mute", { participant, muted }); }
  kick(participant) { return this.call("kick", { participant }); }
  role(participant, role) { return this.call("role", { participant, role }); }
  hand(raised = true) { return this.call("hand", { raised }); }
  lock(locked = true) { return this.call("lock", { locked }); }

  /** Writes to all devices of an account (right "messages"). Resolves to {id}. */
  write(to, body, type = "text/plain") {
    return this.#request(`parley.v1.${this.account}.identity.message.send`, JSON.stringify({ to, body, type }), this.#headers("Key", nuid.next()), commandMs);
  }

  /** Yields what people write to the account: {id, from, contact, type, body, …} (right "messages"). */
  messages({ signal } = {}) { return this.#follow(`parley.v1.${this.account}.identity.event.message.*`, signal); }

  /** Yields which contacts are online, then who comes and goes: {id, online, since} (right "presence"). */
  async *presence({ signal } = {}) {
    const changes = this.#follow(`parley.v1.${this.account}.dht.event.presence.*`, signal);
    const all = () => this.#request(`parley.v1.${this.account}.dht.presence.list`, "{}", headers(), commandMs);
    try {
      let { contacts, revision } = await all();
      yield* contacts;
      for await (const c of changes) {
        if (c.revision <= revision) continue;
        if (c.revision === revision + 1) yield c;
        else yield* (await all()).contacts; // some were missed
        revision = c.revision;
      }
    } finally { changes.return(); }
  }

  #follow(subject, signal) {
    const queue = new Ring(1024);
    const sub = this.#nc.subscribe(subject, { callback: (err, m) => (err ? queue.end(err) : queue.push(m.json())) });
    queue.onEnd = () => sub.unsubscribe();
    signal?.addEventListener("abort", () => queue.end());
    return queue;
  }

  /**
   * Yields each event of the room, in order, without gap or duplicate: kept ones from
   * sequence `from` on (after a join: its seq + 1; 0: from now on), then live ones.
   * What the connection missed is replayed. Events with seq 0 (quality) are not kept.
   */
  async *events({ from = 0, signal } = {}) {
    const queue = new Ring(1024); // what it drops is a gap, and replayed
    const sub = this.#nc.subscribe(`${this.prefix}event.*`, { callback: (err, m) => queue.push(err ? undefined : m.json()) });
    const status = this.#nc.status();
    const watch = (async () => { for await (const s of status) if (s.type === Events.Reconnect) queue.push(undefined); })();
    signal?.addEventListener("abort", () => queue.end());
    try {
      if (!from) from = (await this.get()).seq + 1;
      for (let behind = true; !signal?.aborted; ) {
        while (behind) {
          const page = await this.call("replay", { from, limit: 500 }, { signal });
          for (const e of page.events ?? []) if (e.seq >= from) { from = e.seq + 1; yield e; }
          from = Math.max(from, page.next);
          behind = page.more;
        }
        const { value: e, done } = await queue.next();
        if (done) return;
        if (e === undefined) { behind = true; continue; } // reconnected
        behind = e.seq > from;
        if (e.seq === 0) yield e;
        if (e.seq === from) { from++; yield e; }
      }
    } finally {
      sub.unsubscribe();
      status.stop();
      await watch;
    }
  }

  /**
   * Begins to hear, and renews it until the loop over the result ends, `signal`, or
   * the end of the bot's stay. mix, others (the mix without the bot itself) and speakers are formats: "opus", "s16le-16000",
   * "s16le-24000", "s16le-48000". `ring` frames wait for a slow loop; beyond, the oldest
   * is dropped, and the next frame's `dropped` says how many.
   * Frames: {mix, speaker, format, seq, rtpTime, wall, level, voice, lost, dropped, data}.
   */
  async listen({ mix, others, speakers, ttlMs = 10_000, ring = 100, signal } = {}) {
    const queue = new Ring(ring);
    const want = { mix, others, speakers, ttl_ms: ttlMs };
    const subjects = [mix && `audio.mix.${mix}`, others && `audio.others.${this.me}.${others}`, speakers && `audio.from.*.${speakers}`].filter(Boolean);
    const subs = subjects.map((s) => this.#nc.subscribe(this.prefix + s, {
      callback: (err, m) => (err ? queue.end(err) : queue.push(frame(m))),
    }));
    const stop = new AbortController();
    queue.onEnd = () => { stop.abort(); for (const s of subs) s.unsubscribe(); };
    signal?.addEventListener("abort", () => queue.end());
    try { await this.call("listen", want, { signal }); } catch (e) { queue.end(e); throw e; }
    (async () => {
      for (;;) {
        await pause(ttlMs / 3, stop.signal);
        if (stop.signal.aborted) return;
        await this.call("listen", want, { signal: stop.signal });
      }
    })().catch((e) => queue.end(e));
    return queue;
  }

  /**
   * Queues audio to be heard. PCM is any number of 20 ms frames in up to
   * 64 KiB, Opus one packet. Resolves to {queued_ms, dropped}: how long the queue is, and how many
   * frames were refused so far, because 10 s waited or the bot may not speak.
   */
  say(format, data) {
    return this.#request(`${this.prefix}audio.say.${this.me}`, data, this.#headers("Format", format), tryMs);
  }

  /** Drops what is queued: the bot falls silent at once. */
  clear() {
    return this.#request(`${this.prefix}audio.say.${this.me}`, Empty, this.#headers("Clear", "1"), tryMs);
  }

  /**
   * Joins, name being what people see, runs fn(joined, signal) and leaves when it ends. When the node
   * or a part of it was away, or has put the bot out as it restarted, it joins again and runs fn again:
   * the signal comes when the bot is not in the room any more. Other errors of fn end it, a refusal to
   * join does, and so does a moderator who puts the bot out ("gone").
   */
  async stay(name, fn, { signal } = {}) {
    try {
      for (let wait = stayMs[0]; ; wait = Math.min(2 * wait, stayMs[1])) {
        const began = Date.now();
        const { back, result } = await this.#stay(name, fn, signal);
        if (!back || signal?.aborted) return result;
        if (Date.now() - began > goodMs) wait = stayMs[0];
        await pause(wait, signal);
        if (signal?.aborted) return undefined;
      }
    } finally {
      await this.call("leave", {}, { ms: tryMs }).catch(() => {}); // the node is away, and then the bot is out soon
    }
  }

  // One stay; back: it ended for what may pass.
  async #stay(name, fn, signal) {
    let joined;
    try {
      joined = await this.join(name);
    } catch (e) {
      if (again.has(e.code)) return { back: true };
      throw e;
    }
    const stop = new AbortController();
    const over = () => stop.abort();
    signal?.addEventListener("abort", over);
    if (signal?.aborted) over();
    let out, failed;
    const watch = (async () => {
      for await (const e of this.events({ from: joined.seq + 1, signal: stop.signal })) {
        if (e.type === "left" && e.participant?.id === this.me) { out = e.reason; return; }
      }
    })().catch((e) => { failed = e; }).finally(over);
    try {
      const result = await fn(joined, stop.signal);
      if (out === undefined && !failed) return { result };
    } catch (e) {
      if (e.code === "not_found" || e.code === "gone") await Promise.race([watch, pause(tryMs, stop.signal)]); // of the bot's seat, if the event says so
      if (out === undefined && !again.has(e.code)) throw e;
      failed = undefined;
    } finally {
      over();
      signal?.removeEventListener("abort", over);
      await watch;
    }
    if (failed && !again.has(failed.code)) throw failed;
    if (out === "kicked") throw new ParleyError({ code: "gone", message: "a moderator has put the bot out of the room", retry: false });
    return { back: true };
  }

  /**
   * Waits until this replica is the only one that serves the room, then runs
   * fn(signal). The signal comes before another replica can take over; then fn has to
   * end. When fn ends by itself the lease is given back.
   */
  async lead(fn, { ttlMs = 6_000, signal } = {}) {
    const instance = nuid.next();
    const ask = (release) => this.call("lease", { instance, ttl_ms: ttlMs, release }, { ms: ttlMs / 4 });
    while (!signal?.aborted) {
      let renewed = Date.now();
      const l = await ask(false).catch((e) => { if (e.retry === false) throw e; });
      if (!l?.held) { await pause(ttlMs / 4, signal); continue; }
      this.#lease = { instance, epoch: l.epoch };
      const stop = new AbortController();
      const over = () => stop.abort();
      signal?.addEventListener("abort", over);
      let ended = false, lost = false;
      const work = (async () => fn(stop.signal))().finally(() => { ended = true; });
      const end = work.catch(() => {}); // its error is thrown below
      while (!ended && !lost) {
        await Promise.race([end, pause(ttlMs / 4)]);
        if (ended) break;
        const asked = Date.now();
        const r = await ask(false).catch(() => undefined);
        if (r?.held && r.epoch === l.epoch) renewed = asked;
        else lost = r !== undefined || Date.now() - renewed > ttlMs / 2;
      }
      over();
      signal?.removeEventListener("abort", over);
      try {
        const result = await work;
        if (!lost) return result;
      } finally {
        this.#lease = undefined;
        if (!lost) await ask(true).catch(() => {}); // it runs out by itself
      }
    }
  }
}

function frame(m) {
  const h = (k) => m.headers?.get(`Parley-${k}`) ?? "";
  return {
    mix: !m.subject.includes(".audio.from."), speaker: h("Speaker"), format: h("Format"), seq: Number(h("Seq")), rtpTime: Number(h("RTP-Time")),
    wall: new Date(Number(h("Wall")) / 1000), level: Number(h("Level")), voice: h("Voice") === "1", lost: Number(h("Lost")), dropped: 0, data: m.data,
  };
}

/** A bounded queue to loop over; when it is full the oldest is dropped and counted. */
class Ring {
  #items = []; #waiting; #dropped = 0; #ended = false; #error; onEnd;
  constructor(size) { this.size = size; }
  push(v) {
    if (this.#ended) return;
    if (this.#items.length >= this.size) { this.#items.shift(); this.#dropped++; }
    this.#items.push(v);
    this.#waiting?.();
  }
  end(err) {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = err;
    this.onEnd?.();
    this.#waiting?.();
  }
  async next() {
    while (!this.#items.length && !this.#ended) await new Promise((wake) => { this.#waiting = wake; });
    this.#waiting = undefined;
    if (!this.#items.length) {
      if (this.#error) throw this.#error;
      return { value: undefined, done: true };
    }
    const value = this.#items.shift();
    if (value?.data) { value.dropped = this.#dropped; this.#dropped = 0; }
    return { value, done: false };
  }
  async return() { this.end(); return { value: undefined, done: true }; }
  [Symbol.asyncIterator]() { return this; }
}
