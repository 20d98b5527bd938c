// One account: what it is, its settings, its QR code, devices and requests.
import { h, icon, setText, sentence, copy } from "../ui.js";
import { Contacts } from "./contacts.js";
import { Fold } from "./fold.js";
import { archive, revocable, revokeElsewhere, short } from "./words.js";

const day = (at) => new Date(at).toLocaleDateString();
const DATES = new Set(["Made", "Seen", "Received"]); // columns that a narrow window has no place for
const table = (label, columns, body) => h("div", { class: "table-wrap", role: "region", "aria-label": label, tabindex: "0" },
  h("table", {}, h("thead", {}, h("tr", {}, ...columns.map((c) => h("th", { scope: "col", class: DATES.has(c) ? "date" : null }, c || h("span", { class: "visually-hidden" }, "Actions"))))), body));

class Code extends Fold {
  constructor(env, path, id) {
    super("QR code", "qr");
    Object.assign(this, { env, path });
    this.image = h("img", { class: "qr", alt: `QR code of the Jami ID ${id}`, width: 220, height: 220, hidden: true });
    this.content.append(this.image, h("p", { class: "muted small" }, "Scanned by Jami, it adds the account as a contact."));
  }

  async load() {
    this.image.src = "data:image/svg+xml," + encodeURIComponent(await this.env.text(`${this.path}/qr`));
    this.image.hidden = false;
  }
}

class Devices extends Fold {
  constructor(env, path, card) {
    super("Devices", "devices");
    Object.assign(this, { env, path, card });
    this.body = h("tbody");
    this.words = h("p", { class: "small muted" });
    this.command = h("code", { class: "command" });
    this.elsewhere = h("div", { class: "hint", hidden: true }, this.words, this.command);
    this.content.append(table("Devices", ["Device", "Device ID", "Made", "Seen", "State", ""], this.body), this.elsewhere);
  }

  // note is what is said where this page can't revoke.
  note(list) {
    const other = revokeElsewhere(this.card.account);
    this.elsewhere.hidden = !other || !list.some((d) => !d.this && !d.revoked);
    setText(this.words, other?.words ?? "");
    setText(this.command, other?.command ?? "");
    this.command.hidden = !other?.command;
  }

  async load() {
    const list = (await this.env.ask("GET", `${this.path}/devices`)).devices ?? [];
    const can = revocable(this.card.account);
    this.note(list);
    this.draw(this.body, list.map((d) => ({ ...d, can: can && !d.this && !d.revoked })), (d) => this.row(d));
  }

  row(d) {
    const name = d.name || "no name";
    return h("tr", { "data-device": d.id }, h("td", { class: "name", title: name }, name), h("td", { class: "id mono", title: d.id }, d.id),
      h("td", { class: "date" }, day(d.created)), h("td", { class: "date" }, d.this ? "now" : day(d.seen)),
      h("td", {}, d.revoked ? h("span", { class: "badge bad" }, "Revoked") : h("span", { class: "badge ok" }, d.this ? "This node" : "Valid")),
      h("td", {}, !d.can ? null : h("div", { class: "row-actions" }, h("button", { type: "button", "data-key": d.id, "aria-label": `Revoke ${name}, ${d.id}`, onclick: async () => {
        if (!(await this.env.confirm(`Revoke ${d.name || "this device"}?`, `The device ${short(d.id)} is shut out of the account for ever: this can’t be taken back. The account and its other devices stay.`, "Revoke for ever"))) return;
        if (await this.env.act("DELETE", `${this.path}/devices/${d.id}`, null, "The device is revoked.")) await this.read();
      } }, "Revoke"))));
  }
}

const ANSWERS = { accept: ["Accept", "It is a contact now."], refuse: ["Refuse", "Refused. It is not told, and may ask again."], block: ["Block", "Blocked."] };

class Requests extends Fold {
  constructor(env, path) {
    super("Requests", "requests");
    Object.assign(this, { env, path });
    this.body = h("tbody");
    this.none = h("p", { class: "muted small", role: "status" });
    this.wrap = table("Requests to be a contact", ["Who asks", "Jami ID", "Received", ""], this.body);
    this.wrap.hidden = true;
    this.content.append(this.wrap, this.none);
  }

  // changed reads at once: how many wait is shown where it is closed too.
  changed() { this.read(); }

  async load() {
    const list = (await this.env.ask("GET", `${this.path}/requests`)).requests ?? [];
    this.waiting = list.length;
    this.badge.hidden = !list.length;
    setText(this.badge, String(list.length));
    this.wrap.hidden = !list.length;
    setText(this.none, list.length ? "A name is what the other side says of itself; the ID alone tells who asks." : "Nobody asks to be a contact.");
    this.draw(this.body, list, (r) => this.row(r));
    this.oncount?.(list.length);
  }

