// A line of the last minute, drawn by hand: sixty values, the last at the right.
const NS = "http://www.w3.org/2000/svg";
const POINTS = 60;

export function svg(name, attributes = {}) {
  const el = document.createElementNS(NS, name);
  for (const [k, v] of Object.entries(attributes)) el.setAttribute(k, v);
  return el;
}

export function spark() {
  const el = svg("svg", { class: "spark", viewBox: `0 0 ${POINTS} 22`, preserveAspectRatio: "none", "aria-hidden": "true" });
  el.append(svg("polyline"));
  return el;
}

// plot draws values; what is below least stays flat.
export function plot(el, values, least) {
  const top = Math.max(least, ...values);
  el.firstElementChild.setAttribute("points", values.map((v, i) => `${i + POINTS - values.length},${(21 - (v / top) * 19).toFixed(1)}`).join(" "));
}

// History keeps the last values of counters' rates.
export class History {
  constructor() { this.all = new Map(); }

  add(key, value) {
    const past = this.all.get(key) ?? [];
    past.push(value);
    if (past.length > POINTS) past.shift();
    this.all.set(key, past);
    return past;
  }
}
