// The contacts of one account: a page at a time, however many there are.
import { h, setText, sentence } from "../ui.js";
import { Pages } from "./pages.js";
import { Fold } from "./fold.js";
import { contactActions, contactCount, contactState, jamiId, presenceState, short } from "./words.js";

const SEARCH_MS = 250;

const CHANGES = {
  add: { word: "Add", done: "Added. It is asked to be a contact." },
  remove: { word: "Remove", done: "Removed.", ask: "It is not told, and can be added again." },
  block: { word: "Block", done: "Blocked.", ask: "Its devices are refused, and its calls and connections end at once. It is not told." },
  unblock: { word: "Unblock", done: "No longer blocked. It is no contact." },
};

export class Contacts extends Fold {
  // env has ask, act and confirm; path is the account's, and name what it is called.
  constructor(env, path, name) {
    super("Contacts", "contacts");
    Object.assign(this, { env, path, name, timer: 0 });
    this.pages = new Pages((query, after) => env.ask("GET", `${path}/contacts?${new URLSearchParams({ query, after })}`), "contacts");
    const field = (label, placeholder, extra) => h("input", { type: "text", "aria-label": label, placeholder, maxlength: 60, autocapitalize: "none", autocomplete: "off", spellcheck: "false", ...extra });
    this.search = field(`Find a contact of ${name} by the beginning of its Jami ID`, "Beginning of a Jami ID", { type: "search", "data-testid": "contact-search", oninput: () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.find(), SEARCH_MS);
    } });
    this.id = field("Jami ID to add or to block", "Jami ID", { "data-testid": "contact-id", class: "mono", oninput: () => this.wrong("") });
    this.problemOf = h("p", { class: "small problem", role: "alert", hidden: true, "data-testid": "contact-problem" });
    const find = h("form", { class: "inline", role: "search", onsubmit: (e) => { e.preventDefault(); this.find(); } }, this.search);
    const add = h("form", { class: "inline", onsubmit: (e) => { e.preventDefault(); this.typed("add"); } }, this.id,
      h("button", { class: "small-button", type: "submit" }, "Add"),
      h("button", { class: "small-button", type: "button", onclick: () => this.typed("block") }, "Block"));
    this.body = h("tbody");
    this.wrap = h("div", { class: "table-wrap", role: "region", "aria-label": `Contacts of ${name}`, tabindex: "0", hidden: true },
      h("table", { class: "contacts" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Jami ID"), h("th", { scope: "col" }, "State"), h("th", { scope: "col" }, "Presence"), h("th", { scope: "col", class: "date" }, "Since"),
        h("th", { scope: "col" }, h("span", { class: "visually-hidden" }, "Actions")))), this.body));
    this.count = h("p", { class: "muted small", role: "status", "data-testid": "contact-count" });
    this.previous = h("button", { type: "button", class: "small-button", onclick: () => this.turn("previous") }, "Previous");
    this.next = h("button", { type: "button", class: "small-button", onclick: () => this.turn("next") }, "Next");
    this.pager = h("div", { class: "buttons", role: "group", "aria-label": "Pages of contacts", hidden: true }, this.previous, this.next);
    this.content.append(h("div", { class: "section-head" }, add, find), this.problemOf, this.wrap, h("div", { class: "section-head" }, this.count, this.pager));
  }

  wrong(words) {
    this.problemOf.hidden = !words;
    setText(this.problemOf, words);
    if (words) this.id.setAttribute("aria-invalid", "true");
    else this.id.removeAttribute("aria-invalid");
  }

  async typed(change) {
    const id = jamiId(this.id.value);
    if (!id) {
      this.wrong("A Jami ID has 40 digits of 0-9 and a-f.");
      this.id.focus();
      return;
    }
    if (await this.change(id, change)) this.id.value = "";
  }

  async change(id, change) {
    const c = CHANGES[change];
    if (c.ask && !(await this.env.confirm(`${c.word} ${short(id)}?`, `${id}: ${c.ask}`, c.word))) return false;
    const ok = await this.env.act("POST", `${this.path}/contacts`, { id, change }, c.done);
    if (ok) await this.read();
    return Boolean(ok);
  }

  find() {
    clearTimeout(this.timer);
    if (this.pages.find(this.search.value.trim())) this.read();
  }

  async turn(way) {
    this.pages[way]();
    await this.read();
    this.summary.focus(); // the button may be of no use any more
  }

  async load() {
    const page = await this.pages.read();
    if (!page) return;
    this.draw(this.body, page.contacts.map((c) => ({ ...c, presence: page.presence?.[c.id] })), (c) => this.row(c));
    this.wrap.hidden = !page.contacts.length;
    setText(this.count, contactCount(page, this.pages.query));
    this.next.disabled = !this.pages.hasNext;
    this.previous.disabled = !this.pages.hasPrevious;
    this.pager.hidden = this.next.disabled && this.previous.disabled;
  }

  row(c) {
    const [cls, word] = contactState(c);
    const [seen, online, since] = presenceState(c.presence);
    const at = c.active ? c.added : c.removed || c.added;
    return h("tr", { "data-contact": c.id }, h("td", { class: "id mono", title: c.id }, c.id), h("td", {}, h("span", { class: "badge " + cls }, word)),
      h("td", { "data-testid": "presence" }, !c.active ? null : h("span", { class: "badge " + seen, title: since }, online)),
      h("td", { class: "date" }, at ? new Date(at * 1000).toLocaleDateString() : "–"),
      h("td", {}, h("div", { class: "row-actions" }, ...contactActions(c).map((a) => h("button", { type: "button", "data-key": `${a} ${c.id}`,
        "aria-label": `${sentence(a)} ${c.id}`, onclick: () => this.change(c.id, a) }, CHANGES[a].word)))));
  }
}
