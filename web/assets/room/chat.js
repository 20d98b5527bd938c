// The chat: history for who comes late, one's own messages at once, acknowledged
// when the node has them on disk.
import { $, h, setText, clock, day } from "../ui.js";
import { Log, fill } from "./log.js";
import { Outbox } from "./outbox.js";

const PAGE = 50;
const AGAIN_MS = 3000;
const MAX_BYTES = 8192;

export class Chat {
  // ask(type, data) sends a request; self() is one's participant id; onnew(messages)
  // tells of what others wrote.
  constructor({ ask, self, onnew }) {
    Object.assign(this, { ask, self, onnew, ended: false, seats: new Set() });
    this.rows = $("#chat-log");
    this.input = $("#chat-input");
    this.older = $("#chat-older");
    this.log = new Log({
      insert: (i, m) => {
        this.rows.insertBefore(this.bubble(m), this.rows.children[i] ?? null);
        this.box.seen(m);
      },
      remove: (i) => {
        this.rows.children[i].remove();
        this.older.hidden = false;
      },
    });
    this.log.hole();
    this.box = new Outbox({
      send: (m) => this.ask("chat", m),
      self,
      catchUp: () => this.fill(),
      onstored: (w, m) => {
        w.el.remove();
        this.note("");
        this.add(m);
      },
      onwaiting: () => this.note("Not sent yet; it is tried again when the node answers."),
      onrefused: (w, err) => {
        w.el.remove();
        if (!this.input.value) this.input.value = w.body;
        this.note(`Not sent: ${err.message}`);
        this.empty();
      },
    });
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
    this.older.addEventListener("click", () => this.earlier());
  }

  // own: from this seat or one that was had before it.
  own(m) {
    if (this.self()) this.seats.add(this.self());
    return this.seats.has(m.from);
  }

  // lost says that messages may be missed from now on.
  lost() { this.log.hole(); }

  // load reads what is missing and sends what waits, until both were possible.
  async load() {
    clearTimeout(this.timer);
    if (this.ended) return;
    this.box.again();
    try {
      await this.fill();
      if (this.failed) this.note("");
      this.failed = false;
    } catch {
      if (this.ended) return;
      this.failed = true;
      if (!this.box.waiting.length) this.note("Messages cannot be read at the moment; it is tried again.");
      this.timer = setTimeout(() => this.load(), AGAIN_MS);
    }
  }

  // fill is one at a time: who asks meanwhile gets a reading of its own after it.
  fill() {
    const next = (this.filling ?? Promise.resolve()).catch(() => {}).then(async () => {
      const end = this.atEnd;
      const { missed, more } = await fill(this.log, (before) => this.page(before));
      if (more !== null) this.older.hidden = !more;
      if (end) this.toEnd();
      this.empty();
      const others = missed.filter((m) => !this.own(m));
      if (others.length) this.onnew(others);
    });
    this.filling = next;
    return next;
  }

  page(before) { return this.ask("history", before ? { before, limit: PAGE } : { limit: PAGE }); }

  async earlier() {
    const before = this.log.oldest;
    this.older.disabled = true;
    try {
      const page = await this.page(before);
      const height = this.rows.scrollHeight;
      this.log.page(page.messages ?? [], before);
      this.rows.scrollTop += this.rows.scrollHeight - height;
      this.older.hidden = !page.more;
      if (this.older.hidden) this.rows.focus();
      this.note("");
    } catch {
      this.note("Earlier messages cannot be read at the moment.");
    } finally {
      this.older.disabled = false;
    }
  }

  get atEnd() { return this.rows.scrollHeight - this.rows.scrollTop - this.rows.clientHeight < 80; }
  toEnd() { this.rows.scrollTop = this.rows.scrollHeight; }
  note(text) { setText($("#chat-note"), text); }
  empty() { $("#chat-empty").hidden = this.rows.children.length > 0; }

  post() {
    const body = this.input.value.trim();
    if (!body) return;
    if (new TextEncoder().encode(body).length > MAX_BYTES) return this.note("That message is too long: at most 8,192 bytes.");
    this.input.value = "";
    const el = this.bubble({ from: this.self(), name: "You", body, time: new Date().toISOString() });
    el.classList.add("pending");
    this.rows.append(el);
    this.toEnd();
    this.empty();
    this.box.add({ key: crypto.getRandomValues(new Uint32Array(3)).join("-"), body, el });
  }

  // add puts a message of an event in its place; one that is known is passed over.
  add(m) {
    const end = this.atEnd;
    if (!this.log.add(m)) return;
    if (end) this.toEnd();
    this.empty();
    if (!this.own(m)) this.onnew([m]);
  }

  // end is when one has left.
  end() {
    this.ended = true;
    clearTimeout(this.timer);
    this.box.end();
  }

  bubble(m) {
    const own = this.own(m);
    return h("li", { class: own ? "message own" : "message", "data-testid": "message", "data-id": m.id ?? null },
      h("p", { class: "meta" }, h("b", {}, own ? "You" : m.name || "The node"), " ", h("time", { datetime: m.time }, day(m.time) + clock(m.time))),
      h("p", { class: "body" }, ...linked(m.body)));
  }
}

// linked makes links of the web addresses in a text; all else stays text.
function linked(text) {
  return text.split(/(https?:\/\/[^\s<>"]*[^\s<>".,;:!?)\]}'])/).map((part, i) => (i % 2 ? h("a", { href: part, target: "_blank", rel: "noopener noreferrer" }, part) : part));
}
