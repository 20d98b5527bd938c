// The dialog of one person: what is known of the connection, and what a
// moderator can do.
import { $, h, icon, setText, clock, hue, initials } from "../ui.js";
import { verdict, ROLE } from "./roster.js";

const TRANSPORT = { webrtc: "WebRTC (encrypted)", srtp: "SRTP (encrypted)", rtp: "RTP (not encrypted)", bus: "Bot" };
const CODEC = { opus: "Opus", g722: "G.722", pcmu: "G.711 µ-law", pcma: "G.711 A-law" };
const VERDICT = { good: "Good", fair: "Fair: some loss or delay", poor: "Poor: much is lost", "": "Not known yet" };

const ms = (v) => (v ? `${Math.round(v)} ms` : "–");
const pct = (v) => `${(v ?? 0).toFixed((v ?? 0) < 10 ? 1 : 0)} %`;

export class Sheet {
  // act(type, data) sends a moderator's command; own() gives one's own statistics.
  constructor({ model, act, own }) {
    this.model = model;
    this.act = act;
    this.own = own;
    this.dialog = $("#sheet");
    this.dialog.addEventListener("click", (e) => {
      if (e.target === this.dialog) this.dialog.close();
    });
    this.dialog.addEventListener("close", () => clearInterval(this.timer));
  }

  open(id) {
    this.id = id;
    const p = this.model.people.get(id);
    if (!p) return;
    const avatar = h("span", { class: "avatar", "aria-hidden": "true" }, initials(p.name));
    avatar.style.setProperty("--hue", hue(p.name));
    this.facts = h("dl", { class: "facts", "data-testid": "facts" });
    this.actions = h("div", { class: "actions" });
    this.dialog.replaceChildren(
      h("div", { class: "dialog-head" }, h("div", { class: "person-head" }, avatar, h("h2", { id: "sheet-title" }, p.name)),
        h("button", { type: "button", class: "plain close", "aria-label": "Close", onclick: () => this.dialog.close() }, icon("close"))),
      h("div", { class: "dialog-body" }, this.facts, this.actions));
    this.shape = "";
    this.update();
    clearInterval(this.timer);
    this.timer = setInterval(() => this.update(), 1000);
    this.dialog.showModal();
  }

  async update() {
    const p = this.model.people.get(this.id);
    if (!p) return this.dialog.close();
    const self = p.id === this.model.selfID;
    const q = p.quality ?? {};
    const own = self ? await this.own() : null;
    const rows = [
      ["Role", ROLE[p.role] ?? p.role],
      ["Joined", clock(p.joined)],
      ["Transport", TRANSPORT[p.transport] ?? p.transport ?? "–"],
      ["Codec", CODEC[p.codec] ?? p.codec ?? "–"],
      ["Connection", p.connected ? VERDICT[verdict(p.quality)] : "No sound gets through yet"],
      ["Loss", `${pct(q.lost_pct)} sending, ${pct(own ? own.lost_pct : q.far_lost_pct)} receiving`],
      ["Jitter", ms(q.jitter_ms) + (own ? `, receiving ${ms(own.jitter_ms)}` : "")],
      ["Round trip", ms(own?.rtt_ms || q.rtt_ms)],
    ];
    if (own) rows.push(["Packets", `${own.packets_out} sent, ${own.packets_in} received`]);
    while (this.facts.children.length < rows.length * 2) this.facts.append(h(this.facts.children.length % 2 ? "dd" : "dt"));
    rows.forEach(([k, v], i) => {
      setText(this.facts.children[2 * i], k);
      setText(this.facts.children[2 * i + 1], v);
    });
    this.buttons(p, self);
  }

  // buttons are made anew only when what can be done has changed: the focus stays.
  buttons(p, self) {
    const mod = this.model.self?.role === "moderator";
    const shape = [mod, self, p.role, p.muted, p.muted_by, Boolean(p.hand)].join();
    if (shape === this.shape) return;
    this.shape = shape;
    this.actions.replaceChildren();
    if (!mod || self) return;
    const add = (text, testid, type, data, cls = "") => this.actions.append(
      h("button", { type: "button", class: cls, "data-testid": testid, onclick: () => this.act(type, { participant: p.id, ...data }) }, text));
    // Nobody is made audible without knowing it: who muted themselves unmutes alone.
    if (!p.muted) add("Mute", "mod-mute", "mute", { muted: true });
    else if (p.muted_by) add("Unmute", "mod-mute", "mute", { muted: false });
    if (p.hand) add("Lower hand", "mod-hand", "hand", { raised: false });
    if (p.role !== "speaker") add("Make speaker", "mod-speaker", "role", { role: "speaker" });
    if (p.role !== "listener") add("Make listener", "mod-listener", "role", { role: "listener" });
    if (p.role !== "moderator") add("Make moderator", "mod-moderator", "role", { role: "moderator" });
    add("Remove from the room", "mod-kick", "kick", {}, "danger wide");
  }
}
