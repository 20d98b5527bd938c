// The calls that the node makes into a room: who is called, and how that goes until somebody
// takes the call, who then is in the roster.
import { h, setText } from "../ui.js";

const SAYS = { reaching: "looking for their devices", ringing: "ringing" };

// said is how a call goes, in words.
export function said(c) {
  if (SAYS[c.state]) return SAYS[c.state];
  return [c.status || "", c.reason || c.code || ""].filter(Boolean).join(" ") || c.state;
}

// who is a short form of who is called.
export const who = (to) => (/^(jami:|ring:)?[0-9a-f]{40}$/i.test(to) ? to.slice(0, -32) + "…" : to);

let forms = 0;

export class Calls {
  constructor(path, env) {
    const id = `call-${++forms}`;
    this.path = path;
    this.env = env;
    this.to = h("input", { type: "text", id, placeholder: "Jami ID or sip:…", maxlength: "256", autocapitalize: "none", autocomplete: "off", spellcheck: "false" });
    this.form = h("form", { class: "inline", hidden: true }, h("label", { class: "visually-hidden", for: id }, "Who is called"), this.to, h("button", { type: "submit", class: "small-button" }, "Call"));
    this.form.addEventListener("submit", (e) => {
      e.preventDefault();
      this.place();
    });
    this.button = h("button", { type: "button", class: "small-button", "aria-expanded": "false", onclick: () => {
      this.form.hidden = !this.form.hidden;
      this.el.hidden = false; // the form, or what is said below it
      this.button.setAttribute("aria-expanded", String(!this.form.hidden));
      if (!this.form.hidden) this.to.focus();
    } }, "Call somebody");
    this.list = h("ul", { class: "calls", role: "status", hidden: true });
    this.rows = new Map();
    this.el = h("div", { class: "calling" }, this.form, this.list);
  }

  async place() {
    const to = this.to.value.trim();
    if (!to) return this.to.focus();
    if (await this.env.act("POST", `${this.path}/call`, { to })) this.to.value = "";
  }

  draw(calls) {
    const ids = new Set(calls.map((c) => c.call));
    for (const [id, row] of this.rows) {
      if (ids.has(id)) continue;
      row.el.remove();
      this.rows.delete(id);
    }
    for (const c of calls) {
      let row = this.rows.get(c.call);
      if (!row) {
        row = { text: h("span"), end: h("button", { type: "button", class: "small-button", onclick: () => this.env.act("POST", `${this.path}/hangup`, { call: c.call }) }, "Hang up") };
        row.end.setAttribute("aria-label", `Hang up on ${c.to}`);
        row.el = h("li", { title: c.to }, row.text, row.end);
        this.rows.set(c.call, row);
        this.list.append(row.el);
      }
      setText(row.text, `${who(c.to)}: ${said(c)}`);
      row.end.hidden = !SAYS[c.state];
    }
    this.list.hidden = !calls.length;
    this.el.hidden = this.form.hidden && !calls.length;
  }
}
