// The chat: history for who comes late, one's own messages at once, acknowledged
// when the node has them on disk, and sent again under the same key when it did not answer.
import { $, h, setText, clock } from "../ui.js";

const KEEP = 400; // messages in the page

export class Chat {
  // ask(type, data) sends a request; self() is one's participant id; onnew(message) tells of one.
  constructor({ ask, self, onnew }) {
    this.ask = ask;
    this.self = self;
    this.onnew = onnew;
    this.log = $("#chat-log");
    this.input = $("#chat-input");
    this.older = $("#chat-older");
    this.known = new Set();
    this.waiting = new Map(); // key -> element and text not acknowledged yet
    this.oldest = "";
    $("#chat-form").addEventListener("submit", (e) => {
      e.preventDefault();
      this.post();
    });
    this.input.addEventListener("keydown", (e) => {
      if (e.key === "Enter" && !e.shiftKey && !e.isComposing) {
        e.preventDefault();
        this.post();
      }
    });
    this.older.addEventListener("click", () => this.load(this.oldest));
  }

  // load reads a page of history: the newest, or what is before a message.
  async load(before = "") {
    let page;
    try {
      page = await this.ask("history", before ? { before, limit: 50 } : { limit: 50 });
    } catch {
      setText($("#chat-note"), "Earlier messages cannot be read at the moment.");
      return;
    }
    setText($("#chat-note"), "");
    const list = page.messages ?? [];
    const anchor = before ? this.log.firstElementChild : null;
    const height = this.log.scrollHeight;
    for (const m of list) this.add(m, { anchor, quiet: true });
    if (list.length && (before || !this.oldest)) this.oldest = list[0].id;
    if (before || this.older.hidden !== !page.more) this.older.hidden = !page.more;
    if (before) this.log.scrollTop += this.log.scrollHeight - height;
    else this.log.scrollTop = this.log.scrollHeight;
    this.empty();
  }

  empty() { $("#chat-empty").hidden = this.log.children.length > 0; }

  async post() {
    const body = this.input.value.trim();
    if (!body) return;
    if (new TextEncoder().encode(body).length > 8192) {
      setText($("#chat-note"), "That message is too long: at most 8,192 bytes.");
      return;
    }
    this.input.value = "";
    const key = crypto.getRandomValues(new Uint32Array(3)).join("-");
    const el = this.bubble({ from: this.self(), name: "You", body, time: new Date().toISOString() });
    el.classList.add("pending");
    this.log.append(el);
    this.log.scrollTop = this.log.scrollHeight;
    this.waiting.set(key, { el, body });
    this.empty();
    await this.send(key);
  }

  async send(key) {
    const w = this.waiting.get(key);
    if (!w) return;
    try {
      const m = await this.ask("chat", { body: w.body, key });
      this.waiting.delete(key);
      w.el.remove();
      this.add(m, { quiet: true });
      setText($("#chat-note"), "");
    } catch (err) {
      if (err.retry) {
        setText($("#chat-note"), "Not sent yet; it is tried again when the node answers.");
        if (err.code !== "unavailable") setTimeout(() => this.send(key), 2000);
        return;
      }
      this.waiting.delete(key);
      w.el.remove();
      if (!this.input.value) this.input.value = w.body;
      setText($("#chat-note"), `Not sent: ${err.message}`);
    }
  }

  // again sends what was not acknowledged before the connection was lost.
  again() { for (const key of this.waiting.keys()) this.send(key); }

  // add puts a message in its place; one that is known is passed over.
  add(m, { anchor = null, quiet = false } = {}) {
    if (!m?.id || this.known.has(m.id)) return;
    this.known.add(m.id);
    const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 80;
    const firstPending = anchor ?? this.log.querySelector(".pending");
    this.log.insertBefore(this.bubble(m), firstPending);
    while (this.log.children.length > KEEP && !anchor) this.log.firstElementChild.remove();
    if (atEnd) this.log.scrollTop = this.log.scrollHeight;
    this.empty();
    if (!quiet) this.onnew(m);
  }

  bubble(m) {
    const own = m.from && m.from === this.self();
    return h("li", { class: own ? "message own" : "message", "data-testid": "message", "data-id": m.id ?? null },
      h("p", { class: "meta" }, h("b", {}, own ? "You" : m.name || "The node"), " ", h("time", { datetime: m.time }, clock(m.time))),
      h("p", { class: "body" }, m.body));
  }
}
