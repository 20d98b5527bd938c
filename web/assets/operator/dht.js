// The distributed hash table: for each overlay its routing table, what is stored and
// searched, and its traffic.
import { $, h, setText, copy, icon } from "../ui.js";
import { duration } from "./rates.js";
import { History, plot, spark, svg } from "./spark.js";
import { bootstrapWords, bucketWords, dropWords, familyName, health, perSecond, proxyWords, size, tableWords, traffic } from "./dht_words.js";

const BUCKET = 8; // nodes that one holds

// bars is a chart of a table's buckets, the farthest half of the network at the left.
class Bars {
  constructor() {
    this.el = svg("svg", { class: "bars", role: "img", preserveAspectRatio: "none" });
    this.shape = "";
  }

  draw(table) {
    const shape = JSON.stringify(table.buckets);
    if (shape === this.shape) return;
    this.shape = shape;
    const n = Math.max(table.buckets.length, 8);
    const top = Math.max(BUCKET, ...table.buckets.map((b) => b.good + b.dubious + b.failed));
    this.el.setAttribute("viewBox", `0 0 ${n * 10} 40`);
    this.el.setAttribute("aria-label", bucketWords(table));
    this.el.replaceChildren(...Array.from({ length: n }, (_, i) => {
      const g = svg("g");
      g.append(svg("rect", { class: "place", x: i * 10, y: 0, width: 8, height: 40 }));
      let y = 40;
      for (const kind of ["good", "dubious", "failed"]) {
        const height = ((table.buckets[i]?.[kind] ?? 0) / top) * 40;
        y -= height;
        if (height) g.append(svg("rect", { class: kind, x: i * 10, y, width: 8, height }));
      }
      return g;
    }));
  }
}

class Table {
  constructor(family) {
    this.bars = new Bars();
    this.words = h("p", { class: "num" });
    this.small = h("p", { class: "muted small num" });
    this.el = h("div", { class: "dht-table", "data-family": family }, h("h4", {}, familyName(family)), h("div", {}, this.words, this.small), this.bars.el);
  }

  draw(t) {
    const [words, small] = tableWords(t);
    setText(this.words, words);
    setText(this.small, small);
    this.bars.draw(t);
    this.bars.el.classList.toggle("nobody", words === "Nobody");
  }
}

