// How a participant is connected: a row below its own that is read while it is open.
import { h, sentence, setText } from "../ui.js";
import { verdict } from "../room/roster.js";

const EVERY_MS = 2000;
const TYPE = { host: "host", srflx: "server reflexive", prflx: "peer reflexive", relay: "relay", sdp: "as its description says", latched: "from where its packets come" };
const OVER = { channel: "Jami channel", "channel/udp": "Jami channel by UDP", websocket: "WebSocket", http: "HTTP", udp: "SIP over UDP", tcp: "SIP over TCP", tls: "SIP over TLS" };

const CONNECTING_MS = 15000; // longer, and it is not coming

// link is the badge of a participant's connection: its colour and its word. away is for how
// long (ms) it has been seen without a connection for sound; had: it had one before.
export function link(p, { away = 0, had = false } = {}) {
  if (!p.connected) return had || away >= CONNECTING_MS ? ["bad", "No sound"] : ["warn", "Connecting"];
  return { good: ["ok", "Good"], fair: ["warn", "Fair"], poor: ["bad", "Poor"], "": ["", "–"] }[verdict(p.quality)];
}

// cipher says what protects the audio. Only plain RTP is known to be in clear before the
// connection stands.
export function cipher(c) {
  if (c.quality?.cipher) return c.quality.cipher;
  return c.connected || c.transport === "rtp" ? "none: in clear" : "not agreed yet";
}

// facts are what is said of a connection, without what is not known.
export function facts(c) {
  const p = c.path;
  const q = c.quality ?? {};
  const s = c.signalled;
  const end = (addr, type) => [addr || "not known", type ? `(${TYPE[type] ?? type})` : ""].filter(Boolean).join(" ");
  const out = [];
  if (!p) out.push(["Audio", "no leg just now"]);
  else if (p.protocol === "bus") out.push(["Audio", "over the bus"]);
  else {
    out.push(["Path", `${p.protocol.toUpperCase()}${p.remote_type === "relay" ? " through the far end's relay" : ""}`], ["Node's address", end(p.local, p.local_type)],
      ["Far address", p.remote ? end(p.remote, p.remote_type) : "none yet"]);
    if (p.rtcp) out.push(["Reports to", p.rtcp]);
    out.push(["Cipher", cipher(c)]);
    if (p.dtls) out.push(["Keys by", [p.dtls, p.suite].filter(Boolean).join(", ")]);
    out.push(["Loss", `${(q.lost_pct ?? 0).toFixed(1)} % here, ${(q.far_lost_pct ?? 0).toFixed(1)} % there`], ["Jitter", `${Math.round(q.jitter_ms ?? 0)} ms`],
      ["Round trip", q.rtt_ms ? `${Math.round(q.rtt_ms)} ms` : "not known"]);
  }
  if (s) {
    out.push(["Signalling", OVER[s.over] ?? s.over], ["Protected by", [s.tls, s.suite].filter(Boolean).join(", ") || "nothing here"]);
    if (s.local) out.push(["Signalling at", s.local]);
    if (s.remote) out.push(["Signalling from", s.remote]);
  }
  return out;
}

export class Details {
  constructor(room, id, columns) {
    this.path = `rooms/${encodeURIComponent(room)}/connections?participant=${encodeURIComponent(id)}`;
    this.list = h("dl", { class: "facts connection" });
    this.error = h("p", { class: "muted small", role: "status", hidden: true });
    this.el = h("tr", { class: "details", hidden: true, id: `connection-${room}-${id}` }, h("td", { colspan: String(columns) }, this.list, this.error));
    this.at = 0;
  }

  toggle(env) {
    this.el.hidden = !this.el.hidden;
    this.at = 0;
    this.refresh(env);
  }

  // refresh reads it where it is open, and not again before it may have changed.
  async refresh(env) {
    if (this.el.hidden || this.reading || Date.now() - this.at < EVERY_MS) return;
    this.reading = true;
    try {
      const got = await env.ask("GET", this.path);
      this.draw(facts(got.connections[0]));
      this.error.hidden = true;
    } catch (err) {
      this.error.hidden = false;
      setText(this.error, sentence(err.message));
    } finally {
      this.at = Date.now();
      this.reading = false;
    }
  }

  draw(rows) {
    while (this.list.children.length > rows.length) this.list.lastElementChild.remove();
    while (this.list.children.length < rows.length) this.list.append(h("div", {}, h("dt"), h("dd")));
    rows.forEach(([k, v], i) => {
      setText(this.list.children[i].firstElementChild, k);
      setText(this.list.children[i].lastElementChild, v);
    });
  }
}
