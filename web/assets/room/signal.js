// The WebSocket: requests with replies, events, and coming back by itself.
// docs/http-api.md describes the messages.

const PING_MS = 15000;
const PONG_MS = 6000;
const REQUEST_MS = 12000;
const BACKOFF_MS = [200, 500, 1000, 2000, 4000, 8000];

// Refused is an error that the node worded.
export class Refused extends Error {
  constructor({ code, message, retry }) {
    super(message);
    this.code = code;
    this.retry = retry;
  }
}

const lost = () => new Refused({ code: "unavailable", message: "The connection to the node was interrupted.", retry: true });

// Signal calls back: onopen() after each (re)connect, onevents(list),
// onresync(), onbye(farewell), onstate("connecting" | "open" | "waiting" | "closed").
export class Signal {
  constructor(callbacks) {
    this.cb = callbacks;
    this.nextID = 1;
    this.pending = new Map();
    this.tries = 0;
    this.ended = false;
    this.retrySoon = () => this.hurry();
    addEventListener("online", this.retrySoon);
    document.addEventListener("visibilitychange", this.retrySoon);
  }

  connect() {
    if (this.ended || this.ws) return;
    clearTimeout(this.timer);
    this.cb.onstate("connecting");
    const ws = new WebSocket((location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/ws");
    this.ws = ws;
    ws.onopen = () => {
      this.cb.onstate("open");
      this.pinger = setInterval(() => this.ping(), PING_MS);
      this.cb.onopen();
    };
    ws.onmessage = (e) => this.receive(JSON.parse(e.data));
    ws.onclose = () => this.dropped(ws);
  }

  get open() { return this.ws?.readyState === WebSocket.OPEN; }

  receive(m) {
    const p = this.pending.get(m.id);
    if (p) {
      this.pending.delete(m.id);
      clearTimeout(p.timer);
      if (m.type === "error") p.reject(new Refused(m.data));
      else p.resolve(m.data);
      return;
    }
    if (m.type === "events") this.cb.onevents(m.data);
    else if (m.type === "resync") this.cb.onresync();
    else if (m.type === "bye") this.cb.onbye(m.data);
  }

  // request sends and waits for the reply; it fails with a Refused.
  request(type, data = {}, ms = REQUEST_MS) {
    if (!this.open) return Promise.reject(lost());
    const id = this.nextID++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.pending.delete(id);
        reject(new Refused({ code: "timeout", message: "The node did not answer in time.", retry: true }));
      }, ms);
      this.pending.set(id, { resolve, reject, timer });
      this.ws.send(JSON.stringify({ id, type, data }));
    });
  }

  async ping() {
    try { await this.request("ping", {}, PONG_MS); } catch { this.drop(); }
  }

  // drop gives up a connection that may look alive and is not.
  drop() {
    const ws = this.ws;
    if (!ws) return;
    this.dropped(ws);
    ws.close();
  }

  dropped(ws) {
    if (this.ws !== ws) return;
    ws.onclose = ws.onmessage = ws.onopen = null;
    this.ws = null;
    clearInterval(this.pinger);
    for (const p of this.pending.values()) {
      clearTimeout(p.timer);
      p.reject(lost());
    }
    this.pending.clear();
    if (this.ended) return this.cb.onstate("closed");
    this.retryLater();
  }

  retryLater() {
    const base = BACKOFF_MS[Math.min(this.tries++, BACKOFF_MS.length - 1)];
    this.cb.onstate("waiting");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.connect(), base * (0.5 + Math.random()));
  }

  // hurry tries at once: the network came back or the page is looked at again.
  hurry() {
    if (document.visibilityState !== "visible" && !navigator.onLine) return;
    if (this.open) this.ping();
    else if (!this.ws && !this.ended && this.tries) this.connect();
  }

  // settled is called when the room was reached again: back-off starts anew.
  settled() { this.tries = 0; }

  end() {
    this.ended = true;
    clearTimeout(this.timer);
    removeEventListener("online", this.retrySoon);
    document.removeEventListener("visibilitychange", this.retrySoon);
    if (this.ws) this.ws.close(1000);
    else this.cb.onstate("closed");
  }
}