class Overlay {
  constructor(o, rates) {
    Object.assign(this, { name: o.overlay, rates, history: new History(), tables: new Map() });
    this.badge = h("span", { class: "badge" }, h("span", { class: "dot" }), h("span"));
    this.up = h("span", { class: "muted small" });
    this.facts = h("dl", { class: "facts" });
    this.own = h("p", { class: "muted small num" });
    this.tableBox = h("div", { class: "dht-tables" });
    this.meter = h("meter", { min: 0, max: 1, low: 0.8, high: 0.95, optimum: 0, "aria-label": "Of the room for others’ values" });
    this.stored = h("p", { class: "num" });
    this.storedSmall = h("p", { class: "muted small num" });
    this.searches = h("p", { class: "num" });
    this.searchesSmall = h("p", { class: "muted small num" });
    this.lines = Object.fromEntries(["in", "out"].map((way) => [way, { packets: h("b"), bytes: h("span", { class: "muted small num" }), spark: spark() }]));
    this.rows = h("tbody");
    this.drops = h("p", { class: "muted small" });
    this.kinds = h("details", { class: "fold" }, h("summary", {}, "Traffic by kind"), h("div", { class: "fold-body" },
      h("div", { class: "table-wrap", role: "region", "aria-label": `Traffic of ${o.overlay} by kind`, tabindex: "0" }, h("table", { class: "kinds" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Kind"),
        ...["In a second", "Out a second", "In", "Out"].map((c) => h("th", { scope: "col", class: "n" }, c)))), this.rows)), this.drops));
    const box = (title, ...children) => h("div", { class: "dht-box" }, h("h4", {}, title), ...children);
    const line = (title, x) => box(title, h("p", { class: "num" }, x.packets, " ", x.bytes), x.spark);
    this.el = h("div", { class: "overlay", "data-overlay": o.overlay },
      h("div", { class: "room-head" }, h("h3", {}, o.overlay === "opendht" ? "OpenDHT" : o.overlay), this.badge, this.up),
      this.facts, this.own, this.tableBox,
      this.boxes = h("div", { class: "dht-boxes" }, line("In", this.lines.in), line("Out", this.lines.out), box("Stored", this.stored, this.meter, this.storedSmall), box("Searches", this.searches, this.searchesSmall)),
      this.kinds);
  }

  draw(o, now) {
    const [cls, word] = health(o);
    this.badge.className = `badge ${cls}`;
    setText(this.badge.lastElementChild, word);
    setText(this.up, `up ${duration(Math.max(0, (now - new Date(o.started)) / 1000))}${o.network ? `, network ${o.network}` : ""}`);
    this.drawFacts(o);
    this.boxes.hidden = this.kinds.hidden = Boolean(o.via); // a proxy's client has no table, stores nothing and counts no packets
    setText(this.own, o.via ? `This node puts ${o.store.own} values and listens to ${o.listens} keys.` : "");
    if (o.via) return;
    for (const t of o.tables) {
      if (!this.tables.has(t.family)) {
        this.tables.set(t.family, new Table(t.family));
        this.tableBox.append(this.tables.get(t.family).el);
      }
      this.tables.get(t.family).draw(t);
    }
    const s = o.store;
    setText(this.stored, `${size(s.bytes)} of ${size(s.quota)}`);
    this.meter.value = s.quota ? s.bytes / s.quota : 0;
    setText(this.storedSmall, `${s.values} values under ${s.keys} keys, ${s.listeners} listeners; this node puts ${s.own}`);
    setText(this.searches, `${o.searches} running`);
    setText(this.searchesSmall, `${o.requests} questions on the way, ${o.listens} places listened to`);
    this.drawTraffic(o, now);
  }

  drawFacts(o) {
    const facts = [["Node", o.node_id], ["Signs as", o.id], ["Address", o.addresses.join(", ")], ["Seen from outside as", o.public.join(", ")]].filter(([, v]) => v);
    const shape = JSON.stringify([facts, o.bootstrap, o.via?.proxies]);
    if (this.facts.dataset.shape === shape) return;
    this.facts.dataset.shape = shape;
    this.facts.replaceChildren(...facts.flatMap(([k, v]) => [h("dt", {}, k), h("dd", {}, h("span", { class: "mono small" }, v),
      k === "Node" || k === "Signs as" ? h("button", { type: "button", class: "plain copy", "aria-label": k === "Node" ? `Copy the id of the node in ${o.overlay}` : `Copy the id that signs in ${o.overlay}`, onclick: () => copy(v) }, icon("copy")) : null)]),
    ...(o.bootstrap.length ? [h("dt", {}, "Starts from"), h("dd", { class: "starts" }, ...o.bootstrap.map((b) => h("span", { class: `badge ${b.answers ? "ok" : "bad"}` }, bootstrapWords(b))))] : []),
    ...(o.via ? [h("dt", {}, "Proxies"), h("dd", { class: "starts" }, ...o.via.proxies.map((p) => h("span", { class: `badge ${p.answers ? "ok" : "bad"}` }, proxyWords(p))))] : []));
  }

  drawTraffic(o, now) {
    const sum = traffic(o);
    for (const way of ["in", "out"]) {
      const packets = this.rates.of(`dht ${this.name} ${way}`, sum[way], now);
      const bytes = this.rates.of(`dht ${this.name} ${way} bytes`, sum[`${way}_bytes`], now);
      const line = this.lines[way];
      setText(line.packets, sum.packets ? `${perSecond(packets)} packets/s` : `${size(bytes ?? 0)}/s`);
      setText(line.bytes, sum.packets ? `${size(bytes ?? 0)}/s` : "");
      plot(line.spark, this.history.add(way, (sum.packets ? packets : bytes) ?? 0), sum.packets ? 5 : 500);
    }
    const list = o.traffic;
    while (this.rows.children.length < list.length) this.rows.append(h("tr", {}, h("td", { class: "name" }), ...Array.from({ length: 4 }, () => h("td", { class: "n" }))));
    list.forEach((t, i) => {
      const [kind, inRate, outRate, inAll, outAll] = this.rows.children[i].children;
      setText(kind, t.kind);
      for (const [el, way] of [[inRate, "in"], [outRate, "out"]]) setText(el, sum.packets ? perSecond(this.rates.of(`dht ${this.name} ${t.kind} ${way}`, t[way], now)) : "–");
      for (const [el, way] of [[inAll, "in"], [outAll, "out"]]) setText(el, sum.packets ? `${t[way].toLocaleString("en")}, ${size(t[`${way}_bytes`])}` : size(t[`${way}_bytes`]));
    });
    setText(this.drops, dropWords(o));
  }
}

export class DHT {
  constructor(box, rates) {
    Object.assign(this, { box, rates, overlays: new Map() });
  }

  // draw takes in what the live state says; without an answer, what it said last stays.
  draw(state, now) {
    if (!state) return;
    this.box.hidden = false;
    const warnings = state.warnings ?? [];
    $("#dht-warning").hidden = !warnings.length;
    const shape = JSON.stringify(warnings);
    if ($("#dht-warning").dataset.shape !== shape) {
      $("#dht-warning").dataset.shape = shape;
      $("#dht-warning").replaceChildren(h("div", {}, ...warnings.map((w) => h("p", {}, `${w[0].toUpperCase()}${w.slice(1)}.`))));
    }
    for (const o of state.overlays) {
      if (!this.overlays.has(o.overlay)) {
        this.overlays.set(o.overlay, new Overlay(o, this.rates));
        $("#overlays").append(this.overlays.get(o.overlay).el);
      }
      this.overlays.get(o.overlay).draw(o, now);
    }
    for (const [name, o] of this.overlays) {
      if (state.overlays.some((x) => x.overlay === name)) continue;
      o.el.remove();
      this.overlays.delete(name);
    }
  }
}
