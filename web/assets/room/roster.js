// The list of people. Only as many rows as were scrolled to are in the page; rows
// are kept and changed in place, at most once a frame, and put into a new order at
// most once a second.
import { $, h, icon, setText, hue, initials } from "../ui.js";

const PAGE = 60;
const ORDER_MS = 1000;
const SEARCH_FROM = 16;

const KIND = { browser: "browser", sip: "phone", jami: "Jami", bot: "bot" };
export const ROLE = { moderator: "Moderator", speaker: "Speaker", listener: "Listener" };

// verdict judges a connection for people: "good", "fair", "poor" or "".
export function verdict(q) {
  if (!q) return "";
  const loss = Math.max(q.lost_pct ?? 0, q.far_lost_pct ?? 0);
  if (loss > 8 || q.jitter_ms > 80 || q.rtt_ms > 600) return "poor";
  if (loss > 2 || q.jitter_ms > 35 || q.rtt_ms > 300) return "fair";
  return "good";
}

export function describe(p) {
  return [ROLE[p.role], KIND[p.kind] !== "browser" ? KIND[p.kind] : "", p.speaking ? "speaking" : "", p.muted ? "muted" : "",
    p.hand ? "hand raised" : "", p.quality && verdict(p.quality) === "poor" ? "poor connection" : ""].filter(Boolean).join(", ");
}

export class Roster {
  constructor(model, onopen) {
    this.model = model;
    this.onopen = onopen;
    this.list = $("#people");
    this.search = $("#people-search");
    this.rows = new Map();
    this.shown = PAGE;
    this.orderedAt = 0;
    this.search.addEventListener("input", () => this.update(true));
    this.end = $("#people-end");
    new IntersectionObserver((entries) => {
      if (entries.some((e) => e.isIntersecting) && this.shown < this.model.people.size) {
        this.shown += PAGE;
        this.update(true);
      }
    }, { root: this.list.parentElement, rootMargin: "300px" }).observe(this.end);
  }

  // update draws soon; order: the order may have changed too.
  update(order = false) {
    this.wantOrder ||= order;
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  draw() {
    const now = Date.now();
    if (this.wantOrder && now - this.orderedAt >= ORDER_MS) {
      this.wantOrder = false;
      this.orderedAt = now;
      this.arrange(now);
    } else if (this.wantOrder && !this.timer) {
      this.timer = setTimeout(() => {
        this.timer = 0;
        this.update(true);
      }, ORDER_MS - (now - this.orderedAt));
    }
    for (const [id, row] of this.rows) {
      const p = this.model.people.get(id);
      if (p) this.paint(row, p);
      else this.remove(id);
    }
  }

  arrange(now) {
    const word = this.search.value.trim().toLowerCase();
    this.search.hidden = this.model.people.size < SEARCH_FROM && !word;
    let all = this.model.ordered(now);
    if (word) all = all.filter((p) => p.name.toLowerCase().includes(word));
    const want = all.slice(0, this.shown);
    const ids = new Set(want.map((p) => p.id));
    for (const id of this.rows.keys()) if (!ids.has(id)) this.remove(id);
    let at = this.list.firstElementChild;
    for (const p of want) {
      let row = this.rows.get(p.id);
      if (!row) {
        row = this.make(p);
        this.rows.set(p.id, row);
      }
      if (row.el === at) at = at.nextElementSibling;
      else this.list.insertBefore(row.el, at);
    }
    setText(this.end, all.length > want.length ? `${all.length - want.length} more…` : word && !all.length ? "Nobody with that name" : "");
  }

  remove(id) {
    const row = this.rows.get(id);
    if (!row) return;
    if (row.el.contains(document.activeElement)) this.list.focus();
    row.el.remove();
    this.rows.delete(id);
  }

  make(p) {
    const row = {};
    row.avatar = h("span", { class: "avatar", "aria-hidden": "true" });
    row.name = h("span", { class: "name" });
    row.sub = h("span", { class: "sub" });
    row.hand = h("span", { class: "flag hand", title: "Hand raised", hidden: true }, icon("hand"));
    row.mute = h("span", { class: "flag", title: "Muted", hidden: true }, icon("mic-off"));
    row.link = h("span", { class: "flag link", hidden: true }, icon("signal"));
    row.button = h("button", { class: "person", type: "button", onclick: () => this.onopen(p.id) },
      row.avatar, h("span", { class: "who" }, row.name, row.sub), h("span", { class: "flags", "aria-hidden": "true" }, row.hand, row.link, row.mute, h("span", { class: "flag more" }, icon("more"))));
    row.el = h("li", { "data-testid": "participant", "data-id": p.id }, row.button);
    return row;
  }

  paint(row, p) {
    const self = p.id === this.model.selfID;
    if (row.of !== p.name) {
      row.of = p.name;
      setText(row.avatar, initials(p.name));
      row.name.title = p.name;
      row.avatar.style.setProperty("--hue", hue(p.name));
      row.el.dataset.name = p.name;
    }
    setText(row.name, self ? `${p.name} (you)` : p.name);
    const kind = p.kind === "browser" ? "" : ` · ${KIND[p.kind] ?? p.kind}`;
    setText(row.sub, (ROLE[p.role] ?? "") + kind);
    row.el.classList.toggle("speaking", Boolean(p.speaking && !p.muted));
    row.el.dataset.speaking = String(Boolean(p.speaking));
    row.el.dataset.muted = String(Boolean(p.muted));
    row.el.dataset.role = p.role;
    row.hand.hidden = !p.hand;
    row.mute.hidden = !p.muted;
    const title = !self && this.model.self?.role === "moderator" ? "Mute, remove, change the role" : "Details";
    if (row.button.title !== title) row.button.title = title;
    const v = verdict(p.quality);
    row.link.hidden = v !== "fair" && v !== "poor";
    row.link.className = "flag link " + v;
    const label = `${p.name}${self ? " (you)" : ""}: ${describe(p)}`;
    if (row.label !== label) {
      row.label = label;
      row.button.setAttribute("aria-label", label);
    }
  }
}
