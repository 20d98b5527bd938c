// A part of an account that is read when it is opened, and again when the account changes.
import { $, h, sentence, setText } from "../ui.js";

export class Fold {
  constructor(title, testid) {
    this.title = h("span", {}, title);
    this.badge = h("span", { class: "badge warn", hidden: true });
    this.summary = h("summary", {}, this.title, this.badge);
    this.error = h("div", { class: "notice error", role: "alert", hidden: true });
    this.content = h("div", { class: "fold-body" }, this.error);
    this.el = h("details", { class: "fold", "data-testid": testid, ontoggle: () => this.el.open && this.stale && this.read() }, this.summary, this.content);
    this.shapes = new WeakMap(); // body of a table -> what stands in it
    this.stale = true;
  }

  // changed has what is shown read again, at once or when it is opened.
  changed() {
    this.stale = true;
    if (this.el.open) this.read();
  }

  // read never fails: it says what went wrong, and keeps what was read before. Asked for
  // while it reads, it reads once more.
  read() {
    this.again = true;
    this.reading ??= this.run().finally(() => { this.reading = null; });
    return this.reading;
  }

  async run() {
    while (this.again) {
      this.again = this.stale = false;
      try {
        await this.load();
        this.error.hidden = true;
      } catch (err) {
        this.stale = true;
        this.error.hidden = false;
        setText(this.error, `${sentence(err.message.replace(/\.$/, ""))}. What was read last stands below.`);
      }
    }
  }

  // draw replaces rows where they changed, and keeps the focus.
  draw(body, list, row) {
    const shape = JSON.stringify(list);
    if (this.shapes.get(body) === shape) return;
    this.shapes.set(body, shape);
    const focused = body.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    body.replaceChildren(...list.map(row));
    if (focused != null) ($(`[data-key="${CSS.escape(focused)}"]`, body) ?? this.summary).focus();
  }
}
