// The rooms with their participants. A room's table is kept and its rows are
// changed in place; beyond ROWS only the most interesting are shown.
import { h, setText } from "../ui.js";
import { verdict } from "../room/roster.js";
import { Details, link } from "./connection.js";
import { Calls } from "./calls.js";

const ROWS = 40;
const cards = new Map(); // room name -> parts

export function drawRooms(box, rooms, env) {
  const seen = new Set();
  for (const room of rooms) {
    seen.add(room.name);
    let card = cards.get(room.name);
    if (!card) {
      card = make(room.name, env);
      cards.set(room.name, card);
      box.append(card.el);
    }
    paint(card, room, env);
  }
  for (const [name, card] of cards) {
    if (seen.has(name)) continue;
    card.el.remove();
    cards.delete(name);
  }
}

function make(name, env) {
  const c = { rows: new Map(), name };
  const path = `rooms/${encodeURIComponent(name)}`;
  c.title = h("h3");
  c.count = h("span", { class: "badge num" });
  c.pin = h("span", { class: "badge", hidden: true }, "PIN");
  c.locked = h("span", { class: "badge warn", hidden: true }, "Locked");
  c.join = h("a", { class: "button small-button" }, "Open");
  c.mod = h("a", { class: "button small-button", hidden: true, title: "This link makes its holder a moderator" }, "Open as moderator");
  c.lock = h("button", { type: "button", class: "small-button", onclick: () => env.act("POST", path + "/lock", { locked: !c.room.locked }) });
  c.remove = h("button", { type: "button", class: "small-button", onclick: async () => {
    if (await env.confirm(`Remove ${name}?`, "Everybody in it is put out. Its chat stays on disk.", "Remove")) env.act("DELETE", path, null, "Removed.");
  } }, "Remove");
  c.body = h("tbody");
  c.wrap = h("div", { class: "table-wrap", role: "region", "aria-label": `Participants of ${name}`, tabindex: "0", hidden: true }, h("table", {}, h("thead", {}, h("tr", {}, ...["Participant", "Role", "Through", "Codec", "Connection"].map((t) => h("th", { scope: "col" }, t)),
    ...["Loss", "Jitter", "Round trip", "Packets/s"].map((t) => h("th", { scope: "col", class: "n" }, t)), h("th", { scope: "col" }, h("span", { class: "visually-hidden" }, "Actions")))), c.body));
  c.more = h("p", { class: "muted small" });
  c.calls = new Calls(path, env);
  c.el = h("article", { class: "card room-card", "data-room": name }, h("div", { class: "room-head" }, c.title, c.count, c.pin, c.locked,
    h("div", { class: "buttons" }, c.calls.button, c.join, c.mod, c.lock, c.remove)), c.calls.el, c.wrap, c.more);
  return c;
}

function paint(c, room, env) {
  c.room = room;
  const people = room.participants ?? [];
  setText(c.title, room.title && room.title !== room.name ? `${room.title} (${room.name})` : room.name);
  const total = Math.max(room.total ?? 0, people.length); // of very many the first are listed
  setText(c.count, total === 1 ? "1 participant" : `${total} participants`);
  c.pin.hidden = !room.has_pin;
  c.locked.hidden = !room.locked;
  setText(c.lock, room.locked ? "Unlock" : "Lock");
  c.join.href = `${env.base}/r/${room.name}`;
  c.mod.hidden = !room.moderator_token;
  if (room.moderator_token) c.mod.href = `${c.join.href}#token=${encodeURIComponent(room.moderator_token)}`;
  const weight = (p) => (p.speaking ? 0 : p.hand ? 1 : !p.connected ? 2 : { poor: 2, fair: 3 }[verdict(p.quality)] ?? 4);
  const shown = people.length <= ROWS ? people : [...people].sort((a, b) => weight(a) - weight(b)).slice(0, ROWS);
  setText(c.more, total > shown.length ? `and ${total - shown.length} more; speakers, raised hands and poor connections are shown first` : people.length ? "" : "Nobody is here.");
  c.wrap.hidden = !people.length;
  c.calls.draw((env.calls ?? []).filter((x) => x.room === c.name));
  const ids = new Set(shown.map((p) => p.id));
  for (const [id, row] of c.rows) {
    if (ids.has(id)) continue;
    row.el.remove();
    row.details.el.remove();
    c.rows.delete(id);
  }
  for (const p of shown) {
    let row = c.rows.get(p.id);
    if (!row) {
      row = makeRow(c.name, p, env);
      c.rows.set(p.id, row);
      c.body.append(row.el, row.details.el);
    }
    paintRow(row, p, env);
  }
}

function makeRow(room, p, env) {
  const path = `rooms/${encodeURIComponent(room)}`;
  const row = { cells: Array.from({ length: 9 }, (_, i) => h("td", { class: i > 4 ? "n" : i === 0 ? "name" : "" })) };
  row.who = h("span");
  row.note = h("span", { class: "note" });
  row.cells[0].append(row.who, row.note);
  row.badge = h("span", { class: "badge" });
  row.cells[4].append(row.badge);
  row.mute = h("button", { type: "button", onclick: () => env.act("POST", path + "/mute", { participant: p.id, muted: !row.p.muted }) });
  row.kick = h("button", { type: "button", onclick: async () => {
    if (await env.confirm(`Remove ${row.p.name}?`, "They are put out of the room and can come back unless it is locked.", "Remove")) env.act("POST", path + "/kick", { participant: p.id });
  } }, "Remove");
  row.details = new Details(room, p.id, row.cells.length + 1);
  row.more = h("button", { type: "button", "aria-expanded": "false", "aria-controls": row.details.el.id, onclick: () => {
    row.details.toggle(env);
    row.more.setAttribute("aria-expanded", String(!row.details.el.hidden));
  } }, "Details");
  row.el = h("tr", {}, ...row.cells, h("td", {}, h("div", { class: "row-actions" }, row.more, row.mute, row.kick)));
  return row;
}

function paintRow(row, p, env) {
  row.p = p;
  const q = p.quality ?? {};
  const rate = env.rates.of(`in ${p.id}`, q.packets_in ?? 0, env.now);
  if (p.connected) Object.assign(row, { had: true, away: undefined });
  else row.away ??= Date.now();
  const [cls, said] = link(p, { had: row.had, away: Date.now() - row.away });
  row.badge.className = "badge " + cls;
  setText(row.badge, said);
  const notes = [p.speaking ? "speaking" : "", p.hand ? "hand raised" : "", p.muted ? "muted" : ""].filter(Boolean).join(", ");
  setText(row.who, p.name);
  setText(row.note, notes);
  const values = [null, p.role, `${p.kind} · ${p.transport || "–"}`, p.codec || "–", null,
    `${(q.lost_pct ?? 0).toFixed(1)} %`, q.jitter_ms ? `${Math.round(q.jitter_ms)} ms` : "–", q.rtt_ms ? `${Math.round(q.rtt_ms)} ms` : "–", rate == null ? "–" : String(Math.round(rate))];
  values.forEach((v, i) => v != null && setText(row.cells[i], v));
  row.cells[0].title = p.name;
  // The node unmutes nobody who muted themselves.
  const word = !p.muted ? "Mute" : p.muted_by ? "Unmute" : "";
  row.mute.hidden = !word;
  setText(row.mute, word);
  row.more.setAttribute("aria-label", `How ${p.name} is connected`);
  row.details.refresh(env);
  row.mute.setAttribute("aria-label", `${word} ${p.name}`);
  row.kick.setAttribute("aria-label", `Remove ${p.name} from the room`);
}