  row(r) {
    return h("tr", { "data-request": r.id }, h("td", { class: "name", title: r.name }, r.name || "no name"), h("td", { class: "id mono", title: r.id }, r.id),
      h("td", { class: "date" }, new Date(r.received * 1000).toLocaleString()),
      h("td", {}, h("div", { class: "row-actions" }, ...Object.entries(ANSWERS).map(([answer, [word, done]]) => h("button", { type: "button", "data-key": `${answer} ${r.id}`, "aria-label": `${word} ${r.name || "no name"}, ${r.id}`, onclick: async () => {
        if (answer === "block" && !(await this.env.confirm(`Block ${short(r.id)}?`, `${r.id}: its devices are refused, and it can’t ask again. It is not told.`, "Block"))) return;
        if (await this.env.act("POST", `${this.path}/requests`, { id: r.id, answer }, done)) await this.read();
      } }, word)))));
  }
}

export class Account {
  constructor(a, main, env) {
    Object.assign(this, { account: a, env, change: null, id: a.id });
    const path = `accounts/${a.id}`;
    this.title = h("h3");
    this.asks = h("span", { class: "badge warn", hidden: true, "data-testid": "asks" });
    this.wrong = h("span", { class: "badge bad", hidden: true }, "See the note");
    this.main = h("span", { class: "badge" }, "Main account");
    this.note = h("div", { class: "notice warn", hidden: true, "data-testid": "note" });
    this.facts = h("dl", { class: "facts" });
    this.alias = h("input", { type: "text", maxlength: 128, autocomplete: "off", "data-testid": "alias" });
    this.rename = h("form", { class: "inline rename", onsubmit: (e) => {
      e.preventDefault();
      this.set({ alias: this.alias.value }, "Renamed.");
    } }, h("label", {}, h("span", { class: "muted" }, "Alias"), this.alias), h("button", { type: "submit", class: "small-button" }, "Rename"));
    this.rendezvous = h("input", { type: "checkbox", role: "switch", "data-testid": "rendezvous", onchange: async (e) => {
      const on = e.target.checked;
      if (!(await this.set({ rendezvous: on }, on ? "Anybody may call now." : "Nobody can call now."))) e.target.checked = !on;
    } });
    this.code = new Code(env, path, a.id);
    this.devices = new Devices(env, path, this);
    this.contacts = new Contacts(env, path, a.alias || short(a.id));
    this.requests = new Requests(env, path);
    this.requests.oncount = (n) => {
      this.asks.hidden = !n;
      setText(this.asks, n === 1 ? "1 request" : `${n} requests`);
    };
    this.el = h("details", { class: "card account-card", "data-account": a.id, open: main },
      h("summary", {}, this.title, this.main, this.asks, this.wrong),
      h("div", { class: "account-body" }, this.note, this.facts, this.rename,
        h("label", { class: "check" }, this.rendezvous, "Rendezvous: anybody may call a room at any time"),
        h("div", { class: "folds" }, this.code.el, this.devices.el, this.contacts.el, this.requests.el)));
  }

  set(change, done) { return this.env.act("PUT", `accounts/${this.id}`, change, done); }

  // draw shows the account as it is; another number of changes has the parts read again.
  draw(a, main, change) {
    const was = this.account;
    this.account = a;
    setText(this.title, a.alias || short(a.id));
    this.main.hidden = !main;
    this.wrong.hidden = this.note.hidden = !a.note;
    setText(this.note, sentence(a.note ?? ""));
    this.show([["Jami ID", a.id, true], ["Registered name", a.name || "none"], ["Archive", archive(a)], ["Device", a.device_short || a.device, true]]);
    if (document.activeElement !== this.rendezvous) this.rendezvous.checked = a.rendezvous;
    if (document.activeElement !== this.alias && (was === a || this.alias.value === was.alias || !this.alias.value)) this.alias.value = a.alias;
    const again = change !== this.change || was.archive !== a.archive;
    this.change = change;
    for (const part of [this.devices, this.contacts, this.requests]) if (again || (part.stale && !part.error.hidden)) part.changed();
  }

  show(rows) {
    if (!this.facts.children.length) {
      this.facts.append(...rows.flatMap(([k, v, mono]) => [h("dt", {}, k), h("dd", {}, h("span", { class: mono ? "mono small" : "" }),
        k === "Jami ID" ? h("button", { type: "button", class: "plain copy", "aria-label": "Copy the Jami ID", onclick: () => copy(v) }, icon("copy")) : null)]));
    }
    rows.forEach(([, v], i) => setText(this.facts.children[2 * i + 1].firstElementChild, v));
  }
}
